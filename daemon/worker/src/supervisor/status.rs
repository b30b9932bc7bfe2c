//! The state of a member's model servers: its own one, and the backends that its configuration lists.
//!
//! Invariant: exactly one server answers for a model: the backend that lists it, or else the member's own server.

use std::collections::BTreeSet;

use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::ServerState;
use idunno_shared::wire::resources::{DEVICES_MAX, RUNNERS_MAX, SharedBackend, WorkerResources};
use tokio::sync::watch;

use super::server_config::{Backend, ServerConfig};
use crate::model_server::{Extensions, ModelServerClient};

#[derive(Clone, Debug)]
pub struct ServerStatus {
    pub state: ServerState,
    /// Present once the server was ready in this epoch.
    pub server: Option<ReadyServer>,
    /// The models in its repository when it was last ready; `None` if it cannot list them.
    pub offers: Option<Vec<ModelName>>,
    /// Increases when loaded models are or may be gone.
    pub epoch: u64,
    /// Its devices and runners when they were asked for last; none while it is down.
    pub resources: WorkerResources,
}

/// A model server that answers, and its protocol extensions.
#[derive(Clone, Debug)]
pub struct ReadyServer {
    pub server: ModelServerClient,
    pub extensions: Extensions,
}

impl Default for ServerStatus {
    fn default() -> Self {
        Self {
            state: ServerState::Starting,
            server: None,
            offers: Some(Vec::new()),
            epoch: 0,
            resources: WorkerResources::default(),
        }
    }
}

/// One of the servers.
#[derive(Clone, Debug)]
pub struct NamedStatus {
    /// The backend; `None` for the member's own server.
    pub backend: Option<String>,
    /// The models that it alone answers for; the own server answers for all that no backend lists.
    models: BTreeSet<ModelName>,
    shared_in_flight: Option<u16>,
    pub status: ServerStatus,
}

/// All of them: the member's own server, if it has one, and then the backends in the order of the configuration.
#[derive(Clone, Debug)]
pub struct ServerStatuses(Vec<NamedStatus>);

impl ServerStatuses {
    /// Before any has answered. A member that is configured with no server at all has one that is never ready.
    pub fn new(own: &ServerConfig, backends: &[Backend]) -> Self {
        let own = (!matches!(own, ServerConfig::None) || backends.is_empty()).then(|| NamedStatus {
            backend: None,
            models: BTreeSet::new(),
            shared_in_flight: None,
            status: ServerStatus::default(),
        });
        let others = backends.iter().map(|backend| NamedStatus {
            backend: Some(backend.name.clone()),
            models: backend.models.clone(),
            shared_in_flight: backend.shared_in_flight,
            status: ServerStatus::default(),
        });
        Self(own.into_iter().chain(others).collect())
    }

    pub fn all(&self) -> &[NamedStatus] {
        &self.0
    }

    /// The index of the server that answers for a model, if this member has one.
    pub fn index_of(&self, model: &ModelName) -> Option<usize> {
        let listed = self.0.iter().position(|server| server.models.contains(model));
        listed.or_else(|| self.0.iter().position(|server| server.backend.is_none()))
    }

    /// The server that answers for a model.
    pub fn of(&self, model: &ModelName) -> Option<&ServerStatus> {
        self.index_of(model).map(|index| &self.0[index].status)
    }

    /// The state of all as one: ready if any is ready, since the worker then has work.
    pub fn state(&self) -> ServerState {
        let states = || self.0.iter().map(|server| &server.status.state);
        let is = |wanted: ServerState| states().find(|state| **state == wanted);
        let first = is(ServerState::Ready).or_else(|| is(ServerState::Starting)).or_else(|| states().next());
        first.cloned().unwrap_or_default()
    }

    /// The models of all that were ready once; `None` if one cannot list its own.
    pub fn offers(&self) -> Option<Vec<ModelName>> {
        let mut offers = BTreeSet::new();
        for NamedStatus { models, status, .. } in &self.0 {
            offers.extend(status.offers.as_ref()?.iter().cloned());
            if status.epoch > 0 {
                offers.extend(models.iter().cloned());
            }
        }
        Some(offers.into_iter().collect())
    }

