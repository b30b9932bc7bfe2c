//! A file's footer, and what it says of the row groups.

use std::ops::Range;
use std::sync::Arc;

use idunno_shared::wire::records::{ParquetLayout, ReadOptions};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::Compression;
use parquet::file::metadata::{
    ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};

use super::columns::Columns;
use super::{RowGroup, TAIL_BYTES, footer_bytes};
use crate::error::{GROUP_BYTES_MAX, ReadError};

/// A file's footer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Footer {
    pub(super) metadata: ArrowReaderMetadata,
    pub(super) columns: Columns,
    bytes: u64,
}

/// Rows of one row group.
#[derive(Clone, Debug)]
pub(super) struct GroupRows {
    pub(super) group: usize,
    /// The number of the group's first row in the file.
    pub(super) first: u64,
    /// The rows in the group, in order.
    pub(super) rows: Vec<usize>,
}

impl Footer {
    /// Reads the footer with which these bytes end.
    pub fn read(end: &[u8]) -> Result<Self, ReadError> {
        let bytes = footer_bytes(end)?;
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        let start = end.len().checked_sub(length).ok_or(ReadError::NoFooter)?;
        let broken = |error: parquet::errors::ParquetError| ReadError::Footer(error.to_string());
        let footer = &end[start..end.len() - TAIL_BYTES];
        let metadata: ParquetMetaData = ParquetMetaDataReader::decode_metadata(footer).map_err(broken)?;
        // Types as Parquet has them: what else a program noted is its own affair.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), options).map_err(broken)?;
        let columns = Columns::of(&metadata);
        Ok(Self { metadata, columns, bytes })
    }

    fn row_groups(&self) -> &[RowGroupMetaData] {
        self.metadata.metadata().row_groups()
    }

    /// What the columns mean if these options ask for it.
    pub fn layout(&self, options: &ReadOptions) -> Result<ParquetLayout, ReadError> {
        let mut layout = self.columns.layout(options)?;
        let roots = self.columns.roots(&layout);
        let row_bytes = |group: &RowGroupMetaData| {
            let bytes: u64 = self.chunks_of(group, &roots).map(|chunk| size(chunk.uncompressed_size())).sum();
            bytes.div_ceil(row_count(group).max(1))
        };
        for chunk in self.row_groups().iter().flat_map(|group| self.chunks_of(group, &roots)) {
            if matches!(chunk.compression(), Compression::LZO) {
                let column = chunk.column_path().string();
                return Err(ReadError::Codec { column, codec: String::from("LZO") });
            }
        }
        layout.row_bytes = self.row_groups().iter().map(row_bytes).max().unwrap_or(0);
        layout.footer_bytes = self.bytes;
        Ok(layout)
    }

    /// The row groups that have rows, of a file of so many bytes.
    pub fn groups(&self, layout: &ParquetLayout, file_bytes: u64) -> Result<Vec<RowGroup>, ReadError> {
        let roots = self.columns.roots(layout);
        let data_end = file_bytes.saturating_sub(self.bytes);
        let (mut groups, mut first, mut end) = (Vec::new(), 0_u64, 0);
        for (number, group) in self.row_groups().iter().enumerate().map(|(at, group)| (at + 1, group)) {
            let rows = u64::try_from(group.num_rows()).map_err(|_| ReadError::Outside { group: number })?;
            if rows == 0 {
                continue;
            }
            let ranges: Option<Vec<Range<u64>>> = self.chunks_of(group, &roots).map(range).collect();
            let ranges = ranges.ok_or(ReadError::Outside { group: number })?;
            let at = ranges.iter().map(|range| range.start).min().unwrap_or(end);
            let group_end = ranges.iter().map(|range| range.end).max().unwrap_or(at);
            if group_end > data_end {
                return Err(ReadError::Outside { group: number });
            }
            if at < end {
                return Err(ReadError::Order { group: number });
            }
            let bytes = ranges.iter().map(|range| range.end - range.start).fold(0, u64::saturating_add);
            if bytes > GROUP_BYTES_MAX {
                return Err(ReadError::LargeGroup { group: number, bytes });
            }
            groups.push(RowGroup { first, at });
            first = first.checked_add(rows).ok_or(ReadError::Outside { group: number })?;
            end = group_end.max(at + 1);
        }
        Ok(groups)
    }

    /// How many rows the file has.
    pub fn row_count(&self) -> u64 {
        self.row_groups().iter().map(row_count).fold(0, u64::saturating_add)
    }

    /// The bytes of the file that hold these rows, in the columns that are read. The rows are in order.
    pub fn chunks(&self, layout: &ParquetLayout, rows: &[u64]) -> Vec<Range<u64>> {
        let roots = self.columns.roots(layout);
        let groups = self.by_group(rows).into_iter().filter_map(|rows| self.row_groups().get(rows.group));
        groups.flat_map(|group| self.chunks_of(group, &roots)).filter_map(range).collect()
    }

    /// The column chunks of a row group that hold these columns.
    fn chunks_of<'a>(
        &'a self,
        group: &'a RowGroupMetaData,
        roots: &'a [usize],
    ) -> impl Iterator<Item = &'a ColumnChunkMetaData> {
        let schema = self.metadata.parquet_schema();
        let is_read = move |(leaf, _): &(usize, _)| roots.contains(&schema.get_column_root_idx(*leaf));
        group.columns().iter().enumerate().filter(is_read).map(|(_, chunk)| chunk)
    }

    /// These rows by the row groups in which they are. Rows beyond the file are in none.
    pub(super) fn by_group(&self, rows: &[u64]) -> Vec<GroupRows> {
        let (mut found, mut rest, mut first) = (Vec::new(), rows, 0);
        for (group, metadata) in self.row_groups().iter().enumerate() {
            let end = first + row_count(metadata);
            let (here, later) = rest.split_at(rest.partition_point(|row| *row < end));
            if !here.is_empty() {
                let rows =
                    here.iter().map(|row| usize::try_from(row - first).unwrap_or(usize::MAX)).collect();
                found.push(GroupRows { group, first, rows });
            }
            (rest, first) = (later, end);
        }
        found
    }
}

fn size(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}

fn row_count(group: &RowGroupMetaData) -> u64 {
    size(group.num_rows())
}

/// Where a column chunk lies; `None` if it lies in another file, or nowhere.
fn range(chunk: &ColumnChunkMetaData) -> Option<Range<u64>> {
    if chunk.file_path().is_some() {
        return None;
    }
    let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
    let (start, bytes) = (u64::try_from(start).ok()?, u64::try_from(chunk.compressed_size()).ok()?);
    Some(start..start.checked_add(bytes)?)
}
