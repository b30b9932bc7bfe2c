//! Merges the result segments of finished jobs: which job is next, and which worker does it.
//!
//! Decides: the oldest finished job that has not failed lately comes first; the worker with the fewest leases does it,
//! another one after each failure. It begins empty with each term: which jobs are merged is in the log.
//!
//! Source: our own.
//!
//! Invariants: one job is merged at a time; a job that failed is not tried again before its pause is over.
//!
//! Bounds: one entry per job that failed; the pause doubles from [`PAUSE_MIN`] to [`PAUSE_MAX`].
//!
//! Does not do: the merging, which workers do, and the entry into the log.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use idunno_shared::ids::{JobId, NodeId};

use crate::invariant::InvariantViolation;
use crate::machine::Machine;
use crate::time::Instant;

/// The pause after a job's first failure.
pub const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultMergeEvent {
    /// The jobs whose results are to be merged, the oldest first, and the workers that are up, with the number of their
    /// leases. Handed in whenever the jobs may have changed, when one was merged or failed, and when
    /// [`Machine::next_deadline`] is due.
    Due {
        /// The jobs.
        jobs: Vec<JobId>,
        /// Leases by worker.
        leases: BTreeMap<NodeId, usize>,
    },
    /// The job's results are merged, and that is in the log.
    Merged(JobId),
    /// The job's results could not be merged, for whatever reason.
    Failed(JobId),
}

/// What the driver is to do; effects are carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultMergeEffect {
    /// Have the worker merge the job's results: answered by [`ResultMergeEvent::Merged`] or
    /// [`ResultMergeEvent::Failed`].
    Merge {
        /// The job.
        job: JobId,
        /// The worker.
        worker: NodeId,
    },
}

/// The machine of one term.
#[derive(Clone, Debug, Default)]
pub struct ResultMerge {
    due: Vec<JobId>,
    current: Option<JobId>,
    failed: BTreeMap<JobId, Failure>,
    effects: VecDeque<ResultMergeEffect>,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    tries: u32,
    retry_at: Instant,
}

impl Machine for ResultMerge {
    type Event = ResultMergeEvent;
    type Effect = ResultMergeEffect;

    fn handle(&mut self, event: ResultMergeEvent, now: Instant) {
        match event {
            ResultMergeEvent::Due { jobs, leases } => {
                self.due = jobs;
                self.start_next(&leases, now);
            }
            ResultMergeEvent::Merged(job) => {
                self.failed.remove(&job);
                self.end(job);
            }
            ResultMergeEvent::Failed(job) => self.fail(job, now),
        }
    }

    /// When a job that failed is to be tried again.
    fn next_deadline(&self) -> Option<Instant> {
        let failed = self.due.iter().filter_map(|job| self.failed.get(job));
        failed.map(|failure| failure.retry_at).min().filter(|_| self.current.is_none())
    }

    fn poll_effect(&mut self) -> Option<ResultMergeEffect> {
        self.effects.pop_front()
    }

    fn check(&self) -> Result<(), InvariantViolation> {
        let of_another = self.effects.iter().find(|effect| {
            let ResultMergeEffect::Merge { job, .. } = effect;
            self.current != Some(*job)
        });
        InvariantViolation::unless(of_another.is_none(), || {
            format!("{of_another:?} during {:?}", self.current)
        })
    }
}

impl ResultMerge {
    /// Whether a job is under way, so that nothing else can begin.
    pub fn is_merging(&self) -> bool {
        self.current.is_some()
    }

    fn start_next(&mut self, leases: &BTreeMap<NodeId, usize>, now: Instant) {
        if self.is_merging() {
            return;
        }
        let may_try = |job: &JobId| self.failed.get(job).is_none_or(|failure| failure.retry_at <= now);
        let Some(job) = self.due.iter().copied().find(may_try) else { return };
        match self.choose(job, leases) {
            Some(worker) => {
                self.current = Some(job);
                self.effects.push_back(ResultMergeEffect::Merge { job, worker });
            }
            None => self.fail(job, now),
        }
    }

