//! A naive model of the metadata: plain maps, one entry per query, no reference counts, nothing shared.

mod jobs;

use std::collections::{BTreeMap, BTreeSet};

use idunno_core::metadata::{Action, Applied, Command, PREDEFINED_MODELS, State};
use idunno_shared::access::SubjectName;
use idunno_shared::ids::{Digest, JobId, OpId, UploadId};
use idunno_shared::wire::control::{
    Attributes, Change, Changed, Expected, FailedMax, FileCopy, JobState, NewFile, SAME_COMMIT_MS,
};
use idunno_shared::wire::jobs::{BatchSize, QueryRange, Training};
use idunno_shared::wire::refusal::RefusalCode;

type Outcome = Result<Applied, RefusalCode>;

/// A version of a file: its number, content and extents.
type NaiveVersion = (u64, Digest, Vec<Digest>);

/// The inputs of a job: names and extents.
type NaiveManifest = Vec<(String, Vec<Digest>)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueryState {
    Pending,
    Done,
    Dead,
}

#[derive(Clone, Debug)]
struct NaiveJob {
    model: String,
    dataset: String,
    batch_size: BatchSize,
    state: JobState,
    manifest: NaiveManifest,
    /// The moment at which the folder was pinned, and the files it had.
    pinned: Option<(u64, NaiveManifest)>,
    query_states: Vec<QueryState>,
    version: Option<Digest>,
    name: Option<String>,
    weight: u32,
    /// Whether the input of each query must be kept.
    held: Vec<bool>,
    finished_ms: Option<u64>,
    filed: bool,
    failed_max: Option<FailedMax>,
    webhook: Option<NaiveWebhook>,
}

#[derive(Clone, Debug, PartialEq)]
struct NaiveWebhook {
    url: String,
    due_ms: Option<u64>,
    failure: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct NaiveModel {
    version: Option<Digest>,
    training: Option<Training>,
}

/// The expected metadata.
#[derive(Clone, Debug, Default)]
pub(super) struct NaiveMetadata {
    /// The versions of each file, oldest first.
    files: BTreeMap<String, Vec<NaiveVersion>>,
    /// When the newest version of each file was committed, and its attributes.
    newest: BTreeMap<String, (u64, Attributes)>,
    jobs: BTreeMap<u64, NaiveJob>,
    models: BTreeMap<String, NaiveModel>,
    operations: BTreeMap<OpId, Applied>,
    now_ms: u64,
    last_job: u64,
    /// All uploads below are over.
    ended_below: Option<UploadId>,
    /// How many commands were accepted.
    revision: u64,
    /// The sizes of extents.
    sizes: BTreeMap<Digest, u64>,
    /// Names of identities.
    seen: BTreeSet<SubjectName>,
    revoked: BTreeSet<SubjectName>,
}

fn is_valid(file: &NewFile) -> bool {
    let sum: u64 = file.extents.iter().map(|(blob, _)| blob.size).sum();
    sum == file.size && file.extents.iter().all(|(_, holders)| !holders.is_empty())
}

fn numbers(ranges: &[QueryRange]) -> Vec<u64> {
    ranges.iter().flat_map(|range| range.first..range.first + u64::from(range.count)).collect()
}

impl NaiveMetadata {
    pub(super) fn apply(&mut self, command: &Command) -> Outcome {
        let Command { at_ms, op, action, upload, by } = command;
        if let Some(outcome) = op.and_then(|op| self.operations.get(&op)) {
            return Ok(outcome.clone());
        }
        if by.as_ref().is_some_and(|by| self.revoked.contains(&by.name)) {
            return Err(RefusalCode::Forbidden);
        }
        let upload = match action {
            Action::Change(Change::CommitFiles { upload, .. } | Change::CommitFile { upload, .. }) => {
                Some(*upload)
            }
            _ => *upload,
        };
        if upload.is_some_and(|upload| self.ended_below.is_some_and(|end| upload < end)) {
            return Err(RefusalCode::UploadOver);
        }
        let before_ms = self.now_ms;
        self.now_ms = before_ms.max(*at_ms);
        let states: Vec<_> = self.jobs.iter().map(|(id, job)| (*id, job.state.clone())).collect();
        let outcome = self.apply_action(action);
        self.follow_up();
        for (id, before) in states {
            self.notice_end(id, &before);
        }
        self.revision += u64::from(outcome.is_ok());
        match (op, &outcome) {
            (Some(op), Ok(outcome)) => _ = self.operations.insert(*op, outcome.clone()),
            (None, Ok(_)) => {}
            (_, Err(_)) => self.now_ms = before_ms,
        }
        outcome
    }

