//! Sealed datagrams: AES-256-GCM under a key that each process derives from the cluster's secret.
//!
//! A sealed datagram is a plain-text header, the ciphertext and its tag. The header, which the tag authenticates too:
//!
//! | bytes | meaning |
//! | --- | --- |
//! | 1 | format, `0xc1` |
//! | 4 | id of the secret's key |
//! | 16 | salt, drawn by the sending process at its start |
//! | 8 | sequence number, from 1 |
//!
//! The key is HKDF-SHA-256 of the secret's key and the salt; the nonce is the sequence number. No pair of key and nonce
//! repeats: a restarted process draws a new salt, and a process ends long before its sequence numbers run out.
//!
//! A receiver accepts each sequence number once ([`ReplayWindow`]). Bound: it remembers [`SENDERS_MAX`] senders, all of
//! which have proved that they know the secret, and evicts the one heard from least recently. After an eviction or a
//! restart of the receiver, a replay is accepted. SWIM bounds the harm, because it tolerates lost, duplicated and late
//! datagrams by design:
//!
//! - An ack must carry the sequence number of the probe in progress. These numbers start at random in each process, so an
//!   ack recorded from an earlier process matches nothing.
//! - A rumour takes effect only if its generation and incarnation are at least as high as the ones known. A replayed
//!   rumour about a known member is stale; a replayed suspicion is refuted; a rumour about a forgotten member lists that
//!   member until its first probe fails.
//! - A ping is answered to its source address, with no more bytes than it had.
//!
//! So a replay costs a few datagrams. It can neither declare a live member dead nor keep a dead one alive.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use thiserror::Error;

use super::{Credentials, SecurityError};
use crate::wire::membership::ENVELOPE_RESERVE_BYTES;

/// First byte of a sealed datagram. MessagePack reserves it, so no plain message starts with it.
const FORMAT: u8 = 0xc1;
const KEY_ID_BYTES: usize = 4;
const SALT_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES + SALT_BYTES + 8;
const TAG_BYTES: usize = 16;
/// Bytes that sealing adds to a datagram.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;
/// Senders whose sequence numbers a receiver remembers.
pub const SENDERS_MAX: usize = 4_096;

const _: () = assert!(OVERHEAD_BYTES <= ENVELOPE_RESERVE_BYTES);

/// Why a datagram was dropped unread. The text follows "datagram" in a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnsealError {
    /// It has no seal.
    #[error("is not sealed")]
    Plain,
    /// Its key id is none of this process's keys.
    #[error("is sealed with another cluster's secret, or with a key that was replaced")]
    OtherCluster,
    /// Its tag does not match: it was modified or forged.
    #[error("was tampered with")]
    Tampered,
    /// Its sequence number was accepted before, or is older than the replay window.
    #[error("is a replay")]
    Replayed,
}

/// A key of the secret, prepared for sealing datagrams.
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
        derived.map_err(|_| rustls::Error::General(String::from("cannot derive the key of datagrams")))?;
        Ok(Self { id, root })
    }

    /// The sealing key of the process that drew `salt`.
    fn of_process(&self, salt: &[u8; SALT_BYTES]) -> Result<LessSafeKey, Unspecified> {
        let info: [&[u8]; 2] = [b"datagrams: key", salt];
        Ok(LessSafeKey::new(UnboundKey::from(self.root.expand(&info, &AES_256_GCM)?)))
    }
}

/// The length of [`DatagramKey::id`], as HKDF takes it.
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
    /// Counts datagrams opened: the clock by which the least recently heard sender is found.
    opened: u64,
}

type SenderId = ([u8; KEY_ID_BYTES], [u8; SALT_BYTES]);

#[derive(Debug)]
struct Sender {
    key: LessSafeKey,
    window: ReplayWindow,
    heard: u64,
}

