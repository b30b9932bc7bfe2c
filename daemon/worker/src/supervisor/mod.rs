//! Runs the model server: starts, watches and restarts its process, or only watches a server that is managed elsewhere.
//!
//! Decides whether the server is usable, and when it is restarted.
//!
//! Invariants: the epoch increases whenever the models loaded before may be gone; a ready status names a server that
//! answered its readiness call in this epoch; no process of the server, or started by a model, outlives the server or this
//! process ([`ServerProcess`]).
//! Bounds: back-off between [`SupervisorTiming::back_off_min`] and [`SupervisorTiming::back_off_max`]; the server's log has
//! those of [`ServerLog`].

mod elsewhere;
mod environment;
mod server_config;
mod server_log;
mod server_process;
mod status;
mod supervisors;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::ServerState;
use idunno_shared::wire::resources::WorkerResources;
use thiserror::Error;
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::environment::passed_on;
pub use self::server_config::{Backend, ServerConfig};
use self::server_log::ServerLog;
use self::server_process::ServerProcess;
pub use self::server_process::adopt_orphans;
use self::status::StatusSender;
pub use self::status::{NamedStatus, ReadyServer, ServerStatus, ServerStatuses};
pub use self::supervisors::Supervisors;
use super::model_server::{Endpoint, EndpointError, ModelServerClient, ServerError};
use super::packages;

/// The server's folder, in the data directory.
pub const SERVER_FOLDER: &str = "model-server";
/// The Unix socket in that folder on which a server that this process started listens.
const SOCKET: &str = "socket";
const NO_SERVER: &str = "this member is configured without a model server";
const POLL: Duration = Duration::from_millis(50);
const MISSES_MAX: u32 = 3;

/// Intervals and limits. Tests use shorter ones than the default.
#[derive(Clone, Copy, Debug)]
pub struct SupervisorTiming {
    pub health_interval: Duration,
    /// How often a server of ours is asked for its devices and runners.
    pub resources_interval: Duration,
    /// A process that is not ready after this long is restarted.
    pub start_timeout: Duration,
    /// A server that misses its health calls for this long, and at least [`MISSES_MAX`] times, is killed.
    pub hung_after: Duration,
    /// The first pause before a restart.
    pub back_off_min: Duration,
    /// The longest pause before a restart.
    pub back_off_max: Duration,
    /// A server that ran this long resets the back-off.
    pub settled_after: Duration,
    /// After SIGTERM, the process is killed after this long.
    pub stop_timeout: Duration,
}

impl Default for SupervisorTiming {
    fn default() -> Self {
        Self {
            health_interval: Duration::from_secs(1),
            resources_interval: Duration::from_secs(5),
            start_timeout: Duration::from_secs(120),
            hung_after: Duration::from_secs(10),
            back_off_min: Duration::from_millis(500),
            back_off_max: Duration::from_secs(30),
            settled_after: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(5),
        }
    }
}

/// Supervises one model server until it is stopped.
struct Supervisor {
    config: ServerConfig,
    data_dir: PathBuf,
    timing: SupervisorTiming,
    status: StatusSender,
    /// Reasons to restart the server, from the worker task.
    restart_requests: mpsc::Receiver<String>,
    stop: CancellationToken,
    /// When it is next asked for its devices and runners.
    resources_due: Instant,
    /// Variables that have secrets: a server that this process starts does not get them.
    secret_variables: Vec<String>,
}

enum ServerExit {
    Stopped,
    Failed(ServerFailure),
}

/// The model server cannot be used. The text is shown as its state.
#[derive(Debug, Error)]
enum ServerFailure {
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("the model server exited with {status}; see {SERVER_FOLDER}/server.log")]
    Exited { status: ExitStatus },
    #[error("cannot wait for the model server: {0}")]
    Wait(io::Error),
    #[error("the model server was not ready within {} s; see {SERVER_FOLDER}/server.log", limit.as_secs())]
    NotReady { limit: Duration },
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Call(#[from] ServerError),
    #[error("the model server hangs: {0}")]
    Hung(ServerError),
    #[error("{0}")]
    RestartRequested(String),
}