    fn apply_action(&mut self, action: &Action) -> Outcome {
        match action {
            Action::Change(change) => self.apply_change(change).map(Applied::Changed),
            Action::Holders(_) | Action::Forget(_) => Ok(Applied::Done),
            Action::NoteIdentity(issued) => {
                self.seen.insert(issued.grant.name.clone());
                Ok(Applied::Done)
            }
            Action::EndUploads(end) => {
                self.ended_below = self.ended_below.max(Some(*end));
                Ok(Applied::Done)
            }
            Action::CommitSegment { job, batches, .. } => self.commit(*job, batches),
            Action::DeadLetters { job, dead_letters } => {
                let now_ms = self.now_ms;
                let job = self.started(*job)?;
                if dead_letters.iter().any(|dead_letter| dead_letter.index >= job.query_states.len() as u64) {
                    return Err(RefusalCode::Invalid);
                }
                for dead_letter in dead_letters {
                    let state = &mut job.query_states[usize::try_from(dead_letter.index).unwrap()];
                    if *state == QueryState::Pending {
                        *state = QueryState::Dead;
                    }
                }
                job.pause_if_too_many_failed();
                job.settle(now_ms);
                Ok(Applied::Done)
            }
            Action::PauseJob { job, reason } => {
                let job = self.job(*job)?;
                if job.state != JobState::Running {
                    return Err(RefusalCode::Conflict);
                }
                job.state = JobState::Paused(reason.clone());
                Ok(Applied::Done)
            }
            Action::ModelTrained { model, version, extents, training, report, .. } => {
                let known = self.models.get(model.as_str()).cloned().unwrap_or_default();
                if known.training.as_ref() != Some(training) {
                    return Err(RefusalCode::Conflict);
                }
                let blobs = extents.iter().map(|(blob, _)| blob.digest).collect();
                self.add_version(&format!("models/{model}"), *version, blobs);
                if let Some((report, _)) = report {
                    self.add_version(&format!("training/{model}.json"), report.digest, vec![report.digest]);
                }
                let trained = NaiveModel { version: Some(*version), training: None };
                self.models.insert(model.to_string(), trained);
                Ok(Applied::Done)
            }
            Action::ModelFailed { model, .. } => {
                let known = self.models.get_mut(model.as_str()).filter(|model| model.training.is_some());
                known.ok_or(RefusalCode::Conflict)?.training = None;
                Ok(Applied::Done)
            }
            Action::PinFolder { job } => self.pin(*job),
            Action::UnpinFolder { job } => {
                let job = self.job(*job)?;
                if job.state != JobState::Added {
                    return Err(RefusalCode::Conflict);
                }
                job.pinned = None;
                Ok(Applied::Done)
            }
            Action::EndWebhook { job, due_ms, failure } => {
                let webhook = self.job(*job)?.webhook.as_mut();
                let webhook = webhook.filter(|webhook| webhook.due_ms == Some(*due_ms));
                let webhook = webhook.ok_or(RefusalCode::Conflict)?;
                (webhook.due_ms, webhook.failure) = (None, failure.clone());
                Ok(Applied::Done)
            }
            Action::StartJob { job, inputs, options } => {
                self.start(*job, Some(inputs), *options).map(Applied::Changed)
            }
            Action::FileResults { job: id, finished_ms, digest, extents, .. } => {
                let job = self.job(*id)?;
                if job.state != JobState::Done || job.filed || job.finished_ms != Some(*finished_ms) {
                    return Err(RefusalCode::Conflict);
                }
                job.filed = true;
                let blobs = extents.iter().map(|(blob, _)| blob.digest).collect();
                self.add_version(&format!("results/{id}.jsonl"), *digest, blobs);
                Ok(Applied::Done)
            }
        }
    }

