//! Sealed datagrams: AES-256-GCM under a key that each process derives for itself from the cluster's secret.
//!
//! A datagram is a head in the clear, then the sealed bytes and their tag:
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | [`FORMAT`] |
//! | 4 | which of the secret's keys |
//! | 16 | the salt that the sender's process drew when it started |
//! | 8 | the datagram's number, from 1 |
//!
//! The key is HKDF-SHA-256 of the secret's key and the salt; the nonce is the number. So no key and nonce come twice, also
//! when a process restarts: it has another salt, and it ends before its numbers do.
//!
//! A number is taken once by each receiver ([`Window`]). Bound: [`SENDERS_MAX`] senders, only such as have the secret;
//! beyond it the one that was heard longest ago is forgotten. What a replay can do at a receiver that has forgotten, or
//! has restarted, is bounded by SWIM itself, which takes lost, doubled and late datagrams for granted:
//!
//! - An answer must bear the number of the probe under way; these begin at random in each process, so that an answer to
//!   another life's probe is none.
//! - A rumour counts only if its generation and incarnation are not below what is known. One about a member that is
//!   known at least that well says nothing; one that it is suspect has it contradict; one about a member that was
//!   forgotten shows it until its first probe fails.
//! - A ping is answered to where it came from, with no more bytes than it had.
//!
//! So a replay costs a few datagrams, and can neither declare a live member dead nor keep a dead one alive.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use thiserror::Error;

use super::window::Window;
use super::{Credentials, SecurityError};
use crate::wire::membership::ENVELOPE_RESERVE_BYTES;

/// The first byte of a sealed datagram: no MessagePack message begins with it.
const FORMAT: u8 = 0xc1;
const KEY_ID_BYTES: usize = 4;
const SALT_BYTES: usize = 16;
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES + SALT_BYTES + 8;
const TAG_BYTES: usize = 16;
/// What sealing adds to a datagram, in bytes.
pub const OVERHEAD_BYTES: usize = HEAD_BYTES + TAG_BYTES;
/// Senders whose numbers are remembered.
pub const SENDERS_MAX: usize = 4_096;

const _: () = assert!(OVERHEAD_BYTES <= ENVELOPE_RESERVE_BYTES);

/// Why a datagram is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unopened {
    /// It is not sealed.
    #[error("is not sealed")]
    Plain,
    /// It is sealed with a key that this process does not have.
    #[error("is sealed with another cluster's secret")]
    OtherCluster,
    /// It was changed on its way, or made up.
    #[error("was tampered with")]
    Tampered,
    /// It came before, or long after later ones.
    #[error("came before")]
    Replayed,
}

/// One of the secret's keys, as datagrams are sealed with it.
pub struct DatagramKey {
    id: [u8; KEY_ID_BYTES],
    root: Prk,
}

impl fmt::Debug for DatagramKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DatagramKey({:02x?})", self.id)
    }
}

impl DatagramKey {
    pub(super) fn derive(secret: &[u8]) -> Result<Self, SecurityError> {
        let root = Salt::new(HKDF_SHA256, b"idunno").extract(secret);
        let mut id = [0; KEY_ID_BYTES];
        let derived = root.expand(&[b"datagrams: id"], IdLength).and_then(|material| material.fill(&mut id));
        derived.map_err(|_| rustls::Error::General(String::from("a datagram's key cannot be derived")))?;
        Ok(Self { id, root })
    }

    /// The key of the process that drew `salt`.
    fn of_process(&self, salt: &[u8; SALT_BYTES]) -> Result<LessSafeKey, Unspecified> {
        let info: [&[u8]; 2] = [b"datagrams: key", salt];
        Ok(LessSafeKey::new(UnboundKey::from(self.root.expand(&info, &AES_256_GCM)?)))
    }
}

/// How much is derived for [`DatagramKey::id`].
struct IdLength;

impl KeyType for IdLength {
    fn len(&self) -> usize {
        KEY_ID_BYTES
    }
}

/// Seals and opens the datagrams of one process.
#[derive(Debug)]
pub struct Seal {
    credentials: Credentials,
    salt: [u8; SALT_BYTES],
    number: u64,
    own: Option<([u8; KEY_ID_BYTES], LessSafeKey)>,
    senders: BTreeMap<SenderId, Sender>,
    /// Datagrams opened, to tell who was heard longest ago.
    opened: u64,
}

