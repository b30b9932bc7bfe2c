//! Turns the scheduler's plans, which hold only numbers, into orders that a worker can carry out.

use std::collections::VecDeque;
use std::sync::Arc;

use idunno_core::metadata::{Artefact, FolderPart, JobRecord, Query, State};
use idunno_core::scheduler::ReplyPlan;
use idunno_shared::ids::{Digest, NodeId, Term};
use idunno_shared::names::ModelName;
use idunno_shared::wire::blobs::{BlobRef, PlacedBlob};
use idunno_shared::wire::control::JobState;
use idunno_shared::wire::jobs::{
    FooterGrant, Grant, Lease, ModelArtefact, ModelState, QueryInput, RecordFormat, RecordsGrant,
    ReportReply, ServerState, Training, TrainingAssignment, WorkerReport,
};

use crate::membership::MembershipView;

/// Extents of the inputs in one answer, unless a single input has more: as many as fit into a frame.
const EXTENTS_MAX: usize = 40_000;

/// Extents of the models to load in one answer, unless a single model has more: the others are ordered in later answers.
const LOAD_EXTENTS_MAX: usize = 10_000;

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
        for query in lease.range.queries() {
            let file = job.input_of(query);
            let Some(part) = self.part(state, job, moment, file) else { break };
            let index = usize::try_from(file - part.first).unwrap_or(usize::MAX);
            found.extend(part.files.get(index).map(|input| (query, input.clone())));
        }
        found
    }

    /// The part of a job's folder that contains a file; `None` beyond the last.
    fn part(&mut self, state: &State, job: &JobRecord, moment: u64, file: u64) -> Option<&FolderPart> {
        let has = |part: &FolderPart| {
            part.job == job.id
                && part.moment == moment
                && (part.first..part.first + part.files.len() as u64).contains(&file)
        };
        if let Some(found) = self.0.iter().position(has) {
            return self.0.get(found);
        }
        let part = state.folder_part(job, file).filter(has)?;
        if self.0.len() >= PARTS_CACHED {
            self.0.pop_front();
        }
        self.0.push_back(part);
        self.0.back()
    }
}

