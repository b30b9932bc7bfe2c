//! Tells webhooks how jobs ended.
//!
//! The log says which ends are due, and forgets one once its receiver has it, or nobody will: so an end is told at least once,
//! whoever coordinates, and a receiver knows a repetition by its id. How often it was tried before is not kept: a new
//! coordinator tries at once, and then at the times that the age of the end sets.

mod message;
mod sender;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use idunno_core::metadata::{Action, JobRecord};
use idunno_shared::ids::JobId;
use idunno_shared::wire::refusal::Refusal;
use idunno_shared::wire::webhooks::WebhookUrl;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

pub use self::sender::WebhookSender;

use self::message::Message;
use self::sender::Attempt;
use super::LeaderTerm;

/// Receivers that are called at once.
const CALLS_MAX: usize = 16;
/// The least time between two looks at the jobs: every entry of the log is a change of the state.
const OBSERVE_PERIOD: Duration = Duration::from_millis(100);

/// One end of a job: the job, and when it ended.
type End = (JobId, u64);

/// Tells the ends that are due, until the term is over.
pub(super) async fn run(leader_term: Arc<LeaderTerm>) {
    let mut state = leader_term.deps.consensus.state();
    let calls = Arc::new(Semaphore::new(CALLS_MAX));
    let (mut tasks, mut in_hand) = (JoinSet::new(), BTreeSet::<End>::new());
    loop {
        let due: Vec<Arc<JobRecord>> = {
            let state = Arc::clone(&state.borrow_and_update());
            state.due_webhooks().cloned().collect()
        };
        for job in due {
            let Some(due_ms) = job.webhook_due_ms() else { continue };
            let end = (job.id, due_ms);
            if in_hand.insert(end) {
                let (leader_term, calls) = (Arc::clone(&leader_term), Arc::clone(&calls));
                tasks.spawn(async move {
                    leader_term.tell_end(end, &calls).await;
                    end
                });
            }
        }
        tokio::select! {
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
                sleep(OBSERVE_PERIOD).await;
            }
            Some(ended) = tasks.join_next() => {
                // One that panicked is told by the next coordinator.
                if let Ok(end) = ended {
                    in_hand.remove(&end);
                }
            }
        }
    }
}

impl LeaderTerm {
    /// Refuses a webhook that would never be told.
    pub(super) fn check_webhook(&self, url: &WebhookUrl) -> Result<(), Refusal> {
        self.deps.webhooks.check(url).map_err(Refusal::invalid)
    }

    /// Tells an end until its receiver has it, or nobody will.
    async fn tell_end(&self, end: End, calls: &Semaphore) {
        let (id, due_ms) = end;
        // Its job may go on, or be deleted, meanwhile.
        while let Some((url, message)) = self.untold(end) {
            let attempt = {
                // It is never closed.
                let Ok(_turn) = calls.acquire().await else { return };
                self.deps.webhooks.send(&url, &message).await
            };
            let failure = match attempt {
                Attempt::Told => None,
                Attempt::Futile(why) => Some(why),
                Attempt::Failed { why, pause } => {
                    let elapsed = Duration::from_millis(self.time.now_ms().saturating_sub(due_ms));
                    match message.pause(elapsed) {
                        Some(own) => {
                            let wait = own.max(pause.unwrap_or_default());
                            warn!(job = %id, %url, why, ?wait, "a webhook was not told, trying again");
                            sleep(wait).await;
                            continue;
                        }
                        None => Some(why),
                    }
                }
            };
            match &failure {
                None => info!(job = %id, %url, "a webhook was told how the job ended"),
                Some(why) => warn!(job = %id, %url, why, "a webhook is given up"),
            }
            if let Err(refusal) = self.propose_surely(Action::EndWebhook { job: id, due_ms, failure }).await {
                info!(job = %id, %refusal, "the end of a webhook is not recorded");
            }
            return;
        }
    }

    /// What is to be sent, and where, if the end is still due.
    fn untold(&self, (id, due_ms): End) -> Option<(WebhookUrl, Message)> {
        let state = self.state();
        let job = state.job(id).filter(|job| job.webhook_due_ms() == Some(due_ms))?;
        Some((job.terms.webhook.as_ref()?.url.clone(), Message::of(job)?))
    }
}
