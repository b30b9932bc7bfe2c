//! The outcomes of the latest operations, so that one repeated after a failover is done once.
//!
//! Refused operations are not kept: they changed nothing, and may be asked again. An outcome is kept for
//! [`KEPT_MS`], by the state's time, and beyond that while it is among the latest [`OPERATIONS_KEPT`]: a client repeats a
//! request for less than that, however busy the others are. Bounds: [`OPERATIONS_MAX`] operations, and of these no more
//! than hold [`OUTCOME_ITEMS_KEPT`] file versions or names between them.

use idunno_shared::ids::OpId;
use idunno_shared::wire::control::Changed;
use imbl::{OrdMap, Vector};
use serde::{Deserialize, Serialize};

use super::Applied;

/// How long an outcome is kept at least, in milliseconds: twice as long as a client repeats a request.
pub const KEPT_MS: u64 = 60_000;
/// Operations whose outcome is kept whatever their age.
pub const OPERATIONS_KEPT: usize = 10_000;
/// Most operations whose outcome is kept whatever the rate: a minute of 10,000 a second.
pub const OPERATIONS_MAX: usize = 600_000;
/// Most items (file versions, model names) in all outcomes kept.
pub const OUTCOME_ITEMS_KEPT: u64 = 1_000_000;

/// The latest operations and their outcomes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Operations {
    outcomes: OrdMap<OpId, Applied>,
    /// Oldest first, with the state's time at which it was done.
    order: Vector<(u64, OpId)>,
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

    /// Keeps an outcome, and drops the oldest that are old enough or beyond the bounds.
    pub(super) fn keep(&mut self, op: OpId, outcome: &Applied, now_ms: u64) {
        self.items += items(outcome);
        self.outcomes.insert(op, outcome.clone());
        self.order.push_back((now_ms, op));
        while self.is_over(now_ms) {
            let Some((_, oldest)) = self.order.pop_front() else { break };
            if let Some(outcome) = self.outcomes.remove(&oldest) {
                self.items -= items(&outcome);
            }
        }
    }

    /// Whether the oldest outcome may, or must, go.
    fn is_over(&self, now_ms: u64) -> bool {
        let count = self.order.len();
        let is_old = self.order.front().is_some_and(|(at_ms, _)| now_ms.saturating_sub(*at_ms) >= KEPT_MS);
        (count > OPERATIONS_KEPT && is_old)
            || count > OPERATIONS_MAX
            || (self.items > OUTCOME_ITEMS_KEPT && count > 1)
    }

    /// Whether order, outcomes and count agree: what is wrong otherwise.
    pub(super) fn check(&self) -> Result<(), String> {
        let distinct = self.order.iter().filter(|(_, op)| self.outcomes.contains_key(op)).count();
        let items: u64 = self.outcomes.values().map(items).sum();
        if distinct != self.order.len() || self.order.len() != self.outcomes.len() || items != self.items {
            let (order, outcomes) = (self.order.len(), self.outcomes.len());
            return Err(format!(
                "operations: {order} in order, {distinct} of them among {outcomes} outcomes"
            ));
        }
        if self.order.len() > OPERATIONS_MAX {
            return Err(format!("{} operations are kept", self.order.len()));
        }
        Ok(())
    }
}