    fn add_version(&mut self, name: &str, content: Digest, extents: Vec<Digest>) -> u64 {
        let versions = self.files.entry(name.to_owned()).or_default();
        let number = versions.last().map_or(1, |newest| newest.0 + 1);
        versions.push((number, content, extents));
        self.newest.insert(name.to_owned(), (self.now_ms, Attributes::new()));
        if versions.len() > 5 {
            versions.remove(0);
        }
        number
    }

    fn copy_files(
        &mut self,
        copies: &[FileCopy],
        moves: bool,
        replace: bool,
    ) -> Result<Changed, RefusalCode> {
        let names: BTreeSet<&str> =
            copies.iter().flat_map(|copy| [copy.from.as_str(), copy.to.as_str()]).collect();
        if copies.is_empty() || names.len() != 2 * copies.len() {
            return Err(RefusalCode::Invalid);
        }
        for copy in copies {
            if !self.files.contains_key(copy.from.as_str()) {
                return Err(RefusalCode::NotFound);
            }
            if !replace && self.files.contains_key(copy.to.as_str()) {
                return Err(RefusalCode::Conflict);
            }
        }
        let mut numbers = Vec::new();
        for copy in copies {
            let source = self.files[copy.from.as_str()].clone();
            let moved = if moves { &source[..] } else { &source[source.len() - 1..] };
            let mut number = 0;
            for (_, content, extents) in moved {
                number = self.add_version(copy.to.as_str(), *content, extents.clone());
            }
            // The attributes go along.
            let (_, attributes) = self.newest[copy.from.as_str()].clone();
            self.newest.insert(copy.to.to_string(), (self.now_ms, attributes));
            if moves {
                self.files.remove(copy.from.as_str());
            }
            numbers.push(number);
        }
        Ok(Changed::Copied(numbers))
    }

    fn job(&mut self, id: JobId) -> Result<&mut NaiveJob, RefusalCode> {
        self.jobs.get_mut(&id.0).ok_or(RefusalCode::NotFound)
    }

    fn started(&mut self, id: JobId) -> Result<&mut NaiveJob, RefusalCode> {
        let job = self.job(id)?;
        let refused = matches!(job.state, JobState::Added | JobState::Cancelled);
        if refused { Err(RefusalCode::Conflict) } else { Ok(job) }
    }

    fn commit_file(
        &mut self,
        file: &NewFile,
        attributes: &Attributes,
        expected: Option<Expected>,
    ) -> Result<Changed, RefusalCode> {
        if !is_valid(file) {
            return Err(RefusalCode::Invalid);
        }
        let name = file.name.as_str();
        let found = self.files.get(name).and_then(|versions| versions.last()).map(|last| (last.0, last.1));
        let is_expected = match expected {
            None => true,
            Some(Expected::NoFile) => found.is_none(),
            Some(Expected::Version { number, digest }) => found == Some((number, digest)),
        };
        if !is_expected {
            return Err(RefusalCode::NotNewest);
        }
        self.sizes.extend(file.extents.iter().map(|(blob, _)| (blob.digest, blob.size)));
        let copies = file.extents.iter().map(|(_, holders)| holders.len()).min().unwrap_or(4);
        let copies = u32::try_from(copies).unwrap();
        if let Some((number, digest)) = found
            && let Some((committed_ms, kept)) = self.newest.get(name)
            && (digest, kept) == (file.digest, attributes)
            && self.now_ms - committed_ms < SAME_COMMIT_MS
        {
            return Ok(Changed::Files(vec![(number, copies)]));
        }
        let blobs = file.extents.iter().map(|(blob, _)| blob.digest).collect();
        let number = self.add_version(name, file.digest, blobs);
        self.newest.insert(name.to_owned(), (self.now_ms, attributes.clone()));
        Ok(Changed::Files(vec![(number, copies)]))
    }

