//! What people are told of the sharing: which part of the workers each job is due, whenever that changes by more than
//! measurement, and why.
//!
//! Nothing here decides: each pull does (`fairness.rs`), and comes out at these shares where every worker can serve
//! every job.

use idunno_shared::ids::JobId;
use idunno_shared::wire::jobs::Policy;

use super::{Effect, Scheduler};

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
        self.note_sharing(format!("the policy is {policy:?}"));
    }

    /// Says how the workers are shared from now on. Not while workers claim: all of them join then.
    pub(super) fn note_sharing(&mut self, reason: String) {
        if !self.is_claiming() {
            self.effects.push_back(Effect::Shared { reason, shares: self.shares() });
        }
    }

    fn shares(&self) -> Vec<(JobId, Option<u32>)> {
        let active = self.jobs.iter().filter(|(_, job)| job.is_active());
        let needs: Vec<(JobId, Option<u128>)> = active.map(|(id, _)| (*id, self.need(*id))).collect();
        let total: u128 = needs.iter().filter_map(|(_, need)| *need).sum();
        let percent = |need: u128| u32::try_from((need * 100 + total / 2).checked_div(total)?).ok();
        needs.into_iter().map(|(id, need)| (id, need.and_then(percent))).collect()
    }

    /// What part of the workers a job is due, in any unit.
    fn need(&self, id: JobId) -> Option<u128> {
        let service = &self.jobs.get(&id)?.service;
        let weight = u128::from(service.weight);
        match self.policy {
            Policy::Rate => service.rate.is_known().then(|| weight * service.rate.time(1).as_nanos()),
            Policy::Time => Some(weight),
            Policy::Fifo => {
                let first = self.jobs.iter().find(|(_, job)| job.is_active()).map(|(first, _)| *first);
                Some(u128::from(first == Some(id)))
            }
        }
    }
}
