//! The models of this worker's model server, and the loads and trainings in progress.
//!
//! Decides whether an order to load or train is carried out, and what is reported. The coordinator repeats its orders until
//! the report shows their effect, so every order may arrive many times.
//!
//! Invariants: at most one load or training per model at a time; results of an earlier server process are ignored; a failed
//! load is repeated only after its back-off.
//! Bounds: [`MODELS_MAX`] models. It never unloads a model.

use std::collections::BTreeMap;
use std::time::Duration;

use idunno_shared::ids::Digest;
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::ModelState;
use tokio::time::Instant;

pub const MODELS_MAX: usize = 64;
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ModelActivity {
    Idle,
    Loading,
    Training,
}

#[derive(Debug)]
struct ModelEntry {
    activity: ModelActivity,
    loaded: Option<Digest>,
    failure: Option<String>,
    failures: u32,
    not_before: Option<Instant>,
    /// Replies to reports up to this number were given before the last training ended.
    trained_at_report: u64,
}

#[derive(Debug, Default)]
pub struct Models {
    epoch: u64,
    entries: BTreeMap<ModelName, ModelEntry>,
}

impl Models {
    /// Records the server process. In a new one nothing is loaded and no load is in progress.
    pub fn restart(&mut self, epoch: u64) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.server_down();
        }
    }

    /// Records that the server process is unusable: what it had loaded or was loading is lost.
    pub fn server_down(&mut self) {
        for entry in self.entries.values_mut() {
            entry.loaded = None;
            entry.clear_failures();
            // The end of a training is an event of its own.
            if entry.activity == ModelActivity::Loading {
                entry.activity = ModelActivity::Idle;
            }
        }
    }

    /// The current server process.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Starts a load, unless the order must be ignored now.
    #[must_use]
    pub fn start_load(&mut self, model: &ModelName, version: &Digest, now: Instant) -> bool {
        let Some(entry) = self.entry(model) else { return false };
        let wait = entry.not_before.is_some_and(|at| now < at);
        let start = entry.activity == ModelActivity::Idle && entry.loaded != Some(*version) && !wait;
        if start {
            entry.activity = ModelActivity::Loading;
        }
        start
    }

    /// Records a successful load. False if another server process made it.
    pub fn loaded(&mut self, epoch: u64, model: &ModelName, version: Digest) -> bool {
        let Some(entry) = self.end_load(epoch, model) else { return false };
        entry.loaded = Some(version);
        entry.clear_failures();
        true
    }

    /// Records a failed load, unless another server process made it.
    pub fn load_failed(&mut self, epoch: u64, model: &ModelName, reason: String, now: Instant) {
        if let Some(entry) = self.end_load(epoch, model) {
            entry.fail(reason, now);
        }
    }

    fn end_load(&mut self, epoch: u64, model: &ModelName) -> Option<&mut ModelEntry> {
        let entry = self.entries.get_mut(model).filter(|entry| entry.activity == ModelActivity::Loading);
        let entry = entry.filter(|_| epoch == self.epoch)?;
        entry.activity = ModelActivity::Idle;
        Some(entry)
    }

    /// Starts a training ordered in the answer to report number `report`, unless the order must be ignored now.
    #[must_use]
    pub fn start_training(&mut self, model: &ModelName, report: u64, now: Instant) -> bool {
        let Some(entry) = self.entry(model) else { return false };
        let wait = entry.not_before.is_some_and(|at| now < at);
        let start = entry.activity == ModelActivity::Idle && report > entry.trained_at_report && !wait;
        if start {
            entry.activity = ModelActivity::Training;
        }
        start
    }

    /// Records that a training ended and was reported, or was interrupted and will be ordered again. `report` is the number
    /// of the last report sent.
    pub fn trained(&mut self, model: &ModelName, interrupted: Option<String>, report: u64, now: Instant) {
        let Some(entry) = self.entries.get_mut(model) else { return };
        entry.activity = ModelActivity::Idle;
        match interrupted {
            Some(reason) => entry.fail(reason, now),
            None => entry.trained_at_report = report,
        }
    }

    /// Records that the server does not serve the model after all, for a reason that is shown: it must be loaded again,
    /// but not before `retry_at`.
    pub fn lost(&mut self, model: &ModelName, reason: String, retry_at: Instant) {
        if let Some(entry) = self.entries.get_mut(model) {
            entry.loaded = None;
            entry.failure = Some(reason);
            entry.not_before = Some(retry_at);
        }
    }

    /// The loaded version.
    pub fn version(&self, model: &ModelName) -> Option<Digest> {
        self.entries.get(model).and_then(|entry| entry.loaded)
    }

    pub fn any_loaded(&self) -> bool {
        self.entries.values().any(|entry| entry.loaded.is_some())
    }

    /// The states to report. Idle models that are neither loaded nor failed are omitted.
    pub fn states(&self) -> Vec<(ModelName, ModelState)> {
        let state = |entry: &ModelEntry| match (entry.activity, entry.loaded, &entry.failure) {
            (ModelActivity::Training, ..) => Some(ModelState::Training),
            (ModelActivity::Loading, ..) => Some(ModelState::Loading),
            (ModelActivity::Idle, Some(version), _) => Some(ModelState::Ready(version)),
            (ModelActivity::Idle, None, Some(reason)) => Some(ModelState::Failed(reason.clone())),
            (ModelActivity::Idle, None, None) => None,
        };
        self.entries.iter().filter_map(|(model, entry)| Some((model.clone(), state(entry)?))).collect()
    }

    fn entry(&mut self, model: &ModelName) -> Option<&mut ModelEntry> {
        if self.entries.len() >= MODELS_MAX && !self.entries.contains_key(model) {
            return None;
        }
        Some(self.entries.entry(model.clone()).or_insert_with(|| ModelEntry {
            activity: ModelActivity::Idle,
            loaded: None,
            failure: None,
            failures: 0,
            not_before: None,
            trained_at_report: 0,
        }))
    }
}

