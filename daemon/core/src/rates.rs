//! How many queries were answered lately, by job and by member: the figures of the console's charts.
//!
//! Decides: which step of time an answer counts for, and which steps are complete. Steps are of wall time, so that those
//! of two coordinators line up. They are kept for one term: a new coordinator knows nothing of the time before it, and says
//! so by steps that it does not have.
//!
//! Source: our own.
//!
//! Invariants: only complete steps are shown; the step that is being counted never goes back, whatever the clock does; an
//! answer counts once for its job and once for its member.
//!
//! Bounds: [`STEPS_MAX`] complete steps of each job and member that answered anything in them.
//!
//! Does not do: read the clock; each event says when it happened.

use std::collections::{BTreeMap, VecDeque};

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::control::RatesView;

use crate::invariant::InvariantViolation;
use crate::machine::Machine;
use crate::time::Instant;

/// The length of a step, in milliseconds.
const STEP_MS: u32 = 5000;
/// Complete steps that are kept: five minutes.
pub const STEPS_MAX: usize = 60;

/// Something happened. Times are in milliseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RatesEvent {
    /// A member answered queries of a job.
    Answered {
        /// The job.
        job: JobId,
        /// The member.
        member: NodeId,
        /// How many.
        queries: u64,
        /// When.
        at_ms: u64,
    },
    /// A console asks for the rates: answered by one [`RatesEffect::Answer`].
    Asked {
        /// The driver's number for the request.
        request: u64,
        /// The step of the answer that the asker has.
        known: Option<u64>,
        /// When.
        at_ms: u64,
    },
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RatesEffect {
    /// Answer a [`RatesEvent::Asked`].
    Answer {
        /// The number from the event.
        request: u64,
        /// None, if the asker has it already.
        rates: Option<Rates>,
    },
}

/// All complete steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates {
    /// The step that is being counted: the rates change when it does.
    pub step: u64,
    /// The steps before it.
    pub view: RatesView,
}

/// The counts of one step.
#[derive(Debug, Default)]
struct Counts {
    jobs: BTreeMap<JobId, u32>,
    members: BTreeMap<NodeId, u32>,
}

/// Counts the answers of one term.
#[derive(Debug)]
pub struct RateCounter {
    /// The number of the step that is being counted: the last of them.
    now: u64,
    /// Oldest first. The first one is incomplete while `young`.
    steps: VecDeque<Counts>,
    young: bool,
    effects: VecDeque<RatesEffect>,
}

impl Machine for RateCounter {
    type Event = RatesEvent;
    type Effect = RatesEffect;

    fn handle(&mut self, event: RatesEvent, _now: Instant) {
        match event {
            RatesEvent::Answered { job, member, queries, at_ms } => {
                self.advance(at_ms);
                self.count(job, member, queries);
            }
            RatesEvent::Asked { request, known, at_ms } => {
                self.advance(at_ms);
                let rates = (known != Some(self.now)).then(|| Rates { step: self.now, view: self.view() });
                self.effects.push_back(RatesEffect::Answer { request, rates });
            }
        }
    }

    /// None: steps are counted by the events' times.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    fn poll_effect(&mut self) -> Option<RatesEffect> {
        self.effects.pop_front()
    }

    fn check(&self) -> Result<(), InvariantViolation> {
        let steps = self.steps.len();
        InvariantViolation::unless((1..=STEPS_MAX + 1).contains(&steps), || format!("{steps} steps"))
    }
}

impl RateCounter {
    /// Begins to count at `now_ms`, in milliseconds since the epoch.
    pub fn new(now_ms: u64) -> Self {
        Self {
            now: number(now_ms),
            steps: VecDeque::from([Counts::default()]),
            young: true,
            effects: VecDeque::new(),
        }
    }

    fn count(&mut self, job: JobId, member: NodeId, queries: u64) {
        let queries = u32::try_from(queries).unwrap_or(u32::MAX);
        if let Some(step) = self.steps.back_mut().filter(|_| queries > 0) {
            for count in [step.jobs.entry(job).or_default(), step.members.entry(member).or_default()] {
                *count = count.saturating_add(queries);
            }
        }
    }

    fn view(&self) -> RatesView {
        let skipped = usize::from(self.young);
        let complete = || self.steps.range(skipped.min(self.steps.len() - 1)..self.steps.len() - 1);
        let steps = complete().len();
        RatesView {
            step_ms: STEP_MS,
            first: self.now - steps as u64,
            steps: u16::try_from(steps).unwrap_or(u16::MAX),
            jobs: series(complete().map(|step| &step.jobs)),
            members: series(complete().map(|step| &step.members)),
        }
    }

