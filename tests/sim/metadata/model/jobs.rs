//! The jobs of the naive model.

use idunno_core::metadata::{Applied, Inputs, PREDEFINED_MODELS, State};
use idunno_shared::ids::{Digest, JobId};
use idunno_shared::names::{DatasetName, ModelName};
use idunno_shared::wire::control::{
    Change, Changed, FailedMax, JobOptions, JobState, Reuse, Selection, StartOptions,
};
use idunno_shared::wire::jobs::{BatchOutcome, BatchSize, QueryRange};
use idunno_shared::wire::refusal::RefusalCode;
use idunno_shared::wire::webhooks::WebhookUrl;

use super::{NaiveJob, NaiveMetadata, NaiveVersion, NaiveWebhook, Outcome, QueryState, numbers};

impl NaiveMetadata {
    pub(super) fn apply_job_change(&mut self, change: &Change) -> Result<Changed, RefusalCode> {
        match change {
            Change::AddJob { model, dataset, batch_size, options } => {
                self.add_job(model, dataset, *batch_size, options)
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
            Change::StartJob { job, options } => self.start(*job, None, *options),
            Change::StopJob { job } => {
                let job = self.job(*job)?;
                if !matches!(job.state, JobState::Running | JobState::Paused(_) | JobState::Waiting(_)) {
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
            Change::SetWebhook { job, url } => {
                let job = self.job(*job)?;
                if job.state.is_over() {
                    return Err(RefusalCode::Conflict);
                }
                let due_ms = job.webhook.as_ref().and_then(|webhook| webhook.due_ms);
                let webhook = |url: &WebhookUrl| NaiveWebhook { url: url.to_string(), due_ms, failure: None };
                job.webhook = url.as_ref().map(webhook);
                Ok(Changed::Done)
            }
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
                job.state = JobState::Cancelled;
                job.finished_ms = Some(now_ms);
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
            _ => unreachable!("{change:?} changes no job"),
        }
    }

    fn add_job(
        &mut self,
        model: &ModelName,
        dataset: &DatasetName,
        batch_size: BatchSize,
        options: &JobOptions,
    ) -> Result<Changed, RefusalCode> {
        let JobOptions { name, weight, .. } = options;
        if u32::from(batch_size) > 4096 || *weight == Some(0) {
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
        let job = NaiveJob {
            model,
            dataset: dataset.to_string(),
            batch_size,
            state: JobState::Added,
            manifest: Vec::new(),
            pinned: None,
            query_states: Vec::new(),
            version: None,
            name,
            weight: weight.unwrap_or(1),
            held: Vec::new(),
            finished_ms: None,
            filed: false,
            failed_max: None,
            webhook: None,
        };
        self.jobs.insert(id, job);
        Ok(Changed::JobAdded(JobId(id)))
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
        let (Inputs::Records { digest, .. } | Inputs::Listed { digest, .. }) = inputs else { return None };
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
            Inputs::Folder { .. } => None,
        }
    }

    pub(super) fn pin(&mut self, id: JobId) -> Outcome {
        let moment = self.revision + 1;
        let job = self.job(id)?.clone();
        let manifest = self.manifest(&job.dataset, None).ok_or(RefusalCode::Conflict)?;
        if job.state != JobState::Added {
            return Err(RefusalCode::Conflict);
        }
        self.job(id)?.pinned = Some((moment, manifest));
        Ok(Applied::Done)
    }

    pub(super) fn start(
        &mut self,
        id: JobId,
        inputs: Option<&Inputs>,
        options: StartOptions,
    ) -> Result<Changed, RefusalCode> {
        let job = self.job(id)?.clone();
        let state = self.state_after(id, options.after)?;
        let chooses_queries = options.selection != Selection::All || options.reuse != Reuse::Off;
        let is_late = job.state != JobState::Added && chooses_queries;
        if is_late || (job.state == JobState::Running && options != StartOptions::default()) {
            return Err(RefusalCode::Conflict);
        }
        let version = self.models.get(&job.model).and_then(|model| model.version);
        let manifest = match inputs {
            Some(Inputs::Folder { moment, .. }) => {
                job.pinned.clone().filter(|(pinned, _)| pinned == moment).map(|(_, manifest)| manifest)
            }
            inputs => self.manifest(&job.dataset, inputs),
        };
        let job = self.job(id)?;
        match (&job.state, version, manifest) {
            (JobState::Running | JobState::Done, ..) => {
                let (submitted, state) = (job.query_states.len() as u64, job.state.clone());
                return Ok(Changed::StartedBefore { submitted, state });
            }
            (JobState::Added, Some(version), Some(mut manifest)) => {
                let inputs = manifest.len() as u64;
                let chosen = |input: u64| match options.selection {
                    Selection::All => true,
                    Selection::First(count) => input < count.get(),
                    Selection::Sample(count) => {
                        let queries = 0..count.get().min(inputs);
                        queries.into_iter().any(|query| options.selection.input_of(query, inputs) == input)
                    }
                };
                let mut number = 0;
                manifest.retain(|_| {
                    number += 1;
                    chosen(number - 1)
                });
                job.version = Some(version);
                job.query_states = vec![QueryState::Pending; manifest.len()];
                job.held = vec![true; manifest.len()];
                job.manifest = manifest;
            }
            (JobState::Added | JobState::Cancelled, ..) => return Err(RefusalCode::Conflict),
            (JobState::Stopped | JobState::Paused(_) | JobState::Waiting(_), ..) => {}
        }
        job.failed_max = options.failed_max;
        job.run();
        job.state = state;
        Ok(Changed::JobStarted { submitted: job.query_states.len() as u64 })
    }
    pub(super) fn commit(&mut self, id: JobId, batches: &[BatchOutcome]) -> Outcome {
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
}

impl NaiveMetadata {
    fn state_after(&self, id: JobId, before: Option<JobId>) -> Result<JobState, RefusalCode> {
        let Some(before) = before else { return Ok(JobState::Running) };
        let state = |job: JobId| self.jobs.get(&job.0).map(|job| &job.state).ok_or(RefusalCode::NotFound);
        let mut chain = vec![before];
        while let JobState::Waiting(next) = state(chain[chain.len() - 1])? {
            chain.push(*next);
        }
        match state(before)? {
            _ if chain.contains(&id) => Err(RefusalCode::Conflict),
            JobState::Done => Ok(JobState::Running),
            JobState::Cancelled => Err(RefusalCode::Conflict),
            _ => Ok(JobState::Waiting(before)),
        }
    }

    /// A job that came into another state has that end to tell, or none.
    pub(super) fn notice_end(&mut self, id: u64, before: &JobState) {
        let now_ms = self.now_ms;
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.state != *before) else { return };
        let is_end = matches!(job.state, JobState::Done | JobState::Cancelled | JobState::Paused(_));
        if let Some(webhook) = &mut job.webhook {
            (webhook.due_ms, webhook.failure) = (is_end.then_some(now_ms), None);
        }
    }

    /// What becomes of jobs whose wait is over.
    pub(super) fn follow_up(&mut self) {
        let states: Vec<_> = self.jobs.iter().map(|(id, job)| (*id, job.state.clone())).collect();
        for job in self.jobs.values_mut() {
            let JobState::Waiting(before) = job.state else { continue };
            match states.iter().find(|(id, _)| *id == before.0) {
                Some((_, JobState::Done)) => job.run(),
                Some((_, JobState::Cancelled)) | None => {
                    job.state = JobState::Paused(String::from("which it follows"));
                }
                Some(_) => {}
            }
        }
    }
}

impl NaiveJob {
    pub(super) fn pause_if_too_many_failed(&mut self) {
        let failed = self.query_states.iter().filter(|state| **state == QueryState::Dead).count();
        let limit = match self.failed_max {
            None => self.query_states.len(),
            Some(FailedMax::Queries(limit)) => usize::try_from(limit).unwrap(),
            Some(FailedMax::Percent(percent)) => self.query_states.len() * usize::from(percent) / 100,
        };
        if failed > limit && self.state == JobState::Running {
            self.state = JobState::Paused(String::from("queries have failed"));
        }
    }

    pub(super) fn run(&mut self) {
        self.state = JobState::Running;
        self.finished_ms = None;
        self.filed = false;
    }

    pub(super) fn settle(&mut self, now_ms: u64) {
        if !self.query_states.contains(&QueryState::Pending) && self.state != JobState::Done {
            self.state = JobState::Done;
            self.finished_ms = Some(now_ms);
            for (held, state) in self.held.iter_mut().zip(&self.query_states) {
                *held &= *state == QueryState::Dead;
            }
        }
    }

    /// The indices of the dead queries that can be retried.
    pub(super) fn retriable(&self, queries: &[u64]) -> Result<Vec<usize>, RefusalCode> {
        let can_retry =
            |index: usize| self.query_states.get(index) == Some(&QueryState::Dead) && self.held[index];
        if queries.is_empty() {
            let all: Vec<usize> = (0..self.query_states.len()).filter(|index| can_retry(*index)).collect();
            return if all.is_empty() { Err(RefusalCode::Conflict) } else { Ok(all) };
        }
        let indices: Vec<usize> = queries.iter().map(|query| usize::try_from(*query).unwrap()).collect();
        if indices.iter().all(|index| can_retry(*index)) { Ok(indices) } else { Err(RefusalCode::NotFound) }
    }

    pub(super) fn compare(&self, state: &State, id: JobId) {
        let shown = state.job(id).unwrap();
        match (&shown.state, &self.state) {
            (JobState::Paused(shown), JobState::Paused(expected)) => {
                assert!(shown.contains(expected), "{id}");
            }
            (shown, expected) => assert_eq!(shown, expected, "{id}"),
        }
        assert_eq!(shown.batch_size, self.batch_size, "{id}");
        assert_eq!(
            (shown.weight, shown.finished_ms, shown.filed),
            (self.weight, self.finished_ms, self.filed)
        );
        let webhook = shown.terms.webhook.as_ref().map(|webhook| NaiveWebhook {
            url: webhook.url.to_string(),
            due_ms: webhook.due_ms,
            failure: webhook.failure.clone(),
        });
        assert_eq!(webhook, self.webhook, "{id}");
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
            assert_eq!(state.input_name(shown, query).unwrap().as_str(), name.as_str(), "{id}");
            let inputs = state.queries(id, QueryRange { first: query, count: 1 });
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

    pub(super) fn input(&self, query: u64) -> &(String, Vec<Digest>) {
        &self.manifest[usize::try_from(query).unwrap()]
    }
}
