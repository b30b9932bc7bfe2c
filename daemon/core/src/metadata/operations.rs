//! The outcomes of the latest operations, so that one repeated after a failover is done once.
//!
//! Refused operations are not kept: they changed nothing, and may be asked again. Bounds: the latest
//! [`OPERATIONS_KEPT`], and of these no more than hold [`OUTCOME_ITEMS_KEPT`] file versions or names between them.

use idunno_shared::ids::OpId;
use idunno_shared::wire::control::Changed;
use imbl::{OrdMap, Vector};
use serde::{Deserialize, Serialize};

use super::Applied;

/// Most operations whose outcome is kept.
pub const OPERATIONS_KEPT: usize = 10_000;
/// Most items (file versions, model names) in all outcomes kept.
pub const OUTCOME_ITEMS_KEPT: u64 = 1_000_000;

/// The latest operations and their outcomes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Operations {
    outcomes: OrdMap<OpId, Applied>,
    /// Oldest first.
    order: Vector<OpId>,
    items: u64,
}

fn items(outcome: &Applied) -> u64 {
    match outcome {
        Applied::Changed(Changed::Files(files)) => files.len() as u64,
        Applied::Changed(Changed::Training(models)) => models.len() as u64,
        Applied::Committed { accepted_ranges, .. } => accepted_ranges.len() as u64,
        Applied::Changed(_) | Applied::Done => 0,
    }
}

impl Operations {
    /// The outcome of an operation that was done.
    pub(super) fn outcome(&self, op: OpId) -> Option<&Applied> {
        self.outcomes.get(&op)
    }

    /// Keeps an outcome, and drops the oldest beyond the bounds.
    pub(super) fn keep(&mut self, op: OpId, outcome: &Applied) {
        self.items += items(outcome);
        self.outcomes.insert(op, outcome.clone());
        self.order.push_back(op);
        while self.order.len() > OPERATIONS_KEPT || (self.items > OUTCOME_ITEMS_KEPT && self.order.len() > 1)
        {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(outcome) = self.outcomes.remove(&oldest) {
                self.items -= items(&outcome);
            }
        }
    }

    /// Whether order, outcomes and count agree: what is wrong otherwise.
    pub(super) fn check(&self) -> Result<(), String> {
        let distinct = self.order.iter().filter(|op| self.outcomes.contains_key(*op)).count();
        let items: u64 = self.outcomes.values().map(items).sum();
        if distinct != self.order.len() || self.order.len() != self.outcomes.len() || items != self.items {
            let (order, outcomes) = (self.order.len(), self.outcomes.len());
            return Err(format!(
                "operations: {order} in order, {distinct} of them among {outcomes} outcomes"
            ));
        }
        if self.order.len() > OPERATIONS_KEPT {
            return Err(format!("{} operations are kept", self.order.len()));
        }
        Ok(())
    }
}
