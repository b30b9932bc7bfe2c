//! How figures went, for charts. The coordinator tells what was answered in the steps of its term; the console keeps
//! that beyond the term, so that a failover leaves a gap in the curves, and nothing else. What nobody knows is `NAN`, and
//! drawn as nothing: it is not the same as zero.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::control::{ClusterView, JobState, RatesView};

/// Steps that are kept of a curve: five minutes, as the coordinator has them.
pub const STEPS_MAX: usize = 60;

/// Queries per second, a value a step, oldest first. All curves end with the same step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve(VecDeque<f64>);

impl Curve {
    fn push(&mut self, value: f64) {
        if self.0.len() == STEPS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// The last values, oldest first; as many as were asked for.
    pub fn last(&self, count: usize) -> Vec<f64> {
        let known = self.0.len().min(count);
        let unknown = std::iter::repeat_n(f64::NAN, count - known);
        unknown.chain(self.0.iter().skip(self.0.len() - known).copied()).collect()
    }

    /// The highest of the last values.
    pub fn top(&self, count: usize) -> f64 {
        // What is not known is passed over by `max`.
        self.0.iter().rev().take(count).copied().fold(0.0, f64::max)
    }

    /// Whether anything was answered in its time.
    pub fn rises(&self) -> bool {
        self.0.iter().any(|value| *value > 0.0)
    }
}

/// The rate of the newest 10 seconds that are known.
pub fn newest(values: &[f64]) -> Option<f64> {
    let last: Vec<f64> = values.iter().rev().take(2).copied().filter(|rate| rate.is_finite()).collect();
    (!last.is_empty()).then(|| last.iter().sum::<f64>() / last.len() as f64)
}

/// All curves.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The number of the step behind the last.
    end: u64,
    /// Queries per second by job.
    pub jobs: BTreeMap<JobId, Curve>,
    /// The same by member.
    pub members: BTreeMap<NodeId, Curve>,
    /// When shares were noted last, in seconds since the epoch.
    second: u64,
    /// The shares of work, every [`SHARES_PERIOD_S`], oldest first.
    shares: VecDeque<BTreeMap<(NodeId, JobId), f64>>,
}

/// Seconds between two notes of shares.
const SHARES_PERIOD_S: u64 = 10;
/// Notes that are kept: shares are compared with those of half a minute ago.
const SHARES_MAX: usize = 4;

impl History {
    /// Takes a view's figures, and the rates out of it: they come with some views only, and are no difference between
    /// two. Tells whether there is a chart that went on.
    pub fn take(&mut self, view: &mut ClusterView) -> bool {
        self.take_shares(view);
        let Some(rates) = &view.rates.take() else { return false };
        let end = rates.first.saturating_add(rates.steps.into());
        if end <= self.end {
            return false;
        }
        let jobs = view.jobs.iter().filter(|job| job.state == JobState::Running).map(|job| job.id);
        let workers = view.workers.iter().map(|worker| worker.node);
        let before = self.end;
        extend(&mut self.jobs, before, rates, &rates.jobs, jobs, |id| {
            view.jobs.iter().any(|job| job.id == *id)
        });
        extend(&mut self.members, before, rates, &rates.members, workers, |_| true);
        let members: BTreeSet<NodeId> = view.members.iter().map(|member| member.id).collect();
        self.members.retain(|id, _| members.contains(id));
        self.end = end;
        self.members.values().chain(self.jobs.values()).any(Curve::rises)
    }

    fn take_shares(&mut self, view: &ClusterView) {
        let second = view.at_ms / 1000;
        if second < self.second + SHARES_PERIOD_S && !self.shares.is_empty() {
            return;
        }
        self.second = second;
        let rows = view.assignments.iter();
        let pairs = rows.flat_map(|row| row.shares.iter().map(|(job, share)| ((row.node, *job), *share)));
        self.shares.push_back(pairs.collect());
        let surplus = self.shares.len().saturating_sub(SHARES_MAX);
        self.shares.drain(..surplus);
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

/// Carries curves on by what was told; `idle` ones that are not told of answered nothing.
fn extend<K: Ord + Copy>(
    curves: &mut BTreeMap<K, Curve>,
    before: u64,
    rates: &RatesView,
    told: &[(K, Vec<u32>)],
    idle: impl Iterator<Item = K>,
    kept: impl Fn(&K) -> bool,
) {
    let told: BTreeMap<K, &[u32]> = told.iter().map(|(key, counts)| (*key, counts.as_slice())).collect();
    let known: Vec<K> = told.keys().copied().chain(idle).collect();
    known.into_iter().for_each(|key| _ = curves.entry(key).or_default());
    curves.retain(|key, _| kept(key));
    let end = rates.first.saturating_add(rates.steps.into());
    let seconds = f64::from(rates.step_ms.max(1)) / 1000.0;
    // Of a long silence only its end matters.
    let from = before.max(end.saturating_sub(STEPS_MAX as u64));
    for (key, curve) in curves {
        let counts = told.get(key).copied().unwrap_or(&[]);
        // A curve that begins now has no past of its own: it takes all that is told.
        let from =
            if curve.0.is_empty() { rates.first.max(end.saturating_sub(STEPS_MAX as u64)) } else { from };
        for step in from..end {
            let ago = usize::try_from(end - step).unwrap_or(usize::MAX);
            let count = counts.len().checked_sub(ago).map_or(0, |place| counts[place]);
            curve.push(if step < rates.first { f64::NAN } else { f64::from(count) / seconds });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::tests::fixture;

    fn told(first: u64, steps: u16, counts: &[u32]) -> ClusterView {
        let members = vec![(NodeId(1), counts.to_vec())];
        let jobs = vec![(JobId(1), counts.to_vec())];
        ClusterView { rates: Some(RatesView { step_ms: 5000, first, steps, jobs, members }), ..fixture() }
    }

    fn shown(history: &History, count: usize) -> String {
        let values = history.members[&NodeId(1)].last(count);
        values.iter().map(|value| if value.is_nan() { '.'.into() } else { format!("{value:.0}") }).collect()
    }

    #[test]
    fn a_console_that_is_opened_late_sees_what_was_before_it() {
        let mut history = History::default();
        assert!(history.take(&mut told(100, 4, &[10, 15, 20])));
        assert_eq!(shown(&history, 6), "..0234", "the zero was left out, what is before the term is unknown");
        assert_eq!(history.members[&NodeId(2)].last(4), [0.0; 4], "a worker that answered nothing");
        assert!(!history.members.contains_key(&NodeId(3)), "no worker, no curve");
        assert!(history.jobs[&JobId(1)].rises());
    }

    #[test]
    fn a_new_term_leaves_a_gap_and_the_past_stays() {
        let mut history = History::default();
        history.take(&mut told(100, 3, &[5, 5, 5]));
        assert!(!history.take(&mut told(100, 3, &[5, 5, 5])), "nothing new");
        assert!(history.take(&mut told(102, 2, &[30, 40])), "a step on: what was shown stays");
        assert_eq!(shown(&history, 5), ".1118");
        assert!(history.take(&mut told(107, 1, &[25])), "another coordinator, three steps later");
        assert_eq!(shown(&history, 8), "1118...5");
        history.take(&mut told(90, 1, &[50]));
        assert_eq!(shown(&history, 8), "1118...5", "an old coordinator's words do not count");
        history.take(&mut told(1_000_000, 1, &[45]));
        assert_eq!(shown(&history, 3), "..9");
        assert_eq!(history.members[&NodeId(1)].0.len(), STEPS_MAX);
    }
}
