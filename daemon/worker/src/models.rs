//! The models of this worker's model server, and the loads and trainings in progress.
//!
//! Decides whether an order to load or train is carried out, and what is reported. The coordinator repeats its orders until
//! the report shows their effect, so every order may arrive many times.
//!
//! A version whose process ended is loaded again at once, the first time; if it ends again before it has answered a batch, after
//! a back-off, so that a model that always crashes costs little.
//!
//! Invariants: at most one load, unload or training per model at a time; results of an earlier server process are ignored; a
//! failed load is repeated only after its back-off.
//! Bounds: [`MODELS_MAX`] models, and [`VERSIONS_MAX`] loaded versions of each. It unloads what the coordinator says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// As many as the cluster knows.
pub use idunno_core::metadata::MODELS_MAX;
use idunno_shared::ids::Digest;
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::ModelState;
use tokio::time::Instant;

/// The newest version of a model, and those with which jobs have started.
pub const VERSIONS_MAX: usize = 4;
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ModelActivity {
    Idle,
    Loading(Digest),
    Unloading,
    Training,
}

#[derive(Debug)]
struct ModelEntry {
    activity: ModelActivity,
    /// The version that was loaded last is the last.
    loaded: Vec<Digest>,
    /// The versions that could not be loaded, at most [`VERSIONS_MAX`]; the one that failed last is the last. Each waits for
    /// itself: one that cannot be loaded must not hold up another.
    load_failures: Vec<LoadFailure>,
    failure: Option<String>,
    failures: u32,
    not_before: Option<Instant>,
    /// How often the process of a version has ended since a batch was answered.
    ends: u32,
    /// Replies to reports up to this number were given before the last training ended.
    trained_at_report: u64,
}

#[derive(Debug)]
struct LoadFailure {
    version: Digest,
    reason: String,
    failures: u32,
    not_before: Instant,
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
            entry.loaded.clear();
            entry.load_failures.clear();
            entry.clear_failures();
            // The end of a training is an event of its own.
            if matches!(entry.activity, ModelActivity::Loading(_) | ModelActivity::Unloading) {
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
        let own = entry.load_failures.iter().find(|failure| failure.version == *version);
        let wait = entry.not_before.is_some_and(|at| now < at) || own.is_some_and(|own| now < own.not_before);
        let is_loadable = !entry.loaded.contains(version) && entry.loaded.len() < VERSIONS_MAX;
        let start = entry.activity == ModelActivity::Idle && is_loadable && !wait;
        if start {
            entry.activity = ModelActivity::Loading(*version);
        }
        start
    }

    /// Records a successful load, `beside` the versions that were loaded before or in their place. False if another server
    /// process made it.
    pub fn loaded(&mut self, epoch: u64, model: &ModelName, version: Digest, beside: bool) -> bool {
        let Some((entry, _)) = self.end_load(epoch, model) else { return false };
        entry.loaded.retain(|loaded| beside && *loaded != version);
        entry.loaded.push(version);
        entry.load_failures.retain(|failure| failure.version != version);
        entry.clear_failures();
        true
    }

    /// Starts to unload a version, unless the order must be ignored now. Nothing runs with it from now on.
    #[must_use]
    pub fn start_unload(&mut self, model: &ModelName, version: &Digest) -> bool {
        let Some(entry) = self.entries.get_mut(model) else { return false };
        let start = entry.activity == ModelActivity::Idle && entry.loaded.contains(version);
        if start {
            entry.activity = ModelActivity::Unloading;
            entry.loaded.retain(|loaded| loaded != version);
        }
        start
    }

    /// Records the end of an unload, unless another server process made it.
    pub fn unloaded(&mut self, epoch: u64, model: &ModelName) {
        let entry = self.entries.get_mut(model).filter(|_| epoch == self.epoch);
        if let Some(entry) = entry.filter(|entry| entry.activity == ModelActivity::Unloading) {
            entry.activity = ModelActivity::Idle;
        }
    }

    /// Records a failed load, unless another server process made it.
    pub fn load_failed(&mut self, epoch: u64, model: &ModelName, reason: String, now: Instant) {
        let Some((entry, version)) = self.end_load(epoch, model) else { return };
        let earlier = entry.load_failures.iter().position(|failure| failure.version == version);
        let failures = earlier.map_or(0, |index| entry.load_failures.remove(index).failures);
        let not_before = now + back_off(failures);
        entry.add_load_failure(LoadFailure { version, reason, failures: failures + 1, not_before });
    }