type SenderId = ([u8; KEY_ID_BYTES], [u8; SALT_BYTES]);

#[derive(Debug)]
struct Sender {
    key: LessSafeKey,
    window: Window,
    heard: u64,
}

impl Seal {
    /// The seal of this process; none where nothing is sealed.
    pub fn new(credentials: Credentials) -> Result<Option<Self>, getrandom::Error> {
        if !credentials.is_secure() {
            return Ok(None);
        }
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt)?;
        Ok(Some(Self { credentials, salt, number: 0, own: None, senders: BTreeMap::new(), opened: 0 }))
    }

    /// A datagram with these bytes; none, if the library fails.
    pub fn seal(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let keys = self.credentials.datagram_keys();
        let key = keys.first()?;
        if self.own.as_ref().is_none_or(|(id, _)| *id != key.id) {
            self.own = Some((key.id, key.of_process(&self.salt).ok()?));
        }
        let (id, own) = self.own.as_ref()?;
        self.number = self.number.checked_add(1)?;
        let mut datagram = Vec::with_capacity(bytes.len() + OVERHEAD_BYTES);
        datagram.push(FORMAT);
        datagram.extend_from_slice(id);
        datagram.extend_from_slice(&self.salt);
        datagram.extend_from_slice(&self.number.to_be_bytes());
        datagram.extend_from_slice(bytes);
        let (head, body) = datagram.split_at_mut(HEAD_BYTES);
        let tag = own.seal_in_place_separate_tag(nonce(self.number), Aad::from(head), body).ok()?;
        datagram.extend_from_slice(tag.as_ref());
        Some(datagram)
    }

    /// Opens a datagram where it lies; says where in it its bytes are.
    pub fn open(&mut self, datagram: &mut [u8]) -> Result<Range<usize>, Unopened> {
        let Some((head, body)) = datagram.split_at_mut_checked(HEAD_BYTES) else {
            return Err(Unopened::Plain);
        };
        let (id, salt, number) = parse_head(head).ok_or(Unopened::Plain)?;
        let keys = self.credentials.datagram_keys();
        let key = keys.iter().find(|key| key.id == id).ok_or(Unopened::OtherCluster)?;
        let (nonce, aad) = (nonce(number), Aad::from(head));
        self.opened += 1;
        if let Some(sender) = self.senders.get_mut(&(id, salt)) {
            let bytes = sender.key.open_in_place(nonce, aad, body).map_err(|_| Unopened::Tampered)?;
            sender.heard = self.opened;
            let place = HEAD_BYTES..HEAD_BYTES + bytes.len();
            return if sender.window.take(number) { Ok(place) } else { Err(Unopened::Replayed) };
        }
        let sender_key = key.of_process(&salt).map_err(|_| Unopened::Tampered)?;
        // Only who has the secret gets a place.
        let bytes = sender_key.open_in_place(nonce, aad, body).map_err(|_| Unopened::Tampered)?;
        let place = HEAD_BYTES..HEAD_BYTES + bytes.len();
        let mut window = Window::default();
        window.take(number);
        self.make_room();
        self.senders.insert((id, salt), Sender { key: sender_key, window, heard: self.opened });
        Ok(place)
    }

    fn make_room(&mut self) {
        if self.senders.len() < SENDERS_MAX {
            return;
        }
        let longest_ago = self.senders.iter().min_by_key(|(_, sender)| sender.heard).map(|(id, _)| *id);
        if let Some(id) = longest_ago {
            self.senders.remove(&id);
        }
    }
}

