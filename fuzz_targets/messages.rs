//! Every message of the wire and of the log, chosen by the first byte: what decodes comes back from its own encoding, and
//! no decoder takes more memory than a small multiple of its input.
#![no_main]

use idunno_core::metadata::{Command, Snapshot};
use idunno_shared::wire::blobs::{BlobReply, BlobRequest};
use idunno_shared::wire::frame::{Answer, Call, Hello, HelloReply};
use idunno_shared::wire::membership::Datagram;
use idunno_tests::decoders::{MEMORY, round_trip};
use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = MEMORY;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 9 {
        0 => round_trip::<Hello>(bytes),
        1 => round_trip::<HelloReply>(bytes),
        2 => round_trip::<Call>(bytes),
        3 => round_trip::<Answer>(bytes),
        4 => round_trip::<BlobRequest>(bytes),
        5 => round_trip::<BlobReply>(bytes),
        6 => round_trip::<Datagram>(bytes),
        7 => round_trip::<Command>(bytes),
        _ => round_trip::<Snapshot>(bytes),
    }
});
