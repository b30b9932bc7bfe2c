//! Finds the rows of a Parquet file in its footer: a block is a row group, or several.
//!
//! Bounds: a footer of at most [`idunno_columnar::FOOTER_BYTES_MAX`]; [`BLOCKS_MAX`] blocks.

use idunno_columnar::records::{Footer, RowGroup};
use idunno_core::metadata::{Block, Inputs, QUERIES_PER_JOB_MAX};
use idunno_shared::ids::Digest;
use idunno_shared::wire::jobs::RecordFormat;
use idunno_shared::wire::records::ReadOptions;

use super::blocks::BLOCKS_MAX;
use super::index_error::RecordIndexError;

/// Bytes at the end of the file that [`index`] needs, if `end` has fewer; `None` if it has enough.
pub fn missing_bytes(end: &[u8], file_bytes: u64) -> Result<Option<u64>, RecordIndexError> {
    let held = end.len() as u64;
    let wanted = if held < idunno_columnar::records::TAIL_BYTES as u64 {
        idunno_columnar::records::TAIL_BYTES as u64
    } else {
        idunno_columnar::records::footer_bytes(end)?
    };
    if wanted <= held {
        return Ok(None);
    }
    if held >= file_bytes { Err(idunno_columnar::ReadError::NoFooter.into()) } else { Ok(Some(wanted)) }
}

/// Indexes a file of so many bytes that ends with `end`, and whose content has this digest.
pub fn index(
    options: &ReadOptions,
    end: &[u8],
    file_bytes: u64,
    digest: Digest,
) -> Result<Inputs, RecordIndexError> {
    if options.is_of_csv() {
        return Err(RecordIndexError::NotCsv);
    }
    let footer = Footer::read(end)?;
    let layout = footer.layout(options)?;
    let groups = footer.groups(&layout, file_bytes)?;
    let count = footer.row_count();
    if count > QUERIES_PER_JOB_MAX {
        return Err(RecordIndexError::TooMany);
    }
    Ok(Inputs::Records { digest, format: RecordFormat::Parquet(layout), count, blocks: blocks(&groups) })
}

/// A block for each row group, or for as many as it takes for there to be few enough.
fn blocks(groups: &[RowGroup]) -> Vec<Block> {
    let step = groups.len().div_ceil(BLOCKS_MAX).max(1);
    let block = |group: &RowGroup| Block { first: group.first, at: group.at, extra_lines: 0 };
    groups.iter().step_by(step).map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_blocks_is_bounded() {
        let groups: Vec<RowGroup> =
            (0..=BLOCKS_MAX as u64).map(|at| RowGroup { first: 2 * at, at: 4 + at }).collect();
        let blocks = blocks(&groups);
        assert_eq!(blocks.len(), BLOCKS_MAX / 2 + 1);
        assert_eq!(blocks[1], Block { first: 4, at: 6, extra_lines: 0 });
    }

    #[cfg(not(feature = "parquet"))]
    #[test]
    fn a_program_without_parquet_says_what_to_install() {
        let refused = missing_bytes(b"PAR1....PAR1", 12).unwrap_err().to_string();
        assert!(refused.contains("was built without Parquet: install"), "{refused}");
    }

    #[cfg(feature = "parquet")]
    #[test]
    fn the_end_of_the_file_is_asked_for_until_it_has_the_footer() {
        let end = |length: u32| [&[0; 10][..], &length.to_le_bytes(), b"PAR1"].concat();
        assert_eq!(missing_bytes(b"AR1", 100).unwrap(), Some(8));
        assert_eq!(missing_bytes(&end(60), 100).unwrap(), Some(68));
        assert_eq!(missing_bytes(&end(10), 100).unwrap(), None);
        for (end, says) in
            [(end(60), "its end is missing"), (b"PAR1\n{\"a\":1}".to_vec(), "its end is missing")]
        {
            let refused = missing_bytes(&end, end.len() as u64).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
