//! What each member holds and has in hand, for watchers.
//!
//! Blobs are counted over the whole table, which takes a tenth of a second for a million: at most every
//! [`COUNT_PERIOD`], only while somebody watches, and on a thread where it holds nobody up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use idunno_core::metadata::State;
use idunno_shared::ids::NodeId;
use idunno_shared::wire::control::LoadView;
use tokio::time::Instant;

use super::desk::DeskView;

/// The least time between two counts.
const COUNT_PERIOD: Duration = Duration::from_secs(5);

/// Blobs and bytes by member, as they were counted last.
#[derive(Debug, Default)]
pub struct Holdings {
    counted: BTreeMap<NodeId, (u64, u64)>,
    revision: u64,
    at: Option<Instant>,
}

impl Holdings {
    /// Counts again if the state changed since, and the last count is old enough.
    pub async fn refresh(&mut self, state: &Arc<State>) {
        let due = self.at.is_none_or(|at| at.elapsed() >= COUNT_PERIOD);
        if !due || (self.at.is_some() && self.revision == state.revision()) {
            return;
        }
        let counting = Arc::clone(state);
        // A count that failed leaves the one before.
        if let Ok(counted) = tokio::task::spawn_blocking(move || count(&counting)).await {
            self.counted = counted;
        }
        (self.revision, self.at) = (state.revision(), Some(Instant::now()));
    }

    /// The loads of all that hold or work.
    pub fn loads(&self, desk: &DeskView) -> Vec<LoadView> {
        let mut loads: BTreeMap<NodeId, LoadView> = BTreeMap::new();
        for (&node, &(blobs, bytes)) in &self.counted {
            loads.insert(node, LoadView { node, blobs, bytes, ..LoadView::default() });
        }
        for (&node, report) in &desk.reports {
            let load = loads.entry(node).or_default();
            load.node = node;
            load.batches = u32::try_from(report.leases.len()).unwrap_or(u32::MAX);
            load.queries = report.leases.iter().map(|lease| u64::from(lease.range.count)).sum();
        }
        loads.into_values().collect()
    }
}

fn count(state: &State) -> BTreeMap<NodeId, (u64, u64)> {
    let mut counted = BTreeMap::new();
    for blob in state.blobs().values() {
        for &node in blob.holders.iter() {
            let (blobs, bytes) = counted.entry(node).or_insert((0, 0));
            *blobs += 1;
            *bytes += blob.size;
        }
    }
    counted
}
