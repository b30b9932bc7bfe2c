//! What the worker keeps of each of the member's model servers: what is loaded there, and whether it takes work now.

use std::collections::BTreeSet;
use std::time::Duration;

use idunno_shared::ids::Digest;
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{ModelState, ServerState};
use idunno_shared::wire::resources::WorkerResources;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::super::models::Models;
use super::super::supervisor::{ServerStatus, ServerStatuses};
use super::{PAUSE_MAX, PAUSE_MIN};

/// One model server.
pub(super) struct Server {
    pub(super) models: Models,
    /// Asks its supervisor to restart it, with the reason.
    pub(super) restart: mpsc::Sender<String>,
    /// No batches are wanted for its models alone until then.
    paused_until: Option<Instant>,
    pause: Duration,
    /// Its epoch and state when they were looked at last.
    seen: Option<(u64, ServerState)>,
}

impl Server {
    /// Pauses the server after a failure, for longer each time. Returns when the pause is over.
    pub(super) fn pause(&mut self, now: Instant) -> Instant {
        let until = now + self.pause;
        self.paused_until = Some(until);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        until
    }

    /// Records that it works: the next pause is short.
    pub(super) fn works(&mut self) {
        self.pause = PAUSE_MIN;
    }

    fn takes_work(&self, now: Instant) -> bool {
        self.models.any_loaded() && self.paused_until.is_none_or(|until| until <= now)
    }
}

/// All of them, in the order of [`ServerStatuses::all`].
pub(super) struct Servers {
    /// Read by [`Self::read`] only. Two guards at once on one thread never let go of each other if a supervisor waits between
    /// them to publish: the lock lets no reader pass a writer. A temporary guard lives as long as the whole statement, which
    /// may be a struct of twenty fields.
    statuses: watch::Receiver<ServerStatuses>,
    servers: Vec<Server>,
}

impl Servers {
    pub(super) fn new(statuses: watch::Receiver<ServerStatuses>, restart: Vec<mpsc::Sender<String>>) -> Self {
        let server = |restart| Server {
            models: Models::default(),
            restart,
            paused_until: None,
            pause: PAUSE_MIN,
            seen: None,
        };
        Self { statuses, servers: restart.into_iter().map(server).collect() }
    }

    fn read<T>(&self, read: impl FnOnce(&ServerStatuses) -> T) -> T {
        read(&self.statuses.borrow())
    }

    /// Returns once a supervisor has published something; an error means that none ever will.
    pub(super) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.statuses.changed().await
    }

    pub(super) fn state(&self) -> ServerState {
        self.read(ServerStatuses::state)
    }

    pub(super) fn offers(&self) -> Option<Vec<ModelName>> {
        self.read(ServerStatuses::offers)
    }

    pub(super) fn resources(&self) -> WorkerResources {
        self.read(ServerStatuses::resources)
    }

    pub(super) fn index_of(&self, model: &ModelName) -> Option<usize> {
        self.read(|all| all.index_of(model))
    }

    /// The server that answers for a model.
    pub(super) fn of(&self, model: &ModelName) -> Option<&Server> {
        self.servers.get(self.index_of(model)?)
    }

    pub(super) fn of_mut(&mut self, model: &ModelName) -> Option<&mut Server> {
        let index = self.index_of(model)?;
        self.servers.get_mut(index)
    }

    pub(super) fn at(&self, index: usize) -> Option<&Server> {
        self.servers.get(index)
    }

    /// The published status of the server that answers for a model.
    pub(super) fn status_of(&self, model: &ModelName) -> Option<ServerStatus> {
        self.read(|all| all.of(model).cloned())
    }

    /// Takes over what the supervisors have published. Returns the servers that have become unusable.
    pub(super) fn update(&mut self) -> Vec<usize> {
        let all = self.statuses.borrow_and_update().clone();
        let mut down = Vec::new();
        for (index, (server, named)) in self.servers.iter_mut().zip(all.all()).enumerate() {
            let ServerStatus { epoch, state, .. } = &named.status;
            let seen = Some((*epoch, state.clone()));
            if server.seen == seen {
                continue;
            }
            server.seen = seen;
            server.models.restart(*epoch);
            if *state == ServerState::Ready {
                server.paused_until = None;
                server.pause = PAUSE_MIN;
            } else {
                server.models.server_down();
                down.push(index);
            }
        }
        down
    }

    /// The states of all models, to report.
    pub(super) fn model_states(&self) -> Vec<(ModelName, ModelState)> {
        let mut states: Vec<_> = self.servers.iter().flat_map(|server| server.models.states()).collect();
        // The order of one model's states has a meaning.
        states.sort_by(|(model, _), (other, _)| model.cmp(other));
        states
    }

    pub(super) fn versions_in_use(&self) -> BTreeSet<Digest> {
        self.servers.iter().flat_map(|server| server.models.versions_in_use()).collect()
    }

    /// Whether this version is loaded.
    pub(super) fn has(&self, model: &ModelName, version: &Digest) -> bool {
        self.of(model).is_some_and(|server| server.models.has(model, version))
    }

    /// Whether any server has a model loaded and is not paused.
    pub(super) fn take_work(&self, now: Instant) -> bool {
        self.servers.iter().any(|server| server.takes_work(now))
    }

    /// When the next pause is over.
    pub(super) fn pause_over(&self, now: Instant) -> Option<Instant> {
        self.servers.iter().filter_map(|server| server.paused_until).filter(|until| *until > now).min()
    }

    pub(super) fn are_several(&self) -> bool {
        self.servers.len() > 1
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;
    use crate::supervisor::ServerConfig;

    #[test]
    fn what_a_report_says_of_the_servers_is_read_while_a_supervisor_publishes() {
        const READS: usize = 50_000;
        let (publish, statuses) = watch::channel(ServerStatuses::new(&ServerConfig::None, &[]));
        let (is_done, done) = channel();
        let reader = Servers::new(statuses, Vec::new());
        let publisher = thread::spawn(move || {
            while !publish.is_closed() {
                publish.send_modify(|_| {});
            }
        });
        thread::spawn(move || {
            for _ in 0..READS {
                // One statement, like a report.
                let read = (reader.state(), reader.offers(), reader.resources());
                assert_eq!(read.0, ServerState::default());
            }
            drop(reader);
            is_done.send(()).unwrap();
        });
        done.recv_timeout(Duration::from_secs(30))
            .expect("the reader waits for the publisher, which waits for it");
        publisher.join().unwrap();
    }
}
