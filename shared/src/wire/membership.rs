//! What members tell each other about who is in the cluster.
//!
//! A message that decodes is a checked message: names, addresses, counters and list lengths are verified while they
//! are deserialised, so nothing unchecked reaches the membership machine.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::ids::NodeId;
use crate::names::MemberName;

/// The largest datagram on the wire, in bytes, its envelope included.
pub const MAX_DATAGRAM_BYTES: usize = 1_400;
/// What of it belongs to the envelope (dispatch, sealing), in bytes.
pub const ENVELOPE_RESERVE_BYTES: usize = 64;
/// The most rumours in one [`Datagram`]; its size usually binds first.
pub const MAX_RUMOURS: usize = 64;
/// The most witnesses of one suspicion that are told: who raised it, and three that confirm it (Lifeguard's K).
pub const MAX_WITNESSES: usize = 4;
/// The most records in one [`PushPull`].
pub const MAX_PUSH_PULL_RECORDS: usize = 2_048;
/// The greatest generation or incarnation: out of honest reach, far from overflow.
pub const MAX_COUNTER: u64 = 1 << 48;

/// A value from the network broke a documented bound.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MembershipWireError {
    /// A generation or incarnation lies beyond [`MAX_COUNTER`].
    #[error("the counter {0} is above {MAX_COUNTER}")]
    Counter(u64),
    /// An unknown member state.
    #[error("{0} is not a member state: 0 alive, 1 suspect, 2 dead, 3 left")]
    State(u8),
    /// A list is too long.
    #[error("a list of {length} entries is above the bound of {bound}")]
    TooLong {
        /// Its length.
        length: usize,
        /// The bound.
        bound: usize,
    },
    /// Nobody can be dialled at this address.
    #[error("{0} is not a member's address: it needs a unicast IP address and a port")]
    Address(SocketAddr),
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u64", into = "u64")]
        pub struct $name(pub u64);

        impl $name {
            /// The next one; it stays at [`MAX_COUNTER`].
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
    /// How often a member has contradicted what others said of it, within one generation. It alone raises it.
    Incarnation
}
counter! {
    /// How often a member has been started: persisted, and raised, by its process before it speaks.
    Generation
}

/// What is believed of a member. The order is that of precedence within one generation and incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum MemberState {
    /// It answers.
    Alive,
    /// A probe of it failed; it has time to contradict.
    Suspect,
    /// It did not contradict in time, or its process is known to be gone.
    Dead,
    /// It said good-bye.
    Left,
}

impl MemberState {
    /// Whether a member in this state counts as up: suspects do, until they are dead.
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

/// One member as one observer knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its identity.
    pub id: NodeId,
    /// Its name.
    pub name: MemberName,
    /// Where it listens, TCP and UDP.
    #[serde(deserialize_with = "checked_address")]
    pub address: SocketAddr,
    /// Its boot count.
    pub generation: Generation,
    /// Its contradictions within the generation.
    pub incarnation: Incarnation,
    /// What is believed of it.
    pub state: MemberState,
}

impl MemberRecord {
    /// What decides between two records of one member: the greater wins, everywhere, so that all come to agree.
    pub const fn precedence(&self) -> (Generation, Incarnation, MemberState) {
        (self.generation, self.incarnation, self.state)
    }

    /// An upper bound of its encoded size, in bytes.
    pub fn encoded_bytes_max(&self) -> usize {
        let address = if self.address.is_ipv4() { 17 } else { 43 };
        // An array's head, the identity, the name with its head, two counters and the state.
        1 + 9 + 2 + self.name.as_str().len() + address + 9 + 9 + 1
    }
}

/// `address`, if it can be dialled: a port, and neither an unspecified nor a multicast IP address.
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

/// At most `BOUND` entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<T>", into = "Vec<T>")]
#[serde(bound(serialize = "T: Clone + Serialize", deserialize = "T: Deserialize<'de>"))]
pub struct Bounded<T, const BOUND: usize>(Vec<T>);

impl<T, const BOUND: usize> Default for Bounded<T, BOUND> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const BOUND: usize> Bounded<T, BOUND> {
    /// The first `BOUND` of `entries`.
    pub fn first_of(entries: impl IntoIterator<Item = T>) -> Self {
        Self(entries.into_iter().take(BOUND).collect())
    }