impl ModelEntry {
    fn clear_failures(&mut self) {
        self.failure = None;
        self.failures = 0;
        self.not_before = None;
    }

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
    fn a_load_starts_once_and_counts_only_for_its_server_process() {
        let (now, version) = (Instant::now(), Digest::of(b"v"));
        let mut models = Models::default();
        models.restart(1);
        assert!(models.start_load(&model(), &version, now));
        assert!(!models.start_load(&model(), &version, now), "in progress");
        models.restart(2);
        assert!(!models.loaded(1, &model(), version), "another process loaded it");
        assert!(models.start_load(&model(), &version, now));
        assert!(models.loaded(2, &model(), version));
        assert_eq!(models.states(), [(model(), ModelState::Ready(version))]);
        assert!(!models.start_load(&model(), &version, now), "loaded");
        assert!(models.start_load(&model(), &Digest::of(b"w"), now), "a new version");
    }

    #[test]
    fn the_back_off_of_failed_loads_doubles() {
        let (start, version) = (Instant::now(), Digest::of(b"v"));
        let mut models = Models::default();
        let mut now = start;
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            assert!(models.start_load(&model(), &version, now));
            models.load_failed(0, &model(), "no".to_owned(), now);
            assert_eq!(models.states(), [(model(), ModelState::Failed("no".to_owned()))]);
            assert!(!models.start_load(&model(), &version, now + Duration::from_millis(seconds * 1000 - 1)));
            now += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn a_model_that_is_not_served_is_shown_with_its_reason_until_it_is_loaded_again() {
        let (now, version) = (Instant::now(), Digest::of(b"v"));
        let mut models = Models::default();
        assert!(models.start_load(&model(), &version, now) && models.loaded(0, &model(), version));
        let retry_at = now + Duration::from_secs(3);
        models.lost(&model(), "401".to_owned(), retry_at);
        assert_eq!(models.states(), [(model(), ModelState::Failed("401".to_owned()))]);
        assert!(!models.start_load(&model(), &version, now), "the server would turn it away again");
        assert!(models.start_load(&model(), &version, retry_at) && models.loaded(0, &model(), version));
        assert_eq!(models.states(), [(model(), ModelState::Ready(version))]);
    }

    #[test]
    fn a_training_order_given_before_its_end_is_ignored() {
        let now = Instant::now();
        let mut models = Models::default();
        assert!(models.start_training(&model(), 1, now));
        assert_eq!(models.states(), [(model(), ModelState::Training)]);
        models.trained(&model(), None, 5, now);
        assert!(!models.start_training(&model(), 5, now), "given before the training ended");
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