    /// A clock that was set back goes on counting in the newest step.
    fn advance(&mut self, now_ms: u64) {
        let passed = number(now_ms).saturating_sub(self.now);
        self.now += passed;
        let passed = usize::try_from(passed).unwrap_or(usize::MAX);
        self.steps.extend(std::iter::repeat_with(Counts::default).take(passed.min(STEPS_MAX + 1)));
        let surplus = self.steps.len().saturating_sub(STEPS_MAX + 1);
        self.young &= surplus == 0;
        self.steps.drain(..surplus);
    }
}

const fn number(now_ms: u64) -> u64 {
    now_ms / STEP_MS as u64
}

/// One series of counts per key. Leading zeros are left out.
fn series<'a, K: Ord + Copy + 'a>(
    steps: impl ExactSizeIterator<Item = &'a BTreeMap<K, u32>>,
) -> Vec<(K, Vec<u32>)> {
    let count = steps.len();
    let mut all: BTreeMap<K, Vec<u32>> = BTreeMap::new();
    for (index, step) in steps.enumerate() {
        for (&key, &queries) in step {
            let series = all.entry(key).or_insert_with(|| Vec::with_capacity(count - index));
            // The last value is the last step's, so a series that has begun knows every step since.
            series.push(queries);
        }
        for (key, series) in &mut all {
            if !step.contains_key(key) {
                series.push(0);
            }
        }
    }
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_000_000_000;
    const STEP: u64 = STEP_MS as u64;

    fn answer(rates: &mut RateCounter, job: u64, member: u64, queries: u64, at_ms: u64) {
        let (job, member) = (JobId(job), NodeId(member));
        rates.handle(RatesEvent::Answered { job, member, queries, at_ms }, Instant::START);
        rates.check().unwrap();
    }

    fn ask(rates: &mut RateCounter, known: Option<u64>, at_ms: u64) -> Option<Rates> {
        rates.handle(RatesEvent::Asked { request: 5, known, at_ms }, Instant::START);
        rates.check().unwrap();
        let Some(RatesEffect::Answer { request: 5, rates }) = rates.poll_effect() else {
            panic!("no answer")
        };
        rates
    }

    fn view(rates: &mut RateCounter, at_ms: u64) -> RatesView {
        ask(rates, None, at_ms).unwrap().view
    }

    #[test]
    fn only_complete_steps_since_the_start_are_shown() {
        let mut rates = RateCounter::new(START + 100);
        answer(&mut rates, 1, 7, 32, START + 200);
        let first = view(&mut rates, START + 200);
        assert_eq!((first.steps, first.jobs), (0, vec![]), "the first is incomplete");
        answer(&mut rates, 1, 7, 8, START + STEP);
        answer(&mut rates, 2, 7, 5, START + 3 * STEP - 1);
        let view = view(&mut rates, START + 4 * STEP);
        assert_eq!((view.first, view.steps), (START / STEP + 1, 3));
        assert_eq!(view.jobs, [(JobId(1), vec![8, 0, 0]), (JobId(2), vec![5, 0])]);
        assert_eq!(view.members, [(NodeId(7), vec![8, 5, 0])]);
    }

    #[test]
    fn an_asker_gets_each_step_once() {
        let mut rates = RateCounter::new(START);
        let known = ask(&mut rates, None, START).unwrap().step;
        assert_eq!(ask(&mut rates, Some(known), START + STEP - 1), None);
        assert_eq!(ask(&mut rates, Some(known), START + STEP).unwrap().step, known + 1);
    }

    #[test]
    fn old_steps_are_dropped() {
        let mut rates = RateCounter::new(START);
        for step in 0..200 {
            answer(&mut rates, 1, 1, 1 + step, START + step * STEP);
        }
        let kept = view(&mut rates, START + 199 * STEP);
        assert_eq!((usize::from(kept.steps), kept.jobs[0].1.len()), (STEPS_MAX, STEPS_MAX));
        assert_eq!((kept.first, kept.jobs[0].1[0]), (START / STEP + 139, 140));
        let kept = view(&mut rates, START + 1_000_000 * STEP);
        assert_eq!((usize::from(kept.steps), kept.jobs, kept.members), (STEPS_MAX, vec![], vec![]));
    }

    #[test]
    fn a_clock_that_is_set_back_loses_nothing() {
        let mut rates = RateCounter::new(START);
        view(&mut rates, START + STEP);
        answer(&mut rates, 1, 1, 3, START);
        assert_eq!(view(&mut rates, START + 2 * STEP).jobs, [(JobId(1), vec![3])]);
    }
}
