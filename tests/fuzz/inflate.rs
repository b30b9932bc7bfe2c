//! Makes a valid message as large as its attacker likes: repeats the last entry of one of its lists or maps, and announces
//! them all. What still decodes shows what an entry costs.

use std::ops::Range;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// A list or a map in an encoded message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Collection {
    is_map: bool,
    count: usize,
    header: Range<usize>,
    last_entry: Range<usize>,
}

/// The message with one of its collections grown until it has about `size` bytes; `None` if none has an entry.
pub(crate) fn inflate(message: &[u8], size: usize, random: &mut ChaCha8Rng) -> Option<Vec<u8>> {
    let mut collections = Vec::new();
    walk(message, 0, &mut collections);
    collections.retain(|collection| collection.count > 0);
    if collections.is_empty() {
        return None;
    }
    let chosen = &collections[random.random_range(0..collections.len())];
    let entry = &message[chosen.last_entry.clone()];
    let added = (size / entry.len()).max(1);
    let count = u32::try_from(chosen.count + added).unwrap();
    let mut inflated = message[..chosen.header.start].to_vec();
    inflated.push(if chosen.is_map { 0xdf } else { 0xdd });
    inflated.extend(count.to_be_bytes());
    inflated.extend(&message[chosen.header.end..chosen.last_entry.end]);
    inflated.extend(entry.repeat(added));
    inflated.extend(&message[chosen.last_entry.end..]);
    Some(inflated)
}

/// Finds all collections of the value at `at`, and returns its end.
fn walk(bytes: &[u8], at: usize, found: &mut Vec<Collection>) -> usize {
    let number = |from: usize, length: usize| {
        bytes[from..from + length].iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let fixed = |length: usize| at + 1 + length;
    // A length of some bytes, then so many bytes.
    let counted = |length: usize, besides: usize| at + 1 + length + number(at + 1, length) + besides;
    match bytes[at] {
        0x00..=0x7f | 0xc0..=0xc3 | 0xe0..=0xff => at + 1,
        head @ 0x80..=0x8f => entries(bytes, at, at + 1, usize::from(head & 0xf), true, found),
        head @ 0x90..=0x9f => entries(bytes, at, at + 1, usize::from(head & 0xf), false, found),
        head @ 0xa0..=0xbf => fixed(usize::from(head & 0x1f)),
        0xc4 | 0xd9 => counted(1, 0),
        0xc5 | 0xda => counted(2, 0),
        0xc6 | 0xdb => counted(4, 0),
        0xc7 => counted(1, 1),
        0xc8 => counted(2, 1),
        0xc9 => counted(4, 1),
        0xcc | 0xd0 => fixed(1),
        0xcd | 0xd1 | 0xd4 => fixed(2),
        0xd5 => fixed(3),
        0xca | 0xce | 0xd2 => fixed(4),
        0xd6 => fixed(5),
        0xcb | 0xcf | 0xd3 => fixed(8),
        0xd7 => fixed(9),
        0xd8 => fixed(17),
        0xdc => entries(bytes, at, at + 3, number(at + 1, 2), false, found),
        0xdd => entries(bytes, at, at + 5, number(at + 1, 4), false, found),
        0xde => entries(bytes, at, at + 3, number(at + 1, 2), true, found),
        0xdf => entries(bytes, at, at + 5, number(at + 1, 4), true, found),
    }
}

fn entries(
    bytes: &[u8],
    header_at: usize,
    begin: usize,
    count: usize,
    is_map: bool,
    found: &mut Vec<Collection>,
) -> usize {
    let (mut end, mut last_entry) = (begin, begin..begin);
    for _ in 0..count {
        let start = end;
        end = walk(bytes, start, found);
        if is_map {
            end = walk(bytes, end, found);
        }
        last_entry = start..end;
    }
    found.push(Collection { is_map, count, header: header_at..begin, last_entry });
    end
}
