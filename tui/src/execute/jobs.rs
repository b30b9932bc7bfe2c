//! Commands that change jobs.

use std::sync::{Arc, Mutex, PoisonError};

use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::files::Progress;
use idunno_shared::ids::JobId;
use idunno_shared::names::{DatasetName, ModelName};
use idunno_shared::wire::control::{Change, Changed, JobOptions, JobState, JobView, StartOptions};
use idunno_shared::wire::jobs::{BatchSize, Parameters, Policy, RecordFormat};
use idunno_shared::wire::webhooks::WebhookUrl;
use tokio::time::Instant;

use super::job_lookup::{job_views, resolve_existing, resolve_in, resolve_unfinished};
use super::job_ref::Scope;
use super::job_stats;
use super::wait::{Look, look, pause};
use crate::answer::jobs::{
    AddedJob, CancelledJob, DeletedJob, JobBatchSize, JobWeight, SharingPolicy, StartedJob, StoppedJobs,
};
use crate::answer::records::{self, RecordsRead};
use crate::answer::{self, Answer, Exit, Failure, text};
use crate::command::JobRef;
use crate::command::adding::Adding;
use crate::command::values::Parameter;
use crate::session::Session;

/// `add-job`.
pub async fn add(
    session: &Session,
    model: ModelName,
    dataset: DatasetName,
    batch_size: BatchSize,
    options: JobOptions,
) -> Result<Answer, Failure> {
    let name = options.name.clone();
    let parameters = answer::jobs::parameters(&options.parameters);
    let change = Change::AddJob { model: model.clone(), dataset: dataset.clone(), batch_size, options };
    let Changed::JobAdded(job) = session.cluster().change(change).await? else {
        return Err(Failure::unexpected());
    };
    let named = name.as_ref().map(|name| format!(" as {name}")).unwrap_or_default();
    let text = format!("{job} added{named}: {model} over {dataset}, batch size {batch_size}");
    let added = AddedJob {
        job: job.to_string(),
        name: name.map(|name| name.to_string()),
        model: model.to_string(),
        dataset: dataset.to_string(),
        batch_size: batch_size.into(),
        parameters,
    };
    Ok(Answer::new(&added, text))
}

impl Adding {
    /// As the cluster takes it; refused where a parameter is given twice.
    pub fn options(self) -> Result<JobOptions, Failure> {
        let Self { name, weight, parameters, reading, keep } = self;
        let (parameters, reading) = (parameters_of(parameters)?, reading.options(keep));
        Ok(JobOptions { name, weight, parameters, reading })
    }
}

/// The parameters as the cluster takes them; refused where one is given twice.
fn parameters_of(given: Vec<Parameter>) -> Result<Parameters, Failure> {
    let mut parameters = Parameters::new();
    for Parameter(name, value) in given {
        let text = format!("parameter {name} is given twice");
        if parameters.insert(name, value).is_some() {
            return Err(Failure::new(Exit::Usage, text));
        }
    }
    Ok(parameters)
}

/// `set-batch-size`.
pub async fn set_batch_size(
    session: &Session,
    job: &JobRef,
    batch_size: BatchSize,
) -> Result<Answer, Failure> {
    let job = resolve_unfinished(session, job).await?;
    session.cluster().change(Change::SetBatchSize { job, batch_size }).await?;
    let changed = JobBatchSize { job: job.to_string(), batch_size: batch_size.into() };
    Ok(Answer::new(&changed, format!("{job} has batch size {batch_size}")))
}

/// `set-weight`.
pub async fn set_weight(session: &Session, job: &JobRef, weight: u32) -> Result<Answer, Failure> {
    let job = resolve_unfinished(session, job).await?;
    session.cluster().change(Change::SetWeight { job, weight }).await?;
    let changed = JobWeight { job: job.to_string(), weight };
    Ok(Answer::new(&changed, format!("{job} has weight {weight}")))
}

/// `set-policy`.
pub async fn set_policy(session: &Session, policy: Policy) -> Result<Answer, Failure> {
    session.cluster().change(Change::SetPolicy(policy)).await?;
    let (word, meaning) = text::policy(policy);
    Ok(Answer::new(&SharingPolicy { policy: policy.into() }, format!("policy {word}: {meaning}")))
}

/// `start-job`.
pub async fn start(
    session: &Session,
    jobs: &[JobRef],
    options: StartOptions,
    webhook: Option<WebhookUrl>,
    wait: bool,
) -> Result<Answer, Failure> {
    let jobs = resolve_existing(session, jobs).await?;
    let mut lines = Vec::new();
    let mut started = Vec::new();
    for &job in &jobs {
        // Before the start: a short job may be over at once.
        if let Some(url) = webhook.clone() {
            let set = session.cluster().change(Change::SetWebhook { job, url: Some(url) }).await;
            set.map_err(|error| after(error.into(), &lines))?;
        }
        let changed = start_one(session, job, options).await;
        let (submitted, state_before) = match changed.map_err(|error| after(error.into(), &lines))? {
            Changed::JobStarted { submitted } => (submitted, None),
            Changed::StartedBefore { submitted, state } => (submitted, Some(state)),
            _ => return Err(Failure::unexpected()),
        };
        lines.push(match &state_before {
            None => {
                let after =
                    options.after.map(|before| format!(", once {before} is done")).unwrap_or_default();
                format!("{job} started: {}{after}", text::queries(submitted))
            }
            Some(JobState::Done) => format!("{job} is already done"),
            Some(_) => format!("{job} is already running"),
        });
        let records = if state_before.is_none() { records_of(session, job).await } else { None };
        lines.extend(records.as_deref().and_then(records::sentence).map(|found| format!("{job} {found}")));
        started.push(StartedJob {
            job: job.to_string(),
            submitted,
            started: state_before.is_none(),
            records: records.as_deref().map(RecordsRead::from),
        });
    }
    if wait {
        return Ok(ended(&await_jobs(session, &jobs, false).await?));
    }
    Ok(Answer::list(started, lines.join("\n")))
}