    /// The entries.
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

/// News of one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rumour {
    /// What is believed of it.
    pub record: MemberRecord,
    /// Of a suspect: whose own probes of it failed, so that independent suspicions can be counted (Lifeguard,
    /// section IV-B). Empty of all others.
    pub witnesses: Bounded<NodeId, MAX_WITNESSES>,
}

impl Rumour {
    /// An upper bound of its encoded size, in bytes.
    pub fn encoded_bytes_max(&self) -> usize {
        1 + self.record.encoded_bytes_max() + 1 + 9 * self.witnesses.as_slice().len()
    }
}

/// What a datagram asks or answers, besides its rumours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DatagramBody {
    /// Are you there? Only `target` itself answers, with [`DatagramBody::Ack`].
    Ping {
        /// Matches the answer.
        seq: u64,
        /// Who is meant: another process may have taken over the address.
        target: NodeId,
    },
    /// The sender is here: the answer to a [`DatagramBody::Ping`].
    Ack {
        /// The ping's.
        seq: u64,
    },
    /// Ping `target` for me, at the address you know of it, and answer with [`DatagramBody::IndirectAck`].
    PingRequest {
        /// Matches the answer.
        seq: u64,
        /// Who is to be pinged.
        target: NodeId,
    },
    /// The member you asked about answered the sender.
    IndirectAck {
        /// The request's.
        seq: u64,
    },
    /// The member you asked about has not answered the sender yet; but the sender has answered you, so your own ears
    /// are not at fault (Lifeguard, section IV-A).
    Nack {
        /// The request's.
        seq: u64,
    },
    /// Nothing but rumours.
    Gossip,
    /// Nothing but rumours, in answer to one of which the sender knew more. It is not answered in turn.
    Remark,
}

/// A UDP message between members: at most [`MAX_DATAGRAM_BYTES`] less [`ENVELOPE_RESERVE_BYTES`] encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagram {
    /// Who sends it.
    pub from: NodeId,
    /// What it asks or answers.
    pub body: DatagramBody,
    /// What it passes on.
    pub rumours: Bounded<Rumour, MAX_RUMOURS>,
}

/// An upper bound of a datagram's encoded size without its rumours, in bytes: array heads, the sender, and the
/// longest body (a map of one name of 11 bytes to a sequence number and an identity).
pub const DATAGRAM_HEAD_BYTES_MAX: usize = 1 + 9 + (1 + 1 + 11 + 1 + 9 + 9) + 3;

/// Everything one member knows, to another over TCP; the answer is the other's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushPull {
    /// The sender's own record.
    pub from: MemberRecord,
    /// All others that it knows, those that are dead or have left included.
    pub members: Bounded<Listed, MAX_PUSH_PULL_RECORDS>,
    /// The founder of the cluster that the sender belongs to, once it does: lists of two clusters must not mix.
    #[serde(default)]
    pub founder: Option<NodeId>,
}

/// One member in a [`PushPull`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// What is believed of it.
    pub record: MemberRecord,
    /// When it will be forgotten, in seconds from now, if it is dead or has left; else 0. Members that learn of it from
    /// each other thus forget it at one time, and it does not go round for ever.
    pub forget_in_s: u32,
}

/// A ping over TCP, for when datagrams get lost, and for dialling a newcomer back. The process behind the address answers
/// with [`TcpPong`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpPing {
    /// Who is meant.
    pub target: NodeId,
    /// What the sender believes of it, so that a suspect can contradict at once.
    pub believed: Option<MemberRecord>,
}

/// The answer to a [`TcpPing`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpPong {
    /// The answering member's own record. Another than the target proves that the target's process is gone.
    pub record: MemberRecord,
    /// The founder of the cluster that it belongs to, once it does: nobody is listed by another cluster.
    #[serde(default)]
    pub founder: Option<NodeId>,
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
    fn bounds_of_encoded_sizes_hold() {
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
    fn decoding_refuses_what_breaks_a_bound() {
        let good = record("vm1", "10.0.0.1:7000");
        let refused = |record: &MemberRecord| {
            rmp_serde::from_slice::<MemberRecord>(&rmp_serde::to_vec(record).unwrap()).is_err()
        };
        assert!(!refused(&good));
        assert!(refused(&MemberRecord { generation: Generation(MAX_COUNTER + 1), ..good.clone() }));
        // The same record with another name, which the type itself does not let one write.
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
