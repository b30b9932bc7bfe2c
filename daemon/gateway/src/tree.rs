//! The digest of an object that comes in parts, of which each is hashed once, as it arrives, in any order.
//!
//! BLAKE3 is a tree over pieces of 1 KiB, in which a piece's place counts. A part's place is guessed when it arrives: all parts but the last
//! are usually equal. Of its bytes the largest subtrees of the whole are hashed that lie in it, and their values are kept with it. At the end
//! they are merged; a part whose place was guessed wrong is read again. Source: the BLAKE3 paper, section 2, and the crate's `hazmat`.
//!
//! Bound: a part of n KiB has at most 2·log2(n) + 1 subtrees.

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, max_subtree_len, merge_subtrees_non_root,
    merge_subtrees_root,
};
use idunno_shared::ids::Digest;

const PIECE: u64 = 1_024;

/// A subtree: where it begins, how long it is, its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subtree {
    at: u64,
    bytes: u64,
    value: ChainingValue,
}

/// How long the subtree at a place is, if so many bytes of the part follow.
fn subtree_bytes(at: u64, left: u64) -> u64 {
    if left < PIECE {
        return left;
    }
    let fits = 1 << left.ilog2();
    max_subtree_len(at).map_or(fits, |most| most.min(fits))
}

/// Hashes a part.
pub struct PartHasher {
    at: u64,
    end: u64,
    /// Where the present subtree begins and ends.
    subtree: (u64, u64),
    hasher: blake3::Hasher,
    done: Vec<Subtree>,
}

impl PartHasher {
    /// A part of so many bytes at a place; `None` if it is none of a whole number of pieces, or the part is empty.
    pub fn new(at: u64, bytes: u64) -> Option<Self> {
        let end = at.checked_add(bytes)?;
        if !at.is_multiple_of(PIECE) || bytes == 0 {
            return None;
        }
        let mut hasher = Self { at, end, subtree: (at, at), hasher: blake3::Hasher::new(), done: Vec::new() };
        hasher.begin();
        Some(hasher)
    }

    fn begin(&mut self) {
        self.subtree = (self.at, self.at + subtree_bytes(self.at, self.end - self.at));
        self.hasher = blake3::Hasher::new();
        self.hasher.set_input_offset(self.at);
    }

    /// Takes the next bytes; those beyond the part's end are left out.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.at < self.end {
            let room = usize::try_from(self.subtree.1 - self.at).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.hasher.update(now);
            self.at += now.len() as u64;
            bytes = later;
            if self.at == self.subtree.1 {
                let (at, end) = self.subtree;
                self.done.push(Subtree { at, bytes: end - at, value: self.hasher.finalize_non_root() });
                if self.at < self.end {
                    self.begin();
                }
            }
        }
    }

    /// The part's subtrees, if all of its bytes came.
    pub fn finish(self) -> Option<Vec<Subtree>> {
        (self.at == self.end).then_some(self.done)
    }
}

/// Subtrees of a part as text: its place, and their values.
pub fn encode(subtrees: &[Subtree]) -> String {
    let at = subtrees.first().map_or(0, |first| first.at);
    let values: String =
        subtrees.iter().map(|subtree| blake3::Hash::from(subtree.value).to_string()).collect();
    format!("{at}:{values}")
}

/// The subtrees of a part of so many bytes, if the text is of the part at this place.
pub fn decode(text: &str, at: u64, bytes: u64) -> Option<Vec<Subtree>> {
    let values = text.strip_prefix(&format!("{at}:"))?;
    if !values.is_ascii() {
        return None;
    }
    let (mut values, mut place, mut subtrees) = (values, at, Vec::new());
    while place < at + bytes {
        let (value, later) = values.split_at_checked(64)?;
        let length = subtree_bytes(place, at + bytes - place);
        let value = *blake3::Hash::from_hex(value).ok()?.as_bytes();
        subtrees.push(Subtree { at: place, bytes: length, value });
        (values, place) = (later, place + length);
    }
    values.is_empty().then_some(subtrees)
}

