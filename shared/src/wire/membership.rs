//! Messages of the failure detector, between members, and of the introducer.
//!
//! Deserialisation validates names, addresses, counters and list lengths, so nothing unchecked reaches the membership
//! machine.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use super::bounded;
use crate::ids::NodeId;
use crate::names::MemberName;

/// Largest datagram on the wire, in bytes, including its envelope.
pub const MAX_DATAGRAM_BYTES: usize = 1_400;
/// Bytes of a datagram that are reserved for its envelope (dispatch and seal).
pub const ENVELOPE_RESERVE_BYTES: usize = 64;
/// Most rumours in one [`Datagram`]; the size limit usually applies first.
pub const MAX_RUMOURS: usize = 64;
/// Most witnesses that a suspicion carries: the member that raised it, and three that confirm it (Lifeguard's K).
pub const MAX_WITNESSES: usize = 4;
/// Most records in one [`PushPull`].
pub const MAX_PUSH_PULL_RECORDS: usize = 2_048;
/// Most clusters that a recovered or restored one names as its predecessors.
pub const MAX_SUPERSEDED: usize = 16;
/// Largest generation and incarnation: beyond what a correct member reaches, and far from overflow.
pub const MAX_COUNTER: u64 = 1 << 48;

/// A value from the network violates a documented bound.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MembershipWireError {
    /// A generation or incarnation exceeds [`MAX_COUNTER`].
    #[error("the counter {0} exceeds {MAX_COUNTER}")]
    Counter(u64),
    /// The number does not stand for a member state.
    #[error("{0} is not a member state: 0 alive, 1 suspect, 2 dead, 3 left")]
    State(u8),
    /// A list is too long.
    #[error("a list has {length} entries, more than the {bound} allowed")]
    TooLong {
        /// Number of entries.
        length: usize,
        /// Most entries allowed.
        bound: usize,
    },
    /// The address cannot be dialled.
    #[error("{0} cannot be a member's address: a member needs a unicast IP address and a port")]
    Address(SocketAddr),
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u64", into = "u64")]
        pub struct $name(pub u64);

        impl $name {
            /// The next value; stays at [`MAX_COUNTER`] once it is reached.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1).min(MAX_COUNTER))
            }
        }

        impl From<$name> for u64 {
            fn from(counter: $name) -> Self {
                counter.0
            }
        }

        impl TryFrom<u64> for $name {
            type Error = MembershipWireError;

            fn try_from(count: u64) -> Result<Self, Self::Error> {
                if count > MAX_COUNTER { Err(MembershipWireError::Counter(count)) } else { Ok(Self(count)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// How often a member has refuted a suspicion within one generation. Only the member itself raises it.
    Incarnation
}
counter! {
    /// How often a member has been started. A process raises and persists it before it sends anything.
    Generation
}

/// The state of a member as believed by an observer, in ascending order of precedence within one incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum MemberState {
    /// The member answers probes.
    Alive,
    /// A probe failed, and the member has time to refute.
    Suspect,
    /// The member did not refute in time, or its process is known to be gone.
    Dead,
    /// The member announced that it leaves.
    Left,
}

impl MemberState {
    /// Whether a member in this state counts as live. Suspects do.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

impl From<MemberState> for u8 {
    fn from(state: MemberState) -> Self {
        match state {
            MemberState::Alive => 0,
            MemberState::Suspect => 1,
            MemberState::Dead => 2,
            MemberState::Left => 3,
        }
    }
}

impl TryFrom<u8> for MemberState {
    type Error = MembershipWireError;

    fn try_from(code: u8) -> Result<Self, Self::Error> {
        match code {
            0 => Ok(Self::Alive),
            1 => Ok(Self::Suspect),
            2 => Ok(Self::Dead),
            3 => Ok(Self::Left),
            _ => Err(MembershipWireError::State(code)),
        }
    }
}

/// A member as one observer knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The member's id.
    pub id: NodeId,
    /// The member's name.
    pub name: MemberName,
    /// The address at which the member listens, for both TCP and UDP.
    #[serde(deserialize_with = "checked_address")]
    pub address: SocketAddr,
    /// The member's boot count.
    pub generation: Generation,
    /// The member's refutations within the generation.
    pub incarnation: Incarnation,
    /// The believed state.
    pub state: MemberState,
}

impl MemberRecord {
    /// The key by which two records of one member are compared: every observer keeps the greater one, so all converge.
    pub const fn precedence(&self) -> (Generation, Incarnation, MemberState) {
        (self.generation, self.incarnation, self.state)
    }

    /// Upper bound of the encoded size, in bytes.
    pub fn encoded_bytes_max(&self) -> usize {
        let address = if self.address.is_ipv4() { 17 } else { 43 };
        // Array header, id, name with its header, address, two counters and the state.
        1 + 9 + 2 + self.name.as_str().len() + address + 9 + 9 + 1
    }
}

/// Checks that `address` can be dialled: it has a port, and its IP address is neither unspecified nor multicast.
pub fn check_address(address: SocketAddr) -> Result<SocketAddr, MembershipWireError> {
    if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
        Err(MembershipWireError::Address(address))
    } else {
        Ok(address)
    }
}

fn checked_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    check_address(SocketAddr::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// A list of at most `BOUND` entries; decoding a longer one fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Bounded<T, const BOUND: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const BOUND: usize> Deserialize<'de> for Bounded<T, BOUND> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bounded::list::<BOUND, _, _>(deserializer).map(Self)
    }
}

