//! Detects a job whose model is broken, and not its data.
//!
//! A job is paused if it has never had an answer, committed or not, and fails
//! [`pause_failures`](SchedulerConfig::pause_failures) batches on 2 workers or more (or on all there are).

use std::collections::BTreeSet;

use idunno_shared::ids::NodeId;

use super::SchedulerConfig;

/// Fewest different workers that must fail a job before it is paused.
const PAUSE_WORKERS: usize = 2;

/// Detects a job that has not had a single answer since it was started.
#[derive(Clone, Debug, Default)]
pub(super) struct CircuitBreaker {
    pub(super) has_succeeded: bool,
    pub(super) failures: u32,
    pub(super) workers: BTreeSet<NodeId>,
}

impl CircuitBreaker {
    pub(super) fn record_success(&mut self) {
        *self = Self { has_succeeded: true, ..Self::default() };
    }

    /// Records a failed batch. True if the job is to be paused.
    pub(super) fn record_failure(
        &mut self,
        worker: NodeId,
        able: &BTreeSet<NodeId>,
        config: &SchedulerConfig,
    ) -> bool {
        if self.has_succeeded {
            return false;
        }
        self.failures += 1;
        self.workers.insert(worker);
        let is_everywhere = self.workers.len() >= PAUSE_WORKERS || able.is_subset(&self.workers);
        self.failures >= config.pause_failures && is_everywhere
    }
}
