//! A records file: its index is the same for any pieces in which it arrives, and each block of it has the records that the
//! index counts.
#![no_main]

use bytes::Bytes;
use idunno_core::metadata::{FileKind, Inputs};
use idunno_shared::ids::Digest;
use idunno_shared::wire::records::ReadOptions;
use idunno_worker::records::{self, Span, record_index::RecordIndex};
use libfuzzer_sys::fuzz_target;

const WHOLE: Span = Span { line: 1, skip: 0, count: usize::MAX };

fn index(kind: FileKind, bytes: &[u8], piece: usize) -> Result<Inputs, String> {
    let mut index = RecordIndex::new(kind, ReadOptions::default());
    for piece in bytes.chunks(piece.max(3)) {
        index.take(piece).map_err(|error| error.to_string())?;
    }
    index.finish(Digest::of(bytes)).map_err(|error| error.to_string())
}

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (kind, piece, bytes) = input;
    let kind = [FileKind::Jsonl, FileKind::Csv, FileKind::List, FileKind::Tsv][usize::from(kind) % 4];
    let whole = index(kind, bytes, bytes.len());
    let pieces = index(kind, bytes, usize::from(piece));
    assert_eq!(whole.is_ok(), pieces.is_ok(), "{whole:?} {pieces:?}");
    let Ok(Inputs::Records { format, count, blocks, .. }) = whole else { return };
    let ends = blocks.iter().skip(1).map(|next| (next.first, next.at)).chain([(count, bytes.len() as u64)]);
    for (block, (end, end_at)) in blocks.iter().zip(ends) {
        let [from, to] = [block.at, end_at].map(|at| usize::try_from(at).expect("an offset in memory"));
        let records = records::read(&format, &Bytes::copy_from_slice(&bytes[from..to]), WHOLE);
        assert_eq!(records.len() as u64, end - block.first, "the index counts other records than are read");
    }
});
