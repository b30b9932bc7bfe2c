//! Which members there is news of, and how often it has been passed on. The news itself is the table's record.

use std::collections::{BTreeMap, BTreeSet};

use idunno_shared::ids::NodeId;

use crate::machine::InvariantViolation;

/// News by member, sent least often first. At most one rumour a member.
#[derive(Debug, Default)]
pub(super) struct Rumours {
    sent: BTreeMap<NodeId, u32>,
    order: BTreeSet<(u32, NodeId)>,
}

impl Rumours {
    /// There is news of `id`; earlier news of it is superseded.
    pub(super) fn add(&mut self, id: NodeId) {
        self.remove(id);
        self.sent.insert(id, 0);
        self.order.insert((0, id));
    }

    /// There is more to the news of `id`: it goes out with what is still to be sent, or afresh.
    pub(super) fn add_more(&mut self, id: NodeId) {
        if !self.sent.contains_key(&id) {
            self.add(id);
        }
    }

    pub(super) fn remove(&mut self, id: NodeId) {
        if let Some(sent) = self.sent.remove(&id) {
            self.order.remove(&(sent, id));
        }
    }

    /// The news of `id` went out once more; after `limit` times it is old.
    pub(super) fn mark_sent(&mut self, id: NodeId, limit: u32) {
        let Some(sent) = self.sent.get_mut(&id) else { return };
        self.order.remove(&(*sent, id));
        *sent += 1;
        if *sent < limit {
            self.order.insert((*sent, id));
        } else {
            self.sent.remove(&id);
        }
    }

    /// In the order in which they should be sent.
    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.order.iter().map(|&(_, id)| id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.sent.clear();
        self.order.clear();
    }

    pub(super) fn check(&self) -> Result<(), InvariantViolation> {
        let consistent = self.order.iter().all(|(sent, id)| self.sent.get(id) == Some(sent));
        if consistent && self.order.len() == self.sent.len() {
            Ok(())
        } else {
            Err(InvariantViolation::new("the order of rumours disagrees with their counts"))
        }
    }
}
