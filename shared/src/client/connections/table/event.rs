//! The table's events and effects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::super::link::DialError;
use super::super::slot::{Lane, Slot};
use crate::ids::NodeId;

/// How many connections there may be, open or being opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Of consensus: one to each voter, twice during a change of voters.
    pub(crate) consensus: usize,
    /// Of calls: the coordinator calls every member.
    pub(crate) calls: usize,
    /// Of blobs, all their lanes together.
    pub(crate) blobs: usize,
    /// Dials in progress at once; further ones wait, consensus first.
    pub(crate) dials: usize,
}

impl Limits {
    pub(crate) const DEFAULT: Self = Self { consensus: 32, calls: 2_048, blobs: 1_024, dials: 64 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A live member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveMember {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its boot count: a new one means a new process, to which no dial has failed.
    pub generation: u64,
}

/// What membership says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// The other members that are live.
    pub live: BTreeMap<NodeId, LiveMember>,
    /// Connections to keep open.
    pub kept: BTreeSet<(NodeId, Lane)>,
    /// Whether this process dials a member whose connection ended, to prove its death.
    pub proves_deaths: bool,
}

/// How a connection is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Which.
    pub(crate) slot: Slot,
    /// When it was asked for last.
    pub(crate) used_at: Duration,
    /// Whether a caller holds it now.
    pub(crate) in_use: bool,
}

/// What happens to the table.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A caller waits for a connection that is not open.
    Asked {
        /// Which.
        slot: Slot,
        /// The peer's address, as far as the caller knows.
        address: SocketAddr,
    },
    /// A dial succeeded.
    Dialled {
        /// Which.
        slot: Slot,
        /// The peer's id; an introducer has none.
        node: Option<NodeId>,
    },
    /// A dial failed.
    DialFailed {
        /// Which.
        slot: Slot,
        /// Why.
        error: Arc<DialError>,
    },
    /// A connection ended, or was given up.
    Ended {
        /// Which.
        slot: Slot,
    },
    /// A connection that this member had opened to us ended.
    HungUp {
        /// The member.
        node: NodeId,
    },
    /// How all open connections are used.
    Usage(Vec<Usage>),
    /// The members or the connections to keep have changed.
    Members(Members),
    /// Time passed.
    Tick,
}

/// What the task is to do; effects are carried out in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Dial; the outcome comes back as an event.
    Dial {
        /// For which slot.
        slot: Slot,
        /// The address to dial.
        address: SocketAddr,
    },
    /// Publish the connection that was dialled for `slot` under `under`, and give it to the callers that wait for `slot`.
    Adopt {
        /// For which it was dialled.
        slot: Slot,
        /// Under which it is kept.
        under: Slot,
        /// Where it leads.
        address: SocketAddr,
    },
    /// Drop the connection that was dialled for `slot`, and give its callers `open`, which leads to the same process.
    Reuse {
        /// For which it was dialled.
        slot: Slot,
        /// Which is open already.
        open: Slot,
    },
    /// Forget a connection; it closes when its last user is done.
    Close {
        /// Which.
        slot: Slot,
    },
    /// Answer the callers that wait for `slot` with the reason why they get no connection.
    Refuse {
        /// Which.
        slot: Slot,
        /// Why.
        reason: Reason,
    },
}

/// Why callers get no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The dial failed just now.
    Failed,
    /// A dial failed a moment ago.
    BackOff,
    /// Another process than the wanted member listens there.
    Stranger,
    /// There is no room.
    Full,
}
