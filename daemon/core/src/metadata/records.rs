//! The queries of a job over the records of one file: where they are, and how they are read.
//!
//! Invariants: the blocks are in order, the first starts at query 0, and each lies within the file.
//! Bounds: a block for every few dozen records; records of at most [`RECORD_BYTES_MAX`].

use std::ops::Range;
use std::sync::Arc;

use idunno_shared::names::FileName;
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::jobs::RecordFormat;
use idunno_shared::wire::records::ParquetLayout;
use serde::{Deserialize, Serialize};

use super::OneOrMany;

/// Largest record, in bytes.
pub const RECORD_BYTES_MAX: u64 = 16 << 20;

/// Where consecutive records start; they end where the next block starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The number of the first record.
    pub first: u64,
    /// The byte offset of the first record in the file.
    pub at: u64,
    /// How many lines of the file begin before it, beyond one for each record before it: the header, empty lines, further
    /// lines of records.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub extra_lines: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The queries of a job over the records of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// The file's name.
    pub file: Arc<FileName>,
    /// How to read the records.
    pub format: RecordFormat,
    /// The file's extents at the start of the job, in order.
    pub extents: OneOrMany<BlobRef>,
    /// Where the records are.
    pub blocks: Vec<Block>,
    /// The number of records.
    pub count: u64,
}

/// The part of a file of records that contains certain ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSpan {
    /// The extents in which it lies, in order.
    pub extents: Vec<BlobRef>,
    /// Bytes of the first extent before it.
    pub skip_bytes: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Records in it before the first of them.
    pub skip: u32,
    /// The line of the file in which it starts, from 1.
    pub line: u64,
    /// Bytes of the file before its first extent.
    pub extents_at: u64,
}

/// The blocks that contain certain records.
struct BlockBounds {
    /// The byte offsets in the file between which they lie.
    from: u64,
    to: u64,
    /// The number of the first record in them.
    first: u64,
    /// The line in which that starts, from 1.
    line: u64,
}

/// Records that are always read together.
struct RecordBlock {
    /// Their numbers.
    records: Range<u64>,
    /// What a record takes of a reader's memory: its share of the block, which is always read whole.
    bytes_each: u64,
}

impl Records {
    /// Whether the records can be found.
    pub(super) fn has_places(&self) -> bool {
        !self.extents.is_empty()
    }

    /// What is left once no query needs a record: how they were read, and how many there are.
    pub(super) fn without_places(&self) -> Self {
        let Self { file, format, count, .. } = self;
        let (file, format, count) = (Arc::clone(file), format.clone(), *count);
        Self { file, format, extents: OneOrMany::default(), blocks: Vec::new(), count }
    }

    /// The name of a record: the file and the record's number from 1. `None` beyond the records.
    pub fn name(&self, index: u64) -> Option<FileName> {
        if index >= self.count {
            return None;
        }
        format!("{}:{}", self.file, index + 1).parse().ok()
    }

    fn bounds(&self, range: &Range<u64>) -> BlockBounds {
        let first = self.blocks.partition_point(|block| block.first <= range.start).saturating_sub(1);
        let next = self.blocks.partition_point(|block| block.first < range.end);
        let begin = self.blocks.get(first).copied().unwrap_or(Block { first: 0, at: 0, extra_lines: 0 });
        let to = self.blocks.get(next).map_or_else(|| self.file_bytes(), |block| block.at);
        let line = begin.first.saturating_add(begin.extra_lines).saturating_add(1);
        BlockBounds { from: begin.at, to, first: begin.first, line }
    }

    /// What reading each of these records takes of a reader's memory, in bytes, with what lies between it and the one before,
    /// which is read, too. They are in order.
    pub fn bytes_of_each(&self, records: impl Iterator<Item = u64>) -> impl Iterator<Item = u64> {
        let (mut block, mut next) = (RecordBlock { records: 0..0, bytes_each: 0 }, None);
        records.map(move |record| {
            if !block.records.contains(&record) {
                block = self.block_of(record);
            }
            let count = record + 1 - next.replace(record + 1).unwrap_or(record);
            block.bytes_each.saturating_mul(count)
        })
    }

