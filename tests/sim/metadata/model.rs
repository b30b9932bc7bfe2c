//! A naive model of the metadata: plain maps, one entry a query, no references, nothing shared.

use std::collections::BTreeMap;

use idunno_core::metadata::{Action, Applied, PREDEFINED_MODELS, State};
use idunno_shared::ids::{Digest, JobId, OpId};
use idunno_shared::wire::control::{Change, Changed, JobState, NewFile};
use idunno_shared::wire::jobs::{BatchOutcome, BatchSize, QueryRange};
use idunno_shared::wire::refusal::RefusalCode;

type Outcome = Result<Applied, RefusalCode>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pending,
    Done,
    Dead,
}

#[derive(Clone, Debug)]
struct Job {
    model: String,
    dataset: String,
    batch_size: BatchSize,
    state: JobState,
    manifest: Vec<(String, Vec<Digest>)>,
    fates: Vec<Fate>,
    version: Option<Digest>,
}

#[derive(Clone, Debug, Default)]
struct Training {
    version: Option<Digest>,
    training: Option<u64>,
}

/// What the metadata should be.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    /// Versions by number: content and extents.
    files: BTreeMap<String, Vec<(u64, Digest, Vec<Digest>)>>,
    jobs: BTreeMap<u64, Job>,
    models: BTreeMap<String, Training>,
    operations: BTreeMap<OpId, Applied>,
}

fn is_good(file: &NewFile) -> bool {
    let sum: u64 = file.extents.iter().map(|(blob, _)| blob.size).sum();
    sum == file.size && file.extents.iter().all(|(_, holders)| !holders.is_empty())
}

fn numbers(ranges: &[QueryRange]) -> Vec<u64> {
    ranges.iter().flat_map(|range| range.first..range.first + u64::from(range.count)).collect()
}

impl Model {
    pub(super) fn apply(&mut self, op: Option<OpId>, action: &Action) -> Outcome {
        if let Some(outcome) = op.and_then(|op| self.operations.get(&op)) {
            return Ok(outcome.clone());
        }
        let outcome = self.act(action);
        if let (Some(op), Ok(outcome)) = (op, &outcome) {
            self.operations.insert(op, outcome.clone());
        }
        outcome
    }

