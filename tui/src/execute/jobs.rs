//! Jobs.

use std::collections::BTreeSet;

use idunno_shared::ids::JobId;
use idunno_shared::names::{DatasetName, ModelName};
use idunno_shared::wire::control::{
    Change, Changed, ControlReply, ControlRequest, DeadLetter, ITEMS_PER_REQUEST_MAX, JobState, JobView,
};
use idunno_shared::wire::jobs::BatchSize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::table::Table;
use super::wait::{answered, pause};
use super::{Answer, Exit, Failure, Session, members, text};

/// `add-job`.
pub async fn add(
    session: &Session,
    model: ModelName,
    dataset: DatasetName,
    batch_size: BatchSize,
) -> Result<Answer, Failure> {
    let change = Change::AddJob { model: model.clone(), dataset: dataset.clone(), batch_size };
    let Changed::JobAdded(job) = session.cluster().change(change).await? else {
        return Err(Failure::unexpected());
    };
    let data = json!({"job": job.to_string(), "model": model, "dataset": dataset, "batch_size": size_json(batch_size)});
    Ok(Answer::new(data, format!("{job} added: {model} over {dataset}, batch size {batch_size}")))
}

/// A batch size for programs: a number, or "auto".
fn size_json(size: BatchSize) -> Value {
    match size {
        BatchSize::Fixed(queries) => json!(queries),
        BatchSize::Auto => json!("auto"),
    }
}

/// `set-batch-size`.
pub async fn set_batch_size(session: &Session, job: JobId, batch_size: BatchSize) -> Result<Answer, Failure> {
    session.cluster().change(Change::SetBatchSize { job, batch_size }).await?;
    let data = json!({"job": job.to_string(), "batch_size": size_json(batch_size)});
    Ok(Answer::new(data, format!("{job} has batch size {batch_size}")))
}

/// `start-job`.
pub async fn start(session: &Session, jobs: &[JobId], wait: bool) -> Result<Answer, Failure> {
    let jobs = known(session, jobs).await?;
    let mut lines = Vec::new();
    let mut rows = Vec::new();
    for &job in &jobs {
        let changed =
            session.cluster().change(Change::StartJob { job }).await.map_err(|e| after(e.into(), &lines))?;
        let Changed::JobStarted { submitted } = changed else { return Err(Failure::unexpected()) };
        lines.push(format!("{job} started: {submitted} queries"));
        rows.push(json!({"job": job.to_string(), "submitted": submitted}));
    }
    if !wait {
        return Ok(Answer::new(Value::Array(rows), lines.join("\n")));
    }
    let views = await_jobs(session, &jobs).await?;
    Ok(stats_answer(&views))
}

