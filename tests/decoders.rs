//! Decoders of all messages, log commands and snapshots, with what each of them must keep to: a bound on the memory that it
//! takes, and that a value that it returns encodes and decodes again. The fuzzers and the tests of `fuzz/` use them.

use idunno_core::metadata::{Command, Snapshot};
use idunno_shared::wire::blobs::{BlobReply, BlobRequest};
use idunno_shared::wire::frame::{Answer, Call, Hello, HelloReply, decode_body};
use idunno_shared::wire::membership::Datagram;
use peak_alloc::PeakAlloc;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Counts memory in programs whose global allocator it is.
pub const MEMORY: PeakAlloc = PeakAlloc;

/// Memory that a decoder may use for each byte of input. Collections grow by doubling, and hold the old and the new entries
/// while they move.
const MEMORY_A_BYTE: usize = 64;
/// Memory beyond that for what callers send: lists whose entries cost more have limits, and an announced length allocates
/// nothing.
pub const REQUEST_MEMORY_BESIDES: usize = 256 << 10;
/// The same for what members answer and what disks hold: serde trusts an announced length for up to 1 MiB, at each level of
/// nested sequences.
const ANSWER_MEMORY_BESIDES: usize = 4 << 20;
/// A type that is decoded, with the memory that its decoder may take besides.
pub trait Decoded: DeserializeOwned + Serialize {
    /// Bytes beyond [`MEMORY_A_BYTE`].
    const MEMORY_BESIDES: usize = ANSWER_MEMORY_BESIDES;
}

impl Decoded for Hello {
    const MEMORY_BESIDES: usize = REQUEST_MEMORY_BESIDES;
}
impl Decoded for Call {
    const MEMORY_BESIDES: usize = REQUEST_MEMORY_BESIDES;
}
impl Decoded for BlobRequest {
    const MEMORY_BESIDES: usize = REQUEST_MEMORY_BESIDES;
}
impl Decoded for Datagram {
    const MEMORY_BESIDES: usize = REQUEST_MEMORY_BESIDES;
}
impl Decoded for HelloReply {}
impl Decoded for Answer {}
impl Decoded for BlobReply {}
impl Decoded for Command {}
impl Decoded for Snapshot {}

/// Decodes a value.
///
/// # Panics
///
/// If the decoder takes too much memory.
pub fn decode<T: Decoded>(bytes: &[u8]) -> Option<T> {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let decoded = decode_body::<T>(bytes).ok();
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let bound = bytes.len() * MEMORY_A_BYTE + T::MEMORY_BESIDES;
    let name = std::any::type_name::<T>();
    let head = &bytes[..bytes.len().min(200)];
    assert!(taken <= bound, "{taken} bytes of memory for {} of a {name}: {head:02x?}", bytes.len());
    decoded
}

/// Decodes a value, and if there is one, encodes it and decodes it again.
///
/// # Panics
///
/// If the value does not come back, or a decoder takes too much memory.
pub fn round_trip<T: Decoded>(bytes: &[u8]) {
    let name = std::any::type_name::<T>();
    let Some(value) = decode::<T>(bytes) else { return };
    let bytes = encode(&value);
    let Some(again) = decode::<T>(&bytes) else { panic!("a damaged {name} decodes only once") };
    assert_eq!(encode(&again), bytes, "a damaged {name} comes back different");
}

/// Encodes a value, as it is sent and stored.
///
/// # Panics
///
/// If it cannot be encoded.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap_or_else(|why| panic!("a {}: {why}", std::any::type_name::<T>()))
}