    /// Of rows of Parquet, which is compressed, the bytes are those that the footer says.
    fn block_of(&self, record: u64) -> RecordBlock {
        let BlockBounds { from, to, first, .. } = self.bounds(&(record..record + 1));
        let next = self.blocks.partition_point(|block| block.first <= record);
        let end = self.blocks.get(next).map_or(self.count, |block| block.first);
        let bytes_each = match self.format {
            RecordFormat::Parquet(ParquetLayout { row_bytes, .. }) => row_bytes,
            _ => to.saturating_sub(from).div_ceil(end.saturating_sub(first).max(1)),
        };
        RecordBlock { records: first..end, bytes_each }
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.size).sum()
    }

    /// The last so many bytes of the file: the extents in which they lie, and the bytes of the first before them.
    pub fn end(&self, bytes: u64) -> (Vec<BlobRef>, u64) {
        let (mut extents, mut held) = (Vec::new(), 0);
        for extent in self.extents.iter().rev() {
            if held >= bytes {
                break;
            }
            held += extent.size;
            extents.push(*extent);
        }
        extents.reverse();
        (extents, held.saturating_sub(bytes))
    }

    /// Where these records are.
    pub fn span(&self, range: &Range<u64>) -> RecordSpan {
        let BlockBounds { from, to, first, line } = self.bounds(range);
        let mut span = RecordSpan {
            extents: Vec::new(),
            skip_bytes: 0,
            bytes: to.saturating_sub(from),
            skip: u32::try_from(range.start.saturating_sub(first)).unwrap_or(u32::MAX),
            line,
            extents_at: 0,
        };
        let mut start = 0;
        for extent in &*self.extents {
            let end = start + extent.size;
            if start < to && end > from {
                if span.extents.is_empty() {
                    (span.skip_bytes, span.extents_at) = (from - start, start);
                }
                span.extents.push(*extent);
            }
            start = end;
        }
        span
    }
}

#[cfg(test)]
mod tests {
    use idunno_shared::ids::Digest;
    use idunno_shared::wire::records::ColumnNames;

    use super::*;

    fn records(sizes: &[u64], blocks: &[(u64, u64)], count: u64) -> Records {
        let extent = |(number, &size): (usize, &u64)| BlobRef {
            digest: Digest::of(&[u8::try_from(number).unwrap()]),
            size,
        };
        Records {
            file: Arc::new("d.jsonl".parse().unwrap()),
            format: RecordFormat::Jsonl,
            extents: sizes.iter().enumerate().map(extent).collect(),
            blocks: blocks.iter().map(|&(first, at)| Block { first, at, extra_lines: 0 }).collect(),
            count,
        }
    }

    #[test]
    fn a_span_covers_the_blocks_of_its_queries_only() {
        let records = records(&[100, 100], &[(0, 10), (4, 60), (8, 150)], 10);
        let span = |first, count| {
            let span = records.span(&(first..first + count));
            (span.extents.len(), span.skip_bytes, span.bytes, span.skip)
        };
        assert_eq!(span(0, 4), (1, 10, 50, 0));
        assert_eq!(span(3, 2), (2, 10, 140, 3));
        assert_eq!(span(5, 3), (2, 60, 90, 1));
        assert_eq!(span(9, 1), (1, 50, 50, 1));
        assert_eq!(span(0, 10), (2, 10, 190, 0));
        // Between 4 and 9 lie four others.
        let bytes: Vec<u64> = records.bytes_of_each([3, 4, 9].into_iter()).collect();
        assert_eq!(bytes, [13, 23, 5 * 25]);
        assert_eq!(records.name(9).unwrap().as_str(), "d.jsonl:10");
        assert_eq!(records.name(10), None);
        assert_eq!((records.span(&(9..10)).extents_at, records.span(&(0..1)).extents_at), (100, 0));
        let end = |bytes| {
            let (extents, skip) = records.end(bytes);
            (extents.len(), skip)
        };
        assert_eq!((end(8), end(100), end(101)), ((1, 92), (1, 0), (2, 99)));
    }

    #[test]
    fn a_row_of_parquet_takes_what_it_takes_decompressed() {
        let layout = ParquetLayout {
            columns: ColumnNames::default(),
            keep: Vec::new(),
            footer_bytes: 20,
            row_bytes: 70_000,
        };
        let records = Records { format: RecordFormat::Parquet(layout), ..records(&[100], &[(0, 4)], 10) };
        assert_eq!(records.bytes_of_each(3..4).next(), Some(70_000));
    }
}