    fn act(&mut self, action: &Action) -> Outcome {
        match action {
            Action::Change(change) => self.change(change).map(Applied::Changed),
            Action::Holders(_) | Action::Forget(_) => Ok(Applied::Done),
            Action::CommitSegment { job, batches, .. } => self.commit(*job, batches),
            Action::DeadLetters { job, letters } => {
                let job = self.started(*job)?;
                if letters.iter().any(|letter| letter.index >= job.fates.len() as u64) {
                    return Err(RefusalCode::Invalid);
                }
                for letter in letters {
                    let fate = &mut job.fates[usize::try_from(letter.index).unwrap()];
                    if *fate == Fate::Pending {
                        *fate = Fate::Dead;
                    }
                }
                job.settle();
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
            Action::ModelTrained { model, version, extents, seed, .. } => {
                let known = self.models.get(model.as_str()).cloned().unwrap_or_default();
                if known.training != Some(*seed) {
                    return Err(RefusalCode::Conflict);
                }
                let blobs = extents.iter().map(|(blob, _)| blob.digest).collect();
                self.add_version(&format!("models/{model}"), *version, blobs);
                let trained = Training { version: Some(*version), training: None };
                self.models.insert(model.to_string(), trained);
                Ok(Applied::Done)
            }
            Action::ModelFailed { model, .. } => {
                let known = self.models.get_mut(model.as_str()).filter(|model| model.training.is_some());
                known.ok_or(RefusalCode::Conflict)?.training = None;
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

    fn job(&mut self, id: JobId) -> Result<&mut Job, RefusalCode> {
        self.jobs.get_mut(&id.0).ok_or(RefusalCode::NotFound)
    }

    fn started(&mut self, id: JobId) -> Result<&mut Job, RefusalCode> {
        let job = self.job(id)?;
        if job.state == JobState::Added { Err(RefusalCode::Conflict) } else { Ok(job) }
    }

    fn change(&mut self, change: &Change) -> Result<Changed, RefusalCode> {
        match change {
            Change::CommitFiles { files, .. } => {
                if files.is_empty() || !files.iter().all(is_good) {
                    return Err(RefusalCode::Invalid);
                }
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
            Change::TrainStart { models, seed } => {
                let mut models = models.clone();
                if models.is_empty() {
                    models = PREDEFINED_MODELS.iter().map(|name| name.parse().unwrap()).collect();
                }
                models.sort();
                for model in &models {
                    self.models.entry(model.to_string()).or_default().training = Some(*seed);
                }
                Ok(Changed::Training(models))
            }
            Change::AddJob { model, dataset, batch_size } => {
                if u32::from(*batch_size) > 4096 {
                    return Err(RefusalCode::Invalid);
                }
                let model = model.to_string();
                if !PREDEFINED_MODELS.contains(&model.as_str()) && !self.models.contains_key(&model) {
                    return Err(RefusalCode::NotFound);
                }
                let id = self.jobs.len() as u64 + 1;
                let (dataset, batch_size) = (dataset.to_string(), *batch_size);
                let (manifest, fates) = (Vec::new(), Vec::new());
                let state = JobState::Added;
                self.jobs
                    .insert(id, Job { model, dataset, batch_size, state, manifest, fates, version: None });
                Ok(Changed::JobAdded(JobId(id)))
            }
            Change::SetBatchSize { job, batch_size } => {
                if u32::from(*batch_size) > 4096 {
                    return Err(RefusalCode::Invalid);
                }
                let job = self.job(*job)?;
                if job.state == JobState::Done {
                    return Err(RefusalCode::Conflict);
                }
                job.batch_size = *batch_size;
                Ok(Changed::Done)
            }
            Change::StartJob { job } => self.start(*job),
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
                if job.state == JobState::Done { Err(RefusalCode::Conflict) } else { Ok(Changed::Done) }
            }
            Change::SetPolicy(_) => Ok(Changed::Done),
            Change::RetryDeadLetters { job } => {
                let job = self.job(*job)?;
                let dead = job.fates.iter_mut().filter(|fate| **fate == Fate::Dead);
                let queries = dead.map(|fate| *fate = Fate::Pending).count() as u64;
                if queries == 0 {
                    return Err(RefusalCode::Conflict);
                }
                if job.state == JobState::Done {
                    job.state = JobState::Running;
                }
                Ok(Changed::Retried { queries })
            }
        }
    }

    fn start(&mut self, id: JobId) -> Result<Changed, RefusalCode> {
        let job = self.job(id)?.clone();
        let version = self.models.get(&job.model).and_then(|model| model.version);
        let prefix = format!("{}/", job.dataset);
        let inputs = self
            .files
            .iter()
            .filter(|(name, _)| name.starts_with(&prefix) && **name != format!("{prefix}labels.csv"));
        let manifest: Vec<_> =
            inputs.map(|(name, versions)| (name.clone(), versions.last().unwrap().2.clone())).collect();
        let job = self.job(id)?;
        match job.state {
            JobState::Running | JobState::Done => return Err(RefusalCode::Conflict),
            JobState::Added if version.is_none() || manifest.is_empty() => return Err(RefusalCode::Conflict),
            JobState::Added => {
                job.version = version;
                job.fates = vec![Fate::Pending; manifest.len()];
                job.manifest = manifest;
            }
            JobState::Stopped | JobState::Paused(_) => {}
        }
        job.state = JobState::Running;
        Ok(Changed::JobStarted { submitted: job.fates.len() as u64 })
    }

    fn commit(&mut self, id: JobId, batches: &[BatchOutcome]) -> Outcome {
        let job = self.started(id)?;
        let mut rows = Vec::new();
        for batch in batches {
            let lease = numbers(&[batch.lease.range]);
            let answered = numbers(&batch.answered);
            let beyond = lease.last().is_none_or(|last| *last >= job.fates.len() as u64);
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
            let fate = &mut job.fates[usize::try_from(*query).unwrap()];
            let new = *fate == Fate::Pending;
            if new {
                *fate = Fate::Done;
            }
            new
        });
        job.settle();
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

    /// Panics where the state shows anything else than this model.
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

impl Job {
    fn settle(&mut self) {
        if !self.fates.contains(&Fate::Pending) {
            self.state = JobState::Done;
        }
    }

    fn compare(&self, state: &State, id: JobId) {
        let shown = state.job(id).unwrap();
        assert_eq!((&shown.state, shown.batch_size), (&self.state, self.batch_size), "{id}");
        assert_eq!(shown.artefact.as_ref().map(|artefact| artefact.version), self.version, "{id}");
        assert_eq!(shown.submitted, self.fates.len() as u64, "{id}");
        let of = |wanted: Fate| -> Vec<u64> {
            (0u64..).zip(&self.fates).filter(|(_, fate)| **fate == wanted).map(|(query, _)| query).collect()
        };
        assert_eq!(shown.done.numbers().collect::<Vec<_>>(), of(Fate::Done), "{id}");
        assert_eq!(shown.dead.numbers().collect::<Vec<_>>(), of(Fate::Dead), "{id}");
        assert_eq!(state.pending(id).numbers().collect::<Vec<_>>(), of(Fate::Pending), "{id}");
        let (letters, _) = state.dead_letters(id, 0, 1024).unwrap();
        let names: Vec<_> = letters.iter().map(|letter| (letter.index, letter.name.to_string())).collect();
        let expected = of(Fate::Dead).into_iter().map(|query| (query, self.input(query).0.clone()));
        assert_eq!(names, expected.collect::<Vec<_>>(), "{id}");
        for query in of(Fate::Pending).into_iter().chain(of(Fate::Dead)) {
            let inputs: Vec<_> = state.queries(id, QueryRange { first: query, count: 1 }).collect();
            let (name, extents) = self.input(query);
            assert_eq!((inputs[0].0, inputs[0].1.name.as_str()), (query, name.as_str()), "{id}");
            assert!(inputs[0].1.extents.iter().map(|blob| blob.digest).eq(extents.iter().copied()), "{id}");
            for digest in extents {
                assert!(
                    state.blob(digest).is_some_and(|blob| blob.references > 0),
                    "{id}: input {query} is lost"
                );
            }
        }
    }

    fn input(&self, query: u64) -> &(String, Vec<Digest>) {
        &self.manifest[usize::try_from(query).unwrap()]
    }
}
