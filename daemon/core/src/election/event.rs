//! What the shell tells the ring, and what it asks of the shell.

use std::collections::BTreeSet;

use idunno_shared::ids::{NodeId, Term};
use idunno_shared::wire::election::{LogPosition, RingMessage};

/// What this member knows of the voters. Hand in a new one whenever any of it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RingView {
    /// The voters that membership holds to be live, this member included if it is one. At most
    /// [`idunno_shared::wire::election::MAX_VOTERS`].
    pub live_voters: BTreeSet<NodeId>,
    /// How many voters there are, the dead included: more than half of them make a majority.
    pub voter_count: usize,
    /// The leader, if one is known, live, and not silent for long.
    pub coordinator: Option<NodeId>,
    /// Whether it was heard of within its lease: then this voter takes no part in rounds, and no majority of such
    /// voters lets one that alone has lost the leader disturb it.
    pub hears: bool,
    /// Whether a leader is missing only because its log is silent, while membership sees it: then nobody stands but
    /// who won a round, for the others may hear it.
    pub is_silent: bool,
    /// The end of this member's log; nothing, if it cannot win votes.
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
        /// Who, as it said when it connected.
        from: NodeId,
        /// What.
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
        /// Who.
        id: NodeId,
    },
    /// Time has passed: [`crate::machine::Machine::next_deadline`] is due.
    Tick,
}

/// The shell's next duty, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingEffect {
    /// Send a message to a voter; report [`RingEvent::HopFailed`] as soon as that is known to be impossible.
    Send {
        /// Who.
        to: NodeId,
        /// What.
        message: RingMessage,
    },
    /// Whether this member's log may ask for votes from now on. It starts with no.
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
    pub vain: u64,
    /// Times that all voters were allowed to stand.
    pub fallbacks: u64,
}
