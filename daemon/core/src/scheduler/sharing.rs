//! When the workers are shared among the jobs anew, and what people are told of it.
//!
//! The line (`line.rs`) is laid at once when a worker comes, goes, or can run nothing for now, when a job starts, stops
//! or changes its weight, and when the policy changes. Measured rates are looked at every [`RATES_PERIOD`], and count
//! when they move [`MOVED_MIN`] of all workers from one job to another: so noise reassigns nobody.
//!
//! A job's part of the work is its weight, times its queries' time under the policy `rate`; a job that is not measured
//! yet counts like the mean of the others. Under `fifo` the first job has all.

use std::time::Duration;

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::Policy;

use super::assignment::AssignmentLine;
use super::worker::Worker;
use super::{Scheduler, SchedulerEffect, SharedBecause};

const RATES_PERIOD: Duration = Duration::from_secs(1);
const MOVED_MIN: f64 = 0.05;
/// A worker that seems so many times faster or slower than the others is laid out with this.
const SPEED_MAX: f64 = 20.0;

impl Scheduler {
    /// In what jobs are equal from now on.
    pub(super) fn on_policy(&mut self, policy: Policy) {
        if self.policy == policy {
            return;
        }
        self.policy = policy;
        for job in self.jobs.values_mut() {
            job.service.set_policy(policy);
        }
        self.work_appeared = true;
        self.share_anew(SharedBecause::Policy(policy));
    }

    /// Assigns the workers anew and says so. Not while workers claim what they run: that ends with it.
    pub(super) fn share_anew(&mut self, reason: SharedBecause) {
        if self.is_claiming() {
            return;
        }
        let line = self.lay();
        let reassigned = line.reassigned(&self.line);
        (self.line, self.is_shared) = (line, true);
        self.effects.push_back(SchedulerEffect::Shared { reason, shares: self.shares(), reassigned });
    }

    /// Assigns the workers when a term's first sharing is due, or when the measured rates have moved.
    pub(super) fn share_when_due(&mut self) {
        if self.is_claiming() {
            return;
        }
        if !self.is_shared {
            self.share_anew(SharedBecause::TermBegins);
        } else if self.now >= self.rates_seen + RATES_PERIOD {
            self.rates_seen = self.now;
            if self.lay().moved(&self.line) >= MOVED_MIN {
                self.share_anew(SharedBecause::RatesMoved);
            }
        }
    }

    /// Has the worker in the line if it can run anything, and only then.
    pub(super) fn share_with(&mut self, node: NodeId) {
        let is_usable =
            self.workers.get(&node).is_some_and(|worker| worker.is_usable(self.now, &self.config));
        match (self.line.has(node), is_usable) {
            (false, true) => self.share_anew(SharedBecause::WorkerComes(node)),
            (true, false) => self.share_anew(SharedBecause::WorkerGoes(node)),
            _ => {}
        }
    }

    fn lay(&self) -> AssignmentLine {
        let usable = self.workers.iter().filter(|(_, worker)| worker.is_usable(self.now, &self.config));
        let workers: Vec<_> = usable.map(|(node, worker)| (*node, self.speed(worker))).collect();
        let needs = self.needs();
        let known: Vec<u128> = needs.iter().filter_map(|(_, need)| *need).collect();
        let usual = known.iter().sum::<u128>().checked_div(known.len() as u128).unwrap_or(1);
        let jobs: Vec<_> = needs.into_iter().map(|(job, need)| (job, need.unwrap_or(usual) as f64)).collect();
        AssignmentLine::lay(&workers, &jobs)
    }

    /// How fast a worker is, where 1 is as fast as the others.
    fn speed(&self, worker: &Worker) -> f64 {
        let ratios = self.jobs.values().filter(|job| job.is_active()).filter_map(|job| {
            let own = worker.rates.get(&job.model)?.time(1).as_secs_f64();
            let all = job.service.rate.is_known().then(|| job.service.rate.time(1).as_secs_f64())?;
            (own > 0.0 && all > 0.0).then(|| all / own)
        });
        let ratios: Vec<f64> = ratios.collect();
        let mean = ratios.iter().sum::<f64>() / ratios.len().max(1) as f64;
        if ratios.is_empty() { 1.0 } else { mean.clamp(1.0 / SPEED_MAX, SPEED_MAX) }
    }

    fn shares(&self) -> Vec<(JobId, Option<u32>)> {
        let needs = self.needs();
        let total: u128 = needs.iter().filter_map(|(_, need)| *need).sum();
        let percent = |need: u128| u32::try_from((need * 100 + total / 2).checked_div(total)?).ok();
        needs.into_iter().map(|(id, need)| (id, need.and_then(percent))).collect()
    }

    /// What part of the workers each active job is due, in any unit; `None` while that is not measured.
    fn needs(&self) -> Vec<(JobId, Option<u128>)> {
        let mut active = self.jobs.iter().filter(|(_, job)| job.is_active());
        let of = |(id, job): (&JobId, &super::job::Job)| {
            let (weight, rate) = (u128::from(job.service.weight), &job.service.rate);
            let need = match self.policy {
                Policy::Rate => rate.is_known().then(|| weight * rate.time(1).as_nanos()),
                Policy::Time | Policy::Fifo => Some(weight),
            };
            (*id, need)
        };
        if self.policy == Policy::Fifo {
            let first = active.next().map(of);
            return first.into_iter().chain(active.map(|(id, _)| (*id, Some(0)))).collect();
        }
        active.map(of).collect()
    }
}
