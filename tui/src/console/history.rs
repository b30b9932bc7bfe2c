//! How figures went: one value a second and curve, for charts. A time without views leaves a gap.

use std::collections::{BTreeMap, VecDeque};

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::control::{ClusterView, JobState};

/// Values that are kept of a curve.
pub const SECONDS_MAX: usize = 240;

/// A curve.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve(VecDeque<f64>);

impl Curve {
    fn push(&mut self, gap: usize, value: f64) {
        self.0.extend(std::iter::repeat_n(f64::NAN, gap.min(SECONDS_MAX)));
        self.0.push_back(value);
        let surplus = self.0.len().saturating_sub(SECONDS_MAX);
        self.0.drain(..surplus);
    }

    /// The last values, oldest first.
    pub fn last(&self, count: usize) -> Vec<f64> {
        self.0.iter().skip(self.0.len().saturating_sub(count)).copied().collect()
    }
}

/// All curves.
#[derive(Clone, Debug, Default)]
pub struct History {
    second: Option<u64>,
    /// Queries per second by job.
    pub rates: BTreeMap<JobId, Curve>,
    /// Queries in hand by member.
    pub loads: BTreeMap<NodeId, Curve>,
    /// The shares of work, every [`SHARES_PERIOD_S`], oldest first.
    shares: VecDeque<BTreeMap<(NodeId, JobId), f64>>,
}

/// Seconds between two notes of shares.
const SHARES_PERIOD_S: u64 = 10;
/// Notes that are kept: shares are compared with those of half a minute ago.
const SHARES_MAX: usize = 4;

impl History {
    /// Takes a view's figures, if a second has passed since the last; whether it did.
    pub fn take(&mut self, view: &ClusterView) -> bool {
        let second = view.at_ms / 1000;
        let gap = match self.second {
            Some(last) if second <= last => return false,
            Some(last) => usize::try_from(second - last - 1).unwrap_or(usize::MAX),
            None => 0,
        };
        self.second = Some(second);
        // A view may be a second late on a busy machine; that is no gap.
        let gap = if gap <= 1 { 0 } else { gap };
        self.rates.retain(|id, _| view.jobs.iter().any(|job| job.id == *id));
        for job in &view.jobs {
            let rate = if job.state == JobState::Running { job.rate_10s_qps } else { 0.0 };
            if rate > 0.0 || self.rates.contains_key(&job.id) {
                self.rates.entry(job.id).or_default().push(gap, rate);
            }
        }
        let held: BTreeMap<NodeId, u64> = view.loads.iter().map(|load| (load.node, load.queries)).collect();
        self.loads.retain(|id, _| held.contains_key(id));
        for (node, queries) in held {
            self.loads.entry(node).or_default().push(gap, queries as f64);
        }
        if second.is_multiple_of(SHARES_PERIOD_S) || self.shares.is_empty() {
            let rows = view.assignments.iter();
            let pairs = rows.flat_map(|row| row.shares.iter().map(|(job, share)| ((row.node, *job), *share)));
            self.shares.push_back(pairs.collect());
            let surplus = self.shares.len().saturating_sub(SHARES_MAX);
            self.shares.drain(..surplus);
        }
        true
    }

    /// What share of a member's work a job had half a minute ago, if that is known.
    pub fn share_before(&self, node: NodeId, job: JobId) -> Option<f64> {
        let oldest = self.shares.front()?;
        oldest.get(&(node, job)).copied().or_else(|| {
            let knows_node = oldest.range((node, JobId(0))..).next().is_some_and(|((id, _), _)| *id == node);
            knows_node.then_some(0.0)
        })
    }
}
