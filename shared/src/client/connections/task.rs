//! The task that owns the [`ConnectionTable`]: it dials, publishes, and watches for ends.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::super::connection::{CallError, Connection};
use super::super::files::connection::BlobConnection;
use super::super::link::{BoxFuture, Dial, DialError, Link};
use super::error::PeerError;
use super::open::{OpenConnections, OpenLink};
use super::slot::{BlobLane, Lane, Slot, Target};
use super::table::{ConnectionTable, Effect, Event, Members, Reason, Usage};
use crate::ids::NodeId;

pub(super) type Answer = oneshot::Sender<Result<OpenLink, PeerError>>;

/// Requests of the handles to the task.
pub(super) enum Input {
    Ask {
        slot: Slot,
        address: SocketAddr,
        answer: Answer,
    },
    /// Any unused connection of the chain lane to that target.
    AskChain {
        target: Target,
        address: SocketAddr,
        answer: Answer,
    },
    /// A caller has forgotten the connection of that slot.
    GivenUp(Slot),
    Members(Members),
    HungUp(NodeId),
}

/// Owns the table.
pub(super) struct ConnectionTask {
    pub(super) table: ConnectionTable,
    pub(super) dialer: Arc<dyn Dial>,
    pub(super) open: Arc<OpenConnections>,
    waiting: BTreeMap<Slot, Vec<(SocketAddr, Answer)>>,
    dials: JoinSet<(Slot, Result<Link, DialError>)>,
    dialled: BTreeMap<Slot, Link>,
    ends: FuturesUnordered<BoxFuture<'static, Slot>>,
}

impl ConnectionTask {
    pub(super) fn new(table: ConnectionTable, dialer: Arc<dyn Dial>, open: Arc<OpenConnections>) -> Self {
        Self {
            table,
            dialer,
            open,
            waiting: BTreeMap::new(),
            dials: JoinSet::new(),
            dialled: BTreeMap::new(),
            ends: FuturesUnordered::new(),
        }
    }

