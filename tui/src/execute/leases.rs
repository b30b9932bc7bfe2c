//! `get-job-assigned-VMs`, `get-job-leases`: what members work on, and the batches that they hold.

use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{AssignmentView, ControlReply, ControlRequest, LeaseStage, LeaseView};

use super::job_lookup::resolve_any;
use super::members::natural;
use crate::answer::jobs::{JobAssignment, JobShare, Lease};
use crate::answer::table::Table;
use crate::answer::{Answer, Failure};
use crate::command::JobRef;
use crate::session::Session;

const TRUNCATED: &str = "batches that await their commit are omitted: there are too many";

/// `get-job-assigned-VMs`.
pub async fn assignments(session: &Session, job: Option<&JobRef>) -> Result<Answer, Failure> {
    let job = resolve_any(session, job).await?;
    let request = ControlRequest::Assignments(job);
    let ControlReply::Assignments(mut views) = session.cluster().control(request).await? else {
        return Err(Failure::unexpected());
    };
    views.sort_by(|a, b| natural(&a.name).cmp(&natural(&b.name)));
    let mut table = Table::new("VM JOB >DUE >SHARE NOW");
    let mut rows = Vec::new();
    for view in &views {
        let jobs = jobs_of(view, job);
        for (id, share) in &jobs {
            let now = if view.current.contains(id) { "works on it" } else { "" };
            let due = view.target_shares.iter().find(|(job, _)| job == id).map_or(0.0, |(_, due)| *due);
            table.row([view.name.clone(), id.to_string(), percent(due), percent(*share), now.to_owned()]);
        }
        if jobs.is_empty() && job.is_none() {
            let dash = String::from("-");
            table.row([view.name.clone(), dash, String::new(), String::new(), String::from("idle")]);
        }
        rows.push(JobAssignment {
            member: view.name.clone(),
            node_id: view.node.to_string(),
            shares: shares(&jobs),
            due: shares(&view.target_shares),
            current_jobs: view.current.iter().map(ToString::to_string).collect(),
        });
    }
    Ok(Answer::list(rows, table))
}

/// The jobs that a member worked on lately, is assigned to or holds batches of; only `job`, if one is asked for.
fn jobs_of(view: &AssignmentView, job: Option<JobId>) -> Vec<(JobId, f64)> {
    let mut jobs: Vec<(JobId, f64)> = view.shares.clone();
    for id in view.target_shares.iter().map(|(id, _)| id).chain(&view.current) {
        if !jobs.iter().any(|(known, _)| known == id) {
            jobs.push((*id, 0.0));
        }
    }
    jobs.retain(|(id, _)| job.is_none_or(|job| job == *id));
    jobs
}

fn shares(jobs: &[(JobId, f64)]) -> Vec<JobShare> {
    jobs.iter().map(|&(job, share)| JobShare { job: job.to_string(), share }).collect()
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// `get-job-leases`.
pub async fn leases(session: &Session, job: Option<&JobRef>) -> Result<Answer, Failure> {
    let job = resolve_any(session, job).await?;
    let request = ControlRequest::Leases { job, worker: None };
    let reply = session.cluster().control(request).await?;
    let ControlReply::Leases { leases: mut views, more } = reply else { return Err(Failure::unexpected()) };
    // A stable sort: each member's batches stay in the order in which it runs them.
    views.sort_by(|a, b| natural(&a.name).cmp(&natural(&b.name)));
    if views.is_empty() {
        return Ok(Answer::list::<Lease>(Vec::new(), "no member holds a batch"));
    }
    let mut table = Table::new("MEMBER JOB QUERIES +>COUNT +>ATTEMPT +>TERM STAGE");
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
    let answer = Answer::list(views.iter().map(Lease::from).collect(), table);
    Ok(if more { answer.incomplete(TRUNCATED) } else { answer })
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