    /// The model that was being loaded, and its version.
    fn end_load(&mut self, epoch: u64, model: &ModelName) -> Option<(&mut ModelEntry, Digest)> {
        let entry = self.entries.get_mut(model).filter(|_| epoch == self.epoch)?;
        let ModelActivity::Loading(version) = entry.activity else { return None };
        entry.activity = ModelActivity::Idle;
        Some((entry, version))
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

    /// Records that the server does not serve the model after all, for a reason that is shown: all versions must be loaded
    /// again, but not before `retry_at`.
    pub fn lost(&mut self, model: &ModelName, reason: String, retry_at: Instant) {
        if let Some(entry) = self.entries.get_mut(model) {
            entry.loaded.clear();
            entry.failure = Some(reason);
            entry.not_before = Some(retry_at);
        }
    }

    /// Records that the process that ran a version has ended, and must be waited for. Other versions go on.
    pub fn version_lost(&mut self, model: &ModelName, version: &Digest, reason: String, now: Instant) {
        let Some(entry) = self.entries.get_mut(model).filter(|entry| entry.loaded.contains(version)) else {
            return;
        };
        entry.loaded.retain(|loaded| loaded != version);
        let pause = entry.ends.checked_sub(1).map_or(Duration::ZERO, back_off);
        entry.ends = entry.ends.saturating_add(1);
        entry.add_load_failure(LoadFailure {
            version: *version,
            reason,
            failures: 0,
            not_before: now + pause,
        });
    }

    /// Records that the model answered a batch.
    pub fn answered(&mut self, model: &ModelName) {
        if let Some(entry) = self.entries.get_mut(model) {
            entry.ends = 0;
        }
    }

    /// Whether this version is to be loaded again, or is being loaded: the coordinator will know soon.
    pub fn is_expected(&self, model: &ModelName, version: &Digest) -> bool {
        self.entries.get(model).is_some_and(|entry| {
            entry.activity == ModelActivity::Loading(*version)
                || entry.load_failures.iter().any(|failure| failure.version == *version)
        })
    }

    /// Whether this version is loaded.
    pub fn has(&self, model: &ModelName, version: &Digest) -> bool {
        self.entries.get(model).is_some_and(|entry| entry.loaded.contains(version))
    }

    /// All versions that are loaded or being loaded.
    pub fn versions_in_use(&self) -> BTreeSet<Digest> {
        let loading = self.entries.values().filter_map(|entry| match entry.activity {
            ModelActivity::Loading(version) => Some(version),
            _ => None,
        });
        self.entries.values().flat_map(|entry| entry.loaded.iter().copied()).chain(loading).collect()
    }

    pub fn any_loaded(&self) -> bool {
        self.entries.values().any(|entry| !entry.loaded.is_empty())
    }

    /// The states to report: of each model what is done with it, or else why the last load failed, and each loaded version;
    /// the one that was loaded last is the last. Models without any are omitted.
    pub fn states(&self) -> Vec<(ModelName, ModelState)> {
        self.entries.iter().flat_map(|(model, entry)| entry.states(model)).collect()
    }

    fn entry(&mut self, model: &ModelName) -> Option<&mut ModelEntry> {
        if self.entries.len() >= MODELS_MAX && !self.entries.contains_key(model) {
            let is_unused =
                |entry: &ModelEntry| entry.activity == ModelActivity::Idle && entry.loaded.is_empty();
            let unused =
                self.entries.iter().find(|(_, entry)| is_unused(entry)).map(|(name, _)| name.clone());
            // Of a model that was removed, only its last failure is kept.
            self.entries.remove(&unused?);
        }
        Some(self.entries.entry(model.clone()).or_insert_with(|| ModelEntry {
            activity: ModelActivity::Idle,
            loaded: Vec::new(),
            load_failures: Vec::new(),
            failure: None,
            failures: 0,
            not_before: None,
            ends: 0,
            trained_at_report: 0,
        }))
    }
}

impl ModelEntry {
    fn states(&self, model: &ModelName) -> impl Iterator<Item = (ModelName, ModelState)> {
        let failure = self.load_failures.last().map(|failure| &failure.reason).or(self.failure.as_ref());
        let activity = match (self.activity, failure) {
            (ModelActivity::Training, _) => Some(ModelState::Training),
            (ModelActivity::Loading(_), _) => Some(ModelState::Loading),
            (ModelActivity::Idle, Some(reason)) => Some(ModelState::Failed(reason.clone())),
            (ModelActivity::Idle, None) | (ModelActivity::Unloading, _) => None,
        };
        let ready = self.loaded.iter().copied().map(ModelState::Ready);
        activity.into_iter().chain(ready).map(|state| (model.clone(), state))
    }

    fn add_load_failure(&mut self, failure: LoadFailure) {
        self.load_failures.retain(|other| other.version != failure.version);
        if self.load_failures.len() == VERSIONS_MAX {
            self.load_failures.remove(0);
        }
        self.load_failures.push(failure);
    }

    fn clear_failures(&mut self) {
        self.failure = None;
        self.failures = 0;
        self.not_before = None;
    }

