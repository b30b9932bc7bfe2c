//! Time series for charts. The coordinator reports the answers in each step of its own term; the console keeps them beyond
//! the term, so that a failover leaves nothing but a gap in the charts. An unknown value is `NAN` and drawn as a blank,
//! because it is not the same as zero.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::control::{ClusterView, JobState, RatesView};

use super::long_history::LongHistory;

/// Steps per series: five minutes, as the coordinator keeps them.
pub const STEPS_MAX: usize = 60;

/// Queries per second, one value per step, oldest first. All series end with the same step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RateSeries(VecDeque<f64>);

impl RateSeries {
    fn push(&mut self, value: f64) {
        if self.0.len() == STEPS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// The last `count` values, oldest first, padded with unknown ones.
    pub fn last(&self, count: usize) -> Vec<f64> {
        let known = self.0.len().min(count);
        let padding = std::iter::repeat_n(f64::NAN, count - known);
        padding.chain(self.0.iter().skip(self.0.len() - known).copied()).collect()
    }

    /// The highest of the last `count` values.
    pub fn top(&self, count: usize) -> f64 {
        // `max` ignores NAN.
        self.0.iter().rev().take(count).copied().fold(0.0, f64::max)
    }

    /// Whether anything was answered.
    pub fn has_answers(&self) -> bool {
        self.0.iter().any(|value| *value > 0.0)
    }
}

/// The mean rate of the last 10 seconds, if it is known.
pub fn current_rate(values: &[f64]) -> Option<f64> {
    let last: Vec<f64> = values.iter().rev().take(2).copied().filter(|rate| rate.is_finite()).collect();
    (!last.is_empty()).then(|| last.iter().sum::<f64>() / last.len() as f64)
}

#[derive(Clone, Debug, Default)]
pub struct RateHistory {
    /// The number of the step after the last.
    end: u64,
    /// Length of a step, in milliseconds. Step n begins n steps after the epoch.
    step_ms: u64,
    pub jobs: BTreeMap<JobId, RateSeries>,
    pub members: BTreeMap<NodeId, RateSeries>,
    /// The jobs' rates since the console has known them.
    pub whole_jobs: BTreeMap<JobId, LongHistory>,
    /// The gap between the rates of running jobs, in percent of the largest: only while the console is open.
    pub fairness: RateSeries,
    /// When shares were last sampled, in seconds since the epoch.
    shares_at_s: u64,
    /// Samples of the jobs' shares of each member, every [`SHARES_PERIOD_S`], oldest first.
    shares: VecDeque<BTreeMap<(NodeId, JobId), f64>>,
}

/// Seconds between two samples of the shares.
const SHARES_PERIOD_S: u64 = 10;
/// Samples that are kept: shares are compared with those of half a minute ago.
const SHARES_MAX: usize = 4;

impl RateHistory {
    /// Takes the rates out of a view: only some views carry them, and they must not count as a difference between views.
    /// Returns whether a chart has changed.
    pub fn take(&mut self, view: &mut ClusterView) -> bool {
        self.sample_shares(view);
        let Some(rates) = &view.rates.take() else { return false };
        let end = rates.first.saturating_add(rates.steps.into());
        if end <= self.end {
            return false;
        }
        let jobs = view.jobs.iter().filter(|job| job.state == JobState::Running).map(|job| job.id);
        let workers = view.workers.iter().map(|worker| worker.node);
        let whole_jobs = &mut self.whole_jobs;
        extend(&mut self.jobs, self.end, rates, &rates.jobs, jobs, |id, step, value| {
            whole_jobs.entry(id).or_default().push(step, value);
        });
        let is_known = |id: &JobId| view.jobs.iter().any(|job| job.id == *id);
        self.jobs.retain(|id, _| is_known(id));
        self.whole_jobs.retain(|id, _| is_known(id));
        extend(&mut self.members, self.end, rates, &rates.members, workers, |_, _, _| {});
        let members: BTreeSet<NodeId> = view.members.iter().map(|member| member.id).collect();
        self.members.retain(|id, _| members.contains(id));
        self.sample_fairness(end, fairness_gap(view));
        self.end = end;
        self.step_ms = rates.step_ms.max(1).into();
        self.members.values().chain(self.jobs.values()).any(RateSeries::has_answers)
    }

