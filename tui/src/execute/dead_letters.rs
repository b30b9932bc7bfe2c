//! `dead-letters`: queries that failed for good.

use idunno_shared::client::results::dead_letters;
use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{Change, Changed, ControlReply, ControlRequest, DeadLetter};

use super::job_lookup::{resolve, resolve_in};
use super::job_ref::{Resolved, Scope};
use super::members;
use crate::answer::results::{DeadLetter as DeadLetterJson, DroppedDeadLetters, RetriedDeadLetters};
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
            let job = resolve_in(session, &job, Scope::Only).await?.id;
            let changed = session.cluster().change(Change::RetryDeadLetters { job, queries }).await?;
            let Changed::Retried { queries } = changed else { return Err(Failure::unexpected()) };
            let verb = if queries == 1 { "runs" } else { "run" };
            let text = format!("{job}: {} {verb} again", text::queries(queries));
            Ok(Answer::new(&RetriedDeadLetters { job: job.to_string(), queries }, text))
        }
        DeadLettersVerb::Drop { job, queries, yes } => {
            let job = resolve_in(session, &job, Scope::Only).await?.id;
            if !yes {
                let which = match queries.len() as u64 {
                    0 => String::from("all dead letters"),
                    count => text::count(count, "dead letter"),
                };
                let what = format!("this gives up {which} of {job} for good");
                return Err(Failure::unconfirmed(what, "--yes"));
            }
            let changed = session.cluster().change(Change::DropDeadLetters { job, queries }).await?;
            let Changed::Dropped { queries } = changed else { return Err(Failure::unexpected()) };
            let text = format!("{job}: {} dropped", text::queries(queries));
            Ok(Answer::new(&DroppedDeadLetters { job: job.to_string(), queries }, text))
        }
    }
}

/// The dead letter of a query, or the first after it.
async fn first_from(session: &Session, job: JobId, from: u64) -> Result<Vec<DeadLetter>, Failure> {
    match session.cluster().control(ControlRequest::DeadLetters { job, from, limit: 1 }).await? {
        ControlReply::DeadLetters { dead_letters, .. } => Ok(dead_letters),
        _ => Err(Failure::unexpected()),
    }
}

async fn list(session: &Session, found: Resolved) -> Result<Answer, Failure> {
    let job = found.id;
    let dead_letters = dead_letters(&session.cluster(), job).await?;
    if dead_letters.is_empty() {
        return Ok(Answer::list::<DeadLetterJson>(Vec::new(), format!("{job} has no dead letters")));
    }
    // Only for their names: without the list, ids are shown.
    let members = members::any_list(session).await.unwrap_or_default();
    let mut table = Table::new(">QUERY NAME +>ATTEMPTS +MEMBER STATE REASON");
    let mut rows = Vec::new();
    for dead_letter in &dead_letters {
        let member = text::member_name(&members, dead_letter.worker);
        table.row([
            dead_letter.index.to_string(),
            dead_letter.name.to_string(),
            dead_letter.attempts.to_string(),
            member.clone(),
            String::from(if dead_letter.dropped { "dropped" } else { "dead" }),
            dead_letter.reason.clone(),
        ]);
        rows.push(DeadLetterJson::new(dead_letter, member));
    }
    Ok(Answer::list(rows, table).noted(found.note))
}

async fn show(session: &Session, job: JobId, query: u64) -> Result<Answer, Failure> {
    let first = first_from(session, job, query).await?;
    let Some(dead_letter) = first.into_iter().find(|found| found.index == query) else {
        let text = format!("query {query} of {job} is not a dead letter: dead-letters list {job} lists them");
        return Err(Failure::new(Exit::NotFound, text));
    };
    let members = members::any_list(session).await.unwrap_or_default();
    let member = text::member_name(&members, dead_letter.worker);
    let next = if dead_letter.dropped {
        String::from("dropped: it cannot be run again")
    } else {
        format!(
            "dead-letters retry {job} {query} runs it again; dead-letters drop {job} {query} drops it for good"
        )
    };
    let given = |name: &str, json: &Option<String>| json.as_ref().map(|json| format!("{name:<9} {json}"));
    let mut lines = vec![format!("query     {query} of {job}"), format!("input     {}", dead_letter.name)];
    lines.extend(given("id", &dead_letter.identity.id));
    lines.extend(given("label", &dead_letter.identity.label));
    lines.extend([
        format!("reason    {}", dead_letter.reason),
        format!("member    {member}, which failed last"),
        format!("attempts  {}", dead_letter.attempts),
        format!("next      {next}"),
    ]);
    Ok(Answer::new(&DeadLetterJson::new(&dead_letter, member), lines.join("\n")))
}
