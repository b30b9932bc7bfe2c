//! `get-job-leases`: the batches in workers' hands.

use idunno_shared::wire::control::{ControlReply, ControlRequest, LeaseStage, LeaseView};
use serde_json::{Value, json};

use super::jobs::resolve_any;
use super::members::natural;
use crate::answer::table::Table;
use crate::answer::{Answer, Failure};
use crate::command::JobRef;
use crate::session::Session;

const LEFT_OUT: &str = "those that await their commit are left out: there are too many";

/// `get-job-leases`.
pub async fn leases(session: &Session, job: Option<&JobRef>) -> Result<Answer, Failure> {
    let job = resolve_any(session, job).await?;
    let request = ControlRequest::Leases { job, worker: None };
    let reply = session.cluster().control(request).await?;
    let ControlReply::Leases { leases: mut views, more } = reply else { return Err(Failure::unexpected()) };
    // A worker's stay in the order in which it runs them.
    views.sort_by(|a, b| natural(&a.name).cmp(&natural(&b.name)));
    if views.is_empty() {
        return Ok(Answer::new(json!([]), String::from("no batch is in a worker's hands")));
    }
    let mut table = Table::new("VM JOB QUERIES >COUNT >TRY >TERM NOW");
    for view in &views {
        table.row([
            view.name.clone(),
            view.lease.job.to_string(),
            queries(view),
            view.lease.range.count.to_string(),
            view.lease.attempt.to_string(),
            view.lease.term.to_string(),
            stage(view.stage),
        ]);
    }
    let answer = Answer::new(Value::Array(views.iter().map(row_json).collect()), table.render());
    Ok(if more { answer.incomplete(LEFT_OUT) } else { answer })
}

/// The first and the last query of a batch: `64-95`.
pub fn queries(view: &LeaseView) -> String {
    let range = view.lease.range;
    format!("{}-{}", range.first, range.end().saturating_sub(1))
}

/// How far its worker is with a batch.
pub fn stage(stage: LeaseStage) -> String {
    match stage {
        LeaseStage::Waiting => String::from("waits"),
        LeaseStage::Running { ms } => format!("runs, {:.1} s", f64::from(ms) / 1000.0),
        LeaseStage::AwaitingCommit => String::from("awaits its commit"),
    }
}

fn row_json(view: &LeaseView) -> Value {
    let (word, running_ms) = match view.stage {
        LeaseStage::Waiting => ("waits", None),
        LeaseStage::Running { ms } => ("runs", Some(ms)),
        LeaseStage::AwaitingCommit => ("ran", None),
    };
    json!({"vm": view.name, "node": view.node.to_string(), "job": view.lease.job.to_string(),
        "first": view.lease.range.first, "count": view.lease.range.count, "attempt": view.lease.attempt,
        "term": view.lease.term.0, "stage": word, "running_ms": running_ms})
}
