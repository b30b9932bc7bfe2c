//! Arguments that say what a new job is like.

use clap::Args;
use clap::builder::RangedI64ValueParser;
use idunno_shared::names::JobName;
use idunno_shared::wire::jobs::WEIGHT_MAX;

use super::reading::{KeptColumns, Reading};
use super::values::Parameter;

/// What a new job is like.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct Adding {
    /// A name for the job, usable in place of its number
    #[arg(long, value_name = "TEXT")]
    pub name: Option<JobName>,
    /// The job's weight when workers are shared between jobs [default: 1]
    #[arg(long, value_name = "W", value_parser = weight())]
    pub weight: Option<u32>,
    /// A parameter for the model; may be given several times
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub parameters: Vec<Parameter>,
    #[command(flatten)]
    pub reading: Reading,
    /// Other columns that come back in the rows: 'all', or names with commas between them
    #[arg(long, value_name = "COLS")]
    pub keep: Option<KeptColumns>,
}

/// A weight that a job may have.
pub(super) fn weight() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(WEIGHT_MAX))
}