impl Seal {
    /// Makes the seal of this process; `None` for insecure credentials.
    pub fn new(credentials: Credentials) -> Result<Option<Self>, getrandom::Error> {
        if !credentials.is_secure() {
            return Ok(None);
        }
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt)?;
        Ok(Some(Self { credentials, salt, number: 0, own: None, senders: BTreeMap::new(), opened: 0 }))
    }

    /// Seals `bytes`; `None` if the cryptography provider fails.
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
        let (header, body) = datagram.split_at_mut(HEADER_BYTES);
        let tag = own.seal_in_place_separate_tag(nonce(self.number), Aad::from(header), body).ok()?;
        datagram.extend_from_slice(tag.as_ref());
        Some(datagram)
    }

    /// Decrypts a datagram in place and returns the range of its plain text.
    pub fn open(&mut self, datagram: &mut [u8]) -> Result<Range<usize>, UnsealError> {
        let Some((header, body)) = datagram.split_at_mut_checked(HEADER_BYTES) else {
            return Err(UnsealError::Plain);
        };
        let (id, salt, number) = parse_header(header).ok_or(UnsealError::Plain)?;
        let keys = self.credentials.datagram_keys();
        let key = keys.iter().find(|key| key.id == id).ok_or(UnsealError::OtherCluster)?;
        let (nonce, aad) = (nonce(number), Aad::from(header));
        self.opened += 1;
        if let Some(sender) = self.senders.get_mut(&(id, salt)) {
            let bytes = sender.key.open_in_place(nonce, aad, body).map_err(|_| UnsealError::Tampered)?;
            sender.heard = self.opened;
            let plain = HEADER_BYTES..HEADER_BYTES + bytes.len();
            return if sender.window.accept(number) { Ok(plain) } else { Err(UnsealError::Replayed) };
        }
        let sender_key = key.of_process(&salt).map_err(|_| UnsealError::Tampered)?;
        // Only a sender that knows the secret may take one of the remembered slots.
        let bytes = sender_key.open_in_place(nonce, aad, body).map_err(|_| UnsealError::Tampered)?;
        let plain = HEADER_BYTES..HEADER_BYTES + bytes.len();
        let mut window = ReplayWindow::default();
        window.accept(number);
        self.evict_if_full();
        self.senders.insert((id, salt), Sender { key: sender_key, window, heard: self.opened });
        Ok(plain)
    }

    fn evict_if_full(&mut self) {
        if self.senders.len() < SENDERS_MAX {
            return;
        }
        let least_recent = self.senders.iter().min_by_key(|(_, sender)| sender.heard).map(|(id, _)| *id);
        if let Some(id) = least_recent {
            self.senders.remove(&id);
        }
    }
}

