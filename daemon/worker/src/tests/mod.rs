//! The whole worker against a fake model server over HTTP, a fake coordinator and a store in memory.

mod backends;
mod batches;
mod commits;
mod faults;
mod fidelity;
mod models;
mod packages;
mod reuse;

use std::sync::Arc;
use std::time::Duration;

use idunno_shared::client::results::segment;
use idunno_shared::ids::{Digest, JobId, NodeId, Term};
use idunno_shared::wire::control::{Reuse, WorkerView};
use idunno_shared::wire::jobs::{Grant, Lease, ModelArtefact, Parameters, QueryInput, QueryRange};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::model_server::Endpoint;
use super::packages::Packages;
use super::supervisor::{Backend, ServerConfig, ServerStatuses, SupervisorTiming};
use super::testing::fake_coordinator::{CoordinatorState, FakeCoordinator};
use super::testing::fake_server::FakeServer;
use super::testing::memory_store::MemoryStore;
use super::{WorkerConfig, first_view, run};

const WEIGHTS: &[u8] = b"the trained weights";
/// The query of [`Harness::measured`].
const MEASURED: u64 = 999;

struct Harness {
    server: FakeServer,
    coordinator: Arc<FakeCoordinator>,
    store: Arc<MemoryStore>,
    coordinator_term: watch::Sender<Term>,
    view: watch::Receiver<WorkerView>,
    shutdown: CancellationToken,
    worker: JoinHandle<()>,
    folder: tempfile::TempDir,
}

impl Harness {
    async fn new() -> Self {
        Self::with(FakeServer::start().await)
    }

    /// A worker with orders to load the model "m".
    fn with(server: FakeServer) -> Self {
        Self::with_backends(server, Vec::new())
    }

    /// The same, with backends beside its own server.
    fn with_backends(server: FakeServer, backends: Vec<Backend>) -> Self {
        let (coordinator, store) = (Arc::new(FakeCoordinator::default()), Arc::new(MemoryStore::default()));
        let extents = vec![store.add(&WEIGHTS[..7]), store.add(&WEIGHTS[7..])];
        let model = ModelArtefact {
            model: "m".parse().unwrap(),
            version: Digest::of(WEIGHTS),
            extents,
            is_package: false,
        };
        coordinator.set(|state| {
            state.term = 5;
            state.load.push(model);
        });
        let folder = tempfile::tempdir().unwrap();
        let timing = SupervisorTiming {
            health_interval: Duration::from_millis(20),
            resources_interval: Duration::from_millis(20),
            ..SupervisorTiming::default()
        };
        let config = WorkerConfig {
            timing,
            chunk_bytes: 40,
            caches_kept_idle: Duration::from_millis(50),
            backends,
            ..WorkerConfig::new(
                NodeId(3),
                "m3".parse().unwrap(),
                1,
                ServerConfig::Elsewhere { endpoint: Endpoint::open(server.url()) },
                folder.path().to_path_buf(),
            )
        };
        let statuses = watch::Sender::new(ServerStatuses::new(&config.server, &config.backends));
        let packages =
            Packages::new(config.model_files.clone(), Arc::clone(&store) as _, Arc::new(|| u64::MAX));
        let (sender, view) = watch::channel(first_view(NodeId(3)));
        let (coordinator_term, term_receiver) = watch::channel(Term(0));
        let shutdown = CancellationToken::new();
        let worker = tokio::spawn(run(
            config,
            Arc::clone(&coordinator) as _,
            (Arc::clone(&store) as _, packages),
            term_receiver,
            sender,
            statuses,
            shutdown.clone(),
        ));
        Self { server, coordinator, store, coordinator_term, view, shutdown, worker, folder }
    }

    /// The data directory.
    fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Has one query answered, so that later calls are not small because the model's pace is unknown. Returns the number of
    /// infer calls so far.
    async fn measured(&self) -> usize {
        let grant = self.grant(MEASURED, &["x"]);
        self.coordinator.set(|state| state.grants.push_back(grant));
        self.until("the model is measured", |state| committed(state) == 1).await;
        self.server.calls("/infer")
    }

    /// A grant of queries with these contents, numbered from `first`.
    fn grant(&self, first: u64, contents: &[&str]) -> Grant {
        let input = |(index, content): (u64, &&str)| QueryInput {
            index,
            name: format!("set/{index}.jpg").parse().unwrap(),
            extents: vec![self.store.add(content.as_bytes())],
        };
        Grant {
            lease: lease(first, u32::try_from(contents.len()).unwrap()),
            model: "m".parse().unwrap(),
            version: Digest::of(WEIGHTS),
            inputs: (first..).zip(contents).map(input).collect(),
            labels: None,
            records: None,
            parameters: Parameters::default(),
            footer: None,
            reuse: Reuse::Off,
        }
    }

    /// Waits until the coordinator's state satisfies a condition.
    async fn until(&self, what: &str, mut is_met: impl FnMut(&CoordinatorState) -> bool) {
        let wait = async {
            while !is_met(&self.coordinator.state()) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(10), wait)
            .await
            .unwrap_or_else(|_| panic!("timed out waiting until {what}"));
    }

    async fn until_called(&self, part: &str, times: usize) {
        let wait = async {
            while self.server.calls(part) < times {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(10), wait)
            .await
            .unwrap_or_else(|_| panic!("timed out waiting for calls of {part}"));
    }

    /// The rows of all commits. Checks that each commit holds exactly the rows that it claims.
    fn rows(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for commit in &self.coordinator.state().commits {
            let rows = segment::unpack(self.store.read(&commit.segment.blob.digest).unwrap()).unwrap();
            let rows: Vec<Value> = std::str::from_utf8(&rows)
                .unwrap()
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            let claimed = commit.batches.iter().flat_map(|batch| &batch.answered);
            let claimed: Vec<u64> = claimed.flat_map(|range| range.queries()).collect();
            assert_eq!(rows.iter().map(|row| row["query"].as_u64().unwrap()).collect::<Vec<_>>(), claimed);
            all.extend(rows);
        }
        all
    }

    fn queries(&self) -> Vec<u64> {
        let mut queries: Vec<u64> = self.rows().iter().map(|row| row["query"].as_u64().unwrap()).collect();
        queries.sort_unstable();
        queries
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(Duration::from_secs(5), self.worker).await.unwrap().unwrap();
    }
}

fn lease(first: u64, count: u32) -> Lease {
    Lease { job: JobId(1), range: QueryRange { first, count }, attempt: 1, term: Term(5) }
}

fn committed(state: &CoordinatorState) -> usize {
    state.commits.iter().map(|commit| commit.batches.len()).sum()
}
