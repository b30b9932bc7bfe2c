//! A naive model of the metadata: plain maps, one entry per query, no reference counts, nothing shared.

use std::collections::BTreeMap;

use idunno_core::metadata::{Action, Applied, Command, Inputs, PREDEFINED_MODELS, State};
use idunno_shared::ids::{Digest, JobId, OpId};
use idunno_shared::wire::control::{Change, Changed, JobOptions, JobState, NewFile};
use idunno_shared::wire::jobs::{BatchOutcome, BatchSize, QueryRange, Training};
use idunno_shared::wire::refusal::RefusalCode;

type Outcome = Result<Applied, RefusalCode>;

/// A version of a file: its number, content and extents.
type NaiveVersion = (u64, Digest, Vec<Digest>);

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
    manifest: Vec<(String, Vec<Digest>)>,
    query_states: Vec<QueryState>,
    version: Option<Digest>,
    name: Option<String>,
    weight: u32,
    /// Whether the input of each query must be kept.
    held: Vec<bool>,
    finished_ms: Option<u64>,
    filed: bool,
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
    jobs: BTreeMap<u64, NaiveJob>,
    models: BTreeMap<String, NaiveModel>,
    operations: BTreeMap<OpId, Applied>,
    now_ms: u64,
    last_job: u64,
    /// The sizes of extents.
    sizes: BTreeMap<Digest, u64>,
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
        let Command { at_ms, op, action } = command;
        if let Some(outcome) = op.and_then(|op| self.operations.get(&op)) {
            return Ok(outcome.clone());
        }
        let before_ms = self.now_ms;
        self.now_ms = before_ms.max(*at_ms);
        let outcome = self.apply_action(action);
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
            Action::StartJob { job, inputs } => self.start(*job, Some(inputs)).map(Applied::Changed),
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
        if versions.len() > 5 {
            versions.remove(0);
        }
        number
    }

    fn job(&mut self, id: JobId) -> Result<&mut NaiveJob, RefusalCode> {
        self.jobs.get_mut(&id.0).ok_or(RefusalCode::NotFound)
    }

    fn started(&mut self, id: JobId) -> Result<&mut NaiveJob, RefusalCode> {
        let job = self.job(id)?;
        let refused = matches!(job.state, JobState::Added | JobState::Cancelled);
        if refused { Err(RefusalCode::Conflict) } else { Ok(job) }
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
            Change::AddJob { model, dataset, batch_size, options } => {
                let JobOptions { name, weight, .. } = options;
                if u32::from(*batch_size) > 4096 || *weight == Some(0) {
                    return Err(RefusalCode::Invalid);
                }
                let model = model.to_string();
                if !PREDEFINED_MODELS.contains(&model.as_str()) && !self.models.contains_key(&model) {
                    return Err(RefusalCode::NotFound);
                }
                let name = name.as_ref().map(ToString::to_string);
                if name.is_some() && self.jobs.values().any(|job| job.name == name) {
                    return Err(RefusalCode::Conflict);
                }
                self.last_job += 1;
                let id = self.last_job;
                let (dataset, batch_size) = (dataset.to_string(), *batch_size);
                let (manifest, query_states) = (Vec::new(), Vec::new());
                let state = JobState::Added;
                let job = NaiveJob {
                    model,
                    dataset,
                    batch_size,
                    state,
                    manifest,
                    query_states,
                    version: None,
                    name,
                    weight: weight.unwrap_or(1),
                    held: Vec::new(),
                    finished_ms: None,
                    filed: false,
                };
                self.jobs.insert(id, job);
                Ok(Changed::JobAdded(JobId(id)))
            }
            Change::SetBatchSize { job, batch_size } => {
                if u32::from(*batch_size) > 4096 {
                    return Err(RefusalCode::Invalid);
                }
                let job = self.job(*job)?;
                if job.state.is_over() {
                    return Err(RefusalCode::Conflict);
                }
                job.batch_size = *batch_size;
                Ok(Changed::Done)
            }
            Change::StartJob { job } => self.start(*job, None),
            Change::StopJob { job } => {
                let job = self.job(*job)?;
                if !matches!(job.state, JobState::Running | JobState::Paused(_)) {
                    return Err(RefusalCode::Conflict);
                }
                job.state = JobState::Stopped;
                Ok(Changed::Done)
            }
            Change::SetWeight { job, weight } => {
                if !(1..=1000).contains(weight) {
                    return Err(RefusalCode::Invalid);
                }
                let job = self.job(*job)?;
                if job.state.is_over() {
                    return Err(RefusalCode::Conflict);
                }
                job.weight = *weight;
                Ok(Changed::Done)
            }
            Change::SetPolicy(_) => Ok(Changed::Done),
            Change::RetryDeadLetters { job, queries } => {
                let job = self.job(*job)?;
                let retried = job.retriable(queries)?;
                retried.iter().for_each(|&query| job.query_states[query] = QueryState::Pending);
                if job.state == JobState::Done {
                    job.run();
                }
                Ok(Changed::Retried { queries: retried.len() as u64 })
            }
            Change::DropDeadLetters { job, queries } => {
                let job = self.job(*job)?;
                let dropped = job.retriable(queries)?;
                dropped.iter().for_each(|&query| job.held[query] = false);
                Ok(Changed::Dropped { queries: dropped.len() as u64 })
            }
            Change::CancelJob { job } => {
                let now_ms = self.now_ms;
                let job = self.job(*job)?;
                if job.state.is_over() {
                    return Err(RefusalCode::Conflict);
                }
                (job.state, job.finished_ms) = (JobState::Cancelled, Some(now_ms));
                job.held.fill(false);
                Ok(Changed::Done)
            }
            Change::DeleteJob { job: id } => {
                let job = self.job(*id)?;
                if job.state == JobState::Running {
                    return Err(RefusalCode::Conflict);
                }
                self.jobs.remove(&id.0);
                self.files.remove(&format!("results/{id}.jsonl"));
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
        }
    }

    /// The queries that a start freezes: names and extents.
    fn manifest(&self, dataset: &str, inputs: Option<&Inputs>) -> Option<Vec<(String, Vec<Digest>)>> {
        let newest = |name: &str| self.files.get(name).map(|versions| versions.last().unwrap());
        let file = newest(dataset).filter(|_| dataset == "lines.jsonl");
        let Some(inputs) = inputs else {
            let prefix = format!("{dataset}/");
            let inputs = self
                .files
                .iter()
                .filter(|(name, _)| name.starts_with(&prefix) && **name != format!("{prefix}labels.csv"));
            let extents = |versions: &Vec<NaiveVersion>| versions.last().unwrap().2.clone();
            let manifest: Vec<_> = inputs.map(|(name, versions)| (name.clone(), extents(versions))).collect();
            return Some(manifest).filter(|manifest| file.is_none() && !manifest.is_empty());
        };
        let (Inputs::Records { digest, .. } | Inputs::Listed { digest, .. }) = inputs;
        let (_, _, extents) = file.filter(|(_, content, _)| content == digest)?;
        match inputs {
            Inputs::Records { count, blocks, .. } => {
                let size: u64 = extents.iter().map(|digest| self.sizes[digest]).sum();
                let within = blocks.last().unwrap().at < size;
                let record = |number| (format!("{dataset}:{number}"), extents.clone());
                within.then(|| (1..=*count).map(record).collect())
            }
            Inputs::Listed { names, .. } => {
                let entry = |name: &_| {
                    let name = ToString::to_string(name);
                    Some((name.clone(), newest(&name)?.2.clone()))
                };
                names.iter().map(entry).collect()
            }
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

    fn start(&mut self, id: JobId, inputs: Option<&Inputs>) -> Result<Changed, RefusalCode> {
        let job = self.job(id)?.clone();
        let version = self.models.get(&job.model).and_then(|model| model.version);
        let manifest = self.manifest(&job.dataset, inputs);
        let job = self.job(id)?;
        match (&job.state, version, manifest) {
            (JobState::Running | JobState::Done, ..) => {
                let (submitted, state) = (job.query_states.len() as u64, job.state.clone());
                return Ok(Changed::StartedBefore { submitted, state });
            }
            (JobState::Added, Some(version), Some(manifest)) => {
                job.version = Some(version);
                job.query_states = vec![QueryState::Pending; manifest.len()];
                job.held = vec![true; manifest.len()];
                job.manifest = manifest;
            }
            (JobState::Added | JobState::Cancelled, ..) => return Err(RefusalCode::Conflict),
            (JobState::Stopped | JobState::Paused(_), ..) => {}
        }
        job.run();
        Ok(Changed::JobStarted { submitted: job.query_states.len() as u64 })
    }

    fn commit(&mut self, id: JobId, batches: &[BatchOutcome]) -> Outcome {
        let now_ms = self.now_ms;
        let job = self.started(id)?;
        let mut rows = Vec::new();
        for batch in batches {
            let lease = numbers(&[batch.lease.range]);
            let answered = numbers(&batch.answered);
            let beyond = lease.last().is_none_or(|last| *last >= job.query_states.len() as u64);
            if beyond || batch.lease.job != id || answered.iter().any(|query| !lease.contains(query)) {
                return Err(RefusalCode::Invalid);
            }
            rows.extend(answered);
        }
        let total = rows.len() as u64;
        rows.sort_unstable();
        rows.dedup();
        if batches.is_empty() || rows.len() as u64 != total {
            return Err(RefusalCode::Invalid);
        }
        rows.retain(|query| {
            let state = &mut job.query_states[usize::try_from(*query).unwrap()];
            let new = *state == QueryState::Pending;
            if new {
                *state = QueryState::Done;
            }
            new
        });
        job.settle(now_ms);
        let accepted = rows.len() as u64;
        let job_done = job.state == JobState::Done;
        let mut accepted_ranges: Vec<QueryRange> = Vec::new();
        for query in rows {
            match accepted_ranges.last_mut().filter(|range| range.end() == query) {
                Some(range) => range.count += 1,
                None => accepted_ranges.push(QueryRange { first: query, count: 1 }),
            }
        }
        Ok(Applied::Committed { accepted, duplicates: total - accepted, job_done, accepted_ranges })
    }

    /// Panics unless the state equals this model.
    pub(super) fn compare(&self, state: &State) {
        let files: Vec<_> = state.files("", None).collect();
        assert_eq!(files.len(), self.files.len());
        for ((name, file), (model_name, versions)) in files.iter().zip(&self.files) {
            assert_eq!(name.as_str(), model_name);
            let shown = file.versions().map(|version| {
                (version.number, version.digest, version.extents.iter().map(|blob| blob.digest).collect())
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

impl NaiveJob {
    fn run(&mut self) {
        (self.state, self.finished_ms, self.filed) = (JobState::Running, None, false);
    }

    fn settle(&mut self, now_ms: u64) {
        if !self.query_states.contains(&QueryState::Pending) && self.state != JobState::Done {
            (self.state, self.finished_ms) = (JobState::Done, Some(now_ms));
            for (held, state) in self.held.iter_mut().zip(&self.query_states) {
                *held &= *state == QueryState::Dead;
            }
        }
    }

    /// The indices of the dead queries that can be retried.
    fn retriable(&self, queries: &[u64]) -> Result<Vec<usize>, RefusalCode> {
        let can_retry =
            |index: usize| self.query_states.get(index) == Some(&QueryState::Dead) && self.held[index];
        if queries.is_empty() {
            let all: Vec<usize> = (0..self.query_states.len()).filter(|index| can_retry(*index)).collect();
            return if all.is_empty() { Err(RefusalCode::Conflict) } else { Ok(all) };
        }
        let indices: Vec<usize> = queries.iter().map(|query| usize::try_from(*query).unwrap()).collect();
        if indices.iter().all(|index| can_retry(*index)) { Ok(indices) } else { Err(RefusalCode::NotFound) }
    }

    fn compare(&self, state: &State, id: JobId) {
        let shown = state.job(id).unwrap();
        assert_eq!((&shown.state, shown.batch_size), (&self.state, self.batch_size), "{id}");
        assert_eq!(
            (shown.weight, shown.finished_ms, shown.filed),
            (self.weight, self.finished_ms, self.filed)
        );
        assert_eq!(shown.artefact.as_ref().map(|artefact| artefact.version), self.version, "{id}");
        assert_eq!(shown.submitted, self.query_states.len() as u64, "{id}");
        let of = |wanted: QueryState| -> Vec<u64> {
            (0u64..)
                .zip(&self.query_states)
                .filter(|(_, state)| **state == wanted)
                .map(|(query, _)| query)
                .collect()
        };
        assert_eq!(shown.done.numbers().collect::<Vec<_>>(), of(QueryState::Done), "{id}");
        assert_eq!(shown.dead.numbers().collect::<Vec<_>>(), of(QueryState::Dead), "{id}");
        assert_eq!(state.pending(id).numbers().collect::<Vec<_>>(), of(QueryState::Pending), "{id}");
        let (dead_letters, _) = state.dead_letters(id, 0, 1024).unwrap();
        let names: Vec<_> = dead_letters
            .iter()
            .map(|dead_letter| (dead_letter.index, dead_letter.name.to_string()))
            .collect();
        let expected = of(QueryState::Dead).into_iter().map(|query| (query, self.input(query).0.clone()));
        assert_eq!(names, expected.collect::<Vec<_>>(), "{id}");
        for query in (0u64..).zip(&self.held).filter(|(_, held)| **held).map(|(query, _)| query) {
            let (name, extents) = self.input(query);
            assert_eq!(shown.input_name(query).unwrap().as_str(), name.as_str(), "{id}");
            let inputs: Vec<_> = state.queries(id, QueryRange { first: query, count: 1 }).collect();
            if let Some((number, input)) = inputs.first() {
                assert_eq!((*number, input.name.as_str()), (query, name.as_str()), "{id}");
                assert!(input.extents.iter().map(|blob| blob.digest).eq(extents.iter().copied()), "{id}");
            } else {
                assert!(shown.records.is_some(), "{id}: query {query} has no input");
            }
            for digest in extents {
                assert!(
                    state.blob(digest).is_some_and(|blob| blob.references > 0),
                    "{id}: the input of query {query} is not referenced"
                );
            }
        }
    }

    fn input(&self, query: u64) -> &(String, Vec<Digest>) {
        &self.manifest[usize::try_from(query).unwrap()]
    }
}
