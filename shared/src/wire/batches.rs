//! Batches and leases: how a job's queries are divided among workers, and how running jobs share the workers.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::records::ReadOptions;
use crate::ids::{JobId, Term};
use crate::names::{DatasetName, ParameterName};

/// Most queries in a batch.
pub const BATCH_QUERIES_MAX: u32 = 4096;
/// Most leases of one worker that have not run yet: one that runs and one that waits.
pub const LEASES_PER_WORKER_MAX: usize = 2;
/// Most leases of one worker in all, including those that have run and await their commit. This leaves room for two full
/// segments: one fills while the other is being stored.
pub const LEASES_HELD_MAX: usize = 1024;
/// Batches after which a segment is committed, however few rows it has. The two flushes of a commit, on four disks each,
/// then cost little beside leasing the batches, and the worker still has room for further leases.
pub const SEGMENT_BATCHES: usize = 384;
/// Largest weight of a job; the smallest is 1.
pub const WEIGHT_MAX: u32 = 1000;

/// How many queries a batch has. Encoded as a number, with 0 for [`Self::Auto`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
pub enum BatchSize {
    /// This many, at most [`BATCH_QUERIES_MAX`].
    Fixed(NonZeroU32),
    /// Chosen by the coordinator for each worker, from measured inference times.
    Auto,
}

impl From<u32> for BatchSize {
    fn from(queries: u32) -> Self {
        NonZeroU32::new(queries).map_or(Self::Auto, Self::Fixed)
    }
}

impl From<BatchSize> for u32 {
    fn from(size: BatchSize) -> Self {
        match size {
            BatchSize::Fixed(queries) => queries.get(),
            BatchSize::Auto => 0,
        }
    }
}

impl fmt::Display for BatchSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(queries) => queries.fmt(f),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// The text is not a batch size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not a batch size: use 1 to {BATCH_QUERIES_MAX}, or auto")]
pub struct BatchSizeError(String);

impl FromStr for BatchSize {
    type Err = BatchSizeError;

    fn from_str(text: &str) -> Result<Self, BatchSizeError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let queries = text.parse().ok().filter(|queries: &NonZeroU32| queries.get() <= BATCH_QUERIES_MAX);
        queries.map(Self::Fixed).ok_or_else(|| BatchSizeError(text.to_owned()))
    }
}

/// How workers are shared between running jobs, in proportion to the jobs' weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// Equal query rates, whatever a query costs.
    #[default]
    Rate,
    /// Equal shares of the workers' time.
    Time,
    /// No sharing: the oldest job gets all workers that can serve it.
    Fifo,
}

/// A range of consecutive queries in a job's manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueryRange {
    /// Number of the first query, from 0.
    pub first: u64,
    /// Number of queries, at least 1.
    pub count: u32,
}

impl QueryRange {
    /// One past the number of the last query.
    pub const fn end(self) -> u64 {
        self.first.saturating_add(self.count as u64)
    }

    /// The numbers of its queries.
    pub const fn queries(self) -> Range<u64> {
        self.first..self.end()
    }
}

/// Parameters of a job for its model, as text. The model server knows their types.
pub type Parameters = BTreeMap<ParameterName, String>;

/// The right to run one batch. A worker loses it when it expires, when the worker dies and when a higher term begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The job that the batch is part of.
    pub job: JobId,
    /// The queries of the batch.
    pub range: QueryRange,
    /// How often the first query of the range has been leased, including this time; from 1.
    pub attempt: u32,
    /// Term of the coordinator that granted the lease.
    pub term: Term,
}

/// The form in which coordinator and worker log a lease: job, first and last query, attempt, term.
impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, range, attempt, term } = self;
        write!(f, "{job}:{}-{}:{attempt}:{term}", range.first, range.end().saturating_sub(1))
    }
}

/// What a model is trained from. On one kind of processor the same training gives the same artefact, byte for byte.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Training {
    /// Seed of the training's randomness.
    pub seed: u64,
    /// Dataset of labelled examples; `None` for a model that brings its own.
    #[serde(default)]
    pub dataset: Option<DatasetName>,
    /// How the dataset is read, if it is a file of records.
    #[serde(default, skip_serializing_if = "ReadOptions::is_default")]
    pub reading: ReadOptions,
}

impl fmt::Display for Training {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.dataset {
            Some(dataset) => write!(f, "seed {} and dataset {dataset}", self.seed),
            None => write!(f, "seed {}", self.seed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_sizes_are_numbers_or_auto_and_travel_as_numbers() {
        for text in ["1", "32", "4096", "auto"] {
            let size: BatchSize = text.parse().unwrap();
            assert_eq!(size.to_string(), text);
            let bytes = rmp_serde::to_vec(&size).unwrap();
            assert_eq!(bytes, rmp_serde::to_vec(&u32::from(size)).unwrap());
            assert_eq!(rmp_serde::from_slice::<BatchSize>(&bytes).unwrap(), size);
        }
        for text in ["0", "4097", "-1", "Auto", ""] {
            let error = text.parse::<BatchSize>().unwrap_err();
            assert_eq!(error.to_string(), format!("'{text}' is not a batch size: use 1 to 4096, or auto"));
        }
    }
}
