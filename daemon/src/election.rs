//! The ring election's task: it owns the ring, reports the voters, the leader and the log's length to it, carries its
//! messages, and lets this member's log stand for election or not.
//!
//! The coordinator counts as missing when membership says that it is gone, and also when its log has been silent for
//! [`SILENCE_LEASES`]: a hung disk, or a partition that lets datagrams through, leaves it alive for membership.
//!
//! Bounds: inputs queue up to [`INPUTS_MAX`], then callers wait.

use std::sync::Arc;
use std::time::Duration;

use idunno_consensus::{Consensus, Leadership};
use idunno_core::clocks::GivingWay;
use idunno_core::election::{Ring, RingConfig, RingEffect, RingEvent, RingView};
use idunno_shared::client::connections::Connections;
use idunno_shared::ids::{NodeId, Term};
use idunno_shared::security::CLOCK_TOLERANCE;
use idunno_shared::wire::consensus::VOTERS_MAX;
use idunno_shared::wire::consensus::{LogPosition, RingMessage};
use idunno_shared::wire::frame::{Reply, Request};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::coordinator::Deps;
use crate::membership::{MembershipHandle, MembershipView};
use crate::runtime::clock::Clock;
use crate::runtime::driver::{Driver, Shell, Turn};

/// Inputs that may wait for the task.
pub const INPUTS_MAX: usize = 256;
const HOP_TIMEOUT: Duration = Duration::from_secs(1);
/// A leader that has been silent for this many leases counts as missing.
pub const SILENCE_LEASES: u32 = 4;
/// A round waits for its winner's lease, timeout and votes.
const ROUND_HEARTBEATS: u32 = 15;
const FAR: Duration = Duration::from_secs(3_600);

/// The ring's handle. Cheap to clone.
#[derive(Clone)]
pub struct ElectionHandle {
    inputs: mpsc::Sender<Input>,
}

impl ElectionHandle {
    /// Hands a message of another voter to the ring.
    pub async fn message(&self, from: NodeId, message: RingMessage) {
        // The task ends only with the process.
        let _ = self.inputs.send(Input::Event(RingEvent::Message { from, message })).await;
    }
}

/// The log's intervals, from which the ring's own are derived.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two heartbeats of the leader.
    pub heartbeat: Duration,
    /// How long a heartbeat keeps the leader's lease.
    pub lease: Duration,
}

pub(crate) enum Input {
    Event(RingEvent),
    /// Membership or the leadership changed, or the leader has been silent for too long.
    Observe,
}

/// Carries the ring's messages, and observes membership and the log for it.
pub(crate) struct ElectionTask {
    me: NodeId,
    membership: MembershipHandle,
    consensus: Consensus,
    peers: Connections,
    lease: Duration,
    view: watch::Receiver<Arc<MembershipView>>,
    leadership: watch::Receiver<Leadership>,
    last_led: LastLed,
    /// When the coordinator will count as missing if it stays silent.
    missing_at: Instant,
    clock: Clock,
    giving_way: GivingWay,
    /// What it decided last.
    gave_way: bool,
    inputs: mpsc::Sender<Input>,
}

/// The newest leadership, and since when it is known.
struct LastLed {
    leader: Option<NodeId>,
    term: Term,
    since: Instant,
}

impl ElectionTask {
    /// Starts the task.
    pub(crate) fn spawn(deps: Deps, seed: u64, timing: Timing, stop: &CancellationToken) -> ElectionHandle {
        let Deps { me, clock, consensus, membership, peers, monitor, files: _, revocations: _, webhooks: _ } =
            deps;
        let (inputs, queued) = mpsc::channel(INPUTS_MAX);
        let config = RingConfig::default();
        let round_timeout = config.round_timeout.max(timing.heartbeat * ROUND_HEARTBEATS);
        let machine = Ring::new(RingConfig { round_timeout, ..config }, me, seed);
        let now = Instant::now();
        let shell = Self {
            me,
            view: membership.view(),
            leadership: consensus.leadership(),
            membership,
            consensus,
            peers,
            lease: timing.lease,
            last_led: LastLed { leader: None, term: Term(0), since: now },
            missing_at: now,
            clock,
            giving_way: GivingWay::default(),
            gave_way: false,
            inputs: inputs.clone(),
        };
        Driver { machine, shell, clock, inputs: queued }.spawn("election", &monitor, stop);
        ElectionHandle { inputs }
    }
}

/// Whether a member's clock is so far off that clients refuse the member, or it them.
fn has_wrong_clock(view: &MembershipView, id: NodeId) -> bool {
    view.clock_ahead_s(id).unsigned_abs() >= CLOCK_TOLERANCE.as_secs()
}

