//! What the shell tells the membership machine, and what it asks of the shell.

use std::net::SocketAddr;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{Datagram, MemberRecord, PushPull};

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A datagram came in.
    Datagram {
        /// The socket address it came from; answers go there.
        from: SocketAddr,
        /// What it says.
        message: Datagram,
    },
    /// A peer sent its list over TCP and waits for ours: answered by one [`Effect::ReplyPushPull`].
    PushPullRequest {
        /// The shell's name for the waiting connection.
        exchange: u64,
        /// The peer's list.
        message: PushPull,
    },
    /// The answer to an [`Effect::StartPushPull`]. A failed exchange is simply not reported; if the connection was
    /// refused and the effect named a member, report [`Event::ConnectionRefused`].
    PushPullReply {
        /// The peer's list.
        message: PushPull,
    },
    /// How an [`Effect::TcpPing`] ended.
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
    /// Say good-bye: answered by one [`Effect::LeaveDone`].
    Leave,
    /// Time has passed: [`super::Swim::next_deadline`] is due.
    Tick,
}

/// How a ping over TCP ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpPingOutcome {
    /// The target itself answered.
    Answered,
    /// The connection was refused, or another member answered: the target's process is gone.
    Refused,
    /// Nobody answered in time.
    TimedOut,
}

/// The shell's next duty, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a datagram; losing it is fine.
    SendDatagram {
        /// Where to.
        to: SocketAddr,
        /// What.
        message: Datagram,
    },
    /// Connect, send the list, and report the answer as [`Event::PushPullReply`]. Give up after a few seconds.
    StartPushPull {
        /// Where to.
        to: SocketAddr,
        /// The member believed to be there, if any.
        member: Option<NodeId>,
        /// Our list.
        message: PushPull,
    },
    /// Answer a [`Event::PushPullRequest`].
    ReplyPushPull {
        /// The event's.
        exchange: u64,
        /// Our list.
        message: PushPull,
    },
    /// Ping a member over TCP and report [`Event::TcpPingResult`] within the probe period.
    TcpPing {
        /// Repeated in the result.
        seq: u64,
        /// The member.
        target: NodeId,
        /// Where it listens.
        to: SocketAddr,
    },
    /// A member's state, generation, name or address changed.
    Changed(MemberChange),
    /// Another living process, at another address, claims this member's identity: a copied data directory.
    Conflict(MemberRecord),
    /// The good-bye is said; the process may end.
    LeaveDone,
}

/// A change in the list. It also reports this member itself, when it had to take over a higher generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberChange {
    /// What is believed now.
    pub record: MemberRecord,
    /// What was believed before; none for a member never heard of.
    pub previous: Option<MemberRecord>,
}

/// How often each mechanism was used since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Probes started.
    pub probes: u64,
    /// Ping requests sent.
    pub ping_requests: u64,
    /// Probes saved by another member's ping.
    pub indirect_acks: u64,
    /// Probes saved by a ping over TCP.
    pub tcp_acks: u64,
    /// Suspicions that this member raised by its own probes.
    pub suspicions: u64,
    /// Members that this member declared dead when their suspicion ran out.
    pub suspicions_expired: u64,
    /// Members declared dead because their process refused a connection or another took their address.
    pub refused: u64,
    /// Times this member contradicted what others said of it.
    pub refutations: u64,
    /// Lists offered to dead or left members and lost seeds.
    pub reconnects: u64,
    /// Lists offered to live members.
    pub push_pulls: u64,
    /// Times this member found that it had been starved itself.
    pub stalls: u64,
    /// Records dropped because the list was full.
    pub records_dropped: u64,
}