    /// Runs until the last handle is gone.
    pub(super) async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        loop {
            let deadline = self.open.instant(self.table.next_deadline());
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => self.take(input),
                    None => return,
                },
                // Joining never fails: panics are caught, and nothing aborts a dial.
                Some(Ok((slot, dialled))) = self.dials.join_next() => self.finish_dial(slot, dialled),
                Some(slot) = self.ends.next() => self.note_end(slot),
                () = sleep_until(deadline) => {
                    if self.table.needs_usage(None, self.open.now()) {
                        self.report_usage();
                    }
                    self.handle(Event::Tick);
                }
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Ask { slot, address, answer } => self.ask(slot, address, answer),
            Input::AskChain { target, address, answer } => {
                let lane = |number| Slot { target, lane: Lane::Blobs(BlobLane::Chain(number)) };
                let is_free = |slot: &Slot| self.open.get(slot).is_none_or(|opened| !opened.is_in_use());
                let slot = (0..u16::MAX).map(lane).find(|slot| {
                    !self.waiting.contains_key(slot)
                        && (!self.table.is_taken(slot) || self.table.is_open(slot))
                        && is_free(slot)
                });
                match slot {
                    Some(slot) => self.ask(slot, address, answer),
                    // The caller may have given up.
                    None => drop(answer.send(Err(PeerError::Full { address }))),
                }
            }
            Input::GivenUp(slot) => self.note_end(slot),
            Input::Members(members) => self.handle(Event::Members(members)),
            Input::HungUp(node) => self.handle(Event::HungUp { node }),
        }
    }

    fn ask(&mut self, slot: Slot, address: SocketAddr, answer: Answer) {
        // Another caller may have asked first, and the end of an earlier connection may not have been seen yet.
        if let Some(link) = self.open.find(&slot) {
            // The caller may have given up.
            let _ = answer.send(Ok(link));
            return;
        }
        self.note_end(slot);
        self.waiting.entry(slot).or_default().push((address, answer));
        if self.table.needs_usage(Some(slot), self.open.now()) {
            self.report_usage();
        }
        self.handle(Event::Asked { slot, address });
    }

    /// Handles the end of a connection, if it has ended or was given up.
    fn note_end(&mut self, slot: Slot) {
        if self.table.is_open(&slot) && self.open.get(&slot).is_none_or(|opened| opened.is_closed()) {
            self.open.remove(&slot);
            self.handle(Event::Ended { slot });
        }
    }

    fn finish_dial(&mut self, slot: Slot, dialled: Result<Link, DialError>) {
        match dialled {
            Ok(link) => {
                let node = link.node;
                self.dialled.insert(slot, link);
                self.handle(Event::Dialled { slot, node });
                self.dialled.remove(&slot);
            }
            Err(error) => self.handle(Event::DialFailed { slot, error: Arc::new(error) }),
        }
    }

    /// Reports the usage of all connections. Also detects the ends of connections for blobs, which are not watched.
    fn report_usage(&mut self) {
        for slot in self.table.open().collect::<Vec<_>>() {
            self.note_end(slot);
        }
        let usage = self.table.open().filter_map(|slot| {
            let opened = self.open.get(&slot)?;
            Some(Usage { slot, used_at: opened.used_at(), in_use: opened.is_in_use() })
        });
        let usage = usage.collect();
        self.handle(Event::Usage(usage));
        let waiting = &mut self.waiting;
        waiting.retain(|_, answers| {
            answers.retain(|(_, answer)| !answer.is_closed());
            !answers.is_empty()
        });
    }

    fn handle(&mut self, event: Event) {
        self.table.handle(event, self.open.now());
        while let Some(effect) = self.table.poll_effect() {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Dial { slot, address } => {
                let dialer = Arc::clone(&self.dialer);
                self.dials.spawn(async move {
                    // A panic, which is logged, must not leave the slot taken.
                    let dial = AssertUnwindSafe(async { dialer.dial(address, slot.lane.purpose()).await });
                    let panicked = io::Error::other("opening the connection panicked");
                    let failed = |_| Err(DialError::Io { address, source: panicked.into() });
                    (slot, dial.catch_unwind().await.unwrap_or_else(failed))
                });
            }
            Effect::Adopt { slot, under, address } => {
                let Some(link) = self.dialled.remove(&slot) else { return };
                let link = self.publish(under, address, link);
                self.answer(slot, |_| Ok(link.clone()));
                self.answer(under, |_| Ok(link.clone()));
            }
            Effect::Reuse { slot, open } => {
                let link = self.open.find(&open);
                let ended = |address| PeerError::of_call(address, CallError::Closed);
                self.answer(slot, |address| link.clone().ok_or_else(|| ended(address)));
            }
            Effect::Close { slot } => self.open.remove(&slot),
            Effect::Refuse { slot, reason } => {
                let error = self.table.error(&slot.target).cloned();
                self.answer(slot, |address| Err(refusal(slot, address, reason, error.clone())));
            }
        }
    }

    fn publish(&mut self, slot: Slot, address: SocketAddr, link: Link) -> OpenLink {
        let link = match slot.lane {
            Lane::Consensus | Lane::Calls => {
                let connection = Connection::new(link);
                let closed = connection.closed();
                self.ends.push(Box::pin(async move {
                    closed.await;
                    slot
                }));
                OpenLink::Calls(connection)
            }
            Lane::Blobs(_) => OpenLink::Blobs(BlobConnection::new(link)),
        };
        self.open.insert(slot, address, link.clone());
        link
    }

    fn answer(&mut self, slot: Slot, with: impl Fn(SocketAddr) -> Result<OpenLink, PeerError>) {
        for (address, answer) in self.waiting.remove(&slot).into_iter().flatten() {
            // The caller may have given up.
            let _ = answer.send(with(address));
        }
    }
}

fn refusal(slot: Slot, address: SocketAddr, reason: Reason, error: Option<Arc<DialError>>) -> PeerError {
    let unknown = || Arc::new(DialError::TimedOut { address });
    match (reason, slot.target) {
        (Reason::Full, _) => PeerError::Full { address },
        (Reason::Stranger, Target::Member(wanted)) => PeerError::Stranger { address, wanted },
        (Reason::BackOff, Target::Member(wanted)) if error.is_none() => {
            PeerError::Stranger { address, wanted }
        }
        (Reason::BackOff, _) => PeerError::BackOff(error.unwrap_or_else(unknown)),
        (Reason::Failed | Reason::Stranger, _) => PeerError::Dial(error.unwrap_or_else(unknown)),
    }
}
