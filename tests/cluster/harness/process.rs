//! A daemon process that can be started, stopped, frozen, killed, and restarted with the same data at the same address.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::Deserialize;
use tokio::time::sleep;

const POLL: Duration = Duration::from_millis(10);
const START_LIMIT: Duration = Duration::from_secs(20);
const LOG_LINES: usize = 25;

/// The contents of `runtime.json`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Runtime {
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
    pub(crate) node: Option<String>,
}

/// The program under test.
pub(crate) fn idunnod() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("idunnod");
    assert!(path.is_file(), "{} is missing: run cargo build -p idunno-daemon first", path.display());
    path
}

/// A Python with the model server.
pub(crate) fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("IDUNNO_TEST_PYTHON") {
        return python.into();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let python = root.join(".venv/bin/python");
    assert!(python.is_file(), "{} is missing: run scripts/setup_python.sh first", python.display());
    python
}

/// A daemon, and everything needed to restart it.
pub(crate) struct Daemon {
    pub(crate) name: String,
    pub(crate) data_dir: PathBuf,
    arguments: Vec<String>,
    /// `POINT:N` for `IDUNNO_CRASH_AT`, from the next start on.
    pub(crate) crash_at: Option<String>,
    /// Known since the first start, and kept.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) node: Option<String>,
    /// In a cell, because looking whether it runs changes it.
    child: RefCell<Option<Child>>,
}

impl Daemon {
    /// Not started yet. `arguments` come behind `idunnod PROGRAM --listen ADDRESS --data-dir DIR`.
    pub(crate) fn new(
        name: &str,
        data_dir: PathBuf,
        arguments: Vec<String>,
        address: Option<SocketAddr>,
    ) -> Self {
        let (name, child) = (name.to_owned(), RefCell::new(None));
        Self { name, data_dir, arguments, crash_at: None, address, node: None, child }
    }

    /// Further arguments, from the next start on.
    pub(crate) fn add_arguments(&mut self, further: &[&str]) {
        self.arguments.extend(further.iter().copied().map(String::from));
    }