/// The weight of each input of a lease in an answer.
pub fn weights(state: &State, inputs: &mut InputCache, lease: Lease) -> Vec<usize> {
    let job = state.job(lease.job);
    let Some((job, records)) = job.and_then(|job| Some((job, job.records.as_deref()?))) else {
        return inputs.queries(state, lease).iter().map(|(_, query)| query.extents.len()).collect();
    };
    let numbers = lease.range.queries().map(|query| job.input_of(query));
    let weight = |bytes: u64| usize::try_from(bytes / RECORD_BYTES_PER_EXTENT).unwrap_or(usize::MAX);
    records.bytes_of_each(numbers).map(weight).collect()
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
        unload: report.map(|report| unwanted_versions(state, report)).unwrap_or_default(),
        train: plan.train.iter().map(|(model, training)| assignment(state, view, model, training)).collect(),
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
    let mut footer = None;
    let records = job.records.as_deref().map(|records| {
        let numbers: Vec<u64> = lease.range.queries().map(|query| job.input_of(query)).collect();
        let bounds = numbers.first().zip(numbers.last()).map_or(0..0, |(first, last)| *first..*last + 1);
        let span = records.span(&bounds);
        if let RecordFormat::Parquet(layout) = &records.format {
            let (extents, skip_bytes) = records.end(layout.footer_bytes);
            footer = Some(FooterGrant {
                extents: placed_all(state, view, &extents),
                skip_bytes,
                file_bytes: records.file_bytes(),
                records_at: span.extents_at,
            });
        }
        RecordsGrant {
            file: (*records.file).clone(),
            format: records.format.clone(),
            extents: placed_all(state, view, &span.extents),
            skip_bytes: span.skip_bytes,
            bytes: span.bytes,
            skip: span.skip,
            line: span.line,
            numbers: if job.terms.start.selection.has_gaps() { numbers } else { Vec::new() },
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
        footer,
        reuse: job.terms.start.reuse,
    })
}

fn assignment(
    state: &State,
    view: &MembershipView,
    model: &ModelName,
    training: &Training,
) -> TrainingAssignment {
    let package = state.package(model).map(|artefact| model_artefact(state, view, model, artefact));
    TrainingAssignment { model: model.clone(), training: training.clone(), package }
}

/// A version of a model, with the live holders of its extents.
pub fn model_artefact(
    state: &State,
    view: &MembershipView,
    model: &ModelName,
    artefact: &Artefact,
) -> ModelArtefact {
    ModelArtefact {
        model: model.clone(),
        version: artefact.version,
        extents: placed_all(state, view, &artefact.extents),
        is_package: artefact.package.is_some(),
    }
}

/// The newest version of each model.
fn newest_versions(state: &State) -> impl Iterator<Item = (&ModelName, &Arc<Artefact>)> {
    state.models().filter_map(|(name, model)| Some((name, model.artefact.as_ref()?)))
}

/// The versions to which running jobs are pinned.
fn pinned_versions(state: &State) -> impl Iterator<Item = (&ModelName, &Arc<Artefact>)> {
    let running = state.unsettled_jobs().filter(|job| job.state == JobState::Running);
    running.filter_map(|job| Some((&job.model, job.artefact.as_ref()?)))
}

fn missing_models(state: &State, view: &MembershipView, report: &WorkerReport) -> Vec<ModelArtefact> {
    if report.server != ServerState::Ready {
        return Vec::new();
    }
    let mut missing: Vec<ModelArtefact> = Vec::new();
    let mut extents = 0;
    for (name, artefact) in newest_versions(state).chain(pinned_versions(state)) {
        let reported = |state: ModelState| report.models.contains(&(name.clone(), state));
        let is_ordered =
            missing.iter().any(|order| order.model == *name && order.version == artefact.version);
        // A worker loads one version of a model at a time: what it lacks after that is ordered then.
        let is_loading = artefact.package.is_some() && reported(ModelState::Loading);
        if is_ordered || is_loading || reported(ModelState::Ready(artefact.version)) {
            continue;
        }
        extents += artefact.extents.len();
        if extents > LOAD_EXTENTS_MAX && !missing.is_empty() {
            break;
        }
        missing.push(model_artefact(state, view, name, artefact));
    }
    missing
}

/// The versions that the worker has loaded, and that neither running jobs nor new ones use.
fn unwanted_versions(state: &State, report: &WorkerReport) -> Vec<(ModelName, Digest)> {
    let is_newest = |name: &ModelName, version: Digest| {
        let newest = state.model(name).and_then(|model| model.artefact.as_ref());
        newest.is_some_and(|newest| newest.version == version)
    };
    let is_pinned = |name: &ModelName, version: Digest| {
        pinned_versions(state).any(|(pinned, artefact)| pinned == name && artefact.version == version)
    };
    let loaded = report.models.iter().filter_map(|(name, state)| match state {
        ModelState::Ready(version) => Some((name.clone(), *version)),
        _ => None,
    });
    loaded.filter(|(name, version)| !is_newest(name, *version) && !is_pinned(name, *version)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use idunno_core::metadata::{Action, Applied, Command};
    use idunno_shared::ids::{JobId, UploadId};
    use idunno_shared::wire::control::{Change, Changed, JobOptions, NewFile, NewPackage, PackageSummary};
    use idunno_shared::wire::jobs::{BatchSize, QueryRange};
    use idunno_shared::wire::resources::WorkerResources;

    use super::*;

    const HOLDER: NodeId = NodeId(1);

    fn changed(state: &mut State, change: Change) -> Changed {
        let command = Command { at_ms: 1, op: None, action: Action::Change(change), upload: None, by: None };
        let Applied::Changed(changed) = state.apply(&command).unwrap() else { panic!("no change") };
        changed
    }

    fn blob(content: &str) -> (BlobRef, Vec<NodeId>) {
        (BlobRef { digest: Digest::of(content.as_bytes()), size: content.len() as u64 }, vec![HOLDER])
    }

    fn model() -> ModelName {
        "mine".parse().unwrap()
    }

    /// Adds a version of the model. Its manifest is its name.
    fn add(state: &mut State, version: &str) -> Digest {
        let summary = PackageSummary { runtime: String::from("python"), files: 1, bytes: 4 };
        let package = NewPackage { summary, extents: vec![blob(version), blob("code")] };
        let upload = UploadId::default();
        changed(state, Change::AddModel { upload, model: model(), package, unchecked: false });
        Digest::of(version.as_bytes())
    }

    /// A running job of the model's newest version.
    fn start_job(state: &mut State) -> JobId {
        let (blob, holders) = blob("an input");
        let name = "data/1".parse().unwrap();
        let file = NewFile { name, size: blob.size, digest: blob.digest, extents: vec![(blob, holders)] };
        changed(state, Change::CommitFiles { upload: UploadId::default(), files: vec![file] });
        let (dataset, options) = ("data".parse().unwrap(), JobOptions::default());
        let add = Change::AddJob { model: model(), dataset, batch_size: BatchSize::Auto, options };
        let Changed::JobAdded(job) = changed(state, add) else { panic!("no job") };
        changed(state, Change::start(job));
        job
    }

    fn report(states: &[ModelState]) -> WorkerReport {
        WorkerReport {
            worker: HOLDER,
            generation: 1,
            server: ServerState::Ready,
            models: states.iter().map(|state| (model(), state.clone())).collect(),
            leases: Vec::new(),
            awaiting_commit: 0,
            wanted: 0,
            wait_ms: 0,
            draining: false,
            offers: None,
            running_ms: None,
            number: 1,
            trainings: Vec::new(),
            resources: WorkerResources::default(),
        }
    }

    #[test]
    fn the_versions_of_new_and_running_jobs_are_loaded_and_no_others() {
        let view = MembershipView { me: HOLDER, members: BTreeMap::new(), joined: true };
        let mut state = State::new();
        let old = add(&mut state, "old");
        let job = start_job(&mut state);
        let new = add(&mut state, "new");
        let missing = |state: &State, states: &[ModelState]| -> Vec<Digest> {
            let orders = missing_models(state, &view, &report(states));
            assert!(orders.iter().all(|order| order.is_package && order.extents.len() == 2));
            orders.into_iter().map(|order| order.version).collect()
        };
        let unwanted = |state: &State, states: &[ModelState]| -> Vec<Digest> {
            unwanted_versions(state, &report(states)).into_iter().map(|(_, version)| version).collect()
        };
        let (ready_old, ready_new) = (ModelState::Ready(old), ModelState::Ready(new));
        let both = [ready_old.clone(), ready_new.clone()];
        assert_eq!(missing(&state, &[]), [new, old]);
        assert_eq!(missing(&state, &[ModelState::Failed("no memory".into()), ready_new.clone()]), [old]);
        assert_eq!(missing(&state, &[ModelState::Loading]), [], "it is not sent again and again");
        assert_eq!((missing(&state, &both), unwanted(&state, &both)), (vec![], vec![]));
        changed(&mut state, Change::StopJob { job });
        assert_eq!(unwanted(&state, &both), [old], "a stopped job runs nothing");
        changed(&mut state, Change::start(job));
        changed(&mut state, Change::RemoveModel { model: model(), force: true });
        assert_eq!((missing(&state, &[]), unwanted(&state, &both)), (vec![old], vec![new]));
        changed(&mut state, Change::CancelJob { job });
        assert_eq!((missing(&state, &[]), unwanted(&state, &both)), (vec![], vec![old, new]));
    }

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