    /// The steps since the last sample are unknown, but for the newest.
    fn sample_fairness(&mut self, end: u64, gap: Option<FairnessGap>) {
        let missed = end.saturating_sub(self.end).saturating_sub(1).min(STEPS_MAX as u64);
        (0..missed).for_each(|_| self.fairness.push(f64::NAN));
        self.fairness.push(gap.map_or(f64::NAN, |gap| gap.share * 100.0));
    }

    /// When the last step ended, in milliseconds since the epoch; 0 before the first.
    pub const fn end_ms(&self) -> u64 {
        self.end.saturating_mul(self.step_ms)
    }

    /// When the last `count` steps began.
    pub const fn begin_ms(&self, count: usize) -> u64 {
        self.end.saturating_sub(count as u64).saturating_mul(self.step_ms)
    }

    /// The step at a moment.
    pub fn step_at(&self, at_ms: u64) -> u64 {
        at_ms.checked_div(self.step_ms).unwrap_or(0)
    }

    /// Length of a step, in seconds.
    pub fn step_s(&self) -> f64 {
        self.step_ms as f64 / 1000.0
    }

    fn sample_shares(&mut self, view: &ClusterView) {
        let second = view.at_ms / 1000;
        if second < self.shares_at_s + SHARES_PERIOD_S && !self.shares.is_empty() {
            return;
        }
        self.shares_at_s = second;
        let rows = view.assignments.iter();
        let pairs = rows.flat_map(|row| row.shares.iter().map(|(job, share)| ((row.node, *job), *share)));
        self.shares.push_back(pairs.collect());
        let surplus = self.shares.len().saturating_sub(SHARES_MAX);
        self.shares.drain(..surplus);
    }

