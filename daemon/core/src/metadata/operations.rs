//! The outcomes of recent operations, so that a client that repeats one after a failover does not apply it twice.
//!
//! Refused operations are not kept: they changed nothing and may be sent again. An outcome is kept for [`KEPT_MS`] of
//! the state's time, which is longer than a client repeats a request, and beyond that while it is among the latest
//! [`OPERATIONS_KEPT`].
//!
//! Bounds: [`OPERATIONS_MAX`] operations, with at most [`OUTCOME_ITEMS_KEPT`] file versions, names and ranges in all.

use idunno_shared::ids::OpId;
use idunno_shared::wire::control::Changed;
use imbl::{OrdMap, Vector};
use serde::{Deserialize, Serialize};

use super::Applied;
use crate::invariant::InvariantViolation;

/// Least time for which an outcome is kept, in milliseconds: twice as long as a client repeats a request.
pub const KEPT_MS: u64 = 60_000;
/// Operations whose outcome is kept regardless of age.
pub const OPERATIONS_KEPT: usize = 10_000;
/// Most operations whose outcome is kept: one minute at 10,000 a second.
pub const OPERATIONS_MAX: usize = 600_000;
/// Most items (file versions, model names, query ranges) in all outcomes kept.
pub const OUTCOME_ITEMS_KEPT: u64 = 1_000_000;

/// Recent operations and their outcomes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Operations {
    outcomes: OrdMap<OpId, Applied>,
    /// The operations, oldest first, with the state's time when each was applied.
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
    /// The outcome of an operation that was applied recently.
    pub(super) fn outcome(&self, op: OpId) -> Option<&Applied> {
        self.outcomes.get(&op)
    }

    /// Keeps an outcome, and drops the oldest ones that may or must go.
    pub(super) fn keep(&mut self, op: OpId, outcome: &Applied, now_ms: u64) {
        self.items += items(outcome);
        self.outcomes.insert(op, outcome.clone());
        self.order.push_back((now_ms, op));
        while self.is_oldest_due(now_ms) {
            let Some((_, oldest)) = self.order.pop_front() else { break };
            if let Some(outcome) = self.outcomes.remove(&oldest) {
                self.items -= items(&outcome);
            }
        }
    }

    /// Whether the oldest outcome is old enough to go, or the bounds require it to.
    fn is_oldest_due(&self, now_ms: u64) -> bool {
        let count = self.order.len();
        let is_old = self.order.front().is_some_and(|(at_ms, _)| now_ms.saturating_sub(*at_ms) >= KEPT_MS);
        (count > OPERATIONS_KEPT && is_old)
            || count > OPERATIONS_MAX
            || (self.items > OUTCOME_ITEMS_KEPT && count > 1)
    }

    /// Fails unless order, outcomes and item count agree and are within their bounds.
    pub(super) fn check(&self) -> Result<(), InvariantViolation> {
        let (order, outcomes) = (self.order.len(), self.outcomes.len());
        let known = self.order.iter().filter(|(_, op)| self.outcomes.contains_key(op)).count();
        InvariantViolation::unless(known == order && order == outcomes, || {
            format!("operations: {order} in order, {known} of them among {outcomes} outcomes")
        })?;
        let items: u64 = self.outcomes.values().map(items).sum();
        InvariantViolation::unless(items == self.items, || {
            format!("operations: {items} items, {} recorded", self.items)
        })?;
        InvariantViolation::unless(order <= OPERATIONS_MAX, || format!("{order} operations are kept"))
    }
}
