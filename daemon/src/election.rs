//! Drives the ring election: one task owns the ring, tells it who votes, who leads and how long the log is, carries its
//! messages, and lets the log's node stand or not.
//!
//! The coordinator is missed when membership says that it is gone, and also when its log has been silent for
//! [`SILENCE_LEASES`]: a disk that hangs, or a cut that spares datagrams, leaves it alive for membership.
//!
//! Bounds: inputs queue up to [`INPUTS_MAX`], then callers wait.

use std::sync::Arc;
use std::time::Duration;

use idunno_core::election::{Ring, RingConfig, RingEffect, RingEvent, RingView};
use idunno_core::voters::VOTERS_MAX;
use idunno_shared::client::connections::Connections;
use idunno_shared::ids::{NodeId, Term};
use idunno_shared::wire::election::{LogPosition, RingMessage};
use idunno_shared::wire::frame::{Reply, Request};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::coordinator::Deps;
use crate::membership::{Membership, MembershipView};
use crate::runtime::clock::Clock;
use idunno_consensus::{Consensus, Leadership};

/// Inputs that may wait for the task.
pub const INPUTS_MAX: usize = 256;
const HOP_TIMEOUT: Duration = Duration::from_secs(1);
/// So many leases without a sign of the leader, and it is missed.
pub const SILENCE_LEASES: u32 = 4;
/// A round waits for its winner's lease, timeout and votes.
const ROUND_HEARTBEATS: u32 = 15;
const FAR: Duration = Duration::from_secs(3_600);

/// The ring's handle. Cheap to clone.
#[derive(Clone)]
pub struct Election {
    inputs: mpsc::Sender<RingEvent>,
}

impl Election {
    /// Starts the task.
    pub fn start(deps: Deps, seed: u64, timing: Timing, stop: &CancellationToken) -> Self {
        let Deps { me, clock, consensus, membership, peers, monitor, files: _ } = deps;
        let (inputs, queued) = mpsc::channel(INPUTS_MAX);
        let config = RingConfig::default();
        let round_timeout = config.round_timeout.max(timing.heartbeat * ROUND_HEARTBEATS);
        let ring = Ring::new(RingConfig { round_timeout, ..config }, me, seed);
        let driver = Driver {
            me,
            ring,
            clock,
            membership,
            consensus,
            peers,
            lease: timing.lease,
            led: (None, Term(0), Instant::now()),
            inputs: inputs.clone(),
        };
        let stopped = stop.clone();
        monitor.spawn("the election", stop.clone(), async move {
            tokio::select! {
                () = driver.run(queued) => {}
                () = stopped.cancelled() => {}
            }
        });
        Self { inputs }
    }

    /// Takes a message in.
    pub async fn message(&self, from: NodeId, message: RingMessage) {
        // The task ends only with the process.
        let _ = self.inputs.send(RingEvent::Message { from, message }).await;
    }
}

/// The log's intervals, by which the ring's go.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two signs of the leader.
    pub heartbeat: Duration,
    /// How long one of them holds.
    pub lease: Duration,
}

struct Driver {
    me: NodeId,
    ring: Ring,
    clock: Clock,
    membership: Membership,
    consensus: Consensus,
    peers: Connections,
    lease: Duration,
    /// Who led last, and since when that is known.
    led: (Option<NodeId>, Term, Instant),
    inputs: mpsc::Sender<RingEvent>,
}

impl Driver {
    async fn run(mut self, mut queued: mpsc::Receiver<RingEvent>) {
        let (mut view, mut leadership) = (self.membership.view(), self.consensus.leadership());
        loop {
            let missed_at = {
                let (view, leadership) =
                    (view.borrow_and_update().clone(), leadership.borrow_and_update().clone());
                self.look(&view, &leadership)
            };
            let event = tokio::select! {
                Some(event) = queued.recv() => Some(event),
                changed = view.changed() => if changed.is_err() { return } else { None },
                changed = leadership.changed() => if changed.is_err() { return } else { None },
                () = self.clock.sleep_until(self.ring.next_deadline()) => Some(RingEvent::Tick),
                () = sleep_until(missed_at) => None,
            };
            if let Some(event) = event {
                // What it does depends on whether the leader is heard now.
                let (view, leadership) = (view.borrow().clone(), leadership.borrow().clone());
                self.look(&view, &leadership);
                self.tell(event);
            }
        }
    }

    /// Tells the ring how things stand; returns when the coordinator will be missed if it stays silent.
    fn look(&mut self, view: &Arc<MembershipView>, leadership: &Leadership) -> Instant {
        // One that left goes on running: without this its heartbeats would keep the others from electing anybody.
        self.consensus.may_lead(view.joined);
        let live = |id: &NodeId| view.is_live(*id) && view.joined;
        let now = Instant::now();
        if (self.led.0, self.led.1) != (leadership.leader, leadership.term) {
            self.led = (leadership.leader, leadership.term, now);
        }
        let heard = self.consensus.leader_heard().max(self.led.2);
        let missed_at = heard + self.lease * SILENCE_LEASES;
        let seen = leadership.leader.filter(live);
        let coordinator = seen.filter(|_| now < missed_at);
        if let Some(id) = coordinator {
            self.tell(RingEvent::LeaderObserved { term: leadership.term, id });
        }
        // A leader without a quorum has entries that nobody else has, and would be the fittest to succeed itself.
        let is_cut_off = leadership.is_leader && !leadership.holds_lease();
        let (term, index) = if is_cut_off { (Term(0), 0) } else { leadership.last_log };
        self.tell(RingEvent::RingView(RingView {
            live_voters: leadership.voters.iter().copied().filter(live).take(VOTERS_MAX).collect(),
            voter_count: leadership.voters.len(),
            coordinator,
            hears: now < heard + self.lease,
            is_silent: seen.is_some() && coordinator.is_none(),
            log: LogPosition { term, index },
        }));
        // Once it is missed, the ring's own deadlines lead back here.
        if coordinator.is_some() { missed_at } else { now + FAR }
    }

    fn tell(&mut self, event: RingEvent) {
        self.ring.handle(event, self.clock.now());
        while let Some(effect) = self.ring.poll_effect() {
            match effect {
                RingEffect::Send { to, message } => self.send(to, message),
                RingEffect::MayStand(allowed) => {
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
                let _ = inputs.send(RingEvent::HopFailed { to, hop }).await;
            }
        });
    }
}
