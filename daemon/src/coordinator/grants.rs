//! Turns the scheduler's plans, which hold only numbers, into orders that a worker can carry out.

use std::collections::VecDeque;

use idunno_core::metadata::{FolderPart, JobRecord, Query, State};
use idunno_core::scheduler::ReplyPlan;
use idunno_shared::ids::{NodeId, Term};
use idunno_shared::wire::blobs::{BlobRef, PlacedBlob};
use idunno_shared::wire::jobs::{
    Grant, Lease, ModelArtefact, ModelState, QueryInput, RecordsGrant, ReportReply, ServerState, WorkerReport,
};

use crate::membership::MembershipView;

/// Extents of the inputs in one answer, unless a single input has more: as many as fit into a frame.
const EXTENTS_MAX: usize = 40_000;

/// Bytes of records that weigh as much as an extent. [`EXTENTS_MAX`] times this bounds the memory that the inputs of a
/// worker's two batches take.
const RECORD_BYTES_PER_EXTENT: u64 = 1 << 10;

/// Parts of folders that are kept.
const PARTS_CACHED: usize = 32;

/// The parts of folders that were looked up last: a batch is looked up several times while it is granted, and the next one
/// lies behind it.
#[derive(Default)]
pub struct InputCache(VecDeque<FolderPart>);

impl InputCache {
    /// The inputs of a lease with the query numbers; empty if the job reads records, or is unknown.
    fn queries(&mut self, state: &State, lease: Lease) -> Vec<(u64, Query)> {
        let Some(job) = state.job(lease.job) else { return Vec::new() };
        let Some(moment) = job.folder.as_ref().map(|folder| folder.moment) else {
            return state.queries(lease.job, lease.range);
        };
        let mut found = Vec::with_capacity(lease.range.count as usize);
        let mut next = lease.range.first;
        while next < lease.range.end() {
            let Some(part) = self.part(state, job, moment, next) else { break };
            let skip = usize::try_from(next - part.first).unwrap_or(usize::MAX);
            let queries = part.queries.iter().skip(skip).cloned();
            found.extend((next..lease.range.end()).zip(queries));
            next = part.first + part.queries.len() as u64;
        }
        found
    }

    /// The part of a job's folder that contains a query; `None` beyond the last.
    fn part(&mut self, state: &State, job: &JobRecord, moment: u64, query: u64) -> Option<&FolderPart> {
        let has = |part: &FolderPart| {
            part.job == job.id
                && part.moment == moment
                && (part.first..part.first + part.queries.len() as u64).contains(&query)
        };
        if let Some(found) = self.0.iter().position(has) {
            return self.0.get(found);
        }
        let part = state.folder_part(job, query).filter(has)?;
        if self.0.len() >= PARTS_CACHED {
            self.0.pop_front();
        }
        self.0.push_back(part);
        self.0.back()
    }
}

/// The weight of each input of a lease in an answer.
pub fn weights(state: &State, inputs: &mut InputCache, lease: Lease) -> Vec<usize> {
    let Some(records) = state.job(lease.job).and_then(|job| job.records.as_deref()) else {
        return inputs.queries(state, lease).iter().map(|(_, query)| query.extents.len()).collect();
    };
    let weight =
        |index| usize::try_from(records.bytes_of(index) / RECORD_BYTES_PER_EXTENT).unwrap_or(usize::MAX);
    (lease.range.first..lease.range.end()).map(weight).collect()
}

/// Shortens leases to what fits into one answer. `shorten` returns what is left of a lease; `sizes` are the extents of each
/// of a lease's inputs.
pub fn fit<S: IntoIterator<Item = usize>>(
    grants: &mut Vec<Lease>,
    mut sizes: impl FnMut(Lease) -> S,
    mut shorten: impl FnMut(Lease, u32) -> Option<Lease>,
) {
    let (mut extents, mut is_first) = (0, true);
    let fitting = grants.drain(..).filter_map(|lease| {
        let mut kept = 0;
        for size in sizes(lease) {
            extents += size;
            if extents > EXTENTS_MAX && !is_first {
                return shorten(lease, kept);
            }
            (kept, is_first) = (kept + 1, false);
        }
        Some(lease)
    });
    *grants = fitting.collect();
}

/// A blob and its live holders.
pub fn placed(state: &State, view: &MembershipView, blob: BlobRef) -> PlacedBlob {
    let holders = state.holders(&blob.digest).iter().filter_map(|&node| view.holder(node)).collect();
    PlacedBlob { blob, holders }
}

