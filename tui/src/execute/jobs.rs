//! Jobs: added, started, stopped, looked at.

use idunno_shared::ids::JobId;
use idunno_shared::names::{DatasetName, ModelName};
use idunno_shared::wire::control::{
    Change, Changed, ControlReply, ControlRequest, ITEMS_PER_REQUEST_MAX, JobOptions, JobState, JobView,
};
use idunno_shared::wire::jobs::{BatchSize, Parameters};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::job_ref::{self, JobRefError, Resolved, Scope};
use super::members;
use super::wait::{answered, pause};
use crate::answer::table::Table;
use crate::answer::{Answer, Exit, Failure, text};
use crate::command::JobRef;
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
    let (name, parameters) = (options.name.clone(), options.parameters.clone());
    let change = Change::AddJob { model: model.clone(), dataset: dataset.clone(), batch_size, options };
    let Changed::JobAdded(job) = session.cluster().change(change).await? else {
        return Err(Failure::unexpected());
    };
    let data = json!({"job": job.to_string(), "name": name, "model": model, "dataset": dataset,
        "batch_size": size_json(batch_size), "parameters": parameters});
    let called = name.map(|name| format!(", called {name}")).unwrap_or_default();
    Ok(Answer::new(data, format!("{job} added{called}: {model} over {dataset}, batch size {batch_size}")))
}

/// The parameters as the cluster takes them; refused where one is given twice.
pub fn parameters(given: Vec<Parameter>) -> Result<Parameters, Failure> {
    let mut parameters = Parameters::new();
    for Parameter(name, value) in given {
        let text = format!("parameter {name} is given twice");
        if parameters.insert(name, value).is_some() {
            return Err(Failure::new(Exit::Usage, text));
        }
    }
    Ok(parameters)
}

/// A batch size for programs: a number, or "auto".
fn size_json(size: BatchSize) -> Value {
    match size {
        BatchSize::Fixed(queries) => json!(queries),
        BatchSize::Auto => json!("auto"),
    }
}

/// `set-batch-size`.
pub async fn set_batch_size(
    session: &Session,
    job: &JobRef,
    batch_size: BatchSize,
) -> Result<Answer, Failure> {
    let job = resolve_unfinished(session, job).await?;
    session.cluster().change(Change::SetBatchSize { job, batch_size }).await?;
    let data = json!({"job": job.to_string(), "batch_size": size_json(batch_size)});
    Ok(Answer::new(data, format!("{job} has batch size {batch_size}")))
}

/// `start-job`.
pub async fn start(session: &Session, jobs: &[JobRef], wait: bool) -> Result<Answer, Failure> {
    let jobs = known(session, jobs).await?;
    let mut lines = Vec::new();
    let mut rows = Vec::new();
    for &job in &jobs {
        let changed =
            session.cluster().change(Change::StartJob { job }).await.map_err(|e| after(e.into(), &lines))?;
        let (submitted, before) = match changed {
            Changed::JobStarted { submitted } => (submitted, None),
            Changed::StartedBefore { submitted, state } => (submitted, Some(state)),
            _ => return Err(Failure::unexpected()),
        };
        lines.push(match &before {
            None => format!("{job} started: {}", text::queries(submitted)),
            Some(JobState::Done) => format!("{job} is done already: nothing to start"),
            Some(_) => format!("{job} runs already: nothing to start"),
        });
        rows.push(json!({"job": job.to_string(), "submitted": submitted, "started": before.is_none()}));
    }
    if !wait {
        return Ok(Answer::new(Value::Array(rows), lines.join("\n")));
    }
    let views = await_jobs(session, &jobs).await?;
    Ok(stats_answer(&views))
}

/// The job that a person means, over or not.
pub async fn resolve(session: &Session, job: &JobRef) -> Result<Resolved, Failure> {
    resolve_in(session, job, Scope::Any).await
}

/// The same, for a command that steers a job.
pub async fn resolve_unfinished(session: &Session, job: &JobRef) -> Result<JobId, Failure> {
    resolve_in(session, job, Scope::Unfinished).await.map(|found| found.id)
}

/// The same, over or not as `scope` says.
pub async fn resolve_in(session: &Session, job: &JobRef, scope: Scope) -> Result<Resolved, Failure> {
    let views = match job {
        JobRef::Id(_) => Vec::new(),
        JobRef::Name(_) => job_views(session, None).await?,
    };
    Ok(job_ref::find(&views, job, scope)?)
}