impl<T, const BOUND: usize> Default for Bounded<T, BOUND> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const BOUND: usize> Bounded<T, BOUND> {
    /// Takes the first `BOUND` of `entries`.
    pub fn first_of(entries: impl IntoIterator<Item = T>) -> Self {
        Self(entries.into_iter().take(BOUND).collect())
    }

    /// Whether there are no entries.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries in order.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }
}

impl<T, const BOUND: usize> TryFrom<Vec<T>> for Bounded<T, BOUND> {
    type Error = MembershipWireError;

    fn try_from(entries: Vec<T>) -> Result<Self, Self::Error> {
        if entries.len() > BOUND {
            Err(MembershipWireError::TooLong { length: entries.len(), bound: BOUND })
        } else {
            Ok(Self(entries))
        }
    }
}

impl<T, const BOUND: usize> From<Bounded<T, BOUND>> for Vec<T> {
    fn from(entries: Bounded<T, BOUND>) -> Self {
        entries.0
    }
}

/// News of a member, spread by gossip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rumour {
    /// The member, as believed.
    pub record: MemberRecord,
    /// For a suspect, the members whose own probes of it failed, so that independent suspicions can be counted
    /// (Lifeguard, section IV-B). Otherwise empty.
    pub witnesses: Bounded<NodeId, MAX_WITNESSES>,
}

impl Rumour {
    /// Upper bound of the encoded size, in bytes.
    pub fn encoded_bytes_max(&self) -> usize {
        1 + self.record.encoded_bytes_max() + 1 + 9 * self.witnesses.as_slice().len()
    }
}

/// The request or answer in a datagram, beside its rumours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DatagramBody {
    /// Probes `target`, which alone answers, with [`DatagramBody::Ack`].
    Ping {
        /// Sequence number; the answer repeats it.
        seq: u64,
        /// The member probed: another process may have taken over its address.
        target: NodeId,
    },
    /// Answers a [`DatagramBody::Ping`].
    Ack {
        /// Sequence number of the ping.
        seq: u64,
    },
    /// Asks the receiver to probe `target` at the address it knows, and to answer with [`DatagramBody::IndirectAck`].
    PingRequest {
        /// Sequence number; the answer repeats it.
        seq: u64,
        /// The member to probe.
        target: NodeId,
    },
    /// The target of a [`DatagramBody::PingRequest`] has answered the sender.
    IndirectAck {
        /// Sequence number of the request.
        seq: u64,
    },
    /// The target of a [`DatagramBody::PingRequest`] has not answered the sender yet. The nack itself proves to the
    /// requester that its own receiving works (Lifeguard, section IV-A).
    Nack {
        /// Sequence number of the request.
        seq: u64,
    },
    /// Carries rumours only.
    Gossip,
    /// Carries rumours only, in answer to a rumour that was older than what the sender knew. Never answered in turn.
    Remark,
}

/// A UDP message between members: at most [`MAX_DATAGRAM_BYTES`] less [`ENVELOPE_RESERVE_BYTES`] encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagram {
    /// The sending member.
    pub from: NodeId,
    /// The request or answer.
    pub body: DatagramBody,
    /// Rumours passed on.
    pub rumours: Bounded<Rumour, MAX_RUMOURS>,
}

/// Upper bound of a datagram's encoded size without its rumours, in bytes: array headers, the sender, and the longest body
/// (a map from one name of 11 bytes to a sequence number and an id).
pub const DATAGRAM_HEAD_BYTES_MAX: usize = 1 + 9 + (1 + 1 + 11 + 1 + 9 + 9) + 3;

/// A member's whole membership list, sent to another over TCP; the answer is the other's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushPull {
    /// The sender's own record.
    pub from: MemberRecord,
    /// All others that the sender knows, including those that are dead or have left.
    pub members: Bounded<Listed, MAX_PUSH_PULL_RECORDS>,
    /// The founder of the sender's cluster, which keeps the lists of two clusters apart; `None` until it belongs to one.
    #[serde(default)]
    pub founder: Option<NodeId>,
    /// The sender's wall clock, in milliseconds since the epoch, so that a wrong one is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_ms: Option<u64>,
}

/// An entry of a [`PushPull`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The member, as believed.
    pub record: MemberRecord,
    /// Seconds until the sender forgets the member, if it is dead or has left; otherwise 0. All members thus forget it at
    /// about the same time, and it does not circulate for ever.
    pub forget_in_s: u32,
}

/// A probe over TCP, used when datagrams get lost and to dial a new member back. The process at the address answers with
/// [`TcpPong`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpPing {
    /// The member probed.
    pub target: NodeId,
    /// What the sender believes of the target, so that a suspect can refute at once.
    pub believed: Option<MemberRecord>,
}