impl Shell for ElectionTask {
    type Machine = Ring;
    type Input = Input;

    fn begin(&mut self, turn: &mut Turn<Self>) {
        turn.input(Input::Observe);
    }

    async fn next_input(&mut self) -> Option<Input> {
        tokio::select! {
            changed = self.view.changed() => changed.ok()?,
            changed = self.leadership.changed() => changed.ok()?,
            () = sleep_until(self.missing_at) => {}
        }
        Some(Input::Observe)
    }

    fn on_deadline(&mut self, turn: &mut Turn<Self>) {
        turn.input(Input::Event(RingEvent::Tick));
    }

    async fn translate(&mut self, input: Input, turn: &mut Turn<Self>) {
        self.observe(turn);
        if let Input::Event(event) = input {
            // The ring's reaction depends on whether the leader is reachable now, and may change its next deadline:
            // observe before and after.
            turn.event(event);
            turn.input(Input::Observe);
        }
    }

    async fn carry_out(&mut self, effect: RingEffect, _turn: &mut Turn<Self>) {
        match effect {
            RingEffect::Send { to, message } => self.send(to, message),
            RingEffect::MayStand(allowed) => {
                info!(me = %self.me, allowed, "the ring decided whether this member may stand for election");
                self.consensus.may_stand(allowed);
            }
        }
    }
}

impl ElectionTask {
    /// Reports the present state of membership and the log to the ring.
    fn observe(&mut self, turn: &mut Turn<Self>) {
        let view = Arc::clone(&self.view.borrow_and_update());
        let leadership = self.leadership.borrow_and_update().clone();
        let is_live = |id: &NodeId| view.is_live(*id) && view.joined;
        let has_wrong_clock = has_wrong_clock(&view, self.me);
        let gives_way = self.gives_way(&view, &leadership);
        self.consensus.give_way(gives_way);
        // A member that left keeps running: without this its heartbeats would keep the others from electing a leader.
        self.consensus.may_lead(view.joined && !gives_way);
        let now = Instant::now();
        if (self.last_led.leader, self.last_led.term) != (leadership.leader, leadership.term) {
            self.last_led = LastLed { leader: leadership.leader, term: leadership.term, since: now };
        }
        let last_contact = self.consensus.last_leader_contact().max(self.last_led.since);
        let missing_at = last_contact + self.lease * SILENCE_LEASES;
        let live_leader = leadership.leader.filter(is_live);
        let coordinator = live_leader.filter(|_| now < missing_at);
        // Once it is missing, the ring's own deadlines lead back here.
        self.missing_at = if coordinator.is_some() { missing_at } else { now + FAR };
        if let Some(id) = coordinator {
            turn.event(RingEvent::LeaderObserved { term: leadership.term, id });
        }
        // A leader without a quorum has entries that no other voter has, and would win the next round by its longer log.
        let is_cut_off = leadership.is_leader && !leadership.holds_lease();
        // One that clients refuse comes last.
        let (term, index) = if is_cut_off || has_wrong_clock { (Term(0), 0) } else { leadership.last_log };
        turn.event(RingEvent::RingView(RingView {
            live_voters: leadership.voters.iter().copied().filter(is_live).take(VOTERS_MAX).collect(),
            voter_count: leadership.voters.len(),
            coordinator,
            hears_leader: now < last_contact + self.lease,
            is_silent: live_leader.is_some() && coordinator.is_none(),
            log: LogPosition { term, index },
        }));
    }

    /// Whether this member coordinates with a wrong clock and is to be replaced. Logs when that begins.
    fn gives_way(&mut self, view: &MembershipView, leadership: &Leadership) -> bool {
        let is_fit = |id: &&NodeId| **id != self.me && view.is_live(**id) && !has_wrong_clock(view, **id);
        let fit = leadership.voters.iter().filter(is_fit).count();
        let can_be_replaced = fit > leadership.voters.len() / 2;
        let (is_refused, leads) = (has_wrong_clock(view, self.me), leadership.is_leader);
        let before = self.gave_way;
        self.gave_way = self.giving_way.gives_way(is_refused, leads, can_be_replaced, self.clock.now());
        if self.gave_way && !before {
            warn!(
                ahead_s = view.clock_ahead_s(self.me),
                "this member coordinates, and clients refuse it, because its clock differs from the median of all members' \
                 clocks: it steps down; correct its clock"
            );
        }
        self.gave_way
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
                        debug!(%error, "cannot deliver an election message");
                        false
                    }
                },
                None => false,
            };
            if !delivered {
                // The task ends only with the process.
                let _ = inputs.send(Input::Event(RingEvent::HopFailed { to, hop })).await;
            }
        });
    }
}