    /// The command that starts it.
    fn command(&self) -> Command {
        let mut command = Command::new(idunnod());
        let listen = self.address.map_or_else(|| String::from("127.0.0.1:0"), |address| address.to_string());
        command.arg(&self.arguments[0]).args(["--listen", &listen]);
        command.arg("--data-dir").arg(&self.data_dir).args(&self.arguments[1..]);
        for (variable, _) in std::env::vars().filter(|(variable, _)| variable.starts_with("IDUNNO_")) {
            command.env_remove(variable);
        }
        // Its model server takes faults from tests; none is armed.
        command.env("IDUNNO_TEST_FAULTS", "{}");
        // One folder for models of a test's own, beside the members'.
        command.env("IDUNNO_MODELS_DIR", self.data_dir.with_file_name("models"));
        command.env("IDUNNO_FAULTS_DIR", self.faults_dir());
        if let Some(point) = &self.crash_at {
            command.env("IDUNNO_CRASH_AT", point);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Where the process looks for faults that it is to show.
    fn faults_dir(&self) -> PathBuf {
        self.data_dir.with_extension("faults")
    }

    /// Sets its wall clock ahead, or behind, from now on.
    pub(crate) fn set_clock_ahead_s(&self, ahead_s: i64) {
        let dir = self.faults_dir();
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("new"), ahead_s.to_string()).unwrap();
        fs::rename(dir.join("new"), dir.join("clock-ahead-s")).unwrap();
    }

    /// Starts the process and does not wait for it.
    pub(crate) fn spawn(&mut self) {
        assert!(!self.is_started(), "{} runs already", self.name);
        fs::create_dir_all(&self.data_dir).unwrap();
        let stderr = OpenOptions::new().create(true).append(true).open(self.stderr_path()).unwrap();
        let child = self.command().stderr(stderr).spawn().unwrap();
        *self.child.get_mut() = Some(child);
    }

    /// Waits until it listens. Retries if another process has taken the port meanwhile.
    pub(crate) async fn started(&mut self) {
        let limit = Instant::now() + START_LIMIT;
        loop {
            if let Some(runtime) = self.runtime() {
                self.address = Some(runtime.address);
                self.node = runtime.node;
                return;
            }
            if let Some(status) = self.exit_status() {
                let errors = fs::read_to_string(self.stderr_path()).unwrap_or_default();
                let taken = errors.lines().last().is_some_and(|line| line.contains("in use"));
                assert!(taken && Instant::now() < limit, "{} ended at once ({status}): {errors}", self.name);
                *self.child.get_mut() = None;
                self.spawn();
            }
            assert!(
                Instant::now() < limit,
                "{} is not up after {START_LIMIT:?}\n{}",
                self.name,
                self.log_tail()
            );
            sleep(POLL).await;
        }
    }

    /// Waits until it listens, or until it has ended by itself: then its status.
    pub(crate) async fn started_or_ended(&mut self) -> Option<ExitStatus> {
        let limit = Instant::now() + START_LIMIT;
        loop {
            if self.runtime().is_some() {
                return None;
            }
            if let Some(status) = self.exit_status() {
                *self.child.get_mut() = None;
                return Some(status);
            }
            assert!(Instant::now() < limit, "{} neither runs nor ends\n{}", self.name, self.log_tail());
            sleep(POLL).await;
        }
    }

    /// The runtime file, if this very process wrote it.
    fn runtime(&self) -> Option<Runtime> {
        let text = fs::read(self.data_dir.join("runtime.json")).ok()?;
        let runtime: Runtime = serde_json::from_slice(&text).ok()?;
        (Some(runtime.pid) == self.pid()).then_some(runtime)
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.borrow().as_ref().map(Child::id)
    }

    pub(crate) fn is_started(&self) -> bool {
        self.child.borrow().is_some()
    }

    /// How a process that was not taken down has ended by itself, if it has.
    pub(crate) fn exit_status(&self) -> Option<ExitStatus> {
        self.child.borrow_mut().as_mut().and_then(|child| child.try_wait().unwrap())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address.unwrap()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).unwrap())).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Sends a signal to its model server, the guard included.
    pub(crate) fn signal_model_server(&self, signal: Signal) {
        kill_process_group(self.model_server_guard(), signal).unwrap();
    }

    /// The process that guards its model server, and whose number its process group has.
    pub(crate) fn model_server_guard(&self) -> Pid {
        let daemon = self.pid().unwrap().to_string();
        let has_parent = |status: &str| {
            status.lines().any(|line| line.strip_prefix("PPid:").is_some_and(|pid| pid.trim() == daemon))
        };
        let processes =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        // A process may end between the listing and the look at it.
        let children: Vec<i32> = processes
            .filter_map(|name| name.parse().ok())
            .filter(|pid| {
                fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| has_parent(&status))
            })
            .collect();
        assert_eq!(children.len(), 1, "{} has the child processes {children:?}", self.name);
        Pid::from_raw(children[0]).unwrap()
    }

    /// SIGKILL, if it runs.
    pub(crate) fn kill(&self) {
        if let Some(child) = self.child.borrow_mut().as_mut() {
            // It may have ended by itself.
            let _ = child.kill();
        }
    }

    /// SIGKILL, and gone on return.
    pub(crate) fn reap(&mut self) {
        if let Some(mut child) = self.child.get_mut().take() {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Waits for the end of a process that was asked to stop.
    pub(crate) async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exit_status() {
                *self.child.get_mut() = None;
                return status;
            }
            assert!(Instant::now() < deadline, "{} runs after {limit:?} yet\n{}", self.name, self.log_tail());
            sleep(POLL).await;
        }
    }

    fn stderr_path(&self) -> PathBuf {
        self.data_dir.join("stderr.log")
    }

    /// All that it wrote to standard error.
    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(self.stderr_path()).unwrap_or_default()
    }

    /// Oldest first.
    fn log_files(&self) -> Vec<PathBuf> {
        let mut logs: Vec<PathBuf> = fs::read_dir(self.data_dir.join("logs"))
            .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
            .unwrap_or_default();
        logs.sort();
        logs
    }

    /// All that it logged.
    pub(crate) fn log(&self) -> String {
        self.log_files().iter().map(|path| fs::read_to_string(path).unwrap_or_default()).collect()
    }

    /// What each of its threads does: name, state, the kernel function it waits in, the CPU time it has used in ticks. A
    /// process that answers nobody writes no log.
    fn threads(&self) -> String {
        let Some(pid) = self.child.borrow().as_ref().map(Child::id) else { return String::new() };
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return String::new() };
        let describe = |thread: PathBuf| {
            let read = |file: &str| fs::read_to_string(thread.join(file)).unwrap_or_default();
            let (stat, name) = (read("stat"), read("comm"));
            // The name, in parentheses, may contain spaces.
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let field = |index: usize| fields.get(index).copied().unwrap_or("?").to_owned();
            let ticks = [field(11), field(12)].join("+");
            format!("\n    {} {} {} {ticks}", name.trim(), field(0), read("wchan"))
        };
        threads.filter_map(|thread| Some(describe(thread.ok()?.path()))).collect()
    }

    /// The last lines of its log and of its standard error.
    pub(crate) fn log_tail(&self) -> String {
        let mut logs = self.log_files();
        let condition = match (self.exit_status(), self.is_started()) {
            (Some(status), _) => format!("ended, not stopped by the test: {status}"),
            (None, true) => format!("runs{}", self.threads()),
            (None, false) => String::from("stopped by the test"),
        };
        let mut text = format!("--- {}: {condition}\n", self.name);
        for path in logs.pop().into_iter().chain([self.stderr_path()]) {
            let bytes = fs::read(&path).unwrap_or_default();
            let content = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = content.lines().collect();
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                text += line;
                text.push('\n');
            }
        }
        text
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.reap();
    }
}

/// Runs `idunnod` to its end and returns whether it succeeded and what it wrote to standard error.
pub(crate) fn run_to_end(arguments: &[&str], limit: Duration) -> (ExitStatus, String) {
    let stderr = tempfile::NamedTempFile::new().unwrap();
    let mut child = Command::new(idunnod())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(stderr.path()).unwrap())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (status, fs::read_to_string(stderr.path()).unwrap());
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("idunnod {arguments:?} runs after {limit:?} yet");
        }
        std::thread::sleep(POLL);
    }
}
