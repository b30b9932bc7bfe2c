//! Which models this worker's server has, and what is under way for them.
//!
//! Decides whether an order to load or to train is started, and what is reported. The coordinator repeats its orders
//! until the report shows what it wants, so every order here may come many times.
//!
//! Invariants: at most one load or training a model at a time; what an older server process did counts for nothing; a
//! failed load is started again only after its back-off.
//! Bounds: [`MODELS_MAX`] models. It never unloads.

use std::collections::BTreeMap;
use std::time::Duration;

use idunno_shared::ids::Digest;
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::ModelState;
use tokio::time::Instant;

/// Most models that are kept track of.
pub const MODELS_MAX: usize = 64;
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Nothing,
    Loading,
    Training,
}

#[derive(Debug)]
struct Entry {
    work: Work,
    loaded: Option<Digest>,
    failure: Option<String>,
    failures: u32,
    not_before: Option<Instant>,
    /// Orders in answers to reports up to this one were given before the last training was over.
    trained_at_report: u64,
}

/// The models of one worker.
#[derive(Debug, Default)]
pub struct Models {
    epoch: u64,
    entries: BTreeMap<ModelName, Entry>,
}

impl Models {
    /// The server process is another one: nothing is loaded, nothing is under way.
    pub fn restart(&mut self, epoch: u64) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.server_down();
        }
    }

    /// The server process cannot be used: what it had loaded, and what was being loaded, counts no more.
    pub fn server_down(&mut self) {
        for entry in self.entries.values_mut() {
            (entry.loaded, entry.failure, entry.failures, entry.not_before) = (None, None, 0, None);
            // A training reports its own end.
            if entry.work == Work::Loading {
                entry.work = Work::Nothing;
            }
        }
    }

    /// The server process that all this is about.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether an order to load is to be carried out now.
    #[must_use]
    pub fn start_load(&mut self, model: &ModelName, version: &Digest, now: Instant) -> bool {
        let Some(entry) = self.entry(model) else { return false };
        let wait = entry.not_before.is_some_and(|at| now < at);
        let start = entry.work == Work::Nothing && entry.loaded != Some(*version) && !wait;
        if start {
            entry.work = Work::Loading;
        }
        start
    }

    /// How a load ended. False: it was another process that loaded it.
    pub fn loaded(
        &mut self,
        epoch: u64,
        model: &ModelName,
        result: Result<Digest, String>,
        now: Instant,
    ) -> bool {
        let entry = self.entries.get_mut(model).filter(|entry| entry.work == Work::Loading);
        let Some(entry) = entry.filter(|_| epoch == self.epoch) else { return false };
        entry.work = Work::Nothing;
        match result {
            Ok(version) => {
                (entry.loaded, entry.failure, entry.failures, entry.not_before) =
                    (Some(version), None, 0, None);
            }
            Err(reason) => entry.fail(reason, now),
        }
        true
    }

    /// Whether an order to train, in the answer to report number `report`, is to be carried out now.
    #[must_use]
    pub fn start_training(&mut self, model: &ModelName, report: u64, now: Instant) -> bool {
        let Some(entry) = self.entry(model) else { return false };
        let wait = entry.not_before.is_some_and(|at| now < at);
        let start = entry.work == Work::Nothing && report > entry.trained_at_report && !wait;
        if start {
            entry.work = Work::Training;
        }
        start
    }

    /// A training is over and the coordinator knows, or (`interrupted`) the server went away and it will be ordered
    /// again. `report` is the number of the last report sent.
    pub fn trained(&mut self, model: &ModelName, interrupted: Option<String>, report: u64, now: Instant) {
        let Some(entry) = self.entries.get_mut(model) else { return };
        entry.work = Work::Nothing;
        match interrupted {
            Some(reason) => entry.fail(reason, now),
            None => entry.trained_at_report = report,
        }
    }

    /// The server turned out not to serve the model: it is to be loaded again.
    pub fn lost(&mut self, model: &ModelName) {
        if let Some(entry) = self.entries.get_mut(model) {
            entry.loaded = None;
        }
    }

    /// The version that answers.
    pub fn version(&self, model: &ModelName) -> Option<Digest> {
        self.entries.get(model).and_then(|entry| entry.loaded)
    }

    /// Whether any model answers.
    pub fn any_loaded(&self) -> bool {
        self.entries.values().any(|entry| entry.loaded.is_some())
    }

    /// What is reported: models of which there is nothing to say are left out.
    pub fn states(&self) -> Vec<(ModelName, ModelState)> {
        let state = |entry: &Entry| match (entry.work, entry.loaded, &entry.failure) {
            (Work::Training, ..) => Some(ModelState::Training),
            (Work::Loading, ..) => Some(ModelState::Loading),
            (Work::Nothing, Some(version), _) => Some(ModelState::Ready(version)),
            (Work::Nothing, None, Some(reason)) => Some(ModelState::Failed(reason.clone())),
            (Work::Nothing, None, None) => None,
        };
        self.entries.iter().filter_map(|(model, entry)| Some((model.clone(), state(entry)?))).collect()
    }

    fn entry(&mut self, model: &ModelName) -> Option<&mut Entry> {
        if self.entries.len() >= MODELS_MAX && !self.entries.contains_key(model) {
            return None;
        }
        Some(self.entries.entry(model.clone()).or_insert_with(|| Entry {
            work: Work::Nothing,
            loaded: None,
            failure: None,
            failures: 0,
            not_before: None,
            trained_at_report: 0,
        }))
    }
}

