//! Damages encoded messages at random.

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

/// MessagePack headers that announce huge values: arrays, maps, strings, bytes and extensions of up to 4 GiB, and deep
/// nesting.
const HOSTILE: [&[u8]; 8] = [
    &[0xdd, 0xff, 0xff, 0xff, 0xff],
    &[0xdf, 0xff, 0xff, 0xff, 0xff],
    &[0xdb, 0xff, 0xff, 0xff, 0xff],
    &[0xc6, 0xff, 0xff, 0xff, 0xff],
    &[0xc9, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xdc, 0xff, 0xff],
    &[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x91; 200],
];

/// Applies one random kind of damage to `bytes`.
pub fn damage(bytes: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    let at = random.random_range(0..=bytes.len());
    match random.random_range(0..6) {
        0 => bytes.truncate(at),
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.random_range(0..8);
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.random();
            }
        }
        3 => {
            let hostile = HOSTILE[random.random_range(0..HOSTILE.len())];
            bytes.splice(at..(at + 1).min(bytes.len()), hostile.iter().copied());
        }
        4 => {
            let end = random.random_range(at..=bytes.len());
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            let mut noise = vec![0; random.random_range(0..64)];
            random.fill_bytes(&mut noise);
            bytes.splice(at..at, noise);
        }
    }
}
