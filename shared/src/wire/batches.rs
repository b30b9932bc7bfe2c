//! What workers are given of a job: batches of its queries, and the right to run one; how large they are, and what jobs
//! share the workers by.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{JobId, Term};
use crate::names::{DatasetName, ParameterName};

/// Largest batch, in queries.
pub const BATCH_QUERIES_MAX: u32 = 4096;
/// Most leases of one worker that are at work: one that runs and one that waits.
pub const LEASES_PER_WORKER_MAX: usize = 2;
/// Most leases of one worker in all, those that have run and await their commit included: room for two segments, of
/// which one fills while the other is stored, and more.
pub const LEASES_HELD_MAX: usize = 1024;
/// So many batches make a segment due, however few rows they have. Its two flushes, on four disks each, are then little beside
/// what leasing the batches costs, and its worker still has room for further leases.
pub const SEGMENT_BATCHES: usize = 384;
/// Largest weight of a job.
pub const WEIGHT_MAX: u32 = 1000;

/// How many queries a batch has. On the wire and in the log a number, where 0 stands for auto.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
pub enum BatchSize {
    /// So many; at most [`BATCH_QUERIES_MAX`].
    Fixed(NonZeroU32),
    /// As many as are best at each worker: the coordinator finds out.
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

/// What is no batch size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is no batch size: 1 to {BATCH_QUERIES_MAX}, or auto")]
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

/// In what jobs that run at once are equal, each by its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// In answers per second, whatever their queries cost.
    #[default]
    Rate,
    /// In the workers' time.
    Time,
    /// In nothing: the oldest job has all workers that can serve it.
    Fifo,
}

/// Consecutive queries of a job's manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueryRange {
    /// The first query's number, from 0.
    pub first: u64,
    /// How many; at least 1.
    pub count: u32,
}

impl QueryRange {
    /// The number behind the last query's.
    pub const fn end(self) -> u64 {
        self.first.saturating_add(self.count as u64)
    }
}

/// What a job hands to its model, as text: the model server knows the types.
pub type Parameters = BTreeMap<ParameterName, String>;

/// The right to run one batch. It is lost at expiry, at the worker's death and at a higher term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    /// The batch.
    pub range: QueryRange,
    /// How often the range's first query has been leased, from 1.
    pub attempt: u32,
    /// The term of the coordinator that granted it.
    pub term: Term,
}

/// One text for coordinator and worker: job, first and last query, attempt, term.
impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, range, attempt, term } = self;
        write!(f, "{job}:{}-{}:{attempt}:{term}", range.first, range.end().saturating_sub(1))
    }
}

/// What a model is to be made from. The same gives the same artefact, byte for byte, on one kind of processor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Training {
    /// The seed.
    pub seed: u64,
    /// The data set of labelled examples; `None` for a model that brings its own.
    #[serde(default)]
    pub dataset: Option<DatasetName>,
}

impl fmt::Display for Training {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.dataset {
            Some(dataset) => write!(f, "seed {} and data set {dataset}", self.seed),
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
            assert_eq!(error.to_string(), format!("'{text}' is no batch size: 1 to 4096, or auto"));
        }
    }
}
