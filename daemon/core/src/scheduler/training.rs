//! Which worker trains which model: each requested model has one live trainer, and a worker trains one model at a time.
//!
//! A worker whose model servers have the model is chosen before others, then the one with the fewest leases; one that
//! failed the model only if there is no other. If the trainer
//! dies, restarts, stops reporting, drains or loses its model server, another is chosen. Reported failures are counted;
//! after [`training_failures`](super::SchedulerConfig::training_failures) the model stays failed until it is requested
//! again. After the start of a term, a worker that reports training a requested model becomes its trainer. A worker
//! that trains a model of which it is not the trainer is told to stop.
//!
//! Bounds: at most [`MODELS_MAX`] requested models; further requests are dropped.

use std::collections::{BTreeMap, BTreeSet};

use idunno_shared::ids::NodeId;
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{ModelState, ServerState, Training};

use super::config::MODELS_MAX;
use super::{Scheduler, SchedulerEffect};
use crate::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TrainingState {
    /// No worker has it.
    Waiting,
    Assigned {
        trainer: NodeId,
        /// When the trainer was last sent the request or reported the training; `None` before the first.
        confirmed_at: Option<Instant>,
    },
    Failed,
}

impl TrainingState {
    fn is_assigned_to(self, node: NodeId) -> bool {
        matches!(self, Self::Assigned { trainer, .. } if trainer == node)
    }
}

#[derive(Clone, Debug)]
struct TrainingRequest {
    training: Training,
    state: TrainingState,
    failures: u32,
    failed_on: BTreeSet<NodeId>,
}

/// The requested trainings by model.
#[derive(Clone, Debug, Default)]
pub(super) struct Trainings {
    requests: BTreeMap<ModelName, TrainingRequest>,
}

impl Trainings {
    pub(super) fn request(&mut self, model: ModelName, training: Training) {
        let has_room = self.requests.len() < MODELS_MAX;
        let is_new = self.requests.get(&model).map_or(has_room, |known| {
            // The training differs if it was stopped and requested again between two looks at the log.
            known.state == TrainingState::Failed || known.training != training
        });
        if is_new {
            let state = TrainingState::Waiting;
            let request = TrainingRequest { training, state, failures: 0, failed_on: BTreeSet::new() };
            self.requests.insert(model, request);
        }
    }

    pub(super) fn forget(&mut self, model: &ModelName) {
        self.requests.remove(model);
    }

    /// The models in training, with their trainers.
    pub(super) fn assigned(&self) -> impl Iterator<Item = (&ModelName, NodeId)> {
        self.requests.iter().filter_map(|(model, request)| match request.state {
            TrainingState::Assigned { trainer, .. } => Some((model, trainer)),
            TrainingState::Waiting | TrainingState::Failed => None,
        })
    }

    fn is_trainer(&self, node: NodeId) -> bool {
        self.assigned().any(|(_, trainer)| trainer == node)
    }

    /// The models without a trainer.
    fn waiting(&self) -> impl Iterator<Item = &ModelName> {
        let waiting = self.requests.iter().filter(|(_, request)| request.state == TrainingState::Waiting);
        waiting.map(|(model, _)| model)
    }

    /// The trainings of a worker that is lost wait for another.
    pub(super) fn lose_worker(&mut self, node: NodeId) {
        for request in self.requests.values_mut().filter(|request| request.state.is_assigned_to(node)) {
            request.state = TrainingState::Waiting;
        }
    }
}

impl Scheduler {
    /// Confirms or loses trainings by what the worker just reported.
    pub(super) fn on_training_reported(&mut self, node: NodeId) {
        let Some(worker) = self.workers.get(&node) else { return };
        if worker.draining || matches!(worker.server, ServerState::Down(_)) {
            self.trainings.lose_worker(node);
            return;
        }
        // A training that an earlier term assigned is adopted, unless the worker already has one.
        let mut is_trainer = self.trainings.is_trainer(node);
        for (model, request) in &mut self.trainings.requests {
            let is_adopted = request.state == TrainingState::Waiting && !is_trainer;
            if (request.state.is_assigned_to(node) || is_adopted) && worker.is_training(model) {
                request.state = TrainingState::Assigned { trainer: node, confirmed_at: Some(self.now) };
                is_trainer = true;
            }
        }
    }

    /// Has a reporting worker stop trainings that were cancelled or are another worker's. Those of an earlier term are
    /// left alone until the claims are in.
    pub(super) fn stop_trainings(&mut self, node: NodeId) {
        if self.is_in_claim_grace() {
            return;
        }
        let Some(worker) = self.workers.get_mut(&node).filter(|worker| worker.reply_by.is_some()) else {
            return;
        };
        let is_trainer_of = |model: &ModelName| {
            self.trainings.requests.get(model).is_some_and(|request| request.state.is_assigned_to(node))
        };
        let trained = worker.models.keys().filter(|model| worker.is_training(model));
        worker.reply.stop_training = trained.filter(|model| !is_trainer_of(model)).cloned().collect();
    }

    /// Chooses a trainer for each model without one.
    pub(super) fn assign_trainings(&mut self) {
        if self.is_in_claim_grace() {
            return;
        }
        for model in self.trainings.waiting().cloned().collect::<Vec<_>>() {
            let Some(trainer) = self.choose_trainer(&model) else { continue };
            if let Some(request) = self.trainings.requests.get_mut(&model) {
                request.state = TrainingState::Assigned { trainer, confirmed_at: None };
            }
            self.send_training(trainer);
        }
    }

    fn choose_trainer(&self, model: &ModelName) -> Option<NodeId> {
        let request = self.trainings.requests.get(model)?;
        let free = self.workers.iter().filter(|(node, worker)| {
            worker.is_usable(self.now, &self.config) && !self.trainings.is_trainer(**node)
        });
        free.map(|(node, worker)| {
            (request.failed_on.contains(node), !worker.offers(model), worker.leases.len(), *node)
        })
        .min()
        .map(|(.., node)| node)
    }

    /// Sends a worker its training, if its report is unanswered and the training not confirmed recently.
    pub(super) fn send_training(&mut self, node: NodeId) {
        let repeat = self.config.training_repeat;
        let Some(worker) = self.workers.get_mut(&node).filter(|worker| worker.reply_by.is_some()) else {
            return;
        };
        for (model, request) in &mut self.trainings.requests {
            let TrainingState::Assigned { trainer, confirmed_at } = request.state else { continue };
            if trainer == node && confirmed_at.is_none_or(|at| at + repeat <= self.now) {
                worker.reply.train.push((model.clone(), request.training.clone()));
                request.state = TrainingState::Assigned { trainer, confirmed_at: Some(self.now) };
            }
        }
    }

    pub(super) fn on_training_failed(&mut self, node: NodeId, model: &ModelName, reason: String) {
        let Some(request) = self.trainings.requests.get_mut(model) else { return };
        if !request.state.is_assigned_to(node) {
            return;
        }
        request.failures += 1;
        request.failed_on.insert(node);
        request.state = TrainingState::Waiting;
        if let Some(worker) = self.workers.get_mut(&node) {
            worker.models.entry(model.clone()).or_default().retain(|state| *state != ModelState::Training);
        }
        if request.failures >= self.config.training_failures {
            request.state = TrainingState::Failed;
            self.effects.push_back(SchedulerEffect::TrainingFailed { model: model.clone(), reason });
        }
        self.assign_trainings();
    }
}
