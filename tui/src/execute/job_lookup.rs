//! Asks the cluster for jobs, and for the one that a person means.

use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{ControlReply, ControlRequest, JobView};

use super::job_ref::{self, Resolved, Scope};
use super::pages::page_limit;
use crate::answer::{Exit, Failure};
use crate::command::JobRef;
use crate::session::Session;

/// Figures of one job, or of all.
pub async fn job_views(session: &Session, job: Option<JobId>) -> Result<Vec<JobView>, Failure> {
    if job.is_some() {
        return match session.cluster().control(ControlRequest::Jobs(job)).await? {
            ControlReply::Jobs(jobs) => Ok(jobs),
            _ => Err(Failure::unexpected()),
        };
    }
    let mut jobs: Vec<JobView> = Vec::new();
    loop {
        let after = jobs.last().map(|view| view.id);
        let request = ControlRequest::JobPage { after, limit: page_limit() };
        let ControlReply::JobPage { jobs: page, more } = session.cluster().control(request).await? else {
            return Err(Failure::unexpected());
        };
        let is_empty = page.is_empty();
        jobs.extend(page);
        if !more || is_empty {
            return Ok(jobs);
        }
    }
}

/// The job that a person means, over or not.
pub async fn resolve(session: &Session, job: &JobRef) -> Result<Resolved, Failure> {
    resolve_in(session, job, Scope::Any).await
}

/// The job that a person means, for a command that only unfinished jobs allow.
pub async fn resolve_unfinished(session: &Session, job: &JobRef) -> Result<JobId, Failure> {
    resolve_in(session, job, Scope::Unfinished).await.map(|found| found.id)
}

/// The job that a person means among those in `scope`.
pub async fn resolve_in(session: &Session, job: &JobRef, scope: Scope) -> Result<Resolved, Failure> {
    let views = match job {
        JobRef::Id(_) => Vec::new(),
        JobRef::Name(_) => job_views(session, None).await?,
    };
    Ok(job_ref::find(&views, job, scope)?)
}

/// The job that a person means, if one is named.
pub async fn resolve_any(session: &Session, job: Option<&JobRef>) -> Result<Option<JobId>, Failure> {
    match job {
        None => Ok(None),
        Some(job) => resolve(session, job).await.map(|found| Some(found.id)),
    }
}

/// Each job once, in the given order; refused, before anything changes, if one of them does not exist.
pub async fn resolve_existing(session: &Session, jobs: &[JobRef]) -> Result<Vec<JobId>, Failure> {
    let views = job_views(session, None).await?;
    let mut found = Vec::new();
    for job in jobs {
        let Resolved { id, .. } = job_ref::find(&views, job, Scope::Unfinished)?;
        if !views.iter().any(|view| view.id == id) {
            return Err(missing(id));
        }
        if !found.contains(&id) {
            found.push(id);
        }
    }
    Ok(found)
}

/// No job has this number.
pub fn missing(job: JobId) -> Failure {
    Failure::new(Exit::NotFound, format!("there is no {job}: get-job-stats lists the jobs"))
}
