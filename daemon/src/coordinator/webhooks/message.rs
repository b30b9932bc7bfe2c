//! What a webhook says, and when it is tried again: the Standard Webhooks specification 1.0.0.

use std::time::{Duration, SystemTime};

use idunno_core::metadata::{JobRecord, results_file};
use idunno_shared::ids::Digest;
use idunno_shared::names::JobName;
use idunno_shared::wire::control::JobState;
use serde::Serialize;

/// The pauses between tries. A receiver that is down for three days learns of the end all the same.
const PAUSES_S: [u64; 9] =
    [5, 5 * 60, 30 * 60, 2 * 3_600, 5 * 3_600, 10 * 3_600, 14 * 3_600, 20 * 3_600, 24 * 3_600];
/// Many ends that could not be told at one moment are not told at one moment again: their pauses differ by up to this part.
const JITTER_PERCENT_MAX: u64 = 20;

/// A message, the same at every try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// By which a receiver knows that it has had this message.
    pub(super) id: String,
    /// JSON.
    pub(super) body: String,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    job: String,
    name: Option<&'a str>,
    model: &'a str,
    dataset: &'a str,
    queries: u64,
    done: u64,
    dead: u64,
    /// Why it is paused.
    reason: Option<&'a str>,
    /// The stored file with the rows, if the job is done.
    results: Option<String>,
}

impl Message {
    /// Of the end that a job's webhook is yet to be told; `None` if there is none.
    pub(super) fn of(job: &JobRecord) -> Option<Self> {
        let due_ms = job.webhook_due_ms()?;
        let (r#type, reason) = match &job.state {
            JobState::Done => ("job.done", None),
            JobState::Cancelled => ("job.cancelled", None),
            JobState::Paused(reason) => ("job.paused", Some(reason.as_str())),
            _ => return None,
        };
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(due_ms);
        let data = Data {
            job: job.id.to_string(),
            name: job.name.as_ref().map(JobName::as_str),
            model: job.model.as_str(),
            dataset: job.dataset.as_str(),
            queries: job.submitted,
            done: job.done.len(),
            dead: job.dead.len(),
            reason,
            results: results_file(job.id).ok().filter(|_| job.filed).map(|file| file.to_string()),
        };
        let timestamp = humantime::format_rfc3339_millis(at).to_string();
        let body = serde_json::to_string(&Body { r#type, timestamp, data }).ok()?;
        Some(Self { id: format!("{}-{due_ms}", job.id), body })
    }

    /// The pause before the next try, `elapsed` after the end; `None` if there have been enough.
    pub(super) fn pause(&self, elapsed: Duration) -> Option<Duration> {
        let percent = 100 + u64::from(Digest::of(self.id.as_bytes()).0[0]) * JITTER_PERCENT_MAX / 255;
        let mut at = Duration::ZERO;
        PAUSES_S.iter().find_map(|pause_s| {
            at += Duration::from_millis(pause_s * percent * 10);
            at.checked_sub(elapsed).filter(|pause| !pause.is_zero())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str) -> Message {
        Message { id: id.to_owned(), body: String::new() }
    }

    #[test]
    fn tries_become_rarer_and_end_after_some_days() {
        let hour = Duration::from_secs(3_600);
        for id in ["job-1-1", "job-2-1", "job-3-99"] {
            let message = message(id);
            let (mut at, mut pauses) = (Duration::ZERO, Vec::new());
            while let Some(pause) = message.pause(at) {
                pauses.push(pause);
                at += pause;
            }
            assert_eq!(pauses.len(), PAUSES_S.len());
            assert!(pauses.is_sorted() && at > 72 * hour && at < 100 * hour, "{pauses:?}");
            // A coordinator that takes over in between goes on where the last one was.
            let second = Duration::from_secs(1);
            assert_eq!(message.pause(pauses[0] + second), Some(pauses[1].saturating_sub(second)));
        }
        assert_ne!(message("job-1-1").pause(hour), message("job-2-1").pause(hour), "jitter");
    }
}
