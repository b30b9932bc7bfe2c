//! Jobs: shared out, ended, deleted, remembered.

use idunno_shared::wire::control::{Change, JobView};
use idunno_shared::wire::jobs::Policy;
use serde_json::json;

use super::jobs::{accuracy, job_json, job_views, name, resolve, resolve_unfinished};
use crate::answer::table::Table;
use crate::answer::{Answer, Exit, Failure, text};
use crate::command::JobRef;
use crate::session::Session;

/// `set-weight`.
pub async fn set_weight(session: &Session, job: &JobRef, weight: u32) -> Result<Answer, Failure> {
    let job = resolve_unfinished(session, job).await?;
    session.cluster().change(Change::SetWeight { job, weight }).await?;
    let data = json!({"job": job.to_string(), "weight": weight});
    Ok(Answer::new(data, format!("{job} has weight {weight}")))
}

/// `set-policy`.
pub async fn set_policy(session: &Session, policy: Policy) -> Result<Answer, Failure> {
    session.cluster().change(Change::SetPolicy(policy)).await?;
    let (word, means) = text::policy(policy);
    Ok(Answer::new(json!({"policy": word}), format!("policy {word}: {means}")))
}

/// `cancel-job`.
pub async fn cancel(session: &Session, job: &JobRef) -> Result<Answer, Failure> {
    let job = resolve_unfinished(session, job).await?;
    session.cluster().change(Change::CancelJob { job }).await?;
    Ok(Answer::new(json!({"cancelled": job.to_string()}), format!("{job} cancelled; what it has is kept")))
}

/// `delete-job`.
pub async fn delete(session: &Session, job: &JobRef, yes: bool) -> Result<Answer, Failure> {
    let job = resolve(session, job).await?.id;
    if !yes {
        let text = format!("{job} and its results would be gone for good: say --yes");
        return Err(Failure::new(Exit::Refused, text));
    }
    session.cluster().change(Change::DeleteJob { job }).await?;
    Ok(Answer::new(json!({"deleted": job.to_string()}), format!("{job} deleted, with its results")))
}

/// `get-job-history`.
pub async fn history(session: &Session) -> Result<Answer, Failure> {
    let mut views: Vec<JobView> = job_views(session, None).await?;
    views.retain(|view| view.state.is_over());
    views.sort_by_key(|view| std::cmp::Reverse((view.details.finished_ms, view.id)));
    if views.is_empty() {
        return Ok(Answer::new(json!([]), "no job is over yet"));
    }
    let mut table = Table::new(
        "JOB NAME MODEL DATASET STATE ENDED >RAN >DONE >DEAD >TOTAL >QPS >P50 >P99 >TOP-1 RESULTS",
    );
    for view in &views {
        let details = &view.details;
        table.row([
            view.id.to_string(),
            name(view),
            view.model.to_string(),
            view.dataset.to_string(),
            text::job_state(&view.state).0.to_owned(),
            details.finished_ms.map_or_else(|| String::from("-"), text::moment),
            text::seconds(view.running_s),
            view.done.to_string(),
            view.dead.to_string(),
            view.submitted.to_string(),
            format!("{:.1}", view.rate_qps),
            format!("{:.2}", view.processing_ms.median),
            format!("{:.2}", view.processing_ms.p99),
            accuracy(view).map_or_else(|| String::from("-"), |share| format!("{:.1} %", share * 100.0)),
            details.results.as_ref().map_or_else(|| String::from("-"), ToString::to_string),
        ]);
    }
    Ok(Answer::new(views.iter().map(job_json).collect(), table.render()))
}