impl Entry {
    fn fail(&mut self, reason: String, now: Instant) {
        self.failure = Some(reason);
        self.not_before = Some(now + BACK_OFF_MAX.min(BACK_OFF_MIN * (1 << self.failures.min(5))));
        self.failures += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> ModelName {
        "m".parse().unwrap()
    }

    #[test]
    fn a_load_starts_once_and_counts_for_its_process_only() {
        let (now, version) = (Instant::now(), Digest::of(b"v"));
        let mut models = Models::default();
        models.restart(1);
        assert!(models.start_load(&model(), &version, now));
        assert!(!models.start_load(&model(), &version, now), "under way");
        models.restart(2);
        assert!(!models.loaded(1, &model(), Ok(version), now), "another process loaded it");
        assert!(models.start_load(&model(), &version, now));
        assert!(models.loaded(2, &model(), Ok(version), now));
        assert_eq!(models.states(), [(model(), ModelState::Ready(version))]);
        assert!(!models.start_load(&model(), &version, now), "loaded");
        assert!(models.start_load(&model(), &Digest::of(b"w"), now), "a new version");
    }

    #[test]
    fn a_failed_load_waits_longer_each_time() {
        let (start, version) = (Instant::now(), Digest::of(b"v"));
        let mut models = Models::default();
        let mut now = start;
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            assert!(models.start_load(&model(), &version, now));
            models.loaded(0, &model(), Err("no".to_owned()), now);
            assert_eq!(models.states(), [(model(), ModelState::Failed("no".to_owned()))]);
            assert!(!models.start_load(&model(), &version, now + Duration::from_millis(seconds * 1000 - 1)));
            now += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn a_training_order_that_crossed_its_end_is_not_obeyed() {
        let now = Instant::now();
        let mut models = Models::default();
        assert!(models.start_training(&model(), 1, now));
        assert_eq!(models.states(), [(model(), ModelState::Training)]);
        models.trained(&model(), None, 5, now);
        assert!(!models.start_training(&model(), 5, now), "answer to a report of before");
        assert!(models.start_training(&model(), 6, now), "a new order");
    }

    #[test]
    fn models_are_bounded() {
        let mut models = Models::default();
        for n in 0..2 * MODELS_MAX {
            let started =
                models.start_load(&format!("m{n}").parse().unwrap(), &Digest::of(b"v"), Instant::now());
            assert_eq!(started, n < MODELS_MAX);
        }
    }
}
