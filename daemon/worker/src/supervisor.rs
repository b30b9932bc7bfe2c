//! The model server's life: started, watched, restarted; or only watched, where somebody else manages it.
//!
//! Decides whether the server can be used and when it is started again. Source: handbook, jobs-and-inference section 7.
//!
//! Invariants: the epoch rises whenever the models loaded before can no longer be relied on; a status that is ready
//! names a server that answered its readiness call in this epoch; no server process outlives this one (it watches its
//! parent, and is killed on drop).
//! Bounds: back-off from [`Timing::back_off_min`] to [`Timing::back_off_max`]; the server's log is
//! [`SERVER_LOG_BYTES_MAX`], begun anew at each start.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::ServerState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::model_server::{Extensions, ModelServer};

/// Largest log of one server process, in bytes; what it writes beyond is dropped.
pub const SERVER_LOG_BYTES_MAX: usize = 4 << 20;
/// The server's folder in the data directory.
pub const SERVER_FOLDER: &str = "model-server";
/// What a member without a model server says of it.
const NONE: &str = "this member is set up without one";
const POLL: Duration = Duration::from_millis(50);
const MISSES_MAX: u32 = 3;

/// Which model server, and who manages it.
#[derive(Clone, Debug)]
pub enum ServerConfig {
    /// There is none, and never will be.
    None,
    /// Started and watched by this process.
    Supervised {
        /// The Python that has the package `idunno_model_server`.
        python: PathBuf,
        /// Inputs that it may process at once; all of the machine's cores without a number.
        threads: Option<u32>,
    },
    /// Managed elsewhere.
    Elsewhere {
        /// Its URL, such as `http://127.0.0.1:8080`.
        url: String,
    },
}

/// Intervals and limits; the default is for real use, tests take shorter ones.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between health calls.
    pub health_interval: Duration,
    /// From the start of the process to its readiness; then it is started again.
    pub start_timeout: Duration,
    /// A server that misses its health calls for so long, and [`MISSES_MAX`] times, is killed.
    pub hung_after: Duration,
    /// The first pause before a new start.
    pub back_off_min: Duration,
    /// The longest pause before a new start.
    pub back_off_max: Duration,
    /// A server that lived so long is started again without a longer pause.
    pub settled_after: Duration,
    /// How long it may take to finish after it is told to end.
    pub stop_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            health_interval: Duration::from_secs(1),
            start_timeout: Duration::from_secs(120),
            hung_after: Duration::from_secs(10),
            back_off_min: Duration::from_millis(500),
            back_off_max: Duration::from_secs(30),
            settled_after: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(5),
        }
    }
}

/// The model server, as known now.
#[derive(Clone, Debug)]
pub struct ServerStatus {
    /// Whether it can be used.
    pub state: ServerState,
    /// The server and what it can do, once it was ready in this epoch.
    pub server: Option<(ModelServer, Extensions)>,
    /// The models that it offers, as it said when it was ready last; `None` if it cannot list them.
    pub offers: Option<Vec<ModelName>>,
    /// Rises when loaded models are gone, or may be.
    pub epoch: u64,
}

impl Default for ServerStatus {
    fn default() -> Self {
        Self { state: ServerState::Starting, server: None, offers: Some(Vec::new()), epoch: 0 }
    }
}

/// Watches over one model server until it is told to stop.
pub struct Supervisor {
    /// Which.
    pub config: ServerConfig,
    /// The member's data directory.
    pub data_dir: PathBuf,
    /// Intervals.
    pub timing: Timing,
    /// Where the status goes.
    pub status: watch::Sender<ServerStatus>,
    /// Why a server is to be started again, from whoever saw it hang.
    pub complaints: mpsc::Receiver<String>,
    /// The end.
    pub stop: CancellationToken,
}

enum Over {
    Stopped,
    Failed(String),
}

impl Supervisor {
    /// Runs until told to stop. The server it started has ended then.
    pub async fn run(mut self) {
        match self.config.clone() {
            ServerConfig::None => self.publish_down(ServerState::Down(String::from(NONE))),
            ServerConfig::Elsewhere { url } => self.watch_elsewhere(&url).await,
            ServerConfig::Supervised { python, threads } => self.supervise(&python, threads).await,
        }
    }