    fn fail(&mut self, reason: String, now: Instant) {
        self.failure = Some(reason);
        self.not_before = Some(now + back_off(self.failures));
        self.failures += 1;
    }
}

/// The pause after a failure that so many preceded.
fn back_off(failures: u32) -> Duration {
    BACK_OFF_MAX.min(BACK_OFF_MIN * (1 << failures.min(5)))
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
        assert!(!models.loaded(1, &model(), version, true), "another process loaded it");
        assert!(models.start_load(&model(), &version, now));
        assert!(models.loaded(2, &model(), version, true));
        assert_eq!(models.states(), [(model(), ModelState::Ready(version))]);
        assert!(!models.start_load(&model(), &version, now), "loaded");
        assert!(models.start_load(&model(), &Digest::of(b"w"), now), "a new version");
    }

    #[test]
    fn versions_are_loaded_beside_each_other_until_they_are_unloaded() {
        let (now, old, new) = (Instant::now(), Digest::of(b"old"), Digest::of(b"new"));
        let mut models = Models::default();
        for version in [old, new] {
            assert!(models.start_load(&model(), &version, now) && models.loaded(0, &model(), version, true));
        }
        let ready = |version| (model(), ModelState::Ready(version));
        assert_eq!(models.states(), [ready(old), ready(new)], "the last one is the newest");
        assert!(models.start_unload(&model(), &old) && !models.start_unload(&model(), &old));
        assert!(!models.has(&model(), &old) && models.has(&model(), &new));
        assert!(!models.start_load(&model(), &old, now), "it is still being unloaded");
        models.unloaded(0, &model());
        assert!(models.start_load(&model(), &old, now) && models.loaded(0, &model(), old, false));
        assert_eq!(models.states(), [ready(old)], "a server that has one version at a time");
    }

    #[test]
    fn a_version_that_cannot_be_loaded_leaves_the_others_in_place() {
        let (now, old, new) = (Instant::now(), Digest::of(b"old"), Digest::of(b"new"));
        let mut models = Models::default();
        assert!(models.start_load(&model(), &old, now) && models.loaded(0, &model(), old, true));
        assert!(models.start_load(&model(), &new, now));
        models.load_failed(0, &model(), "no".to_owned(), now);
        let failed = (model(), ModelState::Failed("no".to_owned()));
        assert_eq!(models.states(), [failed.clone(), (model(), ModelState::Ready(old))]);
        let other = Digest::of(b"other");
        assert!(!models.start_load(&model(), &new, now), "it waits");
        assert!(models.start_load(&model(), &other, now), "it does not hold up another version");
        assert!(models.loaded(0, &model(), other, true));
        let ready = |version| (model(), ModelState::Ready(version));
        assert_eq!(models.states(), [failed, ready(old), ready(other)], "the reason stays");
    }

    #[test]
    fn a_version_whose_process_ends_again_and_again_waits_until_it_has_answered() {
        let (mut now, version, other) = (Instant::now(), Digest::of(b"v"), Digest::of(b"other"));
        let mut models = Models::default();
        assert!(models.start_load(&model(), &other, now) && models.loaded(0, &model(), other, true));
        for seconds in [0, 1, 2, 4, 8, 16, 30, 30] {
            assert!(models.start_load(&model(), &version, now) && models.loaded(0, &model(), version, true));
            models.version_lost(&model(), &version, "it crashed".to_owned(), now);
            assert!(models.is_expected(&model(), &version) && !models.has(&model(), &version));
            let failed = (model(), ModelState::Failed("it crashed".to_owned()));
            assert_eq!(models.states(), [failed, (model(), ModelState::Ready(other))], "the other goes on");
            let too_early = now + Duration::from_secs(seconds).saturating_sub(Duration::from_millis(1));
            assert!(seconds == 0 || !models.start_load(&model(), &version, too_early));
            now += Duration::from_secs(seconds);
        }
        models.answered(&model());
        assert!(models.start_load(&model(), &version, now) && models.loaded(0, &model(), version, true));
        models.version_lost(&model(), &version, "it crashed".to_owned(), now);
        assert!(models.start_load(&model(), &version, now), "at once");
        assert!(models.is_expected(&model(), &version) && !models.is_expected(&model(), &Digest::of(b"?")));
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
        assert!(models.start_load(&model(), &version, now) && models.loaded(0, &model(), version, true));
        let retry_at = now + Duration::from_secs(3);
        models.lost(&model(), "401".to_owned(), retry_at);
        assert_eq!(models.states(), [(model(), ModelState::Failed("401".to_owned()))]);
        assert!(!models.start_load(&model(), &version, now), "the server would turn it away again");
        assert!(models.start_load(&model(), &version, retry_at) && models.loaded(0, &model(), version, true));
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
