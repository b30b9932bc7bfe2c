//! Whose results are put into a file next, and at which worker.
//!
//! The oldest finished job that has not failed lately comes first; the worker with the fewest leases does it, another one
//! each time that the job failed. It begins empty with each term: what is filed is in the log.
//!
//! Bounds: one entry a job that failed; the pause doubles from [`PAUSE_MIN`] to [`PAUSE_MAX`].

use std::collections::BTreeMap;
use std::time::Duration;

use idunno_shared::ids::{JobId, NodeId};

use crate::time::Instant;

/// The pause after a job's first failure.
pub const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What failed, and when it is tried again.
#[derive(Clone, Debug, Default)]
pub struct ResultMerge {
    failed: BTreeMap<JobId, (u32, Instant)>,
}

impl ResultMerge {
    /// Of the jobs whose results are to be filed, in order, the one whose turn it is.
    pub fn next(&self, due: &[JobId], now: Instant) -> Option<JobId> {
        due.iter().copied().find(|job| self.failed.get(job).is_none_or(|(_, until)| *until <= now))
    }

    /// When the next of them is tried again.
    pub fn next_deadline(&self, due: &[JobId]) -> Option<Instant> {
        due.iter().filter_map(|job| self.failed.get(job)).map(|(_, until)| *until).min()
    }

    /// The worker for a job, of those that are up with the number of their leases.
    pub fn choose(&self, job: JobId, workers: &BTreeMap<NodeId, usize>) -> Option<NodeId> {
        let mut by_load: Vec<_> = workers.iter().map(|(worker, leases)| (*leases, *worker)).collect();
        by_load.sort_unstable();
        let tries = self.failed.get(&job).map_or(0, |(tries, _)| *tries);
        let place = usize::try_from(tries).unwrap_or(0).checked_rem(by_load.len())?;
        by_load.get(place).map(|(_, worker)| *worker)
    }

    /// A job's results are in a file.
    pub fn filed(&mut self, job: JobId) {
        self.failed.remove(&job);
    }

    /// They are not.
    pub fn failed(&mut self, job: JobId, now: Instant) {
        let tries = self.failed.get(&job).map_or(0, |(tries, _)| *tries);
        let pause = PAUSE_MIN.saturating_mul(1 << tries.min(16)).min(PAUSE_MAX);
        self.failed.insert(job, (tries.saturating_add(1), now + pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_failed_lets_others_pass_and_goes_to_another_worker() {
        let mut archive = ResultMerge::default();
        let (now, jobs) = (Instant::START, [JobId(1), JobId(2)]);
        let workers = BTreeMap::from([(NodeId(1), 2), (NodeId(2), 0), (NodeId(3), 1)]);
        assert_eq!(archive.next(&jobs, now), Some(JobId(1)));
        assert_eq!(archive.choose(JobId(1), &workers), Some(NodeId(2)), "the idlest");
        archive.failed(JobId(1), now);
        assert_eq!(archive.next(&jobs, now), Some(JobId(2)));
        assert_eq!(archive.choose(JobId(1), &workers), Some(NodeId(3)));
        assert_eq!(archive.next_deadline(&jobs), Some(now + PAUSE_MIN));
        assert_eq!(archive.next(&jobs, now + PAUSE_MIN), Some(JobId(1)));
        (0..40).for_each(|_| archive.failed(JobId(1), now));
        assert_eq!(archive.next_deadline(&jobs), Some(now + PAUSE_MAX));
        archive.filed(JobId(1));
        assert_eq!(archive.next(&jobs, now), Some(JobId(1)), "if it is run again");
        assert_eq!(archive.choose(JobId(1), &BTreeMap::new()), None);
    }
}
