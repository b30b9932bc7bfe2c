//! Batches that hang: their model server is to be restarted, and they are leased again.
//!
//! A batch hangs if it has run longer than [`HUNG`] times what batches of its size usually take, and [`HUNG_MIN`] at
//! least; nothing hangs while no batch of the model was measured. Its worker is told to restart its model server, in
//! the answer to the report that shows the batch running, which cancels the lease too. The first time the server is to
//! blame: the batch goes to another worker as if nothing had been. If it hangs again, it has failed like by any other
//! failed inference.
//!
//! Source: the handbook's start-to-close limit, ten times the 95th percentile and half a minute at least.
//!
//! Not here: a worker's own deadline for calls to its model server, which it has measured itself.

use std::time::Duration;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::jobs::{Fault, FaultKind, Lease};

use super::Scheduler;
use super::worker::{Held, Stage};

/// So many times slower than usual hangs.
const HUNG: u32 = 10;
/// Nothing hangs earlier, however fast the model is.
const HUNG_MIN: Duration = Duration::from_secs(30);

impl Scheduler {
    /// Takes a batch that hangs from its worker, and has the worker's model server restarted.
    pub(super) fn revoke_hung(&mut self, node: NodeId) {
        let Some(worker) = self.workers.get(&node) else { return };
        let Some((lease, elapsed)) = worker.leases.iter().find_map(|held| self.hangs(held)) else { return };
        let reason = format!(
            "{} queries have been running for {} s: the model server hangs",
            lease.range.count,
            elapsed.as_secs()
        );
        let Some(worker) = self.workers.get_mut(&node) else { return };
        worker.plan.restart = Some(reason.clone());
        let held = worker.leases.iter_mut().find(|held| held.lease == lease);
        let is_second = held.is_some_and(|held| held.history.hangs_again());
        let kind = if is_second { FaultKind::Inference } else { FaultKind::Worker };
        self.statistics.hung += 1;
        self.on_failed(node, lease, &[Fault { ranges: vec![lease.range], kind, reason }]);
    }

    /// The lease, and for how long it has been running, if that is too long.
    fn hangs(&self, held: &Held) -> Option<(Lease, Duration)> {
        let Stage::Runs { since } = held.stage else { return None };
        let model = &self.jobs.get(&held.lease.job)?.model;
        let usual = self.usual.time(model, held.lease.range.count)?;
        let elapsed = self.now.since(since);
        (elapsed > usual.saturating_mul(HUNG).max(HUNG_MIN)).then_some((held.lease, elapsed))
    }
}