    fn apply_change(&mut self, change: &Change) -> Result<Changed, RefusalCode> {
        match change {
            Change::CommitFiles { files, .. } => {
                if files.is_empty() || !files.iter().all(is_valid) {
                    return Err(RefusalCode::Invalid);
                }
                let extents = files.iter().flat_map(|file| &file.extents);
                self.sizes.extend(extents.map(|(blob, _)| (blob.digest, blob.size)));
                let versions = files.iter().map(|file| {
                    let blobs = file.extents.iter().map(|(blob, _)| blob.digest).collect();
                    let copies = file.extents.iter().map(|(_, holders)| holders.len()).min().unwrap_or(4);
                    (self.add_version(file.name.as_str(), file.digest, blobs), u32::try_from(copies).unwrap())
                });
                Ok(Changed::Files(versions.collect()))
            }
            Change::CommitFile { file, attributes, expected, .. } => {
                self.commit_file(file, attributes, *expected)
            }
            Change::DeleteFiles { names } => {
                let deleted = names.iter().filter_map(|name| self.files.remove(name.as_str()));
                let versions: usize = deleted.map(|versions| versions.len()).sum();
                Ok(Changed::Deleted { versions: u32::try_from(versions).unwrap() })
            }
            Change::CopyFiles { copies, moves, replace } => self.copy_files(copies, *moves, *replace),
            Change::Delete { name } => {
                let versions = self.files.remove(name.as_str()).ok_or(RefusalCode::NotFound)?;
                Ok(Changed::Deleted { versions: u32::try_from(versions.len()).unwrap() })
            }
            Change::TrainStart { models, training } => {
                let mut models = models.clone();
                if let Some(dataset) = &training.dataset {
                    if models.is_empty() {
                        return Err(RefusalCode::Invalid);
                    }
                    if !self.can_train_on(dataset.as_str()) {
                        return Err(RefusalCode::Conflict);
                    }
                }
                if models.is_empty() {
                    models = PREDEFINED_MODELS.iter().map(|name| name.parse().unwrap()).collect();
                }
                models.sort();
                let known = models.iter().filter_map(|model| self.models.get(model.as_str()));
                if known.filter_map(|known| known.training.as_ref()).any(|other| other != training) {
                    return Err(RefusalCode::Conflict);
                }
                for model in &models {
                    self.models.entry(model.to_string()).or_default().training = Some(training.clone());
                }
                Ok(Changed::Training(models))
            }
            Change::SetPolicy(_) => Ok(Changed::Done),
            Change::RevokeIdentity { name, unseen } => {
                if !unseen && !self.seen.contains(name) && !self.revoked.contains(name) {
                    return Err(RefusalCode::NotFound);
                }
                self.revoked.insert(name.clone());
                Ok(Changed::Done)
            }
            Change::TrainStop { models } => {
                let known = |model: &_| {
                    self.models.get(&ToString::to_string(model)).and_then(|it| it.training.clone())
                };
                if models.iter().any(|model| known(model).is_none()) {
                    return Err(RefusalCode::Conflict);
                }
                for model in models {
                    self.models.entry(model.to_string()).or_default().training = None;
                }
                Ok(Changed::Done)
            }
            _ => self.apply_job_change(change),
        }
    }

    /// Whether a file of records has this name, or a file below it other than the label table exists.
    fn can_train_on(&self, dataset: &str) -> bool {
        let is_of_records = matches!(dataset.rsplit_once('.'), Some((_, "jsonl" | "csv")));
        if is_of_records && self.files.contains_key(dataset) {
            return true;
        }
        let (prefix, labels) = (format!("{dataset}/"), format!("{dataset}/labels.csv"));
        self.files.keys().any(|name| name.starts_with(&prefix) && *name != labels)
    }

    /// Panics unless the state equals this model.
    pub(super) fn compare(&self, state: &State) {
        let files: Vec<_> = state.files("", None).collect();
        assert_eq!(files.len(), self.files.len());
        for ((name, file), (model_name, versions)) in files.iter().zip(&self.files) {
            assert_eq!(name.as_str(), model_name);
            let shown = file.versions().map(|version| {
                (version.number, version.digest(), version.extents.iter().map(|blob| blob.digest).collect())
            });
            assert!(shown.eq(versions.iter().rev().cloned()), "{name}");
        }
        assert_eq!(state.jobs().count(), self.jobs.len());
        for (id, job) in &self.jobs {
            job.compare(state, JobId(*id));
        }
        for (name, model) in &self.models {
            let shown = state.model(&name.parse().unwrap()).unwrap();
            assert_eq!(shown.artefact.as_ref().map(|artefact| artefact.version), model.version, "{name}");
            assert_eq!(shown.training, model.training, "{name}");
        }
    }
}