fn parse_header(header: &[u8]) -> Option<([u8; KEY_ID_BYTES], [u8; SALT_BYTES], u64)> {
    let rest = header.strip_prefix(&[FORMAT])?;
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

const WORD_BITS: u64 = 64;
const WORDS: usize = 17;
/// How far a sequence number may trail the highest one; anything older counts as seen. One word beyond it is being filled.
const WINDOW: u64 = (WORDS as u64 - 1) * WORD_BITS;

/// Which sequence numbers of one sender were accepted: a sliding window as in IPsec (RFC 6479), [`WINDOW`] numbers in 144
/// bytes.
#[derive(Clone, Debug, Default)]
struct ReplayWindow {
    highest: u64,
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// Accepts `number` unless it was accepted before or is too old; returns whether it did.
    fn accept(&mut self, number: u64) -> bool {
        if number.saturating_add(WINDOW) <= self.highest {
            return false;
        }
        if number > self.highest {
            let (from, to) = (self.highest / WORD_BITS, number / WORD_BITS);
            for word in (from + 1..=to).take(WORDS) {
                self.seen[slot(word)] = 0;
            }
            self.highest = number;
        }
        let (word, bit) = (&mut self.seen[slot(number / WORD_BITS)], 1 << (number % WORD_BITS));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

fn slot(word: u64) -> usize {
    usize::try_from(word % WORDS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::secret::{KeyRotation, Secret};
    use super::*;

    fn seal(credentials: &Credentials) -> Seal {
        Seal::new(credentials.clone()).unwrap().unwrap()
    }

    fn member() -> Credentials {
        Credentials::of_member(Secret::generate().unwrap()).unwrap()
    }

    #[test]
    fn each_receiver_opens_a_sealed_datagram_once() {
        let cluster = member();
        let (mut sender, mut receivers) = (seal(&cluster), [seal(&cluster), seal(&cluster)]);
        let sealed: Vec<Vec<u8>> = (0..100_u8).map(|byte| sender.seal(&[byte; 30]).unwrap()).collect();
        assert!(sealed.iter().all(|datagram| datagram.len() == 30 + OVERHEAD_BYTES));
        for receiver in &mut receivers {
            for (byte, datagram) in (0..100_u8).zip(&sealed) {
                let mut received = datagram.clone();
                let plain = receiver.open(&mut received).unwrap();
                assert_eq!(received[plain], [byte; 30]);
                assert_eq!(receiver.open(&mut datagram.clone()), Err(UnsealError::Replayed));
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_detected_and_leaves_no_state_behind() {
        let cluster = member();
        let (mut sender, mut receiver) = (seal(&cluster), seal(&cluster));
        let sealed = sender.seal(b"who is there").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut tampered = sealed.clone();
            tampered[bit / 8] ^= 1 << (bit % 8);
            assert!(receiver.open(&mut tampered).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(receiver.open(&mut sealed[..length].to_vec()).is_err(), "truncated to {length} bytes");
        }
        assert!(receiver.senders.is_empty());
        assert!(receiver.open(&mut sealed.clone()).is_ok());
    }

    #[test]
    fn a_restart_changes_the_key_and_other_clusters_keys_are_refused() {
        let cluster = member();
        let (mut before, mut after) = (seal(&cluster), seal(&cluster));
        let (first, again) = (before.seal(b"same").unwrap(), after.seal(b"same").unwrap());
        assert_ne!(first[HEADER_BYTES..], again[HEADER_BYTES..], "same sequence number, different key");
        let mut receiver = seal(&cluster);
        assert!(receiver.open(&mut first.clone()).is_ok() && receiver.open(&mut again.clone()).is_ok());
        assert_eq!(seal(&member()).open(&mut first.clone()), Err(UnsealError::OtherCluster));
        assert_eq!(receiver.open(&mut b"plain".to_vec()), Err(UnsealError::Plain));
        assert_eq!(receiver.open(&mut [0x93; 200]), Err(UnsealError::Plain));
    }

    #[test]
    fn during_a_rotation_the_first_key_seals_and_both_open() {
        let mut text = Secret::generate().unwrap();
        let copy = |secret: &Secret| Secret::parse(secret.render().as_bytes()).unwrap();
        let (mine, theirs) =
            (Credentials::of_member(copy(&text)).unwrap(), Credentials::of_member(copy(&text)).unwrap());
        let (mut sender, mut receiver) = (seal(&mine), seal(&theirs));
        for step in [KeyRotation::Add, KeyRotation::Sign, KeyRotation::Drop] {
            text.rotate(step).unwrap();
            // One process always reads the file one step later than the other.
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
        assert_eq!(receiver.open(&mut sealed.clone()), Err(UnsealError::OtherCluster));
    }

    #[test]
    fn the_number_of_remembered_senders_is_bounded() {
        let cluster = member();
        let mut receiver = seal(&cluster);
        for _ in 0..SENDERS_MAX + 10 {
            let sealed = seal(&cluster).seal(b"x").unwrap();
            receiver.open(&mut sealed.clone()).unwrap();
        }
        assert_eq!(receiver.senders.len(), SENDERS_MAX);
    }

    #[test]
    fn a_sequence_number_is_accepted_once_and_an_old_one_never() {
        let (mut window, mut accepted) = (ReplayWindow::default(), BTreeSet::new());
        let mut number = 1_u64;
        for step in 0..200_000_u64 {
            // Mostly forward by up to 300, sometimes back by up to 3,000, now and then a jump of 100,000.
            number = match step % 7 {
                0 => number.saturating_sub(step * 31 % 3_000).max(1),
                6 if step % 1_001 == 6 => number + 100_000,
                _ => number + step * 17 % 300,
            };
            let highest = accepted.last().copied().unwrap_or(0);
            let is_old = number.saturating_add(WINDOW) <= highest;
            let is_new = accepted.insert(number) && !is_old;
            assert_eq!(window.accept(number), is_new, "{number} behind {highest}");
        }
        assert!(window.accept(u64::MAX) && !window.accept(u64::MAX) && !window.accept(1));
    }
}