impl Supervisor {
    /// Runs until stopped. The server that it started has then ended.
    async fn run(mut self) {
        match self.config.clone() {
            ServerConfig::None => self.publish_down(ServerState::Down(String::from(NO_SERVER))),
            ServerConfig::Elsewhere { endpoint } => self.watch_elsewhere(&endpoint).await,
            ServerConfig::Supervised { python, threads } => self.supervise(&python, threads).await,
        }
    }

    async fn supervise(&mut self, python: &PathBuf, threads: Option<u32>) {
        let mut back_off = self.timing.back_off_min;
        loop {
            self.publish_down(ServerState::Starting);
            let started = Instant::now();
            let failure = match self.run_once(python, threads).await {
                ServerExit::Stopped => return,
                ServerExit::Failed(failure) => failure,
            };
            if started.elapsed() >= self.timing.settled_after {
                back_off = self.timing.back_off_min;
            }
            warn!(%failure, pause = ?back_off, "the model server is down, restarting it after a pause");
            self.publish_down(ServerState::Down(failure.to_string()));
            tokio::select! {
                () = sleep(back_off) => back_off = (back_off * 2).min(self.timing.back_off_max),
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Runs one server process from start to end.
    async fn run_once(&mut self, python: &PathBuf, threads: Option<u32>) -> ServerExit {
        let stop = self.stop.clone();
        let mut child = match self.spawn(python, threads).await {
            Ok(child) => child,
            Err(failure) => return ServerExit::Failed(failure),
        };
        let failure = tokio::select! {
            () = stop.cancelled() => {
                self.terminate(&mut child).await;
                return ServerExit::Stopped;
            }
            exit = child.wait() => match exit {
                Ok(status) => ServerFailure::Exited { status },
                Err(error) => ServerFailure::Wait(error),
            },
            failure = self.watch_process() => failure,
        };
        child.kill().await;
        ServerExit::Failed(failure)
    }

    /// Watches a process from its start until it must be killed.
    async fn watch_process(&mut self) -> ServerFailure {
        let ready = timeout(self.timing.start_timeout, self.wait_ready()).await;
        let server = match ready {
            Ok(Ok(server)) => server,
            Ok(Err(failure)) => return failure,
            Err(_) => return ServerFailure::NotReady { limit: self.timing.start_timeout },
        };
        self.watch_health(&server).await
    }

    async fn wait_ready(&mut self) -> Result<ModelServerClient, ServerFailure> {
        let server = ModelServerClient::new(&Endpoint::at_socket(self.folder().join(SOCKET)))?;
        while server.ready().await.is_err() {
            sleep(POLL).await;
        }
        self.publish_ready(&server).await?;
        Ok(server)
    }

    /// Returns when the server hangs or a restart is requested.
    async fn watch_health(&mut self, server: &ModelServerClient) -> ServerFailure {
        let mut misses = 0;
        let mut last_answer = Instant::now();
        loop {
            tokio::select! {
                () = sleep(self.timing.health_interval) => {}
                Some(reason) = self.restart_requests.recv() => return ServerFailure::RestartRequested(reason),
            }
            self.look_at_resources(server).await;
            if let Err(error) = server.live().await {
                misses += 1;
                if misses >= MISSES_MAX && last_answer.elapsed() > self.timing.hung_after {
                    return ServerFailure::Hung(error);
                }
            } else {
                misses = 0;
                last_answer = Instant::now();
            }
        }
    }

    /// Asks a ready server of ours for its devices and runners, now and then. Without an answer the last one stays.
    async fn look_at_resources(&mut self, server: &ModelServerClient) {
        let is_ours =
            self.status.read(|status| status.server.as_ref().is_some_and(|ready| ready.extensions.idunno));
        if !is_ours || self.resources_due > Instant::now() {
            return;
        }
        self.resources_due = Instant::now() + self.timing.resources_interval;
        match server.resources().await {
            // Nobody waits for them: they are part of the next report.
            Ok(resources) => self.status.modify(|status| {
                status.resources = resources;
                false
            }),
            Err(error) => debug!(%error, "the model server does not say what its models take"),
        }
    }

    async fn publish_ready(&self, server: &ModelServerClient) -> Result<(), ServerError> {
        let extensions = server.extensions().await?;
        let backend = self.status.backend();
        let offers = match &backend {
            // The configuration lists its models.
            Some(_) => Some(Vec::new()),
            None if extensions.repository => offers(server).await?,
            None => None,
        };
        for (model, backend) in self.status.shadowed(offers.as_deref().unwrap_or_default()) {
            warn!(%model, backend, "this member's own model server has a model that a backend answers for");
        }
        info!(
            backend = backend.as_deref().unwrap_or_default(),
            epoch = self.status.read(|status| status.epoch) + 1,
            "the model server is ready"
        );
        self.status.modify(|status| {
            status.state = ServerState::Ready;
            status.server = Some(ReadyServer { server: server.clone(), extensions });
            status.offers = offers;
            status.epoch += 1;
            true
        });
        Ok(())
    }

    fn publish_down(&self, state: ServerState) {
        let state = match (self.status.backend(), state) {
            (Some(name), ServerState::Down(why)) => ServerState::Down(format!("backend {name}: {why}")),
            (_, state) => state,
        };
        self.status.modify(|status| {
            let changed = status.state != state || status.server.is_some();
            status.state = state;
            status.server = None;
            status.resources = WorkerResources::default();
            changed
        });
    }

    fn folder(&self) -> PathBuf {
        self.data_dir.join(SERVER_FOLDER)
    }

    async fn spawn(&self, python: &PathBuf, threads: Option<u32>) -> Result<ServerProcess, ServerFailure> {
        let folder = self.folder();
        let socket = folder.join(SOCKET);
        tokio::fs::create_dir_all(&folder).await.map_err(io_failure("create", &folder))?;
        // Whoever answers there from now on is the process that is started here.
        match tokio::fs::remove_file(&socket).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_failure("remove", &socket)(error));
            }
            _ => {}
        }
        let log = ServerLog::begin(&folder).await.map_err(io_failure("begin the log in", &folder))?;
        let (output, input) = io::pipe().map_err(io_failure("open a pipe to the log in", &folder))?;
        let errors = input.try_clone().map_err(io_failure("open a pipe to the log in", &folder))?;
        let mut command = Command::new(python);
        command
            .args(["-m", "idunno_model_server.guard", &std::process::id().to_string()])
            .arg("--socket")
            .arg(&socket)
            .arg("--work-dir")
            .arg(&folder)
            .arg("--packages-dir")
            .arg(self.data_dir.join(packages::FOLDER))
            .stdin(Stdio::null())
            .stdout(input)
            .stderr(errors);
        command.env_clear().envs(passed_on(std::env::vars_os(), &self.secret_variables));
        if let Some(threads) = threads {
            command.args(["--threads", &threads.to_string()]);
        }
        let child = ServerProcess::spawn(&mut command).map_err(io_failure("start", python))?;
        let output = pipe::Receiver::from_owned_fd(output.into());
        tokio::spawn(log.copy(output.map_err(io_failure("open a pipe to the log in", &folder))?));
        Ok(child)
    }