    /// A job's share of a member half a minute ago, if it is known.
    pub fn share_before(&self, node: NodeId, job: JobId) -> Option<f64> {
        let oldest = self.shares.front()?;
        oldest.get(&(node, job)).copied().or_else(|| {
            let knows_node = oldest.range((node, JobId(0))..).next().is_some_and(|((id, _), _)| *id == node);
            knows_node.then_some(0.0)
        })
    }
}

/// The spread of the running jobs' rates.
#[derive(Clone, Copy, Debug)]
pub struct FairnessGap {
    pub jobs: usize,
    /// The difference of the largest and the smallest rate over the largest.
    pub share: f64,
}

/// `None` for fewer than two running jobs.
pub fn fairness_gap(view: &ClusterView) -> Option<FairnessGap> {
    let running = view.jobs.iter().filter(|job| job.state == JobState::Running);
    let rates: Vec<f64> = running.map(|job| job.rate_10s_qps).collect();
    let largest = rates.iter().copied().fold(0.0, f64::max);
    let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
    (rates.len() > 1 && largest > 0.0)
        .then(|| FairnessGap { jobs: rates.len(), share: (largest - least) / largest })
}

/// Extends series by the reported counts. An `idle` series that was not reported answered nothing.
fn extend<K: Ord + Copy>(
    all: &mut BTreeMap<K, RateSeries>,
    old_end: u64,
    rates: &RatesView,
    reported: &[(K, Vec<u32>)],
    idle: impl Iterator<Item = K>,
    mut each: impl FnMut(K, u64, f64),
) {
    let reported: BTreeMap<K, &[u32]> =
        reported.iter().map(|(key, counts)| (*key, counts.as_slice())).collect();
    for key in reported.keys().copied().chain(idle) {
        all.entry(key).or_default();
    }
    let end = rates.first.saturating_add(rates.steps.into());
    let seconds = f64::from(rates.step_ms.max(1)) / 1000.0;
    let oldest = end.saturating_sub(STEPS_MAX as u64);
    for (key, series) in all {
        let counts = reported.get(key).copied().unwrap_or(&[]);
        // A new series takes all steps that are reported, the others only the new ones.
        let from = if series.0.is_empty() { rates.first.max(oldest) } else { old_end.max(oldest) };
        for step in from..end {
            let ago = usize::try_from(end - step).unwrap_or(usize::MAX);
            let count = counts.len().checked_sub(ago).map_or(0, |index| counts[index]);
            let value = if step < rates.first { f64::NAN } else { f64::from(count) / seconds };
            series.push(value);
            each(*key, step, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::tests::fixtures::fixture;

    fn view_with_rates(first: u64, steps: u16, counts: &[u32]) -> ClusterView {
        let members = vec![(NodeId(1), counts.to_vec())];
        let jobs = vec![(JobId(1), counts.to_vec())];
        ClusterView { rates: Some(RatesView { step_ms: 5000, first, steps, jobs, members }), ..fixture() }
    }

    fn shown(history: &RateHistory, count: usize) -> String {
        let values = history.members[&NodeId(1)].last(count);
        values.iter().map(|value| if value.is_nan() { '.'.into() } else { format!("{value:.0}") }).collect()
    }

    #[test]
    fn a_console_opened_late_sees_the_steps_before() {
        let mut history = RateHistory::default();
        assert!(history.take(&mut view_with_rates(100, 4, &[10, 15, 20])));
        assert_eq!(
            shown(&history, 6),
            "..0234",
            "a missing count is zero, a step before the term is unknown"
        );
        assert_eq!(history.members[&NodeId(2)].last(4), [0.0; 4], "a worker that answered nothing");
        assert!(!history.members.contains_key(&NodeId(3)), "no worker, no series");
        assert!(history.jobs[&JobId(1)].has_answers());
    }

    #[test]
    fn a_new_term_leaves_a_gap_and_keeps_the_past() {
        let mut history = RateHistory::default();
        history.take(&mut view_with_rates(100, 3, &[5, 5, 5]));
        assert!(!history.take(&mut view_with_rates(100, 3, &[5, 5, 5])), "nothing new");
        assert!(history.take(&mut view_with_rates(102, 2, &[30, 40])), "one step further: the past stays");
        assert_eq!(shown(&history, 5), ".1118");
        assert!(history.take(&mut view_with_rates(107, 1, &[25])), "another coordinator, three steps later");
        assert_eq!(shown(&history, 8), "1118...5");
        history.take(&mut view_with_rates(90, 1, &[50]));
        assert_eq!(shown(&history, 8), "1118...5", "reports of an older step are ignored");
        history.take(&mut view_with_rates(1_000_000, 1, &[45]));
        assert_eq!(shown(&history, 3), "..9");
        assert_eq!(history.members[&NodeId(1)].0.len(), STEPS_MAX);
        // What left the five minutes is still in the job's own history.
        let whole = &history.whole_jobs[&JobId(1)];
        assert_eq!((whole.known(), whole.sum()), (6, 1.0 * 3.0 + 8.0 + 5.0 + 9.0));
    }

    #[test]
    fn the_gap_between_jobs_is_sampled_once_a_step_and_unknown_before() {
        let mut history = RateHistory::default();
        let sample = |history: &mut RateHistory, first, rates: [f64; 2]| {
            let mut view = view_with_rates(first, 1, &[5]);
            for (job, rate) in view.jobs.iter_mut().zip(rates) {
                (job.state, job.rate_10s_qps) = (JobState::Running, rate);
            }
            history.take(&mut view);
        };
        sample(&mut history, 100, [100.0, 80.0]);
        sample(&mut history, 103, [100.0, 100.0]);
        let shown: Vec<String> = history.fairness.last(5).iter().map(|value| format!("{value:.0}")).collect();
        assert_eq!(shown, ["NaN", "20", "NaN", "NaN", "0"]);
        assert_eq!((history.end_ms(), history.begin_ms(4)), (104 * 5000, 100 * 5000));
    }
}
