//! A log of commands, each behind its length in two bytes: each is applied or refused, and the state stays consistent and
//! comes back from its snapshot.
#![no_main]

use idunno_core::metadata::{Command, Snapshot, State};
use idunno_shared::wire::frame::decode_body;
use idunno_tests::decoders::{MEMORY, decode};
use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = MEMORY;

fuzz_target!(|bytes: &[u8]| {
    let (mut state, mut rest) = (State::new(), bytes);
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let (command, tail) = tail.split_at(usize::from(u16::from_le_bytes(*length)).min(tail.len()));
        if let Ok(command) = decode_body::<Command>(command) {
            // A refusal is as good as a change here.
            let _ = state.apply(&command);
        }
        rest = tail;
    }
    state.check().unwrap_or_else(|why| panic!("{why}"));
    let snapshot = Snapshot::from(state.clone());
    let bytes = idunno_tests::decoders::encode(&snapshot);
    let again = State::from(decode::<Snapshot>(&bytes).expect("a snapshot decodes"));
    assert!(again == state, "a state comes back different from its snapshot");
});
