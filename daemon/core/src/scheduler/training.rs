//! Who trains which model: each wanted model one live worker, no worker two at a time.
//!
//! The worker with the fewest leases is taken, and one that failed this model only if there is no other. If the
//! worker dies, restarts, falls silent, drains or loses its model server, another is taken. Failures that a worker
//! reports are counted; after [`training_failures`](super::SchedulerConfig::training_failures) the model stays failed until it
//! is asked for again. After term start a worker that reports that it trains a wanted model goes on with it. Whoever
//! trains what is not wanted of it is told to stop.
//!
//! Bounds: at most [`MODELS_MAX`](super::config::MODELS_MAX) wanted models; further ones are dropped.

use std::collections::{BTreeMap, BTreeSet};

use idunno_shared::ids::NodeId;
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{ServerState, Training};

use super::config::MODELS_MAX;
use super::{Scheduler, SchedulerEffect};
use crate::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    /// Its worker, and when it was told or last seen at it.
    At(NodeId, Option<Instant>),
    Failed,
}

#[derive(Clone, Debug)]
struct Wanted {
    training: Training,
    state: State,
    failures: u32,
    failed_on: BTreeSet<NodeId>,
}

/// The wanted models.
#[derive(Clone, Debug, Default)]
pub(super) struct Trainings {
    wanted: BTreeMap<ModelName, Wanted>,
}

impl Trainings {
    pub(super) fn want(&mut self, model: ModelName, training: Training) {
        let has_room = self.wanted.len() < MODELS_MAX;
        let is_news = self.wanted.get(&model).map_or(has_room, |known| {
            // Stopped, and asked for with another seed or data set, between two looks at the log.
            known.state == State::Failed || known.training != training
        });
        if is_news {
            let fresh = Wanted { training, state: State::Waiting, failures: 0, failed_on: BTreeSet::new() };
            self.wanted.insert(model, fresh);
        }
    }

    pub(super) fn forget(&mut self, model: &ModelName) {
        self.wanted.remove(model);
    }

    /// The models in training and their workers.
    pub(super) fn assigned(&self) -> impl Iterator<Item = (&ModelName, NodeId)> {
        self.wanted.iter().filter_map(|(model, wanted)| match wanted.state {
            State::At(node, _) => Some((model, node)),
            State::Waiting | State::Failed => None,
        })
    }

    fn is_busy(&self, node: NodeId) -> bool {
        self.assigned().any(|(_, trainer)| trainer == node)
    }

    fn has_waiting(&self) -> bool {
        self.wanted.values().any(|wanted| wanted.state == State::Waiting)
    }

    /// What was at the worker waits again.
    fn lose(&mut self, node: NodeId) {
        for wanted in self.wanted.values_mut() {
            if matches!(wanted.state, State::At(trainer, _) if trainer == node) {
                wanted.state = State::Waiting;
            }
        }
    }
}

impl Scheduler {
    pub(super) fn training_lost(&mut self, node: NodeId) {
        self.trainings.lose(node);
    }

    /// Takes note of what a reporting worker trains, or no longer can.
    pub(super) fn training_reported(&mut self, node: NodeId) {
        let Some(worker) = self.workers.get(&node) else { return };
        if worker.draining || matches!(worker.server, ServerState::Down(_)) {
            self.trainings.lose(node);
            return;
        }
        // What it was told in an older term: gone on with, unless it has something to train already.
        let mut is_busy = self.trainings.is_busy(node);
        for (model, wanted) in &mut self.trainings.wanted {
            let is_its = matches!(wanted.state, State::At(trainer, _) if trainer == node);
            let is_adopted = wanted.state == State::Waiting && !is_busy;
            if (is_its || is_adopted) && worker.is_training(model) {
                wanted.state = State::At(node, Some(self.now));
                is_busy = true;
            }
        }
    }

    /// Tells a reporting worker which of its trainings nobody wants from it: they were given up, or are another's. What
    /// it was told in an older term is not judged before the claims are in.
    pub(super) fn stop_trainings(&mut self, node: NodeId) {
        if self.is_claiming() {
            return;
        }
        let Some(worker) = self.workers.get_mut(&node).filter(|worker| worker.parked.is_some()) else {
            return;
        };
        let its = |model: &ModelName| {
            let wanted = self.trainings.wanted.get(model).map(|wanted| wanted.state);
            matches!(wanted, Some(State::At(trainer, _)) if trainer == node)
        };
        let trains = worker.models.keys().filter(|model| worker.is_training(model));
        worker.plan.stop_training = trains.filter(|model| !its(model)).cloned().collect();
    }

    /// Finds a worker for each model that waits for one.
    pub(super) fn assign_trainings(&mut self) {
        if self.is_claiming() || !self.trainings.has_waiting() {
            return;
        }
        let waiting = self.trainings.wanted.iter().filter(|(_, wanted)| wanted.state == State::Waiting);
        for model in waiting.map(|(model, _)| model.clone()).collect::<Vec<_>>() {
            let Some(node) = self.choose_trainer(&model) else { continue };
            if let Some(wanted) = self.trainings.wanted.get_mut(&model) {
                wanted.state = State::At(node, None);
            }
            self.order_training(node);
        }
    }

    fn choose_trainer(&self, model: &ModelName) -> Option<NodeId> {
        let wanted = self.trainings.wanted.get(model)?;
        let free = self.workers.iter().filter(|(node, worker)| {
            worker.is_usable(self.now, &self.config) && !self.trainings.is_busy(**node)
        });
        free.map(|(node, worker)| (wanted.failed_on.contains(node), worker.leases.len(), *node))
            .min()
            .map(|(_, _, node)| node)
    }

    /// Tells a worker what it is to train, if its report waits and it does not show that it knows.
    pub(super) fn order_training(&mut self, node: NodeId) {
        let repeat = self.config.training_repeat;
        let Some(worker) = self.workers.get_mut(&node).filter(|worker| worker.parked.is_some()) else {
            return;
        };
        for (model, wanted) in &mut self.trainings.wanted {
            let State::At(trainer, told) = wanted.state else { continue };
            if trainer == node && told.is_none_or(|at| at + repeat <= self.now) {
                worker.plan.train.push((model.clone(), wanted.training.clone()));
                wanted.state = State::At(node, Some(self.now));
            }
        }
    }

    pub(super) fn on_training_failed(&mut self, node: NodeId, model: &ModelName, reason: String) {
        let Some(wanted) = self.trainings.wanted.get_mut(model) else { return };
        if !matches!(wanted.state, State::At(trainer, _) if trainer == node) {
            return;
        }
        wanted.failures += 1;
        wanted.failed_on.insert(node);
        wanted.state = State::Waiting;
        if let Some(worker) = self.workers.get_mut(&node) {
            worker.models.remove(model);
        }
        if wanted.failures >= self.config.training_failures {
            wanted.state = State::Failed;
            self.effects.push_back(SchedulerEffect::TrainingFailed { model: model.clone(), reason });
        }
        self.assign_trainings();
    }
}
