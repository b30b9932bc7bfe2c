//! What can go wrong with a Parquet file.

use thiserror::Error;

/// Largest footer that is read, in bytes.
pub const FOOTER_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of a row group, compressed, in the columns that are read: a reader has them in memory at once.
pub const GROUP_BYTES_MAX: u64 = 256 << 20;
/// Most bytes of the rows that are read at once, decompressed.
pub const ROWS_BYTES_MAX: usize = 256 << 20;
/// Deepest lists and structs that are read.
pub const LEVELS_MAX: usize = 64;

/// A file is no dataset. Row groups are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The program has no code for Parquet.
    #[error(
        "this program was built without Parquet: install IDunno's Debian package or its wheel, or build it with \
         --features parquet"
    )]
    NotBuilt,
    /// It does not end as such files do.
    #[error("it is no Parquet file, or its end is missing: it does not end with 'PAR1'")]
    NoFooter,
    /// Its footer cannot be read without a key.
    #[error("it is encrypted: write it without encryption")]
    Encrypted,
    /// Its footer is larger than any that is read.
    #[error(
        "its footer has {bytes} bytes, but may have {FOOTER_BYTES_MAX}: write fewer columns or row groups"
    )]
    LargeFooter {
        /// Bytes of the footer.
        bytes: u64,
    },
    /// Its footer is damaged.
    #[error("its footer cannot be read: {0}")]
    Footer(String),
    /// It lacks a column that a job needs.
    #[error("it has no column '{name}'; its columns are: {found}. --input-column names the input")]
    NoColumn {
        /// The column.
        name: String,
        /// Those that it has, with their types.
        found: String,
    },
    /// A name is that of several columns.
    #[error("it has several columns '{name}': rename all but one")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// The name of a column that is kept is longer than such names may be.
    #[error("the name of column {number} is too long to come back in the rows: name the columns to --keep")]
    LongName {
        /// The column's number, from 1.
        number: usize,
    },
    /// More columns are kept than a job may keep.
    #[error("it has too many columns to bring all back in the rows: name them with --keep")]
    ManyKept,
    /// A column has values for which there is no JSON.
    #[error(
        "its column '{column}' has the type {kind}, which is not read: leave it out, or write it as another"
    )]
    Type {
        /// The column.
        column: String,
        /// Its type.
        kind: String,
    },
    /// A column is compressed in a way that is not read.
    #[error(
        "its column '{column}' is compressed with {codec}, which is not read: write it with zstd, for example"
    )]
    Codec {
        /// The column.
        column: String,
        /// How it is compressed.
        codec: String,
    },
    /// A column lies outside of the file.
    #[error("row group {group} lies outside of the file, which is damaged or has its columns in other files")]
    Outside {
        /// The row group.
        group: usize,
    },
    /// Row groups lie one within the other, or not in their order.
    #[error("row group {group} does not lie behind the one before it: write the file again")]
    Order {
        /// The row group.
        group: usize,
    },
    /// A row group is larger than a reader keeps in memory.
    #[error(
        "row group {group} has {bytes} bytes in the columns that are read, but may have {GROUP_BYTES_MAX}: write smaller row \
         groups, for example with row_group_size=50000 of pandas.DataFrame.to_parquet"
    )]
    LargeGroup {
        /// The row group.
        group: usize,
        /// Its bytes.
        bytes: u64,
    },
}

/// A row has no input. Rows and row groups are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RowError {
    /// Its input is null.
    #[error("row {row} has no input: its column '{column}' is null")]
    Null {
        /// The row.
        row: u64,
        /// The column of the input.
        column: String,
    },
    /// Its input has numbers that JSON does not have.
    #[error("row {row} has no input: its column '{column}' has NaN or an infinity, which JSON does not have")]
    NotFinite {
        /// The row.
        row: u64,
        /// The column of the input.
        column: String,
    },
    /// The row group is damaged.
    #[error("row {row} cannot be read: row group {group}: {why}")]
    Group {
        /// The row.
        row: u64,
        /// The row group.
        group: usize,
        /// What is wrong with it.
        why: String,
    },
    /// It and the rows before it are too large to be read at once.
    #[error(
        "row {row} and those before it in its batch have more than {ROWS_BYTES_MAX} bytes: choose smaller batches with \
         set-batch-size"
    )]
    Large {
        /// The row.
        row: u64,
    },
    /// The file has no such row.
    #[error("there is no row {row}")]
    Missing {
        /// The row.
        row: u64,
    },
}

/// Results cannot be written as Parquet.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The program has no code for Parquet.
    #[error(
        "this program was built without Parquet: install IDunno's Debian package or its wheel, or build it with \
         --features parquet; --format csv and jsonl need nothing"
    )]
    NotBuilt,
    /// A row is no row of results.
    #[error("a row is not JSON: {0}")]
    Row(#[from] serde_json::Error),
    /// A row differs from those whose types were found.
    #[error("a row has changed while it was written: column '{column}' has {value}")]
    Changed {
        /// The column.
        column: String,
        /// The row's value there.
        value: String,
    },
    /// The library that writes it refused.
    #[error("cannot write Parquet: {0}")]
    Library(String),
    /// The file took no more bytes.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