fn placed_all(state: &State, view: &MembershipView, blobs: &[BlobRef]) -> Vec<PlacedBlob> {
    blobs.iter().map(|&blob| placed(state, view, blob)).collect()
}

/// The orders of a plan, with the models that the worker has yet to load. A lease of a deleted job is left out.
pub fn orders(
    state: &State,
    view: &MembershipView,
    inputs: &mut InputCache,
    term: Term,
    plan: &ReplyPlan,
    report: Option<&WorkerReport>,
) -> ReportReply {
    ReportReply {
        term,
        grants: plan.grants.iter().filter_map(|&lease| grant(state, view, inputs, lease)).collect(),
        cancelled: plan.cancelled.clone(),
        load: report.map(|report| missing_models(state, view, report)).unwrap_or_default(),
        train: plan.train.clone(),
        restart: plan.restart.clone(),
        stop_training: plan.stop_training.clone(),
    }
}

/// Bytes of a batch's inputs that are recorded to be on the worker's disk.
pub fn local_bytes(state: &State, inputs: &mut InputCache, worker: NodeId, lease: Lease) -> u64 {
    let queries = inputs.queries(state, lease);
    let extents = queries.iter().flat_map(|(_, query)| query.extents.iter());
    extents.filter(|blob| state.holders(&blob.digest).contains(&worker)).map(|blob| blob.size).sum()
}

fn grant(state: &State, view: &MembershipView, inputs: &mut InputCache, lease: Lease) -> Option<Grant> {
    let job = state.job(lease.job)?;
    let records = job.records.as_deref().map(|records| {
        let span = records.span(lease.range);
        RecordsGrant {
            file: (*records.file).clone(),
            format: records.format.clone(),
            extents: placed_all(state, view, &span.extents),
            skip_bytes: span.skip_bytes,
            bytes: span.bytes,
            skip: span.skip,
            line: span.line,
        }
    });
    let inputs = inputs.queries(state, lease).into_iter().map(|(index, query)| QueryInput {
        index,
        name: (*query.name).clone(),
        extents: placed_all(state, view, &query.extents),
    });
    Some(Grant {
        lease,
        model: job.model.clone(),
        version: job.artefact.as_ref()?.version,
        inputs: inputs.collect(),
        labels: job.labels.as_ref().map(|extents| placed_all(state, view, extents)),
        records,
        parameters: (*job.parameters).clone(),
    })
}

fn missing_models(state: &State, view: &MembershipView, report: &WorkerReport) -> Vec<ModelArtefact> {
    if report.server != ServerState::Ready {
        return Vec::new();
    }
    let trained = state.models().filter_map(|(name, model)| Some((name, model.artefact.as_ref()?)));
    let missing = trained.filter(|(name, artefact)| {
        let ready = (*name).clone();
        !report.models.contains(&(ready, ModelState::Ready(artefact.version)))
    });
    let load = missing.map(|(name, artefact)| ModelArtefact {
        model: name.clone(),
        version: artefact.version,
        extents: placed_all(state, view, &artefact.extents),
    });
    load.collect()
}

#[cfg(test)]
mod tests {
    use idunno_shared::ids::JobId;
    use idunno_shared::wire::jobs::QueryRange;

    use super::*;

    fn lease(first: u64, count: u32) -> Lease {
        Lease { job: JobId(1), range: QueryRange { first, count }, attempt: 1, term: Term(1) }
    }

    fn fitted(mut grants: Vec<Lease>, size: usize) -> Vec<(u64, u32)> {
        let shorten = |lease: Lease, kept: u32| {
            (kept > 0).then_some(Lease { range: QueryRange { count: kept, ..lease.range }, ..lease })
        };
        let sizes = |lease: Lease| std::iter::repeat_n(size, lease.range.count as usize);
        fit(&mut grants, sizes, shorten);
        grants.iter().map(|lease| (lease.range.first, lease.range.count)).collect()
    }

    #[test]
    fn the_grants_of_one_answer_fit_into_a_frame() {
        let both = vec![lease(0, 100), lease(100, 100)];
        assert_eq!(fitted(both.clone(), 1), [(0, 100), (100, 100)]);
        assert_eq!(fitted(both.clone(), EXTENTS_MAX / 150), [(0, 100), (100, 50)]);
        assert_eq!(fitted(both.clone(), EXTENTS_MAX / 50), [(0, 50)]);
        assert_eq!(fitted(both, EXTENTS_MAX + 1), [(0, 1)], "one input is granted whatever its size");
    }
}