    async fn supervise(&mut self, python: &PathBuf, threads: Option<u32>) {
        let mut back_off = self.timing.back_off_min;
        loop {
            self.publish_down(ServerState::Starting);
            let started = Instant::now();
            let reason = match self.live_once(python, threads).await {
                Over::Stopped => return,
                Over::Failed(reason) => reason,
            };
            if started.elapsed() >= self.timing.settled_after {
                back_off = self.timing.back_off_min;
            }
            warn!(%reason, pause = ?back_off, "the model server is down, it is started again after a pause");
            self.publish_down(ServerState::Down(reason));
            tokio::select! {
                () = sleep(back_off) => back_off = (back_off * 2).min(self.timing.back_off_max),
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// One life of the server process, from start to end.
    async fn live_once(&mut self, python: &PathBuf, threads: Option<u32>) -> Over {
        let stop = self.stop.clone();
        let mut child = match self.spawn(python, threads).await {
            Ok(child) => child,
            Err(reason) => return Over::Failed(reason),
        };
        let reason = tokio::select! {
            () = stop.cancelled() => {
                self.end(&mut child).await;
                return Over::Stopped;
            }
            exit = child.wait() => match exit {
                Ok(status) => format!("the model server ended with {status}; see {SERVER_FOLDER}/server.log"),
                Err(error) => format!("cannot wait for the model server: {error}"),
            },
            reason = self.watch_process() => reason,
        };
        if let Err(error) = child.kill().await {
            warn!(%error, "cannot kill the model server");
        }
        Over::Failed(reason)
    }

    /// From the start of a process until it is to be killed: why.
    async fn watch_process(&mut self) -> String {
        let ready = timeout(self.timing.start_timeout, self.wait_ready()).await;
        let server = match ready {
            Ok(Ok(server)) => server,
            Ok(Err(reason)) => return reason,
            Err(_) => {
                let limit = self.timing.start_timeout.as_secs();
                return format!(
                    "the model server was not ready within {limit} s; see {SERVER_FOLDER}/server.log"
                );
            }
        };
        self.watch_health(&server).await
    }

    async fn wait_ready(&mut self) -> Result<ModelServer, String> {
        let port_file = self.folder().join("port");
        let port: u16 = loop {
            // The server renames it into place: it is whole or not there.
            if let Ok(text) = tokio::fs::read_to_string(&port_file).await {
                break text.trim().parse().map_err(|_| format!("{} holds no port", port_file.display()))?;
            }
            sleep(POLL).await;
        };
        let server = ModelServer::new(&format!("http://127.0.0.1:{port}")).map_err(|e| e.to_string())?;
        while server.ready().await.is_err() {
            sleep(POLL).await;
        }
        self.publish_ready(&server).await?;
        Ok(server)
    }

    /// Returns when the server hangs, or somebody complained.
    async fn watch_health(&mut self, server: &ModelServer) -> String {
        let (mut misses, mut since) = (0, Instant::now());
        loop {
            tokio::select! {
                () = sleep(self.timing.health_interval) => {}
                Some(complaint) = self.complaints.recv() => return complaint,
            }
            if let Err(error) = server.live().await {
                misses += 1;
                if misses >= MISSES_MAX && since.elapsed() > self.timing.hung_after {
                    return format!("the model server hangs: {error}");
                }
            } else {
                (misses, since) = (0, Instant::now());
            }
        }
    }

    async fn watch_elsewhere(&mut self, url: &str) {
        let server = match ModelServer::new(url) {
            Ok(server) => server,
            Err(error) => return self.publish_down(ServerState::Down(error.to_string())),
        };
        loop {
            let usable = match server.ready().await {
                Ok(()) if self.status.borrow().state == ServerState::Ready => Ok(()),
                Ok(()) => self.publish_ready(&server).await,
                Err(error) => Err(error.to_string()),
            };
            if let Err(reason) = usable {
                self.publish_down(ServerState::Down(reason));
            }
            tokio::select! {
                () = sleep(self.timing.health_interval) => {}
                // It cannot be started again from here: its models are loaded again when it answers.
                Some(complaint) = self.complaints.recv() => self.publish_down(ServerState::Down(complaint)),
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn publish_ready(&self, server: &ModelServer) -> Result<(), String> {
        let extensions = server.extensions().await.map_err(|error| error.to_string())?;
        let offers = if extensions.repository {
            Some(server.offers().await.map_err(|error| error.to_string())?)
        } else {
            None
        };
        info!(epoch = self.status.borrow().epoch + 1, "the model server is ready");
        self.status.send_modify(|status| {
            status.state = ServerState::Ready;
            status.server = Some((server.clone(), extensions));
            status.offers = offers;
            status.epoch += 1;
        });
        Ok(())
    }

    fn publish_down(&self, state: ServerState) {
        self.status.send_if_modified(|status| {
            let changed = status.state != state || status.server.is_some();
            (status.state, status.server) = (state, None);
            changed
        });
    }

    fn folder(&self) -> PathBuf {
        self.data_dir.join(SERVER_FOLDER)
    }

    async fn spawn(&self, python: &PathBuf, threads: Option<u32>) -> Result<Child, String> {
        let folder = self.folder();
        let port_file = folder.join("port");
        let log = folder.join("server.log");
        let cannot = |what: &str, path: &PathBuf, error: std::io::Error| {
            format!("cannot {what} {}: {error}", path.display())
        };
        tokio::fs::create_dir_all(&folder).await.map_err(|error| cannot("create", &folder, error))?;
        match tokio::fs::remove_file(&port_file).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(cannot("remove", &port_file, error));
            }
            _ => {}
        }
        let log_file = tokio::fs::File::create(&log).await.map_err(|error| cannot("create", &log, error))?;
        let (output, input) = std::io::pipe().map_err(|error| cannot("pipe into", &log, error))?;
        let errors = input.try_clone().map_err(|error| cannot("pipe into", &log, error))?;
        let mut command = Command::new(python);
        command
            .args(["-m", "idunno_model_server", "--host", "127.0.0.1", "--port", "0", "--port-file"])
            .arg(&port_file)
            .arg("--work-dir")
            .arg(&folder)
            .args(["--die-with-parent", &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(input)
            .stderr(errors)
            .kill_on_drop(true);
        if let Some(threads) = threads {
            command.args(["--threads", &threads.to_string()]);
        }
        let child = command.spawn().map_err(|error| cannot("start", python, error))?;
        let output = pipe::Receiver::from_owned_fd(output.into());
        tokio::spawn(copy_log(output.map_err(|error| cannot("pipe into", &log, error))?, log_file));
        Ok(child)
    }

    /// Asks the process to finish, and kills it if it does not.
    async fn end(&self, child: &mut Child) {
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id
            && let Err(error) = rustix::process::kill_process(id, rustix::process::Signal::TERM)
        {
            warn!(%error, "cannot tell the model server to end");
        }
        if timeout(self.timing.stop_timeout, child.wait()).await.is_err()
            && let Err(error) = child.kill().await
        {
            warn!(%error, "cannot kill the model server");
        }
    }
}

/// Ends with the process that writes. What comes beyond the limit, or cannot be written, is read and dropped.
async fn copy_log(mut output: pipe::Receiver, mut log: tokio::fs::File) {
    let mut room = SERVER_LOG_BYTES_MAX;
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        let kept = count.min(room);
        if kept > 0 && (log.write_all(&buffer[..kept]).await.is_err() || log.flush().await.is_err()) {
            room = 0;
        }
        room = room.saturating_sub(kept);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::super::testing::fake_server::FakeServer;
    use super::*;

    fn fast() -> Timing {
        Timing {
            health_interval: Duration::from_millis(20),
            start_timeout: Duration::from_secs(5),
            hung_after: Duration::from_millis(100),
            back_off_min: Duration::from_millis(20),
            back_off_max: Duration::from_millis(40),
            settled_after: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(2),
        }
    }

    /// A "Python" that announces the port of a fake server in this process, counts its starts, and stays.
    fn script(folder: &Path, port: u16) -> PathBuf {
        let text = format!(
            "#!/bin/sh\necho \"started with $*\"\nwhile [ \"$1\" != --port-file ]; do shift; done\n\
             echo start >> {starts}\necho {port} > \"$2.new\"; mv \"$2.new\" \"$2\"\nexec sleep 600\n",
            starts = folder.join("starts").display()
        );
        let path = folder.join("python");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    async fn until(status: &mut watch::Receiver<ServerStatus>, wanted: impl FnMut(&ServerStatus) -> bool) {
        timeout(Duration::from_secs(10), status.wait_for(wanted)).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_server_is_started_watched_and_started_again_when_it_hangs() {
        let folder = tempfile::tempdir().unwrap();
        let fake = FakeServer::start().await;
        let (status, mut seen) = watch::channel(ServerStatus::default());
        let (complain, complaints) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let config =
            ServerConfig::Supervised { python: script(folder.path(), fake.port()), threads: Some(1) };
        let data_dir = folder.path().to_path_buf();
        let supervisor =
            Supervisor { config, data_dir, timing: fast(), status, complaints, stop: stop.clone() };
        let running = tokio::spawn(supervisor.run());

        until(&mut seen, |status| status.epoch == 1 && status.state == ServerState::Ready).await;
        fake.set(|script| script.live_status = 500);
        until(&mut seen, |status| matches!(&status.state, ServerState::Down(why) if why.contains("hangs")))
            .await;
        fake.set(|script| script.live_status = 200);
        until(&mut seen, |status| status.epoch == 2).await;
        complain.send("an inference hangs".to_owned()).await.unwrap();
        until(&mut seen, |status| status.epoch == 3).await;
        stop.cancel();
        timeout(Duration::from_secs(5), running).await.unwrap().unwrap();

        assert_eq!(std::fs::read_to_string(folder.path().join("starts")).unwrap().lines().count(), 3);
        let log = std::fs::read_to_string(folder.path().join("model-server/server.log")).unwrap();
        assert!(log.contains("--threads 1") && log.contains("--die-with-parent"), "{log}");
    }

    #[tokio::test]
    async fn a_python_that_cannot_start_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (status, mut seen) = watch::channel(ServerStatus::default());
        let (_complain, complaints) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let config = ServerConfig::Supervised { python: folder.path().join("no-python"), threads: None };
        let data_dir = folder.path().to_path_buf();
        let supervisor =
            Supervisor { config, data_dir, timing: fast(), status, complaints, stop: stop.clone() };
        let running = tokio::spawn(supervisor.run());
        until(
            &mut seen,
            |status| matches!(&status.state, ServerState::Down(why) if why.contains("no-python")),
        )
        .await;
        stop.cancel();
        timeout(Duration::from_secs(5), running).await.unwrap().unwrap();
    }
}