/// Each job once, in the order given; refused, before anything changes, if there is no such job.
async fn known(session: &Session, jobs: &[JobId]) -> Result<Vec<JobId>, Failure> {
    let mut seen = BTreeSet::new();
    let jobs: Vec<JobId> = jobs.iter().copied().filter(|job| seen.insert(*job)).collect();
    let views = job_views(session, None).await?;
    let is_missing = |job: &&JobId| !views.iter().any(|view| view.id == **job);
    let missing: Vec<String> = jobs.iter().filter(is_missing).map(ToString::to_string).collect();
    if missing.is_empty() {
        return Ok(jobs);
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
fn halted(view: &JobView) -> Option<Failure> {
    if !matches!(view.state, JobState::Stopped | JobState::Paused(_)) {
        return None;
    }
    let (state, reason) = text::job_state(&view.state);
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Some(Failure::new(Exit::Partial, format!("{} is {state}{reason}", view.id)))
}

/// `stop-job`.
pub async fn stop(session: &Session, jobs: &[JobId]) -> Result<Answer, Failure> {
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
pub async fn stats(session: &Session, job: Option<JobId>) -> Result<Answer, Failure> {
    let views = job_views(session, job).await?;
    if views.is_empty() {
        return Ok(Answer::new(json!([]), "no jobs: add-job makes one"));
    }
    Ok(stats_answer(&views))
}

fn stats_answer(views: &[JobView]) -> Answer {
    let mut table = Table::new(
        "JOB MODEL STATE >DONE >DEAD >PENDING >TOTAL >QPS_10S >QPS >MEAN_MS >STD >P50 >P90 >P95 >P99 ETA >TOP-1 >BATCH >LOCAL",
    );
    let mut reasons = Vec::new();
    for view in views {
        let (state, reason) = text::job_state(&view.state);
        reasons.extend(reason.map(|reason| format!("{} is paused: {reason}", view.id)));
        let p = &view.processing_ms;
        table.row([
            view.id.to_string(),
            view.model.to_string(),
            state.to_owned(),
            view.done.to_string(),
            view.dead.to_string(),
            pending(view).to_string(),
            view.submitted.to_string(),
            format!("{:.1}", view.rate_10s_qps),
            format!("{:.1}", view.rate_qps),
            format!("{:.2}", p.mean),
            format!("{:.2}", p.std_dev),
            format!("{:.2}", p.median),
            format!("{:.2}", p.p90),
            format!("{:.2}", p.p95),
            format!("{:.2}", p.p99),
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
        "local_share": view.local_share,
    })
}

/// `get-job-assigned-VMs`.
pub async fn assignments(session: &Session, job: Option<JobId>) -> Result<Answer, Failure> {
    let ControlReply::Assignments(mut views) =
        session.cluster().control(ControlRequest::Assignments(job)).await?
    else {
        return Err(Failure::unexpected());
    };
    views.sort_by_cached_key(|view| members::natural(&view.name));
    let mut table = Table::new("VM JOB >DUE >SHARE NOW");
    let mut rows = Vec::new();
    for view in &views {
        let mut jobs: Vec<(JobId, f64)> = view.shares.clone();
        for job in view.due.iter().map(|(job, _)| job).chain(&view.current) {
            if !jobs.iter().any(|(shown, _)| shown == job) {
                jobs.push((*job, 0.0));
            }
        }
        jobs.retain(|(id, _)| job.is_none_or(|job| job == *id));
        for (id, share) in &jobs {
            let now = if view.current.contains(id) { "works on it" } else { "" };
            let due = view.due.iter().find(|(job, _)| job == id).map_or(0.0, |(_, due)| *due);
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
        let (shares, due) = (shares_json(&jobs), shares_json(&view.due));
        let current: Vec<String> = view.current.iter().map(ToString::to_string).collect();
        rows.push(
            json!({"vm": view.name, "node": view.node.to_string(), "shares": shares, "due": due, "current": current}),
        );
    }
    Ok(Answer::new(Value::Array(rows), table.render()))
}

/// `retry-dead-letters`.
pub async fn retry_dead_letters(session: &Session, job: JobId) -> Result<Answer, Failure> {
    let Changed::Retried { queries } = session.cluster().change(Change::RetryDeadLetters { job }).await?
    else {
        return Err(Failure::unexpected());
    };
    let data = json!({"job": job.to_string(), "queries": queries});
    Ok(Answer::new(data, format!("{job}: {queries} queries run again")))
}

/// All dead letters of a job, in query order.
pub async fn all_dead_letters(session: &Session, job: JobId) -> Result<Vec<DeadLetter>, Failure> {
    let mut all: Vec<DeadLetter> = Vec::new();
    loop {
        let from = all.last().map_or(0, |letter| letter.index + 1);
        let request = ControlRequest::DeadLetters { job, from, limit: page_limit() };
        let ControlReply::DeadLetters { letters, more } = session.cluster().control(request).await? else {
            return Err(Failure::unexpected());
        };
        let empty = letters.is_empty();
        all.extend(letters);
        if !more || empty {
            return Ok(all);
        }
    }
}

/// The largest page.
pub fn page_limit() -> u32 {
    u32::try_from(ITEMS_PER_REQUEST_MAX).unwrap_or(u32::MAX)
}

/// `get-dead-letters`.
pub async fn dead_letters(session: &Session, job: JobId) -> Result<Answer, Failure> {
    let letters = all_dead_letters(session, job).await?;
    if letters.is_empty() {
        return Ok(Answer::new(json!([]), format!("{job} has no dead letters")));
    }
    // The list of members only gives names: without it ids are shown.
    let members = members::any_list(session).await.unwrap_or_default();
    let mut table = Table::new(">QUERY NAME >ATTEMPTS WORKER REASON");
    let mut rows = Vec::new();
    for letter in &letters {
        let worker = text::member_name(&members, letter.worker);
        rows.push(json!({"query": letter.index, "name": letter.name, "error": letter.reason,
            "worker": worker, "attempts": letter.attempts}));
        table.row([
            letter.index.to_string(),
            letter.name.to_string(),
            letter.attempts.to_string(),
            worker,
            letter.reason.clone(),
        ]);
    }
    Ok(Answer::new(Value::Array(rows), table.render()))
}
