//! Dead letters: queries that failed for good.

use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{Change, Changed, ControlReply, ControlRequest, DeadLetter};
use serde_json::{Value, json};

use super::job_ref::Resolved;
use super::jobs::{page_limit, resolve};
use super::members;
use crate::answer::table::Table;
use crate::answer::{Answer, Exit, Failure, text};
use crate::command::DeadLettersVerb;
use crate::session::Session;

/// `dead-letters`.
pub async fn run(session: &Session, verb: DeadLettersVerb) -> Result<Answer, Failure> {
    match verb {
        DeadLettersVerb::List { job } => list(session, resolve(session, &job).await?).await,
        DeadLettersVerb::Show { job, query } => show(session, resolve(session, &job).await?.id, query).await,
        DeadLettersVerb::Retry { job, queries } => {
            let job = resolve(session, &job).await?.id;
            let changed = session.cluster().change(Change::RetryDeadLetters { job, queries }).await?;
            let Changed::Retried { queries } = changed else { return Err(Failure::unexpected()) };
            let data = json!({"job": job.to_string(), "queries": queries});
            let verb = if queries == 1 { "runs" } else { "run" };
            Ok(Answer::new(data, format!("{job}: {} {verb} again", text::queries(queries))))
        }
        DeadLettersVerb::Drop { job, queries } => {
            let job = resolve(session, &job).await?.id;
            let changed = session.cluster().change(Change::DropDeadLetters { job, queries }).await?;
            let Changed::Dropped { queries } = changed else { return Err(Failure::unexpected()) };
            let data = json!({"job": job.to_string(), "queries": queries});
            Ok(Answer::new(data, format!("{job}: {} given up", text::queries(queries))))
        }
    }
}

/// All dead letters of a job, in query order.
pub async fn all(session: &Session, job: JobId) -> Result<Vec<DeadLetter>, Failure> {
    let mut all: Vec<DeadLetter> = Vec::new();
    loop {
        let from = all.last().map_or(0, |dead_letter| dead_letter.index + 1);
        let (dead_letters, more) = page(session, job, from, page_limit()).await?;
        let empty = dead_letters.is_empty();
        all.extend(dead_letters);
        if !more || empty {
            return Ok(all);
        }
    }
}

async fn page(
    session: &Session,
    job: JobId,
    from: u64,
    limit: u32,
) -> Result<(Vec<DeadLetter>, bool), Failure> {
    match session.cluster().control(ControlRequest::DeadLetters { job, from, limit }).await? {
        ControlReply::DeadLetters { dead_letters, more } => Ok((dead_letters, more)),
        _ => Err(Failure::unexpected()),
    }
}

fn data(dead_letter: &DeadLetter, worker: &str) -> Value {
    json!({"query": dead_letter.index, "name": dead_letter.name, "error": dead_letter.reason, "worker": worker,
        "attempts": dead_letter.attempts, "dropped": dead_letter.dropped})
}

async fn list(session: &Session, found: Resolved) -> Result<Answer, Failure> {
    let job = found.id;
    let dead_letters = all(session, job).await?;
    if dead_letters.is_empty() {
        return Ok(Answer::new(json!([]), format!("{job} has no dead letters")));
    }
    // The list of members only gives names: without it ids are shown.
    let members = members::any_list(session).await.unwrap_or_default();
    let mut table = Table::new(">QUERY NAME >ATTEMPTS WORKER STATE REASON");
    let mut rows = Vec::new();
    for dead_letter in &dead_letters {
        let worker = text::member_name(&members, dead_letter.worker);
        rows.push(data(dead_letter, &worker));
        table.row([
            dead_letter.index.to_string(),
            dead_letter.name.to_string(),
            dead_letter.attempts.to_string(),
            worker,
            String::from(if dead_letter.dropped { "given up" } else { "dead" }),
            dead_letter.reason.clone(),
        ]);
    }
    Ok(Answer::new(Value::Array(rows), table.render()).noted(found.note))
}

async fn show(session: &Session, job: JobId, query: u64) -> Result<Answer, Failure> {
    let (dead_letters, _) = page(session, job, query, 1).await?;
    let dead_letter =
        dead_letters.into_iter().find(|dead_letter| dead_letter.index == query).ok_or_else(|| {
            Failure::new(
                Exit::NotFound,
                format!("query {query} of {job} is no dead letter: dead-letters list shows them"),
            )
        })?;
    let members = members::any_list(session).await.unwrap_or_default();
    let worker = text::member_name(&members, dead_letter.worker);
    let next = if dead_letter.dropped {
        String::from("given up: it cannot be run again")
    } else {
        format!("dead-letters retry {job} {query} runs it again, dead-letters drop {job} {query} gives it up")
    };
    let lines = [
        format!("query     {query} of {job}"),
        format!("input     {}", dead_letter.name),
        format!("reason    {}", dead_letter.reason),
        format!("worker    {worker}, the last that failed"),
        format!("attempts  {}", dead_letter.attempts),
        format!("next      {next}"),
    ];
    Ok(Answer::new(data(&dead_letter, &worker), lines.join("\n")))
}
