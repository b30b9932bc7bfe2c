//! The workers, and when each needs attention next: an event looks at the workers that it changes and at those whose time
//! has come, not at all of them.
//!
//! Invariant, between events: what is noted for a worker is not later than the end of any of its leases and waits.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::time::Duration;

use idunno_shared::ids::NodeId;

use super::SchedulerConfig;
use super::worker::{FORGET_AFTER, Worker};
use crate::time::Instant;

/// Read as a map; whatever may change a worker notes it.
#[derive(Clone, Debug, Default)]
pub(super) struct Workers {
    by_id: BTreeMap<NodeId, Worker>,
    /// Workers that the current event may have changed.
    touched: BTreeSet<NodeId>,
    /// When each worker needs attention, if it waits for anything.
    due: BTreeMap<NodeId, Instant>,
    by_due: BTreeSet<(Instant, NodeId)>,
    /// Workers looked at by [`Self::settle`] since the term began.
    #[cfg(test)]
    pub(super) settled: usize,
}

impl Deref for Workers {
    type Target = BTreeMap<NodeId, Worker>;

    fn deref(&self) -> &Self::Target {
        &self.by_id
    }
}

impl Workers {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature of the map behind it")]
    pub(super) fn get_mut(&mut self, node: &NodeId) -> Option<&mut Worker> {
        let worker = self.by_id.get_mut(node)?;
        self.touched.insert(*node);
        Some(worker)
    }

    pub(super) fn get_or_insert_with(&mut self, node: NodeId, new: impl FnOnce() -> Worker) -> &mut Worker {
        self.touched.insert(node);
        self.by_id.entry(node).or_insert_with(new)
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature of the map behind it")]
    pub(super) fn remove(&mut self, node: &NodeId) -> Option<Worker> {
        self.touched.insert(*node);
        self.by_id.remove(node)
    }

    /// Every worker: for what concerns a job as a whole.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.touched.extend(self.by_id.keys());
        self.by_id.values_mut()
    }

    /// The workers that may have changed since the last [`Self::settle`].
    pub(super) fn touched(&self) -> Vec<NodeId> {
        self.touched.iter().copied().collect()
    }

    /// The workers whose time has come.
    pub(super) fn due(&self, now: Instant) -> Vec<NodeId> {
        self.by_due.iter().take_while(|(at, _)| *at <= now).map(|(_, node)| *node).collect()
    }

    /// When the first worker needs attention.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.by_due.first().map(|(at, _)| *at)
    }

    /// Notes when the workers that may have changed need attention next.
    pub(super) fn settle(&mut self, now: Instant, config: &SchedulerConfig) {
        for node in std::mem::take(&mut self.touched) {
            #[cfg(test)]
            {
                self.settled += 1;
            }
            if let Some(at) = self.due.remove(&node) {
                self.by_due.remove(&(at, node));
            }
            let next = self.by_id.get(&node).and_then(|worker| next_end(worker, now, config));
            if let Some(at) = next {
                self.due.insert(node, at);
                self.by_due.insert((at, node));
            }
        }
    }

    /// Whether every worker gets attention in time, as far as it was settled.
    pub(super) fn is_in_time(&self, node: NodeId, now: Instant, config: &SchedulerConfig) -> bool {
        let Some(end) = self.by_id.get(&node).and_then(|worker| next_end(worker, now, config)) else {
            return true;
        };
        self.touched.contains(&node) || self.due.get(&node).is_some_and(|due| *due <= end)
    }
}

/// The earliest time in the future at which a lease, a wait or a cooldown of the worker ends, or it is silent or forgotten.
fn next_end(worker: &Worker, now: Instant, config: &SchedulerConfig) -> Option<Instant> {
    let forgotten_at = worker.last_report + FORGET_AFTER;
    let is_idle = worker.leases.is_empty() && worker.reply_by.is_none();
    if is_idle && forgotten_at <= now {
        return Some(now + Duration::from_millis(1));
    }
    let leases = worker.leases.iter().map(|held| held.expires_at);
    let fixed = [worker.silent_at(config), forgotten_at];
    let ends = leases.chain(worker.reply_by).chain(worker.cooldown_ends()).chain(fixed);
    ends.filter(|at| *at > now).min()
}
