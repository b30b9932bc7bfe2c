//! The blocks of the records seen so far.
//!
//! Bounds: records of at most [`RECORD_BYTES_MAX`], at most [`QUERIES_PER_JOB_MAX`] of them; a block per [`BLOCK_RECORDS`]
//! records or [`BLOCK_BYTES`], or a power of two times that, so that there are at most [`BLOCKS_MAX`].

use idunno_core::metadata::{Block, QUERIES_PER_JOB_MAX, RECORD_BYTES_MAX};

use super::index_error::RecordIndexError;

pub(super) const BLOCK_RECORDS: u64 = 64;
/// A block of this size takes no further record.
const BLOCK_BYTES: u64 = 256 << 10;
/// Most blocks: beyond, each becomes twice as large. They are committed to the metadata log as one command.
pub const BLOCKS_MAX: usize = 65_536;

/// A place in a file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// Bytes before it.
    pub(super) offset: u64,
    /// Lines that end before it.
    pub(super) lines: u64,
}

#[derive(Debug, Default)]
pub(super) struct BlockList {
    pub(super) list: Vec<Block>,
    pub(super) count: u64,
    /// Where the next record begins.
    next: Place,
    /// How often the size of a block was doubled.
    doublings: u32,
}

impl BlockList {
    /// The first record begins here.
    pub(super) fn begin(&mut self, at: Place) {
        self.next = at;
    }

    /// Adds a record that ends at `end`.
    pub(super) fn end_record(&mut self, end: Place) -> Result<(), RecordIndexError> {
        let Place { offset: at, lines } = self.next;
        let factor = 1 << self.doublings;
        let full = |last: &Block| {
            self.count - last.first >= BLOCK_RECORDS * factor || at - last.at >= BLOCK_BYTES * factor
        };
        if self.list.last().is_none_or(full) {
            let extra_lines = lines.saturating_sub(self.count);
            self.list.push(Block { first: self.count, at, extra_lines });
        }
        if self.list.len() > BLOCKS_MAX {
            self.merge_pairs();
        }
        self.count += 1;
        self.next = end;
        if self.count > QUERIES_PER_JOB_MAX { Err(RecordIndexError::TooMany) } else { Ok(()) }
    }

    /// Merges each block with the next one, and makes the blocks that follow twice as large.
    fn merge_pairs(&mut self) {
        let mut number = 0;
        self.list.retain(|_| {
            number += 1;
            number % 2 == 1
        });
        self.doublings += 1;
    }

    /// Refuses a record that is too long. It begins in `line`, and is read up to `offset`.
    pub(super) fn check_length(&self, offset: u64, line: u64) -> Result<(), RecordIndexError> {
        let is_long = offset.saturating_sub(self.next.offset) > RECORD_BYTES_MAX;
        if is_long { Err(RecordIndexError::TooLong { line }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_blocks_is_bounded() {
        let mut blocks = BlockList::default();
        let end = |offset| Place { offset, lines: offset };
        let records = BLOCKS_MAX as u64 * BLOCK_RECORDS;
        (1..=records).for_each(|at| blocks.end_record(end(at)).unwrap());
        assert_eq!(blocks.list.len(), BLOCKS_MAX);
        (records + 1..=3 * records).for_each(|at| blocks.end_record(end(at)).unwrap());
        assert!(blocks.list.len() <= BLOCKS_MAX, "{}", blocks.list.len());
        let sizes = blocks.list.windows(2).map(|pair| pair[1].first - pair[0].first);
        assert!(sizes.into_iter().all(|size| size == 4 * BLOCK_RECORDS), "all are four times as large");
    }
}
