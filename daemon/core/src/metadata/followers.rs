//! Jobs that follow others: their queries are frozen, and they run once the job before them is done.
//!
//! Invariant: the job before a waiting one exists and is not over, and no chain of waiting jobs leads back to its start.

use idunno_shared::ids::JobId;
use idunno_shared::wire::control::JobState;
use idunno_shared::wire::refusal::Refusal;

use super::{JobRecord, State, truncate_reason};

impl State {
    /// The state in which a job starts that is to follow `before`.
    pub(super) fn state_after(&self, id: JobId, before: Option<JobId>) -> Result<JobState, Refusal> {
        let Some(before) = before else { return Ok(JobState::Running) };
        let mut link = Some(before);
        while let Some(job) = link {
            if job == id {
                return Err(Refusal::conflict(format!("{id} cannot follow {before}, which waits for {id}")));
            }
            link = match self.job_or_refusal(job)?.state {
                JobState::Waiting(next) => Some(next),
                _ => None,
            };
        }
        match self.job_or_refusal(before)?.state {
            JobState::Done => Ok(JobState::Running),
            JobState::Cancelled => {
                Err(Refusal::conflict(format!("{id} cannot follow {before}, which is cancelled")))
            }
            _ => Ok(JobState::Waiting(before)),
        }
    }

    /// Runs the jobs that waited for one that is done.
    pub(super) fn run_followers(&mut self, before: JobId) {
        for mut job in self.followers(before) {
            job.run(self.now_ms);
            self.set_job(job);
        }
    }

    /// Pauses the jobs that waited for one that will never be done.
    pub(super) fn pause_followers(&mut self, before: JobId, what_happened: &str) {
        for mut job in self.followers(before) {
            let reason = format!(
                "{before}, which it follows, {what_happened}: 'start-job {}' runs it all the same",
                job.id
            );
            job.halt(JobState::Paused(truncate_reason(&reason)), self.now_ms);
            self.set_job(job);
        }
    }

    fn followers(&self, before: JobId) -> Vec<JobRecord> {
        let waiting = self.unsettled_jobs().filter(|job| job.state == JobState::Waiting(before));
        waiting.map(|job| (**job).clone()).collect()
    }
}
