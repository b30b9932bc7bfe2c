//! Which workers serve which jobs first, and when that is recomputed.
//!
//! The workers form a line in order of their ids, each as long as it is fast. The jobs are laid along it in order of
//! their numbers, each as long as its part of all work. So all but a few workers serve one job and seldom change their
//! model; a worker on a boundary serves the jobs that meet there, by virtual time. Alone this would let measurement
//! errors pull the rates of jobs apart: therefore a job that lags by more than a batch is served by any worker, and a
//! worker whose jobs have no work takes any other (`fairness.rs`).
//!
//! A job's part of the work is its weight, multiplied by the time of its queries under the policy `rate`; a job that is
//! not measured yet counts like the mean of the others. Under `fifo` the first job gets every worker.
//!
//! The line is recomputed at once when a worker becomes usable or unusable, when a job starts, stops or changes its
//! weight, and when the policy changes. Measured rates are compared every [`RATES_PERIOD`] and count only if they move
//! [`MOVED_MIN`] of all workers to other jobs, so that noise reassigns nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::Policy;

use super::job::Job;
use super::worker::Worker;
use super::{RebalanceReason, Scheduler, SchedulerEffect};

/// Smaller parts of a worker are rounding errors.
const PART_MIN: f64 = 1e-6;
const RATES_PERIOD: Duration = Duration::from_secs(1);
const MOVED_MIN: f64 = 0.05;
/// Limits how much faster or slower than the others a worker counts.
const SPEED_MAX: f64 = 20.0;

/// Each worker's jobs, with the part of the worker due to each.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct AssignmentLine(BTreeMap<NodeId, Vec<(JobId, f64)>>);

impl AssignmentLine {
    /// Lays the jobs with their demands along the workers with their speeds.
    fn compute(workers: &[(NodeId, f64)], jobs: &[(JobId, f64)]) -> Self {
        let length: f64 = workers.iter().map(|(_, speed)| speed).sum();
        let demanded = jobs.iter().map(|(_, demand)| demand).sum::<f64>().max(f64::MIN_POSITIVE);
        let mut jobs = jobs.iter().map(|(job, demand)| (*job, demand * length / demanded));
        let mut next = jobs.next();
        let mut line = BTreeMap::new();
        for (node, speed) in workers {
            let mut served = Vec::new();
            let mut room = *speed;
            while let Some((job, left)) = next.filter(|_| room > speed * PART_MIN) {
                let taken = left.min(room);
                room -= taken;
                if taken > speed * PART_MIN {
                    served.push((job, taken / speed));
                }
                next = if left > taken { Some((job, left - taken)) } else { jobs.next() };
            }
            line.insert(*node, served);
        }
        Self(line)
    }

    fn contains(&self, node: NodeId) -> bool {
        self.0.contains_key(&node)
    }

    /// A worker's jobs, with the part of the worker (0 to 1) due to each.
    pub(super) fn jobs(&self, node: NodeId) -> &[(JobId, f64)] {
        self.0.get(&node).map_or(&[], Vec::as_slice)
    }

    /// Whether the worker serves the job before others.
    pub(super) fn assigns(&self, node: NodeId, job: JobId) -> bool {
        self.jobs(node).iter().any(|(assigned, _)| *assigned == job)
    }

    /// The workers whose jobs differ from those in `older`, with their jobs.
    fn reassigned(&self, older: &Self) -> Vec<(NodeId, Vec<JobId>)> {
        let jobs = |line: &Self, node| line.jobs(node).iter().map(|(job, _)| *job).collect::<Vec<_>>();
        let now = self.0.keys().map(|node| (*node, jobs(self, *node)));
        now.filter(|(node, now)| jobs(older, *node) != *now).collect()
    }

    /// The part of all workers (0 to 1) that is due to other jobs than in `older`, which has the same workers.
    fn moved_from(&self, older: &Self) -> f64 {
        let moved = self.0.iter().flat_map(|(node, jobs)| {
            jobs.iter().map(move |(job, part)| {
                let before = older.jobs(*node).iter().find(|(other, _)| other == job);
                part - before.map_or(0.0, |(_, part)| *part)
            })
        });
        moved.filter(|part| *part > 0.0).sum::<f64>() / self.0.len().max(1) as f64
    }
}

impl Scheduler {
    pub(super) fn on_policy(&mut self, policy: Policy) {
        if self.policy == policy {
            return;
        }
        self.policy = policy;
        for job in self.jobs.values_mut() {
            job.service.set_policy(policy);
        }
        self.has_new_work = true;
        self.rebalance(RebalanceReason::PolicyChanged(policy));
    }

    /// Recomputes the line and reports it. Does nothing during the claim grace, whose end recomputes it anyway.
    pub(super) fn rebalance(&mut self, reason: RebalanceReason) {
        if self.is_in_claim_grace() {
            return;
        }
        let line = self.compute_line();
        let reassigned = line.reassigned(&self.line);
        self.line = line;
        self.is_assigned = true;
        self.effects.push_back(SchedulerEffect::Rebalanced { reason, shares: self.shares(), reassigned });
    }

    /// Rebalances once the claim grace is over, and when the measured rates have changed enough.
    pub(super) fn rebalance_when_due(&mut self) {
        if self.is_in_claim_grace() {
            return;
        }
        if !self.is_assigned {
            self.rebalance(RebalanceReason::TermStarted);
        } else if self.now >= self.rates_checked_at + RATES_PERIOD {
            self.rates_checked_at = self.now;
            if self.compute_line().moved_from(&self.line) >= MOVED_MIN {
                self.rebalance(RebalanceReason::RatesChanged);
            }
        }
    }