    /// Terminates the process, and kills it if it does not end in time.
    async fn terminate(&self, child: &mut ServerProcess) {
        child.terminate();
        // It ends in time or is killed.
        let _ = timeout(self.timing.stop_timeout, child.wait()).await;
        child.kill().await;
    }
}

/// The models in a server's repository; `None` if it keeps the list to itself, as Triton may, whose models all may use.
async fn offers(server: &ModelServerClient) -> Result<Option<Vec<ModelName>>, ServerError> {
    match server.repository_models().await {
        Err(ServerError::Status { status: 401 | 403, .. }) => Ok(None),
        models => models.map(Some),
    }
}

fn io_failure(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> ServerFailure {
    move |source| ServerFailure::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::testing::fake_server::FakeServer;
    use std::os::unix::fs::PermissionsExt;

    fn fast() -> SupervisorTiming {
        SupervisorTiming {
            health_interval: Duration::from_millis(20),
            resources_interval: Duration::from_millis(20),
            start_timeout: Duration::from_secs(5),
            hung_after: Duration::from_millis(100),
            back_off_min: Duration::from_millis(20),
            back_off_max: Duration::from_millis(40),
            settled_after: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(2),
        }
    }

    /// A fake Python interpreter: it puts a link to a fake server's socket in the place of its own, counts its starts, and
    /// sleeps.
    fn script(folder: &Path, socket: &Path) -> PathBuf {
        let text = format!(
            "#!/bin/sh\necho \"started with $*, home ${{CARGO_MANIFEST_DIR:-hidden}}\"\nwhile [ \"$1\" != --socket ]; do shift; done\n\
             echo start >> {starts}\nln -sf {socket} \"$2\"\nexec sleep 600\n",
            starts = folder.join("starts").display(),
            socket = socket.display()
        );
        let path = folder.join("python");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A supervisor that runs.
    struct Started {
        seen: watch::Receiver<ServerStatuses>,
        request_restart: mpsc::Sender<String>,
        stop: CancellationToken,
        running: JoinHandle<()>,
    }

    fn start(config: ServerConfig, data_dir: &Path) -> Started {
        let (all, seen) = watch::channel(ServerStatuses::new(&config, &[]));
        let (request_restart, restart_requests) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let supervisor = Supervisor {
            config,
            data_dir: data_dir.to_owned(),
            timing: fast(),
            status: StatusSender { all, index: 0 },
            restart_requests,
            stop: stop.clone(),
            resources_due: Instant::now(),
            secret_variables: vec!["CARGO_MANIFEST_DIR".to_owned()],
        };
        Started { seen, request_restart, stop, running: tokio::spawn(supervisor.run()) }
    }

    async fn until(
        statuses: &mut watch::Receiver<ServerStatuses>,
        mut wanted: impl FnMut(&ServerStatus) -> bool,
    ) {
        let seen = statuses.wait_for(|all| wanted(&all.all()[0].status));
        timeout(Duration::from_secs(10), seen).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_server_is_started_watched_and_restarted_when_it_hangs() {
        let folder = tempfile::tempdir().unwrap();
        let fake = FakeServer::start().await;
        let socket = folder.path().join("fake");
        fake.listen_at(&socket);
        let config = ServerConfig::Supervised { python: script(folder.path(), &socket), threads: Some(1) };
        let Started { mut seen, request_restart, stop, running } = start(config, folder.path());

        until(&mut seen, |status| status.epoch == 1 && status.state == ServerState::Ready).await;
        fake.set(|script| script.live_status = 500);
        until(&mut seen, |status| matches!(&status.state, ServerState::Down(why) if why.contains("hangs")))
            .await;
        fake.set(|script| script.live_status = 200);
        until(&mut seen, |status| status.epoch == 2).await;
        request_restart.send("an inference hangs".to_owned()).await.unwrap();
        until(&mut seen, |status| status.epoch == 3).await;
        stop.cancel();
        timeout(Duration::from_secs(5), running).await.unwrap().unwrap();

        assert_eq!(std::fs::read_to_string(folder.path().join("starts")).unwrap().lines().count(), 3);
        let log = std::fs::read_to_string(folder.path().join("model-server/server.log")).unwrap();
        assert!(log.contains("--threads 1") && log.contains("idunno_model_server.guard"), "{log}");
        assert!(log.contains("home hidden"), "a secret is passed on: {log}");
    }

    #[tokio::test]
    async fn a_python_that_cannot_start_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let config = ServerConfig::Supervised { python: folder.path().join("no-python"), threads: None };
        let Started { mut seen, stop, running, .. } = start(config, folder.path());
        until(
            &mut seen,
            |status| matches!(&status.state, ServerState::Down(why) if why.contains("no-python")),
        )
        .await;
        stop.cancel();
        timeout(Duration::from_secs(5), running).await.unwrap().unwrap();
    }
}
