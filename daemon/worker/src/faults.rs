//! Failed queries, grouped by kind and reason for the coordinator.
//!
//! Bounds: [`REASONS_MAX`] distinct reasons per batch, each of at most [`REASON_BYTES_MAX`] bytes; queries with further
//! reasons share one per kind, which says so.

use idunno_shared::wire::jobs::{Fault, FaultKind, QueryRange, REASON_BYTES_MAX};

/// Distinct faults of one batch.
pub const REASONS_MAX: usize = 1_000;

/// Collects the failed queries of one batch.
#[derive(Debug, Default)]
pub struct FaultCollector(Vec<FaultGroup>);

#[derive(Debug)]
struct FaultGroup {
    kind: FaultKind,
    reason: String,
    queries: Vec<u64>,
}

impl FaultCollector {
    pub fn add(&mut self, queries: Vec<u64>, kind: FaultKind, reason: &str) {
        if queries.is_empty() {
            return;
        }
        let reason = truncate(reason);
        if let Some(group) = self.group(kind, reason) {
            return group.queries.extend(queries);
        }
        if self.0.len() < REASONS_MAX {
            return self.0.push(FaultGroup { kind, reason: reason.to_owned(), queries });
        }
        // A reason may name a line: that of another query would be wrong.
        let shared = format!("one of more than {REASONS_MAX} different failures in one batch");
        match self.group(kind, &shared) {
            Some(group) => group.queries.extend(queries),
            None => self.0.push(FaultGroup { kind, reason: shared, queries }),
        }
    }

    fn group(&mut self, kind: FaultKind, reason: &str) -> Option<&mut FaultGroup> {
        self.0.iter_mut().rev().find(|group| group.kind == kind && group.reason == reason)
    }

    pub fn into_faults(self) -> Vec<Fault> {
        let groups = self.0.into_iter();
        groups
            .map(|FaultGroup { kind, reason, queries }| Fault {
                ranges: ranges_of(queries),
                kind,
                reason,
                identities: Vec::new(),
            })
            .collect()
    }
}

fn truncate(reason: &str) -> &str {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

/// Sorts query numbers into the fewest ranges.
pub fn ranges_of(mut queries: Vec<u64>) -> Vec<QueryRange> {
    queries.sort_unstable();
    queries.dedup();
    let mut ranges: Vec<QueryRange> = Vec::new();
    for query in queries {
        match ranges.last_mut() {
            Some(range) if range.end() == query && range.count < u32::MAX => range.count += 1,
            _ => ranges.push(QueryRange { first: query, count: 1 }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, count: u32) -> QueryRange {
        QueryRange { first, count }
    }

    #[test]
    fn queries_become_the_fewest_ranges() {
        assert_eq!(ranges_of(vec![7, 3, 1, 2, 8, 8]), [range(1, 3), range(7, 2)]);
        assert_eq!(ranges_of(Vec::new()), []);
    }

    #[test]
    fn faults_are_grouped_by_reason_and_bounded() {
        let mut faults = FaultCollector::default();
        faults.add(vec![1], FaultKind::BadInput, "not an image");
        faults.add(vec![5], FaultKind::Fetch, "gone");
        faults.add(vec![2], FaultKind::BadInput, "not an image");
        faults.add(vec![3], FaultKind::Inference, &"é".repeat(REASON_BYTES_MAX));
        let merged = faults.into_faults();
        assert_eq!(merged.len(), 3);
        assert_eq!((merged[0].kind, &merged[0].ranges[..]), (FaultKind::BadInput, &[range(1, 2)][..]));
        assert_eq!(merged[2].reason.len(), REASON_BYTES_MAX);

        let mut faults = FaultCollector::default();
        (0..3000).for_each(|query| faults.add(vec![query], FaultKind::BadInput, &query.to_string()));
        let merged = faults.into_faults();
        assert_eq!(merged.len(), REASONS_MAX + 1);
        assert_eq!(merged[REASONS_MAX].ranges, [range(1000, 2000)]);
        assert!(merged[REASONS_MAX].reason.contains("more than 1000 different"), "no other query's reason");
    }
}