    fn choose(&self, job: JobId, leases: &BTreeMap<NodeId, usize>) -> Option<NodeId> {
        let mut by_load: Vec<_> = leases.iter().map(|(worker, leases)| (*leases, *worker)).collect();
        by_load.sort_unstable();
        let tries = self.failed.get(&job).map_or(0, |failure| failure.tries);
        let index = usize::try_from(tries).unwrap_or(0).checked_rem(by_load.len())?;
        by_load.get(index).map(|(_, worker)| *worker)
    }

    fn fail(&mut self, job: JobId, now: Instant) {
        let tries = self.failed.get(&job).map_or(0, |failure| failure.tries);
        let pause = PAUSE_MIN.saturating_mul(1 << tries.min(16)).min(PAUSE_MAX);
        self.failed.insert(job, Failure { tries: tries.saturating_add(1), retry_at: now + pause });
        self.end(job);
    }

    /// No job is being merged any more; the next [`ResultMergeEvent::Due`] shows whether this one is still due.
    fn end(&mut self, job: JobId) {
        if self.current == Some(job) {
            self.current = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOBS: [JobId; 2] = [JobId(1), JobId(2)];

    /// Hands in an event, and returns the only effect that may follow.
    fn handle(merge: &mut ResultMerge, event: ResultMergeEvent, now: Instant) -> Option<ResultMergeEffect> {
        merge.handle(event, now);
        merge.check().unwrap();
        let effect = merge.poll_effect();
        assert_eq!(merge.poll_effect(), None);
        effect
    }

    fn due(jobs: &[JobId], leases: &[(u64, usize)]) -> ResultMergeEvent {
        let leases = leases.iter().map(|&(worker, leases)| (NodeId(worker), leases)).collect();
        ResultMergeEvent::Due { jobs: jobs.to_vec(), leases }
    }

    /// The job that is begun at `now`, and its worker.
    fn begin(merge: &mut ResultMerge, jobs: &[JobId], now: Instant) -> Option<(JobId, NodeId)> {
        let ResultMergeEffect::Merge { job, worker } =
            handle(merge, due(jobs, &[(1, 2), (2, 0), (3, 1)]), now)?;
        Some((job, worker))
    }

    #[test]
    fn a_failed_job_lets_others_go_first_and_is_retried_at_another_worker() {
        let mut merge = ResultMerge::default();
        let now = Instant::START;
        assert_eq!(begin(&mut merge, &JOBS, now), Some((JobId(1), NodeId(2))), "the oldest, at the idlest");
        assert_eq!(begin(&mut merge, &JOBS, now), None, "one at a time");
        assert_eq!(handle(&mut merge, ResultMergeEvent::Failed(JobId(1)), now), None);
        assert_eq!(merge.next_deadline(), Some(now + PAUSE_MIN));
        assert_eq!(begin(&mut merge, &JOBS, now), Some((JobId(2), NodeId(2))));
        assert_eq!(handle(&mut merge, ResultMergeEvent::Merged(JobId(2)), now), None);
        assert_eq!(begin(&mut merge, &JOBS[..1], now), None);
        assert_eq!(
            begin(&mut merge, &JOBS[..1], now + PAUSE_MIN),
            Some((JobId(1), NodeId(3))),
            "the next idlest"
        );
        (0..40).for_each(|_| assert_eq!(handle(&mut merge, ResultMergeEvent::Failed(JobId(1)), now), None));
        assert_eq!(merge.next_deadline(), Some(now + PAUSE_MAX));
        handle(&mut merge, ResultMergeEvent::Merged(JobId(1)), now);
        assert_eq!(begin(&mut merge, &JOBS, now), Some((JobId(1), NodeId(2))), "if it is run again");
    }

    #[test]
    fn a_job_waits_for_the_first_worker() {
        let mut merge = ResultMerge::default();
        let now = Instant::START;
        assert_eq!(handle(&mut merge, due(&JOBS[..1], &[]), now), None);
        assert_eq!(merge.next_deadline(), Some(now + PAUSE_MIN));
        assert_eq!(begin(&mut merge, &JOBS[..1], now + PAUSE_MIN), Some((JobId(1), NodeId(3))));
    }
}
