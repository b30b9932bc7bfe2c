//! Encoding of a worker's leases in a report: neighbours with the same job, attempt and term share one run, which lists
//! their ranges.
//!
//! A worker with small batches holds hundreds of leases, nearly all of one job, and the coordinator decodes thousands of
//! reports a second.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::batches::{LEASES_HELD_MAX, Lease, QueryRange};
use super::bounded;
use crate::ids::{JobId, Term};

/// Leases that differ in their ranges only.
#[derive(Serialize, Deserialize)]
struct Run<R> {
    job: JobId,
    attempt: u32,
    term: Term,
    ranges: R,
}

/// Deserializes the ranges of leases.
#[derive(Deserialize)]
#[serde(transparent)]
struct DecodedRanges(#[serde(deserialize_with = "bounded::list::<LEASES_HELD_MAX, _, _>")] Vec<QueryRange>);

/// Serializes the ranges of leases.
struct Ranges<'a>(&'a [Lease]);

impl Serialize for Ranges<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|lease| lease.range))
    }
}

pub(super) fn serialize<S: Serializer>(leases: &[Lease], serializer: S) -> Result<S::Ok, S::Error> {
    let key = |lease: &Lease| (lease.job, lease.attempt, lease.term);
    let runs: Vec<_> = leases.chunk_by(|one, next| key(one) == key(next)).collect();
    serializer.collect_seq(runs.into_iter().map(|run| {
        let Lease { job, attempt, term, .. } = run[0];
        Run { job, attempt, term, ranges: Ranges(run) }
    }))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Lease>, D::Error> {
    deserializer.deserialize_seq(Runs)
}

/// Decodes runs one by one, and fails as soon as they hold more leases than a worker may.
struct Runs;

impl<'de> Visitor<'de> for Runs {
    type Value = Vec<Lease>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {LEASES_HELD_MAX} leases in runs")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut runs: A) -> Result<Vec<Lease>, A::Error> {
        let mut leases = Vec::new();
        while let Some(Run { job, attempt, term, ranges: DecodedRanges(ranges) }) =
            runs.next_element::<Run<DecodedRanges>>()?
        {
            leases.extend(ranges.iter().map(|&range| Lease { job, range, attempt, term }));
            if ranges.is_empty() || leases.len() > LEASES_HELD_MAX {
                return Err(A::Error::invalid_length(leases.len(), &self));
            }
        }
        Ok(leases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Report(#[serde(with = "super")] Vec<Lease>);

    fn lease(job: u64, first: u64, attempt: u32) -> Lease {
        Lease { job: JobId(job), range: QueryRange { first, count: 1 }, attempt, term: Term(3) }
    }

    #[test]
    fn leases_keep_their_order_and_cost_little_more_than_their_ranges() {
        let mixed =
            Report(vec![lease(1, 0, 1), lease(1, 1, 1), lease(2, 5, 1), lease(1, 2, 1), lease(1, 3, 2)]);
        for report in [Report(Vec::new()), mixed] {
            let bytes = rmp_serde::to_vec(&report).unwrap();
            assert_eq!(rmp_serde::from_slice::<Report>(&bytes).unwrap(), report);
        }
        let many = Report((0..LEASES_HELD_MAX as u64).map(|first| lease(1, first, 1)).collect());
        let bytes = rmp_serde::to_vec(&many).unwrap();
        assert!(bytes.len() < 6 * LEASES_HELD_MAX, "{} bytes", bytes.len());
    }

    #[test]
    fn more_leases_than_a_worker_may_hold_are_refused() {
        let many = Report((0..=LEASES_HELD_MAX as u64).map(|first| lease(1, first, 1)).collect());
        let bytes = rmp_serde::to_vec(&many).unwrap();
        let error = rmp_serde::from_slice::<Report>(&bytes).unwrap_err();
        assert!(error.to_string().contains("at most 1024"), "{error}");
        let empty = Run { job: JobId(1), attempt: 1, term: Term(3), ranges: Vec::<QueryRange>::new() };
        let bytes = rmp_serde::to_vec(&([empty],)).unwrap();
        assert!(
            rmp_serde::from_slice::<Report>(&bytes).is_err(),
            "nothing would limit the number of empty runs"
        );
    }
}