/// The digest of all bytes, of which these are the subtrees in order. `None` if they leave a gap, or are a single one.
pub fn merge(subtrees: &[Subtree]) -> Option<Digest> {
    let total = subtrees.iter().map(|subtree| subtree.bytes).sum();
    if subtrees.len() < 2 {
        return None;
    }
    let left = left_subtree_len(total);
    let mut rest = subtrees;
    let first = value_of(&mut rest, 0, left)?;
    let second = value_of(&mut rest, left, total - left)?;
    Some(Digest(*merge_subtrees_root(&first, &second, Mode::Hash).as_bytes()))
}

/// The value of the subtree at a place; takes what it consists of. Its depth is that of the tree, at most 54.
fn value_of(rest: &mut &[Subtree], at: u64, bytes: u64) -> Option<ChainingValue> {
    let (first, later) = rest.split_first()?;
    if first.at != at || first.bytes > bytes {
        return None;
    }
    if first.bytes == bytes {
        *rest = later;
        return Some(first.value);
    }
    let left = left_subtree_len(bytes);
    let first = value_of(rest, at, left)?;
    let second = value_of(rest, at + left, bytes - left)?;
    Some(merge_subtrees_non_root(&first, &second, Mode::Hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|n| u8::try_from(n * 31 % 251).unwrap()).collect()
    }

    /// Hashes an object by its parts, through their texts.
    fn by_parts(object: &[u8], sizes: &[usize]) -> Option<Digest> {
        let (mut at, mut subtrees) = (0, Vec::new());
        for &size in sizes {
            let mut hasher = PartHasher::new(at as u64, size as u64)?;
            // In uneven steps, as from a network.
            object[at..at + size].chunks(777).for_each(|step| hasher.update(step));
            let text = encode(&hasher.finish()?);
            subtrees.extend(decode(&text, at as u64, size as u64)?);
            at += size;
        }
        assert_eq!(at, object.len());
        merge(&subtrees)
    }

    #[test]
    fn parts_of_any_size_in_pieces_have_the_digest_of_the_whole() {
        for sizes in [
            &[5 << 10, 5 << 10, 5 << 10][..],
            &[1 << 10, 1 << 10],
            &[1 << 10, 1],
            &[8 << 10, 8 << 10, 8 << 10, 100],
            &[5 << 10, 5 << 10, 5 << 10, 5 << 10, 5 << 10, 5 << 10, 4_321],
            &[7 << 10, 3 << 10, 64 << 10, 1_023],
            &[320 << 10, 320 << 10, 320 << 10, 17],
        ] {
            let object = bytes(sizes.iter().sum());
            assert_eq!(by_parts(&object, sizes), Some(Digest::of(&object)), "{sizes:?}");
        }
        assert_eq!(by_parts(&bytes(3_000), &[1_500, 1_500]), None, "the second begins within a piece");
    }

    #[test]
    fn a_gap_or_a_wrong_place_is_no_digest() {
        let part = |at, size| {
            let mut hasher = PartHasher::new(at, size).unwrap();
            hasher.update(&bytes(usize::try_from(size).unwrap()));
            hasher.finish().unwrap()
        };
        let merged = |parts: &[Vec<Subtree>]| merge(&parts.concat());
        assert!(merged(&[part(0, 5 << 10), part(5 << 10, 1 << 10)]).is_some());
        assert!(merged(&[part(0, 5 << 10), part(6 << 10, 1 << 10)]).is_none());
        assert!(merged(&[part(0, 5 << 10), part(4 << 10, 1 << 10)]).is_none());
        let text = encode(&part(5 << 10, 3 << 10));
        assert!(decode(&text, 5 << 10, 3 << 10).is_some() && decode(&text, 6 << 10, 3 << 10).is_none());
        assert!(decode(&text, 5 << 10, 4 << 10).is_none() && decode("0:é", 0, 1 << 10).is_none());
        let mut short = PartHasher::new(0, 10).unwrap();
        short.update(b"123");
        assert!(short.finish().is_none());
    }
}