    /// The devices and runners of all, and those that other members share, whether they are ready or not; and what this
    /// program reads.
    pub fn resources(&self) -> WorkerResources {
        let mut all = WorkerResources {
            reads_parquet: idunno_columnar::IS_BUILT,
            reads_references: idunno_references::IS_BUILT,
            ..WorkerResources::default()
        };
        for NamedStatus { backend, models, shared_in_flight, status } in &self.0 {
            let shared = backend.as_ref().zip(*shared_in_flight);
            all.shared.extend(shared.map(|(id, in_flight)| SharedBackend {
                id: id.clone(),
                in_flight,
                models: models.iter().cloned().collect(),
            }));
            all.devices.extend(status.resources.devices.iter().cloned());
            all.runners.extend(status.resources.runners.iter().cloned());
        }
        all.devices.truncate(DEVICES_MAX);
        all.runners.truncate(RUNNERS_MAX);
        all
    }

    /// The models that the own server could also answer for, each with the backend that does.
    fn shadowed(&self, offers: &[ModelName]) -> Vec<(ModelName, String)> {
        let backend = |model: &ModelName| {
            let server = self.0.iter().find(|server| server.models.contains(model))?;
            Some((model.clone(), server.backend.clone()?))
        };
        offers.iter().filter_map(backend).collect()
    }
}

/// What the supervisor of one server publishes.
pub(super) struct StatusSender {
    pub(super) all: watch::Sender<ServerStatuses>,
    pub(super) index: usize,
}

impl StatusSender {
    pub(super) fn read<T>(&self, read: impl FnOnce(&ServerStatus) -> T) -> T {
        read(&self.all.borrow().0[self.index].status)
    }

    /// The backend of this index; `None` for the member's own server.
    pub(super) fn backend(&self) -> Option<String> {
        self.all.borrow().0[self.index].backend.clone()
    }

    /// Watchers learn of the change if `change` returns true.
    pub(super) fn modify(&self, change: impl FnOnce(&mut ServerStatus) -> bool) {
        self.all.send_if_modified(|all| change(&mut all.0[self.index].status));
    }

    pub(super) fn shadowed(&self, offers: &[ModelName]) -> Vec<(ModelName, String)> {
        self.all.borrow().shadowed(offers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model_server::Endpoint;

    fn model(name: &str) -> ModelName {
        name.parse().unwrap()
    }

    fn backend(name: &str, models: &[&str]) -> Backend {
        let models = models.iter().map(|name| model(name)).collect();
        let endpoint = Endpoint::open("http://127.0.0.1:1");
        Backend { name: name.to_owned(), endpoint, models, shared_in_flight: None }
    }

    fn own() -> ServerConfig {
        ServerConfig::Elsewhere { endpoint: Endpoint::open("http://127.0.0.1:2") }
    }

    #[test]
    fn a_model_is_its_backends_or_else_the_own_servers() {
        let backends = [backend("a", &["x"]), backend("b", &["y"])];
        let both = ServerStatuses::new(&own(), &backends);
        assert_eq!(["x", "y", "z"].map(|name| both.index_of(&model(name))), [Some(1), Some(2), Some(0)]);
        assert_eq!(both.shadowed(&[model("y"), model("z")]), [(model("y"), "b".to_owned())]);
        let without = ServerStatuses::new(&ServerConfig::None, &backends);
        assert_eq!(["x", "y", "z"].map(|name| without.index_of(&model(name))), [Some(0), Some(1), None]);
        let nothing = ServerStatuses::new(&ServerConfig::None, &[]);
        assert_eq!(nothing.index_of(&model("x")), Some(0), "its state says that there is no server");
    }

    #[test]
    fn one_ready_server_makes_a_worker_ready() {
        let mut all = ServerStatuses::new(&own(), &[backend("a", &["x"])]);
        assert_eq!(all.state(), ServerState::Starting);
        all.0[0].status.state = ServerState::Down("own".to_owned());
        all.0[1].status.state = ServerState::Down("other".to_owned());
        assert_eq!(all.state(), ServerState::Down("own".to_owned()));
        assert_eq!(all.offers(), Some(Vec::new()), "none has been ready");
        all.0[1].status = ServerStatus { state: ServerState::Ready, epoch: 1, ..ServerStatus::default() };
        assert_eq!((all.state(), all.offers()), (ServerState::Ready, Some(vec![model("x")])));
        all.0[0].status.offers = None;
        assert_eq!(all.offers(), None);
    }
}
