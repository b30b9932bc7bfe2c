//! What the driver tells the membership machine, and what the machine asks for.

use std::net::SocketAddr;
use std::time::Duration;

use idunno_shared::ids::NodeId;
use idunno_shared::names::MemberName;
use idunno_shared::wire::membership::{Datagram, MemberRecord, PushPull, TcpPing, TcpPong};
use thiserror::Error;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwimEvent {
    /// A datagram came in.
    Datagram {
        /// The socket address it came from; answers go there.
        from: SocketAddr,
        /// What it says.
        message: Datagram,
    },
    /// A peer sent its list over TCP and waits for ours: answered by one [`SwimEffect::ReplyPushPull`] or
    /// [`SwimEffect::RefusePushPull`], at once or when it has been dialled back.
    PushPullRequest {
        /// The driver's number for the waiting connection.
        exchange: u64,
        /// The peer's list.
        message: PushPull,
    },
    /// The answer to an [`SwimEffect::StartPushPull`]. A failed exchange is simply not reported; if the connection was
    /// refused and the effect named a member, report [`SwimEvent::ConnectionRefused`].
    PushPullReply {
        /// Where the effect sent ours.
        from: SocketAddr,
        /// The peer's list.
        message: PushPull,
    },
    /// A ping came in over TCP: answered by one [`SwimEffect::AnswerTcpPing`].
    TcpPingRequest {
        /// The driver's number for the waiting connection.
        exchange: u64,
        /// The ping.
        message: TcpPing,
    },
    /// How an [`SwimEffect::TcpPing`] ended. Exactly one for each.
    TcpPingResult {
        /// The effect's.
        seq: u64,
        /// The effect's.
        target: NodeId,
        /// How it ended.
        outcome: TcpPingOutcome,
    },
    /// A connection to this member's address was refused, or another member answered there: its process is gone.
    ConnectionRefused {
        /// The member.
        id: NodeId,
    },
    /// Find the cluster through these addresses; replaces earlier seeds, and comes back after a leave. The first
    /// [`super::MAX_SEEDS`] count.
    Join {
        /// Where other members may listen.
        seeds: Vec<SocketAddr>,
    },
    /// The introducer was asked again, and names these; replaces the ones it named before. Lists are exchanged with those
    /// at whose address no live member is known. The first [`super::MAX_SEEDS`] count.
    Introduced {
        /// Where members may listen.
        addresses: Vec<SocketAddr>,
    },
    /// This member's host has another address, at which this process listens too.
    Moved {
        /// Where others reach this member from now on.
        address: SocketAddr,
    },
    /// Leave the cluster: answered by one [`SwimEffect::LeaveDone`].
    Leave,
    /// Time has passed: [`crate::machine::Machine::next_deadline`] is due.
    Tick,
}

/// How a ping over TCP ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TcpPingOutcome {
    /// A member answered.
    Answered {
        /// Its own record. Another than the target proves that the target's process is gone.
        record: MemberRecord,
    },
    /// The connection was refused: the target's process is gone.
    Refused,
    /// There was no answer in time.
    TimedOut,
}

/// The driver's next duty, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwimEffect {
    /// Send a datagram; losing it is fine.
    SendDatagram {
        /// Where to.
        to: SocketAddr,
        /// What.
        message: Datagram,
    },
    /// Connect, send the list, and report the answer as [`SwimEvent::PushPullReply`]. Give up after a few seconds.
    StartPushPull {
        /// Where to.
        to: SocketAddr,
        /// The member believed to be there, if any.
        member: Option<NodeId>,
        /// Our list.
        message: PushPull,
    },
    /// Answer a [`SwimEvent::PushPullRequest`].
    ReplyPushPull {
        /// The event's.
        exchange: u64,
        /// Our list.
        message: PushPull,
    },
    /// Refuse a [`SwimEvent::PushPullRequest`]: the peer is not admitted.
    RefusePushPull {
        /// The event's.
        exchange: u64,
        /// Why.
        error: AdmissionError,
    },
    /// Ping a member over TCP and report [`SwimEvent::TcpPingResult`].
    TcpPing {
        /// Repeated in the result.
        seq: u64,
        /// Where the member listens, or says that it does.
        to: SocketAddr,
        /// The ping; its target is repeated in the result.
        message: TcpPing,
        /// When to give up.
        timeout: Duration,
    },
    /// Answer a [`SwimEvent::TcpPingRequest`].
    AnswerTcpPing {
        /// The event's.
        exchange: u64,
        /// The answer.
        message: TcpPong,
    },
    /// A member's state, generation, name or address changed.
    Changed(MemberChange),
    /// A member refutes every suspicion and answers no probe: it sends, and is not reached where it says it listens. From now
    /// on it is believed only once it has been dialled back.
    Flapping(MemberRecord),
    /// Another living process, at another address, claims this member's identity: a copied data directory.
    Conflict(MemberRecord),
    /// The others have been told; the process may end.
    LeaveDone,
}