/// `wait-job`.
pub async fn wait(session: &Session, jobs: &[JobRef], any: bool) -> Result<Answer, Failure> {
    let jobs = resolve_existing(session, jobs).await?;
    Ok(ended(&await_jobs(session, &jobs, any).await?))
}

/// The statistics of jobs that are done.
fn ended(views: &[JobView]) -> Answer {
    let answer = job_stats::answer(views);
    let is_all_dead = |view: &&JobView| view.submitted > 0 && view.dead == view.submitted;
    match views.iter().find(is_all_dead) {
        Some(view) => answer.incomplete(format!(
            "every query of {job} failed: 'idunno dead-letters list {job}' says why",
            job = view.id
        )),
        None => answer,
    }
}

/// How a started job reads its records. Without this the job has started just the same.
async fn records_of(session: &Session, job: JobId) -> Option<Box<RecordFormat>> {
    job_views(session, Some(job)).await.ok()?.pop()?.details.records
}

/// Starts one job, and shows how far its dataset is read.
async fn start_one(session: &Session, job: JobId, options: StartOptions) -> Result<Changed, ClusterError> {
    let shown: Mutex<Option<(Box<dyn Progress>, u64)>> = Mutex::default();
    let reporter = Arc::clone(&session.reporter);
    let show = move |done_bytes: u64, total_bytes: u64| {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        let label = format!("reading the dataset of {job}");
        let (progress, before) = shown.get_or_insert_with(|| (reporter.start(&label, 0, total_bytes), 0));
        progress.set_total(total_bytes);
        progress.bytes(done_bytes.saturating_sub(*before));
        *before = done_bytes.max(*before);
    };
    session.cluster().with_progress(Arc::new(show)).change(Change::StartJob { job, options }).await
}

/// `stop-job`.
pub async fn stop(session: &Session, jobs: &[JobRef]) -> Result<Answer, Failure> {
    let jobs = resolve_existing(session, jobs).await?;
    let mut lines = Vec::new();
    for &job in &jobs {
        let changed = session.cluster().change(Change::StopJob { job }).await;
        changed.map_err(|error| after(error.into(), &lines))?;
        lines.push(format!("{job} stopped"));
    }
    let stopped = StoppedJobs { jobs: jobs.iter().map(ToString::to_string).collect() };
    Ok(Answer::new(&stopped, lines.join("\n")))
}

/// `cancel-job`.
pub async fn cancel(session: &Session, job: &JobRef, yes: bool) -> Result<Answer, Failure> {
    let job = resolve_unfinished(session, job).await?;
    if !yes {
        let what = format!("this ends {job} for good, and keeps its results so far");
        return Err(Failure::unconfirmed(what, "--yes"));
    }
    session.cluster().change(Change::CancelJob { job }).await?;
    let text = format!("{job} cancelled; its results so far are kept");
    Ok(Answer::new(&CancelledJob { job: job.to_string() }, text))
}

/// `delete-job`.
pub async fn delete(session: &Session, job: &JobRef, yes: bool) -> Result<Answer, Failure> {
    let job = resolve_in(session, job, Scope::Only).await?.id;
    if !yes {
        return Err(Failure::unconfirmed(format!("this permanently deletes {job} and its results"), "--yes"));
    }
    session.cluster().change(Change::DeleteJob { job }).await?;
    let text = format!("{job} and its results deleted");
    Ok(Answer::new(&DeletedJob { job: job.to_string() }, text))
}

/// A failure in the middle of several changes names those that were made.
fn after(failure: Failure, done: &[String]) -> Failure {
    if done.is_empty() {
        return failure;
    }
    Failure::new(Exit::Partial, format!("{failure} (done before: {})", done.join("; ")))
}

/// Waits until all jobs are done, or `any` of them is. One that will not be done without a person ends the wait, too.
async fn await_jobs(session: &Session, jobs: &[JobId], any: bool) -> Result<Vec<JobView>, Failure> {
    let started = Instant::now();
    let mut progress = None;
    let mut shown = 0;
    loop {
        let late = match look(job_views(session, None).await)? {
            Look::Unreachable(reason) => reason,
            Look::Found(mut views) => {
                views.retain(|view| jobs.contains(&view.id));
                let done = views.iter().find(|view| view.state == JobState::Done);
                if let Some(first) = done.filter(|_| any) {
                    return Ok(vec![first.clone()]);
                }
                if let Some(halted) = views.iter().find_map(halted) {
                    return Err(halted);
                }
                let total: u64 = views.iter().map(|view| view.submitted).sum();
                let done: u64 = views.iter().map(|view| view.done + view.dead).sum();
                let display = progress.get_or_insert_with(|| session.reporter.start("queries", total, 0));
                (shown..done).for_each(|_| display.file());
                shown = shown.max(done);
                if views.iter().all(|view| view.state == JobState::Done) {
                    return Ok(views);
                }
                format!("{done} of {total} queries done")
            }
        };
        pause(session, started, &late).await?;
    }
}

/// Why a job that a command waits for will not end without a person, if so.
pub fn halted(view: &JobView) -> Option<Failure> {
    if !matches!(view.state, JobState::Stopped | JobState::Paused(_) | JobState::Cancelled) {
        return None;
    }
    let (state, reason) = text::job_state(&view.state);
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Some(Failure::new(Exit::Partial, format!("{} is {state}{reason}", view.id)))
}
