//! A stream of frames, as an unknown peer may send it before and after its hello: read to its end or to the first mistake.
#![no_main]

use std::sync::LazyLock;

use idunno_shared::client::frames::read_frame_within;
use idunno_shared::wire::frame::{Call, HEADER_BYTES_MAX, Hello};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

fuzz_target!(|bytes: &[u8]| {
    RUNTIME.block_on(async {
        let mut reader = bytes;
        if read_frame_within::<Hello, _>(&mut reader, HEADER_BYTES_MAX).await.is_err() {
            return;
        }
        while read_frame_within::<Call, _>(&mut reader, HEADER_BYTES_MAX).await.is_ok() {}
    });
});
