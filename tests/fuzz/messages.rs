//! Fuzzes the decoders of all messages, log commands and snapshots.

use idunno_core::metadata::{Command, Snapshot, State};
use idunno_shared::client::frames::read_frame_within;
use idunno_shared::ids::{NodeId, OpId};
use idunno_shared::wire::blobs::{BlobReply, BlobRequest};
use idunno_shared::wire::control::{Change, ControlRequest};
use idunno_shared::wire::frame::{
    Answer, Call, FRAME_BYTES_MAX, HEADER_BYTES_MAX, Hello, HelloReply, Request, decode_body, encode_frame,
};
use idunno_shared::wire::membership::Datagram;
use idunno_tests::damage::damage;
use idunno_tests::decoders::{Decoded, MEMORY, REQUEST_MEMORY_BESIDES, decode, encode, round_trip};
use idunno_tests::seeds::for_each_seed;
use peak_alloc::PeakAlloc;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::generate;
use crate::inflate::inflate;

/// One seed in so many also inflates its messages.
const INFLATING_SEEDS: u64 = 8;
const INFLATED_BYTES: usize = 128 << 10;
const DAMAGES_A_MESSAGE: usize = 12;

#[global_allocator]
static ALLOCATOR: PeakAlloc = MEMORY;

fn check<T: Decoded>(random: &mut ChaCha8Rng, inflates: bool) {
    let name = std::any::type_name::<T>();
    let value: T = generate::value(random).unwrap_or_else(|| panic!("no {name} could be made up"));
    let bytes = encode(&value);
    let again = decode::<T>(&bytes).unwrap_or_else(|| panic!("a {name} does not decode"));
    assert_eq!(encode(&again), bytes, "a {name} comes back different");
    if inflates && let Some(inflated) = inflate(&bytes, INFLATED_BYTES, random) {
        // Whether it decodes depends on the list.
        let _ = decode::<T>(&inflated);
    }
    for _ in 0..DAMAGES_A_MESSAGE {
        let mut damaged = bytes.clone();
        for _ in 0..random.random_range(1..4) {
            damage(&mut damaged, random);
        }
        round_trip::<T>(&damaged);
    }
}

/// Commands that decode must be applied or refused, and leave a consistent state.
fn check_commands(random: &mut ChaCha8Rng) {
    let mut state = State::new();
    for _ in 0..20 {
        let command: Command = generate::value(random).unwrap();
        // Refusals are as good as changes here.
        let _ = state.apply(&command);
    }
    state.check().unwrap_or_else(|why| panic!("{why}"));
    let snapshot = encode(&Snapshot::from(state.clone()));
    let again = State::from(decode::<Snapshot>(&snapshot).unwrap());
    assert!(again == state, "a state comes back different from its snapshot");
}

/// The largest frame, full of the shortest entries of a list that a client fills.
fn check_largest_frames() {
    let names = ControlRequest::Locate { names: vec!["a".parse().unwrap()], version: None };
    let blobs = ControlRequest::Plan { upload: None, blobs: Vec::new(), exclude: vec![NodeId(1)] };
    let training = Change::TrainStop { models: vec!["m".parse().unwrap()] };
    let models = ControlRequest::Change { op: OpId::random(), change: training };
    for request in [names, blobs, models] {
        let call = encode(&Call { id: 1, request: Request::Control(request.clone()) });
        let random = &mut ChaCha8Rng::seed_from_u64(1);
        for _ in 0..20 {
            // Mostly it is the list that is chosen: other arrays are structs, which have as many fields as they have.
            let full = inflate(&call, FRAME_BYTES_MAX - 1_024, random).unwrap();
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            assert!(decode_body::<Call>(&full).is_err(), "{request:?}");
            let taken = MEMORY.peak_usage().saturating_sub(before);
            assert!(taken <= REQUEST_MEMORY_BESIDES, "{taken} bytes of memory for {request:?}");
        }
    }
}

/// A stream of valid frames that ends in noise must be read up to the noise, and then fail.
fn check_stream(runtime: &tokio::runtime::Runtime, random: &mut ChaCha8Rng) {
    let mut stream = Vec::new();
    let whole = random.random_range(0..4);
    for _ in 0..whole {
        let request: BlobRequest = generate::value(random).unwrap();
        encode_frame(&request, &mut stream).unwrap();
    }
    let mut noise = vec![0; random.random_range(0..100)];
    random.fill_bytes(&mut noise);
    // Mostly a length within the limits, of a body that is not there.
    if random.random() {
        let length: u32 = random.random_range(0..=u32::try_from(FRAME_BYTES_MAX).unwrap());
        noise.splice(0..0, length.to_be_bytes());
    }
    stream.extend(noise);
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let mut reader = &stream[..];
    let mut read = 0;
    while runtime.block_on(read_frame_within::<BlobRequest, _>(&mut reader, HEADER_BYTES_MAX)).is_ok() {
        read += 1;
    }
    assert!(read >= whole, "{read} of {whole} frames came through");
    let taken = MEMORY.peak_usage().saturating_sub(before);
    assert!(taken <= REQUEST_MEMORY_BESIDES, "{taken} bytes of memory for {} of frames", stream.len());
}

/// One test, because the memory is counted for the whole process.
#[test]
fn decoders() {
    check_largest_frames();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for_each_seed("messages::decoders", 4_000, |seed| {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let inflates = seed % INFLATING_SEEDS == 0;
        check::<Hello>(random, inflates);
        check::<HelloReply>(random, inflates);
        check::<Call>(random, inflates);
        check::<Call>(random, inflates);
        check::<Answer>(random, inflates);
        check::<BlobRequest>(random, inflates);
        check::<BlobReply>(random, inflates);
        check::<Datagram>(random, inflates);
        check::<Command>(random, inflates);
        check_commands(random);
        check_stream(&runtime, random);
    });
}
