//! How many queries were answered lately, by job and by member: what the consoles' charts show.
//!
//! Steps are of wall time, so that those of two coordinators line up. Kept for one term: a new coordinator knows
//! nothing of the time before it, and says so by steps that it does not have. Only whole steps are told. Bounds:
//! [`STEPS_MAX`] steps of each job and member that answered anything in them.

use std::collections::{BTreeMap, VecDeque};

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::control::RatesView;

/// The length of a step, in milliseconds.
const STEP_MS: u32 = 5000;
/// Whole steps that are kept: five minutes.
const STEPS_MAX: usize = 60;

/// The counts of one step.
#[derive(Debug, Default)]
struct Step {
    jobs: BTreeMap<JobId, u32>,
    members: BTreeMap<NodeId, u32>,
}

/// The counts of the last steps.
#[derive(Debug)]
pub struct Rates {
    /// The number of the step that is being counted: the last of them.
    now: u64,
    /// Oldest first. The first one is not whole while `young`.
    steps: VecDeque<Step>,
    young: bool,
}

impl Rates {
    /// Begins to count at `now_ms`, in milliseconds since the epoch.
    pub fn new(now_ms: u64) -> Self {
        Self { now: number(now_ms), steps: VecDeque::from([Step::default()]), young: true }
    }

    /// A member answered so many queries of a job.
    pub fn note(&mut self, job: JobId, member: NodeId, queries: u64, now_ms: u64) {
        self.advance(now_ms);
        let queries = u32::try_from(queries).unwrap_or(u32::MAX);
        if let Some(step) = self.steps.back_mut().filter(|_| queries > 0) {
            for count in [step.jobs.entry(job).or_default(), step.members.entry(member).or_default()] {
                *count = count.saturating_add(queries);
            }
        }
    }

    /// The number of the step that is being counted: when it changes there is news.
    pub fn step(&mut self, now_ms: u64) -> u64 {
        self.advance(now_ms);
        self.now
    }

    /// All whole steps.
    pub fn view(&self) -> RatesView {
        let skipped = usize::from(self.young);
        let whole = || self.steps.range(skipped.min(self.steps.len() - 1)..self.steps.len() - 1);
        let steps = whole().len();
        RatesView {
            step_ms: STEP_MS,
            first: self.now - steps as u64,
            steps: u16::try_from(steps).unwrap_or(u16::MAX),
            jobs: courses(whole().map(|step| &step.jobs)),
            members: courses(whole().map(|step| &step.members)),
        }
    }

    /// A clock that was set back goes on counting in the newest step.
    fn advance(&mut self, now_ms: u64) {
        let passed = number(now_ms).saturating_sub(self.now);
        self.now += passed;
        let passed = usize::try_from(passed).unwrap_or(usize::MAX);
        self.steps.extend(std::iter::repeat_with(Step::default).take(passed.min(STEPS_MAX + 1)));
        let surplus = self.steps.len().saturating_sub(STEPS_MAX + 1);
        self.young &= surplus == 0;
        self.steps.drain(..surplus);
    }
}

const fn number(now_ms: u64) -> u64 {
    now_ms / STEP_MS as u64
}

/// The counts by what they are of. Leading zeros are left out.
fn courses<'a, K: Ord + Copy + 'a>(
    steps: impl ExactSizeIterator<Item = &'a BTreeMap<K, u32>>,
) -> Vec<(K, Vec<u32>)> {
    let count = steps.len();
    let mut courses: BTreeMap<K, Vec<u32>> = BTreeMap::new();
    for (place, step) in steps.enumerate() {
        for (&key, &queries) in step {
            let course = courses.entry(key).or_insert_with(|| Vec::with_capacity(count - place));
            // The last value stands for the last step, so a course that began knows every step since.
            course.push(queries);
        }
        for (key, course) in &mut courses {
            if !step.contains_key(key) {
                course.push(0);
            }
        }
    }
    courses.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_000_000_000;
    const STEP: u64 = STEP_MS as u64;

    #[test]
    fn only_whole_steps_are_told_and_none_of_before() {
        let mut rates = Rates::new(START + 100);
        rates.note(JobId(1), NodeId(7), 32, START + 200);
        assert_eq!((rates.view().steps, rates.view().jobs), (0, vec![]), "the first is not whole");
        rates.note(JobId(1), NodeId(7), 8, START + STEP);
        rates.note(JobId(2), NodeId(7), 5, START + 3 * STEP - 1);
        rates.step(START + 4 * STEP);
        let view = rates.view();
        assert_eq!((view.first, view.steps), (START / STEP + 1, 3));
        assert_eq!(view.jobs, [(JobId(1), vec![8, 0, 0]), (JobId(2), vec![5, 0])]);
        assert_eq!(view.members, [(NodeId(7), vec![8, 5, 0])]);
    }

    #[test]
    fn what_is_kept_is_bounded_and_goes_when_it_is_old() {
        let mut rates = Rates::new(START);
        for step in 0..200 {
            rates.note(JobId(1), NodeId(1), 1 + step, START + step * STEP);
        }
        let view = rates.view();
        assert_eq!((usize::from(view.steps), view.jobs[0].1.len()), (STEPS_MAX, STEPS_MAX));
        assert_eq!((view.first, view.jobs[0].1[0]), (START / STEP + 139, 140));
        rates.step(START + 1_000_000 * STEP);
        let view = rates.view();
        assert_eq!((usize::from(view.steps), view.jobs, view.members), (STEPS_MAX, vec![], vec![]));
    }

    #[test]
    fn a_clock_that_is_set_back_loses_nothing() {
        let mut rates = Rates::new(START);
        rates.step(START + STEP);
        rates.note(JobId(1), NodeId(1), 3, START);
        rates.step(START + 2 * STEP);
        assert_eq!(rates.view().jobs, [(JobId(1), vec![3])]);
    }
}
