//! Drives the ring election: one task owns the ring, tells it who votes, who leads and how long the log is, carries its
//! messages, and lets the log's node stand or not.
//!
//! Bounds: inputs queue up to [`INPUTS_MAX`], then callers wait.

use std::sync::Arc;
use std::time::Duration;

use idunno_core::election::{Config, Effect, Event, Ring, View};
use idunno_core::voters::VOTERS_MAX;
use idunno_shared::ids::NodeId;
use idunno_shared::wire::election::{LogPosition, RingMessage};
use idunno_shared::wire::frame::{Reply, Request};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::clock::Clock;
use crate::consensus::{Consensus, Leadership};
use crate::membership::{Membership, MembershipView};
use crate::net::peers::Peers;

/// Inputs that may wait for the task.
pub const INPUTS_MAX: usize = 256;
const HOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The ring's handle. Cheap to clone.
#[derive(Clone)]
pub struct Election {
    inputs: mpsc::Sender<Event>,
}

impl Election {
    /// Starts the task.
    pub fn start(
        me: NodeId,
        seed: u64,
        clock: Clock,
        membership: Membership,
        consensus: Consensus,
        peers: Peers,
        stop: CancellationToken,
    ) -> Self {
        let (inputs, queued) = mpsc::channel(INPUTS_MAX);
        let ring = Ring::new(Config::default(), me, seed, clock.now());
        let driver = Driver { me, ring, clock, membership, consensus, peers, inputs: inputs.clone() };
        tokio::spawn(async move {
            tokio::select! {
                () = driver.run(queued) => {}
                () = stop.cancelled() => {}
            }
        });
        Self { inputs }
    }

    /// Takes a message in.
    pub async fn message(&self, from: NodeId, message: RingMessage) {
        // The task ends only with the process.
        let _ = self.inputs.send(Event::Message { from, message }).await;
    }
}

struct Driver {
    me: NodeId,
    ring: Ring,
    clock: Clock,
    membership: Membership,
    consensus: Consensus,
    peers: Peers,
    inputs: mpsc::Sender<Event>,
}

impl Driver {
    async fn run(mut self, mut queued: mpsc::Receiver<Event>) {
        let (mut view, mut leadership) = (self.membership.view(), self.consensus.leadership());
        self.look(&view.borrow_and_update().clone(), &leadership.borrow_and_update().clone());
        loop {
            tokio::select! {
                Some(event) = queued.recv() => self.tell(event),
                changed = view.changed() => if changed.is_err() { return },
                changed = leadership.changed() => if changed.is_err() { return },
                () = self.clock.sleep_until(self.ring.next_deadline()) => self.tell(Event::Tick),
            }
            let (view, leadership) =
                (view.borrow_and_update().clone(), leadership.borrow_and_update().clone());
            self.look(&view, &leadership);
        }
    }

    /// Tells the ring how things stand.
    fn look(&mut self, view: &Arc<MembershipView>, leadership: &Leadership) {
        // One that left goes on running: without this its heartbeats would keep the others from electing anybody.
        self.consensus.may_lead(view.joined);
        let live = |id: &NodeId| view.is_live(*id) && view.joined;
        let coordinator = leadership.leader.filter(live);
        if let Some(id) = coordinator {
            self.tell(Event::LeaderObserved { term: leadership.term, id });
        }
        let (term, index) = leadership.last_log;
        self.tell(Event::View(View {
            live_voters: leadership.voters.iter().copied().filter(live).take(VOTERS_MAX).collect(),
            voter_count: leadership.voters.len(),
            coordinator,
            log: LogPosition { term, index },
        }));
    }

    fn tell(&mut self, event: Event) {
        self.ring.handle(event, self.clock.now());
        while let Some(effect) = self.ring.poll_effect() {
            match effect {
                Effect::Send { to, message } => self.send(to, message),
                Effect::MayStand(allowed) => {
                    info!(me = %self.me, allowed, "standing for election");
                    self.consensus.may_stand(allowed);
                }
            }
        }
    }

    fn send(&self, to: NodeId, message: RingMessage) {
        let address = self.membership.current().address(to);
        let (peers, inputs, hop) = (self.peers.clone(), self.inputs.clone(), message.hop);
        tokio::spawn(async move {
            let delivered = match address {
                Some(address) => match peers.call(address, Request::Election(message), HOP_TIMEOUT).await {
                    Ok(Reply::Election) => true,
                    Ok(_) => false,
                    Err(error) => {
                        debug!(%error, "a hop of the ring failed");
                        false
                    }
                },
                None => false,
            };
            if !delivered {
                // The task ends only with the process.
                let _ = inputs.send(Event::HopFailed { to, hop }).await;
            }
        });
    }
}
