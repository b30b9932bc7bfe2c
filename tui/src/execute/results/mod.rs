//! The rows of a job's results, merged from segments and dead letters.
//!
//! Decides which rows count. Invariants, checked at the end: one row per query of the manifest, from exactly one segment
//! or one dead letter; as many rows as the job counts done and dead. Bounds: all rows are held in memory, but for those that
//! are [`in_order`].
//! [`fetch`] reads a job's rows and [`bucket`] writes them as objects, [`follow`] those of a running job; [`csv`] and
//! [`parquet`] format them, [`confusion`] counts them.

mod bucket;
pub mod confusion;
pub mod csv;
pub mod fetch;
pub mod follow;
mod in_order;
mod parquet;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use idunno_shared::client::results::{dead_row, query_of};
use idunno_shared::wire::control::{DeadLetter, JobState, JobView};
use idunno_shared::wire::jobs::QueryRange;
use thiserror::Error;

/// How many queries an error names.
const NAMED_MAX: usize = 10;

/// Why a job's rows are not one per query.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum ResultsError {
    /// A line of a segment is not a result row.
    #[error("line {line} of a segment is not a result row: {reason}")]
    Row {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Two rows for one query.
    #[error("{count} queries have more than one row: {named}")]
    Repeated {
        /// How many.
        count: usize,
        /// The first of them.
        named: String,
    },
    /// No row for a query that counts as answered.
    #[error("{count} queries count as answered and have no row: {named}")]
    Missing {
        /// How many.
        count: usize,
        /// The first of them.
        named: String,
    },
    /// The job counts more or fewer outcomes than there are rows.
    #[error("{job} counts {done} done and {dead} dead, but there are {rows} rows")]
    Figures {
        /// The job.
        job: String,
        /// Done.
        done: u64,
        /// Dead.
        dead: u64,
        /// Rows.
        rows: usize,
    },
}

/// Rows as they arrive.
#[derive(Debug, Default)]
pub struct Merge {
    /// One per query, unless the results are wrong.
    rows: BTreeMap<u64, Vec<String>>,
    missing: BTreeSet<u64>,
}

impl Merge {
    /// Takes a segment's rows, those within `ranges` only.
    pub fn segment(&mut self, bytes: &[u8], ranges: &[QueryRange]) -> Result<(), ResultsError> {
        let wanted = |query: u64| ranges.iter().any(|range| range.queries().contains(&query));
        let mut found = BTreeSet::new();
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let wrong = |reason: String| ResultsError::Row { line: number + 1, reason };
            let line = std::str::from_utf8(line).map_err(|error| wrong(error.to_string()))?;
            let query = query_of(line.as_bytes()).map_err(|error| wrong(error.to_string()))?;
            if wanted(query) {
                found.insert(query);
                self.add(query, line.to_owned());
            }
        }
        let claimed = ranges.iter().flat_map(|range| range.queries());
        self.missing.extend(claimed.filter(|query| !found.contains(query)));
        Ok(())
    }

    /// Takes a query that failed for good.
    pub fn dead_letter(&mut self, dead_letter: &DeadLetter) {
        self.add(dead_letter.index, dead_row(dead_letter));
    }

    fn add(&mut self, query: u64, row: String) {
        self.rows.entry(query).or_default().push(row);
    }

    /// All rows in query order, unchecked.
    pub fn raw(self) -> Vec<String> {
        self.rows.into_values().flatten().collect()
    }

    /// The rows in query order, checked against the job's figures.
    pub fn finish(self, job: &JobView) -> Result<Vec<String>, ResultsError> {
        let repeated = self.rows.iter().filter(|(_, rows)| rows.len() > 1);
        let repeated: BTreeSet<u64> = repeated.map(|(query, _)| *query).collect();
        if !repeated.is_empty() {
            return Err(ResultsError::Repeated { count: repeated.len(), named: named(&repeated) });
        }
        let mut missing = self.missing.clone();
        if job.state == JobState::Done {
            missing.extend((0..job.submitted).filter(|query| !self.rows.contains_key(query)));
        }
        if !missing.is_empty() {
            return Err(ResultsError::Missing { count: missing.len(), named: named(&missing) });
        }
        if job.done + job.dead != self.rows.len() as u64 {
            let (done, dead, rows) = (job.done, job.dead, self.rows.len());
            return Err(ResultsError::Figures { job: job.id.to_string(), done, dead, rows });
        }
        Ok(self.raw())
    }
}

fn named(queries: &BTreeSet<u64>) -> String {
    let mut names: Vec<String> = queries.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    if queries.len() > NAMED_MAX {
        names.push(String::from("..."));
    }
    names.join(", ")
}