fn parse_head(head: &[u8]) -> Option<([u8; KEY_ID_BYTES], [u8; SALT_BYTES], u64)> {
    let rest = head.strip_prefix(&[FORMAT])?;
    let (&id, rest) = rest.split_first_chunk()?;
    let (&salt, rest) = rest.split_first_chunk()?;
    let (&number, _) = rest.split_first_chunk()?;
    Some((id, salt, u64::from_be_bytes(number)))
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::secret::{Secret, Step};
    use super::*;

    fn seal(credentials: &Credentials) -> Seal {
        Seal::new(credentials.clone()).unwrap().unwrap()
    }

    fn member() -> Credentials {
        Credentials::of_member(Secret::generate().unwrap()).unwrap()
    }

    #[test]
    fn what_is_sealed_is_opened_once_by_each() {
        let cluster = member();
        let (mut sender, mut receivers) = (seal(&cluster), [seal(&cluster), seal(&cluster)]);
        let sealed: Vec<Vec<u8>> = (0..100_u8).map(|byte| sender.seal(&[byte; 30]).unwrap()).collect();
        assert!(sealed.iter().all(|datagram| datagram.len() == 30 + OVERHEAD_BYTES));
        for receiver in &mut receivers {
            for (byte, datagram) in (0..100_u8).zip(&sealed) {
                let mut received = datagram.clone();
                let place = receiver.open(&mut received).unwrap();
                assert_eq!(received[place], [byte; 30]);
                assert_eq!(receiver.open(&mut datagram.clone()), Err(Unopened::Replayed));
            }
        }
    }

    #[test]
    fn every_changed_bit_is_noticed_and_leaves_nothing_behind() {
        let cluster = member();
        let (mut sender, mut receiver) = (seal(&cluster), seal(&cluster));
        let sealed = sender.seal(b"who is there").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(receiver.open(&mut changed).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(receiver.open(&mut sealed[..length].to_vec()).is_err(), "cut to {length}");
        }
        assert!(receiver.senders.is_empty());
        assert!(receiver.open(&mut sealed.clone()).is_ok());
    }

    #[test]
    fn no_key_is_used_twice_after_a_restart_and_none_of_another_cluster_at_all() {
        let cluster = member();
        let (mut before, mut after) = (seal(&cluster), seal(&cluster));
        let (first, again) = (before.seal(b"same").unwrap(), after.seal(b"same").unwrap());
        assert_ne!(first[HEAD_BYTES..], again[HEAD_BYTES..], "the numbers are the same, the keys are not");
        let mut receiver = seal(&cluster);
        assert!(receiver.open(&mut first.clone()).is_ok() && receiver.open(&mut again.clone()).is_ok());
        assert_eq!(seal(&member()).open(&mut first.clone()), Err(Unopened::OtherCluster));
        assert_eq!(receiver.open(&mut b"plain".to_vec()), Err(Unopened::Plain));
        assert_eq!(receiver.open(&mut [0x93; 200]), Err(Unopened::Plain));
    }

    #[test]
    fn during_a_rotation_both_keys_open_and_the_first_seals() {
        let mut text = Secret::generate().unwrap();
        let copy = |secret: &Secret| Secret::parse(secret.render().as_bytes()).unwrap();
        let (mine, theirs) =
            (Credentials::of_member(copy(&text)).unwrap(), Credentials::of_member(copy(&text)).unwrap());
        let (mut sender, mut receiver) = (seal(&mine), seal(&theirs));
        for step in [Step::Add, Step::Sign, Step::Drop] {
            text.rotate(step).unwrap();
            // One process is always a step behind the other.
            mine.replace(copy(&text)).unwrap();
            let sealed = sender.seal(b"before").unwrap();
            assert!(receiver.open(&mut sealed.clone()).is_ok(), "{step:?}");
            theirs.replace(copy(&text)).unwrap();
            let sealed = sender.seal(b"after").unwrap();
            assert!(receiver.open(&mut sealed.clone()).is_ok(), "{step:?}");
        }
        let fresh = Secret::generate().unwrap();
        theirs.replace(fresh).unwrap();
        let sealed = sender.seal(b"dropped").unwrap();
        assert_eq!(receiver.open(&mut sealed.clone()), Err(Unopened::OtherCluster));
    }

    #[test]
    fn senders_that_are_remembered_have_a_bound() {
        let cluster = member();
        let mut receiver = seal(&cluster);
        for _ in 0..SENDERS_MAX + 10 {
            let sealed = seal(&cluster).seal(b"x").unwrap();
            receiver.open(&mut sealed.clone()).unwrap();
        }
        assert_eq!(receiver.senders.len(), SENDERS_MAX);
    }
}
