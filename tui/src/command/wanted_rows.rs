//! Arguments that say which rows of a job's results are wanted.

use clap::Args;

use super::values::RowFormat;

/// Which rows of a job's results are wanted, and how they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct WantedRows {
    /// Print every committed row without checking which one counts
    #[arg(long)]
    pub raw: bool,
    /// Only dead letters: queries that failed for good
    #[arg(long)]
    pub failed: bool,
    /// JSON lines, CSV with a header line, or Parquet with typed columns, which needs LOCAL
    #[arg(long, value_name = "FORMAT", default_value = "jsonl")]
    pub format: RowFormat,
}

impl WantedRows {
    /// Whether one row of each query is wanted.
    pub const fn is_plain(self) -> bool {
        !self.raw && !self.failed
    }
}
