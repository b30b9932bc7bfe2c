//! Webhooks: which ends of jobs are yet to be told, and to whom.
//!
//! A job that is done, cancelled or paused has ended for now, and its webhook is told so. What happens next replaces what was
//! not told yet: a job that runs again is not said to have ended.
//!
//! Invariants: the end of a job is due only while the job is in the state that is to be told, and has a webhook.

use std::sync::Arc;

use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{Changed, JobState};
use idunno_shared::wire::refusal::Refusal;
use idunno_shared::wire::webhooks::{WebhookUrl, WebhookView};
use serde::{Deserialize, Serialize};

use super::{Applied, JobRecord, JobTerms, State, truncate_reason};

/// The webhook of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// The address.
    pub url: WebhookUrl,
    /// When the job came into the state that is yet to be told, in milliseconds since the epoch; `None` if nothing is.
    pub due_ms: Option<u64>,
    /// Why the last telling was given up, if it was.
    pub failure: Option<String>,
}

impl From<&Webhook> for WebhookView {
    fn from(Webhook { url, due_ms, failure }: &Webhook) -> Self {
        Self { url: url.clone(), is_due: due_ms.is_some(), failure: failure.clone() }
    }
}

impl JobRecord {
    /// When it came into the state that its webhook is yet to be told; `None` if it has no webhook, or that knows.
    pub fn webhook_due_ms(&self) -> Option<u64> {
        self.terms.webhook.as_ref()?.due_ms
    }

    /// Has its webhook told its new state, if that is an end.
    pub(super) fn update_webhook(&mut self, now_ms: u64) {
        if self.terms.webhook.is_none() {
            return;
        }
        let is_end = matches!(self.state, JobState::Done | JobState::Cancelled | JobState::Paused(_));
        if let Some(webhook) = &mut Arc::make_mut(&mut self.terms).webhook {
            webhook.due_ms = is_end.then_some(now_ms);
            webhook.failure = None;
        }
    }
}

impl State {
    /// The jobs whose webhooks are to be told now, in order of their numbers. Whoever hears that a job is done finds its results in
    /// a file.
    pub fn due_webhooks(&self) -> impl Iterator<Item = &Arc<JobRecord>> {
        let jobs = self.untold.iter().filter_map(|id| self.jobs.get(id));
        jobs.filter(|job| job.state != JobState::Done || job.filed)
    }

    pub(super) fn set_webhook(&mut self, id: JobId, url: Option<&WebhookUrl>) -> Result<Changed, Refusal> {
        let job = self.unfinished(id, "webhook")?;
        // What another address was not told yet is told to this one.
        let due_ms = job.webhook_due_ms();
        let webhook = url.map(|url| Webhook { url: url.clone(), due_ms, failure: None });
        let terms = Arc::new(JobTerms { webhook, ..(*job.terms).clone() });
        self.set_job(JobRecord { terms, ..(**job).clone() });
        Ok(Changed::Done)
    }

    /// Records that the end of `due_ms` was told, or given up.
    pub(super) fn end_webhook(
        &mut self,
        id: JobId,
        due_ms: u64,
        failure: Option<&str>,
    ) -> Result<Applied, Refusal> {
        let job = self.job_or_refusal(id)?;
        let is_due = |webhook: &&Webhook| webhook.due_ms == Some(due_ms);
        let Some(webhook) = job.terms.webhook.as_ref().filter(is_due) else {
            return Err(Refusal::conflict(format!("{id} has another end to tell by now, or none")));
        };
        let webhook =
            Webhook { url: webhook.url.clone(), due_ms: None, failure: failure.map(truncate_reason) };
        let terms = Arc::new(JobTerms { webhook: Some(webhook), ..(*job.terms).clone() });
        self.set_job(JobRecord { terms, ..(**job).clone() });
        Ok(Applied::Done)
    }
}