/// The same where there may be no job to speak of.
pub async fn resolve_any(session: &Session, job: Option<&JobRef>) -> Result<Option<JobId>, Failure> {
    match job {
        None => Ok(None),
        Some(job) => resolve(session, job).await.map(|found| Some(found.id)),
    }
}

/// Each job once, in the order given; refused, before anything changes, if there is no such job.
async fn known(session: &Session, jobs: &[JobRef]) -> Result<Vec<JobId>, Failure> {
    let views = job_views(session, None).await?;
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for job in jobs {
        match job_ref::find(&views, job, Scope::Unfinished) {
            Ok(Resolved { id, .. }) if found.contains(&id) => {}
            Ok(Resolved { id, .. }) if views.iter().any(|view| view.id == id) => found.push(id),
            Ok(_) | Err(JobRefError::Unknown(_)) => missing.push(job.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    let text = format!("there is no {}: nothing was changed", missing.join(", no "));
    Err(Failure::new(Exit::NotFound, text))
}

/// A failure in the middle of several changes names those that were made.
fn after(failure: Failure, done: &[String]) -> Failure {
    if done.is_empty() {
        return failure;
    }
    Failure::new(Exit::Partial, format!("{failure} (done before: {})", done.join("; ")))
}

async fn await_jobs(session: &Session, jobs: &[JobId]) -> Result<Vec<JobView>, Failure> {
    let started = Instant::now();
    let mut progress = None;
    let mut shown = 0;
    loop {
        let late = match answered(job_views(session, None).await)? {
            Err(unreachable) => unreachable,
            Ok(mut views) => {
                views.retain(|view| jobs.contains(&view.id));
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

/// Why a job that is waited for does not go on by itself, if it does not.
pub fn halted(view: &JobView) -> Option<Failure> {
    if !matches!(view.state, JobState::Stopped | JobState::Paused(_) | JobState::Cancelled) {
        return None;
    }
    let (state, reason) = text::job_state(&view.state);
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Some(Failure::new(Exit::Partial, format!("{} is {state}{reason}", view.id)))
}

/// `stop-job`.
pub async fn stop(session: &Session, jobs: &[JobRef]) -> Result<Answer, Failure> {
    let jobs = known(session, jobs).await?;
    let mut lines = Vec::new();
    for &job in &jobs {
        session.cluster().change(Change::StopJob { job }).await.map_err(|e| after(e.into(), &lines))?;
        lines.push(format!("{job} stopped"));
    }
    let names: Vec<String> = jobs.iter().map(ToString::to_string).collect();
    Ok(Answer::new(json!({"stopped": names}), lines.join("\n")))
}

/// Figures of one job, or of all.
pub async fn job_views(session: &Session, job: Option<JobId>) -> Result<Vec<JobView>, Failure> {
    match session.cluster().control(ControlRequest::Jobs(job)).await? {
        ControlReply::Jobs(jobs) => Ok(jobs),
        _ => Err(Failure::unexpected()),
    }
}

/// `get-job-stats`.
pub async fn stats(session: &Session, job: Option<&JobRef>) -> Result<Answer, Failure> {
    let job = resolve_any(session, job).await?;
    let views = job_views(session, job).await?;
    if views.is_empty() {
        return Ok(Answer::new(json!([]), "no jobs: add-job makes one"));
    }
    Ok(stats_answer(&views))
}

fn stats_answer(views: &[JobView]) -> Answer {
    let mut table = Table::new(
        "JOB NAME MODEL STATE >WEIGHT >DONE >DEAD >PENDING >TOTAL >QPS_10S >QPS >MEAN_MS >STD >P50 >P90 >P95 >P99 ETA >TOP-1 >BATCH >LOCAL",
    );
    let mut reasons = Vec::new();
    for view in views {
        let (state, reason) = text::job_state(&view.state);
        reasons.extend(reason.map(|reason| format!("{} is paused: {reason}", view.id)));
        let p = &view.processing_ms;
        let ms = |value: f64| if view.done == 0 { String::from("-") } else { format!("{value:.2}") };
        table.row([
            view.id.to_string(),
            name(view),
            view.model.to_string(),
            state.to_owned(),
            view.details.weight.to_string(),
            view.done.to_string(),
            view.dead.to_string(),
            pending(view).to_string(),
            view.submitted.to_string(),
            format!("{:.1}", view.rate_10s_qps),
            format!("{:.1}", view.rate_qps),
            ms(p.mean),
            ms(p.std_dev),
            ms(p.median),
            ms(p.p90),
            ms(p.p95),
            ms(p.p99),
            view.eta_s.map_or_else(|| String::from("-"), text::seconds),
            accuracy(view).map_or_else(|| String::from("-"), |share| format!("{:.1} %", share * 100.0)),
            text::batch_size(view),
            format!("{:.0} %", view.local_share * 100.0),
        ]);
    }
    let mut text = table.render();
    for reason in reasons {
        text.push('\n');
        text.push_str(&reason);
    }
    Answer::new(views.iter().map(job_json).collect(), text)
}

/// A job's name, or a dash.
pub fn name(view: &JobView) -> String {
    view.details.name.as_ref().map_or_else(|| String::from("-"), ToString::to_string)
}

/// Queries neither answered nor dead.
pub fn pending(view: &JobView) -> u64 {
    view.submitted.saturating_sub(view.done).saturating_sub(view.dead)
}

/// The share of labelled answers that were right.
pub fn accuracy(view: &JobView) -> Option<f64> {
    (view.labelled > 0).then(|| view.correct as f64 / view.labelled as f64)
}

/// A job for programs.
pub fn job_json(view: &JobView) -> Value {
    let (state, reason) = text::job_state(&view.state);
    json!({
        "job": view.id.to_string(),
        "name": view.details.name,
        "model": view.model,
        "version": view.version.map(|digest| digest.to_string()),
        "dataset": view.dataset,
        "batch_size": size_json(view.batch_size),
        "batch_now": view.batch_now,
        "state": state,
        "reason": reason,
        "submitted": view.submitted,
        "done": view.done,
        "dead": view.dead,
        "pending": pending(view),
        "leased": view.leased,
        "rate_10s_qps": view.rate_10s_qps,
        "rate_qps": view.rate_qps,
        "running_s": view.running_s,
        "processing_ms": view.processing_ms,
        "eta_s": view.eta_s,
        "labelled": view.labelled,
        "correct": view.correct,
        "accuracy_top1": accuracy(view),
        "duplicates_dropped": view.duplicates_dropped,
        "weight": view.details.weight,
        "parameters": view.details.parameters,
        "dropped": view.details.dropped,
        "created_ms": view.details.created_ms,
        "started_ms": view.details.started_ms,
        "finished_ms": view.details.finished_ms,
        "results": view.details.results,
        "local_share": view.local_share,
    })
}

/// `get-job-assigned-VMs`.
pub async fn assignments(session: &Session, job: Option<&JobRef>) -> Result<Answer, Failure> {
    let job = resolve_any(session, job).await?;
    let ControlReply::Assignments(mut views) =
        session.cluster().control(ControlRequest::Assignments(job)).await?
    else {
        return Err(Failure::unexpected());
    };
    views.sort_by(|a, b| members::natural(&a.name).cmp(&members::natural(&b.name)));
    let mut table = Table::new("VM JOB >DUE >SHARE NOW");
    let mut rows = Vec::new();
    for view in &views {
        let mut jobs: Vec<(JobId, f64)> = view.shares.clone();
        for job in view.target_shares.iter().map(|(job, _)| job).chain(&view.current) {
            if !jobs.iter().any(|(shown, _)| shown == job) {
                jobs.push((*job, 0.0));
            }
        }
        jobs.retain(|(id, _)| job.is_none_or(|job| job == *id));
        for (id, share) in &jobs {
            let now = if view.current.contains(id) { "works on it" } else { "" };
            let due = view.target_shares.iter().find(|(job, _)| job == id).map_or(0.0, |(_, due)| *due);
            let percent = |share: f64| format!("{:.0} %", share * 100.0);
            table.row([view.name.clone(), id.to_string(), percent(due), percent(*share), now.to_owned()]);
        }
        if jobs.is_empty() && job.is_none() {
            let none = String::new();
            table.row([view.name.clone(), String::from("-"), none.clone(), none, String::from("idle")]);
        }
        let shares_json = |shares: &[(JobId, f64)]| -> Vec<Value> {
            shares.iter().map(|(id, share)| json!({"job": id.to_string(), "share": share})).collect()
        };
        let (shares, due) = (shares_json(&jobs), shares_json(&view.target_shares));
        let current: Vec<String> = view.current.iter().map(ToString::to_string).collect();
        rows.push(
            json!({"vm": view.name, "node": view.node.to_string(), "shares": shares, "due": due, "current": current}),
        );
    }
    Ok(Answer::new(Value::Array(rows), table.render()))
}

/// The largest page.
pub fn page_limit() -> u32 {
    u32::try_from(ITEMS_PER_REQUEST_MAX).unwrap_or(u32::MAX)
}
