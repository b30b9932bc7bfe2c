//! Segments that are folded: once a job's results are in one file, the file's extents are its segments, and those that
//! workers wrote are given up. So what stays of a finished job does not depend on how its queries were answered.
//!
//! Invariant: the segments of a job answer the same queries before and after.
//! Bounds: a command releases the blobs of [`FOLDED_RELEASED_PER_COMMAND_MAX`] segments.

use std::sync::Arc;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::jobs::QueryRange;
use idunno_shared::wire::refusal::Refusal;
use imbl::Vector;
use serde::{Deserialize, Serialize};

use super::{JobRecord, Segment, State};

/// Most folded segments whose blobs one command releases.
pub const FOLDED_RELEASED_PER_COMMAND_MAX: usize = 512;

/// Which rows are in which extent of a file of merged results: each extent has whole rows, in the order of the queries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedRows {
    /// The worker that merged them.
    pub worker: NodeId,
    /// The query of the first row of each extent.
    pub first_queries: Vec<u64>,
}

impl MergedRows {
    /// The extents as segments of the job. The rows of its dead queries do not count.
    pub(super) fn segments(
        &self,
        job: &JobRecord,
        extents: &[(BlobRef, Vec<NodeId>)],
    ) -> Result<Vector<Arc<Segment>>, Refusal> {
        let firsts = &self.first_queries;
        let is_valid = firsts.len() == extents.len()
            && firsts.first() == Some(&0)
            && firsts.is_sorted_by(|a, b| a < b)
            && firsts.last().is_some_and(|last| *last < job.submitted);
        if !is_valid {
            return Err(Refusal::invalid(format!(
                "the results of {} have {} extents and {} queries; the first queries of the extents are not in order: \
                 {firsts:?}",
                job.id,
                extents.len(),
                job.submitted
            )));
        }
        let ends = firsts.iter().skip(1).copied().chain([job.submitted]);
        let segment = |((&first, end), (blob, _)): ((&u64, u64), &(BlobRef, Vec<NodeId>))| {
            let ranges: Vec<QueryRange> = job.done.within(first..end).queries().collect();
            let segment = Segment { blob: *blob, worker: self.worker, ranges };
            (!segment.ranges.is_empty()).then(|| Arc::new(segment))
        };
        Ok(firsts.iter().zip(ends).zip(extents).filter_map(segment).collect())
    }
}

/// The segments of each job that is deleted or whose results are merged, until their blobs are released.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct FoldedSegments(Vector<Vector<Arc<Segment>>>);

impl FoldedSegments {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.0.iter().flatten()
    }

    fn pop(&mut self) -> Option<Arc<Segment>> {
        let segment = self.0.front_mut()?.pop_front();
        if self.0.front().is_some_and(Vector::is_empty) {
            self.0.pop_front();
        }
        segment
    }
}

impl State {
    /// Gives segments up.
    pub(super) fn fold(&mut self, segments: Vector<Arc<Segment>>) {
        if !segments.is_empty() {
            self.folded.0.push_back(segments);
        }
    }

    /// Releases the blobs of the next few folded segments.
    pub(super) fn release_folded(&mut self) {
        for _ in 0..FOLDED_RELEASED_PER_COMMAND_MAX {
            let Some(segment) = self.folded.pop() else { return };
            self.release(&[segment.blob]);
        }
    }
}