/// The answer to a [`TcpPing`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpPong {
    /// The answering member's own record. If it is not the target's, the target's process is gone.
    pub record: MemberRecord,
    /// The founder of the member's cluster, so that no other cluster lists it; `None` until it belongs to one.
    #[serde(default)]
    pub founder: Option<NodeId>,
}

/// A request to the introducer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IntroductionRequest {
    /// A member registers, and asks for members to join.
    Introduce {
        /// The member's id.
        id: NodeId,
        /// The member's name.
        name: MemberName,
        /// The address at which the member listens.
        address: SocketAddr,
        /// The founder of the cluster that the member belongs to; `None` until it belongs to one.
        #[serde(default)]
        founder: Option<NodeId>,
        /// Set if the member holds blobs and has lost its log. Such a member must find its cluster: if it founded a new
        /// one, that would collect its blobs as garbage.
        #[serde(default)]
        must_join: bool,
        /// The founders of the clusters of which the member's was recovered or restored. An introducer that serves one of
        /// them serves the member's from now on.
        #[serde(default, skip_serializing_if = "Bounded::is_empty")]
        supersedes: Bounded<NodeId, MAX_SUPERSEDED>,
    },
    /// Asks for known members, without registering. Used by clients.
    #[serde(rename = "Known")]
    ListMembers,
}

/// The introducer's reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntroductionReply {
    /// The one member that may found the metadata log: the first one ever introduced, or the founder that the first
    /// member of an existing cluster reports.
    pub founder: Option<NodeId>,
    /// Known members, the most recently introduced first; at most 64.
    #[serde(deserialize_with = "bounded::list::<MAX_PUSH_PULL_RECORDS, _, _>")]
    pub members: Vec<(NodeId, SocketAddr)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::LABEL_BYTES_MAX;

    fn record(name: &str, address: &str) -> MemberRecord {
        MemberRecord {
            id: NodeId(u64::MAX),
            name: name.parse().unwrap(),
            address: address.parse().unwrap(),
            generation: Generation(MAX_COUNTER),
            incarnation: Incarnation(MAX_COUNTER),
            state: MemberState::Suspect,
        }
    }

    #[test]
    fn encoded_sizes_stay_within_their_upper_bounds() {
        let long = "n".repeat(LABEL_BYTES_MAX);
        for record in [record(&long, "255.255.255.255:65535"), record(&long, "[ffff:ffff::ffff:ffff]:65535")]
        {
            assert!(rmp_serde::to_vec(&record).unwrap().len() <= record.encoded_bytes_max());
            let witnesses = Bounded::first_of([NodeId(u64::MAX); MAX_WITNESSES]);
            let rumour = Rumour { record, witnesses };
            assert!(rmp_serde::to_vec(&rumour).unwrap().len() <= rumour.encoded_bytes_max());
        }
        let (seq, target) = (u64::MAX, NodeId(u64::MAX));
        for body in [
            DatagramBody::Ping { seq, target },
            DatagramBody::PingRequest { seq, target },
            DatagramBody::IndirectAck { seq },
            DatagramBody::Nack { seq },
            DatagramBody::Gossip,
        ] {
            let datagram = Datagram { from: target, body, rumours: Bounded::default() };
            let encoded = rmp_serde::to_vec(&datagram).unwrap();
            assert!(encoded.len() <= DATAGRAM_HEAD_BYTES_MAX);
            assert_eq!(rmp_serde::from_slice::<Datagram>(&encoded).unwrap(), datagram);
        }
    }

    #[test]
    fn decoding_refuses_values_out_of_bounds() {
        let good = record("vm1", "10.0.0.1:7000");
        let refused = |record: &MemberRecord| {
            rmp_serde::from_slice::<MemberRecord>(&rmp_serde::to_vec(record).unwrap()).is_err()
        };
        assert!(!refused(&good));
        assert!(refused(&MemberRecord { generation: Generation(MAX_COUNTER + 1), ..good.clone() }));
        // The same record with any name, which `MemberRecord` itself cannot hold.
        let renamed = |name: &str| {
            let MemberRecord { id, address, generation, incarnation, state, .. } = good.clone();
            rmp_serde::to_vec(&(id, name, address, generation, incarnation, state)).unwrap()
        };
        assert!(rmp_serde::from_slice::<MemberRecord>(&renamed("vm2")).is_ok());
        for name in ["a b", ""] {
            assert!(rmp_serde::from_slice::<MemberRecord>(&renamed(name)).is_err(), "{name:?}");
        }
        for address in ["10.0.0.1:0", "0.0.0.0:7000", "224.0.0.1:7000"] {
            assert!(refused(&MemberRecord { address: address.parse().unwrap(), ..good.clone() }));
        }
        let list = rmp_serde::to_vec(&vec![good; 3]).unwrap();
        assert!(rmp_serde::from_slice::<Bounded<MemberRecord, 3>>(&list).is_ok());
        assert!(rmp_serde::from_slice::<Bounded<MemberRecord, 2>>(&list).is_err());
    }
}
