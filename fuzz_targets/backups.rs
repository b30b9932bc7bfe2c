//! A backup file: it is read as it was written, or refused with its path. Its digest is made right, so that what lies behind
//! it is reached.
#![no_main]

use std::fs;

use idunno_core::metadata::Snapshot;
use idunno_shared::backup;
use idunno_shared::ids::Digest;
use idunno_tests::decoders::{MEMORY, round_trip};
use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: PeakAlloc = MEMORY;

thread_local! {
    static DIR: TempDir = TempDir::new().expect("a directory");
}

fuzz_target!(|bytes: &[u8]| {
    let mut file = bytes.to_vec();
    file.extend_from_slice(&Digest::of(bytes).0);
    DIR.with(|dir| {
        let path = dir.path().join("backup");
        fs::write(&path, file).expect("written");
        match backup::read(&path) {
            Ok((about, state)) => {
                let again = backup::encode(about, &state).expect("encoded");
                fs::write(&path, again).expect("written");
                assert_eq!(backup::read(&path).expect("read again").1, state);
                round_trip::<Snapshot>(&state);
            }
            Err(error) => assert!(error.to_string().contains("backup"), "{error}"),
        }
    });
});