/// Why a newcomer is not admitted. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AdmissionError {
    /// The connection was refused, or another process answered.
    #[error(
        "{name} is not admitted: it does not listen at {address}, where it says it does; \
         check its listen address, and what else may run there"
    )]
    NotListening {
        /// The newcomer.
        name: MemberName,
        /// The address that it advertises.
        address: SocketAddr,
    },
    /// No answer.
    #[error(
        "{name} is not admitted: it does not answer at {address}, where it says it listens, within {} ms; \
         check that other hosts reach this address, and the firewalls between, for TCP and UDP",
        limit.as_millis()
    )]
    NoAnswer {
        /// The newcomer.
        name: MemberName,
        /// The address that it advertises.
        address: SocketAddr,
        /// How long it had.
        limit: Duration,
    },
    /// Too many others are being dialled back.
    #[error("this member has {} newcomers to dial back already: try again", super::MAX_DIAL_BACKS)]
    Busy,
}

impl AdmissionError {
    pub(super) fn not_listening(newcomer: &MemberRecord) -> Self {
        Self::NotListening { name: newcomer.name.clone(), address: newcomer.address }
    }

    pub(super) fn no_answer_from(newcomer: &MemberRecord, limit: Duration) -> Self {
        Self::NoAnswer { name: newcomer.name.clone(), address: newcomer.address, limit }
    }
}

/// A change in the list. It also reports this member itself, when it had to take over a higher generation, or when its address
/// changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberChange {
    /// What is believed now.
    pub record: MemberRecord,
    /// What was believed before; none for a member never heard of.
    pub previous: Option<MemberRecord>,
}

/// How often each mechanism was used since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwimCounters {
    /// Probes started.
    pub probes: u64,
    /// Ping requests sent.
    pub ping_requests: u64,
    /// Probes saved by another member's ping.
    pub indirect_acks: u64,
    /// Probes saved by a ping over TCP.
    pub tcp_acks: u64,
    /// Nacks received: members asked to ping that had no answer yet.
    pub nacks: u64,
    /// Suspicions that this member raised by its own probes.
    pub suspicions: u64,
    /// Times that a suspicion was confirmed by further witnesses.
    pub confirmations: u64,
    /// Members that this member declared dead when their suspicion ran out.
    pub suspicions_expired: u64,
    /// Members declared dead because their process refused a connection or another took their address.
    pub refused: u64,
    /// Times this member refuted what others said of it.
    pub refutations: u64,
    /// Newcomers dialled back.
    pub dial_backs: u64,
    /// Newcomers that answered.
    pub admissions: u64,
    /// Newcomers that did not.
    pub refusals: u64,
    /// Exchanges of lists with unknown senders.
    pub unknown_senders: u64,
    /// Rumours of unknown senders about others.
    pub ignored_rumours: u64,
    /// Exchanges of lists begun with dead or left members, lost seeds, and addresses that the introducer named.
    pub reconnects: u64,
    /// Exchanges of lists begun with live members.
    pub push_pulls: u64,
    /// Times this member's host got another address.
    pub moves: u64,
    /// Times this member found that it had been starved itself.
    pub stalls: u64,
    /// Dead and left members forgotten.
    pub forgotten: u64,
    /// Records dropped because the list was full.
    pub records_dropped: u64,
}
