//! What the driver tells the ring, and what the ring asks for.

use std::collections::BTreeSet;

use idunno_shared::ids::{NodeId, Term};
use idunno_shared::wire::consensus::{LogPosition, RingMessage};

/// What this member knows of the voters. Hand in a new one whenever any of it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RingView {
    /// The voters that membership holds to be live, this member included if it is one. At most
    /// [`idunno_shared::wire::consensus::VOTERS_MAX`].
    pub live_voters: BTreeSet<NodeId>,
    /// How many voters there are, the dead included: more than half of them make a majority.
    pub voter_count: usize,
    /// The leader, if one is known, live, and not silent for long.
    pub coordinator: Option<NodeId>,
    /// Whether the leader was heard within its lease. Then this voter takes no part in rounds, so a voter that alone has
    /// lost the leader cannot disturb it.
    pub hears_leader: bool,
    /// Whether a leader is missing only because its log is silent, while membership sees it. Then only the winner of a
    /// round may stand, because the others may hear the leader.
    pub is_silent: bool,
    /// The end of this member's log; zero if it cannot win votes.
    pub log: LogPosition,
}

impl RingView {
    /// Whether `voters` of them are a majority.
    pub const fn is_majority(&self, voters: usize) -> bool {
        voters * 2 > self.voter_count
    }
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingEvent {
    /// The voters, the coordinator or the log changed.
    RingView(RingView),
    /// A member sent something.
    Message {
        /// The sender, by its identity on the connection.
        from: NodeId,
        /// The message.
        message: RingMessage,
    },
    /// An [`RingEffect::Send`] could not be delivered: no need to wait for its acknowledgement.
    HopFailed {
        /// The effect's receiver.
        to: NodeId,
        /// The effect's hop.
        hop: u64,
    },
    /// `id` leads in `term`, as the log shows or `id` itself said, and membership holds it to be live.
    LeaderObserved {
        /// Its term.
        term: Term,
        /// The leader.
        id: NodeId,
    },
    /// Time has passed: [`crate::machine::Machine::next_deadline`] is due.
    Tick,
}

/// The driver's next duty, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingEffect {
    /// Send a message to a voter; report [`RingEvent::HopFailed`] as soon as that is known to be impossible.
    Send {
        /// The voter.
        to: NodeId,
        /// The message.
        message: RingMessage,
    },
    /// Whether this member's log may ask for votes from now on; not at the start.
    MayStand(bool),
}

/// How often each mechanism was used since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Rounds started here.
    pub started: u64,
    /// Rounds started here that named a winner.
    pub completed: u64,
    /// Receivers skipped.
    pub skipped: u64,
    /// Nominations swallowed for a greater round.
    pub swallowed: u64,
    /// Messages ignored because a newer leader is known.
    pub stale: u64,
    /// Messages left unanswered because the leader is heard.
    pub declined: u64,
    /// Rounds that ended without a leader.
    pub failed: u64,
    /// Times that all voters were allowed to stand.
    pub fallbacks: u64,
}