    /// Rebalances if the worker became usable or unusable.
    pub(super) fn rebalance_if_changed(&mut self, node: NodeId) {
        let is_usable =
            self.workers.get(&node).is_some_and(|worker| worker.is_usable(self.now, &self.config));
        match (self.line.contains(node), is_usable) {
            (false, true) => self.rebalance(RebalanceReason::WorkerJoined(node)),
            (true, false) => self.rebalance(RebalanceReason::WorkerLost(node)),
            _ => {}
        }
    }

    fn compute_line(&self) -> AssignmentLine {
        let usable = self.workers.iter().filter(|(_, worker)| worker.is_usable(self.now, &self.config));
        let workers: Vec<_> = usable.map(|(node, worker)| (*node, self.relative_speed(worker))).collect();
        let demands = self.demands();
        let measured: Vec<u128> = demands.iter().filter_map(|(_, demand)| *demand).collect();
        let mean = measured.iter().sum::<u128>().checked_div(measured.len() as u128).unwrap_or(1);
        let jobs: Vec<_> =
            demands.into_iter().map(|(job, demand)| (job, demand.unwrap_or(mean) as f64)).collect();
        AssignmentLine::compute(&workers, &jobs)
    }

    /// The worker's speed, where 1 is the speed of all workers together on the jobs that it has run.
    fn relative_speed(&self, worker: &Worker) -> f64 {
        let ratios = self.jobs.values().filter(|job| job.is_active()).filter_map(|job| {
            let own = worker.rates.get(&job.model)?.time(1).as_secs_f64();
            let all = job.service.rate.is_known().then(|| job.service.rate.time(1).as_secs_f64())?;
            (own > 0.0 && all > 0.0).then(|| all / own)
        });
        let ratios: Vec<f64> = ratios.collect();
        let mean = ratios.iter().sum::<f64>() / ratios.len().max(1) as f64;
        if ratios.is_empty() { 1.0 } else { mean.clamp(1.0 / SPEED_MAX, SPEED_MAX) }
    }

    /// Each active job's percentage of the workers; `None` until it is measured.
    fn shares(&self) -> Vec<(JobId, Option<u32>)> {
        let demands = self.demands();
        let total: u128 = demands.iter().filter_map(|(_, demand)| *demand).sum();
        let percent = |demand: u128| u32::try_from((demand * 100 + total / 2).checked_div(total)?).ok();
        demands.into_iter().map(|(id, demand)| (id, demand.and_then(percent))).collect()
    }

    /// Each active job's demand for workers, relative to the others; `None` until it is measured.
    fn demands(&self) -> Vec<(JobId, Option<u128>)> {
        let mut active = self.jobs.iter().filter(|(_, job)| job.is_active());
        let demand = |(id, job): (&JobId, &Job)| {
            let weight = u128::from(job.service.weight);
            let rate = &job.service.rate;
            let demand = match self.policy {
                Policy::Rate => rate.is_known().then(|| weight * rate.time(1).as_nanos()),
                Policy::Time | Policy::Fifo => Some(weight),
            };
            (*id, demand)
        };
        if self.policy == Policy::Fifo {
            let first = active.next().map(demand);
            return first.into_iter().chain(active.map(|(id, _)| (*id, Some(0)))).collect();
        }
        active.map(demand).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each worker's jobs with their percentage of the worker.
    fn line(speeds: &[f64], needs: &[f64]) -> Vec<Vec<(u64, f64)>> {
        let workers: Vec<_> = (1..).map(NodeId).zip(speeds.iter().copied()).collect();
        let jobs: Vec<_> = (1..).map(JobId).zip(needs.iter().copied()).collect();
        let line = AssignmentLine::compute(&workers, &jobs);
        let percent = |(job, part): &(JobId, f64)| (job.0, (part * 100.0).round());
        workers.iter().map(|(node, _)| line.jobs(*node).iter().map(percent).collect()).collect()
    }

    #[test]
    fn only_workers_at_boundaries_have_several_jobs() {
        assert_eq!(line(&[1.0; 4], &[1.0, 3.0]), [[(1, 100.0)], [(2, 100.0)], [(2, 100.0)], [(2, 100.0)]]);
        assert_eq!(
            line(&[1.0; 3], &[1.0, 1.0]),
            vec![vec![(1, 100.0)], vec![(1, 50.0), (2, 50.0)], vec![(2, 100.0)]]
        );
        assert_eq!(line(&[1.0], &[1.0, 1.0, 2.0]), [[(1, 25.0), (2, 25.0), (3, 50.0)]]);
        assert_eq!(line(&[0.1; 10], &[0.1; 10]), (1..=10).map(|job| vec![(job, 100.0)]).collect::<Vec<_>>());
        assert_eq!(line(&[3.0, 1.0], &[1.0, 1.0]), vec![vec![(1, 67.0), (2, 33.0)], vec![(2, 100.0)]]);
        assert_eq!(line(&[1.0; 2], &[]), [[], []]);
        assert!(line(&[], &[1.0]).is_empty());
    }

    #[test]
    fn reassigned_workers_and_the_moved_part_are_reported() {
        let workers: Vec<_> = (1..=2).map(|node| (NodeId(node), 1.0)).collect();
        let of = |needs: [f64; 2]| {
            AssignmentLine::compute(&workers, &[(JobId(1), needs[0]), (JobId(2), needs[1])])
        };
        let (even, uneven) = (of([1.0, 1.0]), of([1.0, 3.0]));
        assert_eq!(uneven.reassigned(&even), [(NodeId(1), vec![JobId(1), JobId(2)])]);
        assert!((uneven.moved_from(&even) - 0.25).abs() < 1e-9, "half of one of two");
        assert_eq!((even.reassigned(&even), even.moved_from(&even)), (Vec::new(), 0.0));
    }
}
