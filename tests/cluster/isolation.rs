//! What other processes of the machine can do: one that has the daemon's user, one of another user, and that of a model.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::backup::idunno;
use crate::harness::{LocalCluster, heavy, idunnod, light, put_text, python};

const NOBODY: u32 = 65_534;
const LIMIT: Duration = Duration::from_secs(20);
/// For a model to be added, loaded and run.
const MODEL_LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);

/// Tries what a row says. Answers the number of the error that it met, or `null`.
const HOSTILE: &str = r#"
import json, os, signal, socket
from pathlib import Path
from idunno_model_server.api import BatchModel

TRIES = {
    "read": lambda path: Path(path).open("rb").read(1),
    "list": os.listdir,
    "write": lambda path: Path(path).open("ab"),
    "delete": os.unlink,
    "connect": lambda port: socket.create_connection(("127.0.0.1", int(port)), 5),
    "signal": lambda pid: os.kill(int(pid), signal.SIGTERM),
}

class Hostile(BatchModel):
    def predict(self, inputs):
        return [self.tried(*str(row, "utf-8").split(" ", 1)) for row in inputs]

    def tried(self, what, target):
        try:
            TRIES[what](target)
        except OSError as error:
            return error.errno

    def canary(self):
        return b"list /usr"
"#;

/// Whether this kernel confines the processes of models, whole: Landlock with scopes.
fn is_confined() -> bool {
    let code = "from idunno_model_server import confine; print(confine.landlock_abi() >= confine.ABI_SCOPES)";
    let asked = Command::new(python()).args(["-c", code]).output().unwrap();
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    asked.stdout.starts_with(b"True")
}

/// Whether a process of this user may read a file.
fn may_read(path: &str) -> bool {
    let mut command = Command::new("cat");
    command.arg(path).uid(NOBODY).gid(NOBODY).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_of_the_same_user_cannot_look_into_a_daemon() {
    let _turn = light().await;
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root starts processes of another user");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    // The programs may lie where this user cannot go.
    let program = folder.path().join("idunnod");
    std::fs::copy(idunnod(), &program).unwrap();
    let mut command = Command::new(&program);
    command.args(["introducer", "--listen", "127.0.0.1:0", "--insecure", "--data-dir"]);
    command.arg(folder.path().join("data")).env("IDUNNO_TEST_SECRET", "in the environment");
    let mut daemon = command.uid(NOBODY).gid(NOBODY).stdout(Stdio::null()).spawn().unwrap();
    let environment = format!("/proc/{}/environ", daemon.id());
    let started = Instant::now();
    while may_read(&environment) && started.elapsed() < LIMIT {
        std::thread::sleep(POLL);
    }
    let is_hidden = !may_read(&environment);
    let runs = daemon.try_wait().unwrap().is_none();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(runs, "the daemon has ended");
    assert!(is_hidden, "its environment can be read, and with it its memory");
}

/// The inodes of TCP sockets that listen, of all processes.
fn listening_inodes() -> BTreeSet<String> {
    const LISTENS: &str = "0A";
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
    let rows = tables.iter().flat_map(|table| table.lines().skip(1));
    let rows = rows.map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[3] == LISTENS).map(|row| row[9].to_owned()).collect()
}

/// The processes that a command line with this text started, and the sockets that each has open.
fn sockets_of(text: &str) -> Vec<BTreeSet<String>> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let is_meant = |path: &Path| {
        std::fs::read(path.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
    };
    let inode = |link: std::path::PathBuf| {
        let target = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
        Some(target)
    };
    let sockets = |path: std::path::PathBuf| {
        let open = std::fs::read_dir(path.join("fd")).into_iter().flatten().flatten();
        open.filter_map(|entry| inode(std::fs::read_link(entry.path()).ok()?)).collect()
    };
    processes.filter(|path| is_meant(path)).map(sockets).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_own_user_can_call_the_model_server_that_a_member_runs() {
    let _turn = heavy().await;
    let cluster = LocalCluster::start(1, true).await;
    let answers = async || cluster.ask_model_server(0, "/v2", None).await.map(drop);
    cluster.eventually("the model server answers", LIMIT, answers).await;
    let socket = cluster.model_server_socket(0);
    assert_eq!(socket.metadata().unwrap().mode() & 0o077, 0, "others may call it");

    let servers = sockets_of(socket.to_str().unwrap());
    assert!(servers.iter().any(|sockets| !sockets.is_empty()), "its processes were not found");
    let listening = listening_inodes();
    assert!(!listening.is_empty(), "the member itself listens on a port");
    for sockets in servers {
        assert!(sockets.is_disjoint(&listening), "it listens on a port, which any user may call");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_model_is_refused_what_is_not_its_own() {
    const EPERM: u64 = 1;
    const EACCES: u64 = 13;
    let _turn = heavy().await;
    if !is_confined() {
        println!("skipped: this kernel's Landlock does not confine processes");
        return;
    }
    let cluster = LocalCluster::start(1, true).await;
    add_hostile(&cluster).await;

    let member = &cluster.members[0];
    let data_dir = &member.data_dir;
    let package = std::fs::read_dir(data_dir.join("packages")).unwrap().next().unwrap().unwrap().path();
    let artefact = package.join("files/model.py").display().to_string();
    let pid = member.pid().unwrap();
    let tries = [
        (format!("read {artefact}"), None),
        (format!("write {artefact}"), Some(EACCES)),
        (format!("delete {artefact}"), Some(EACCES)),
        (format!("list {}", data_dir.display()), Some(EACCES)),
        (format!("read {}", data_dir.join("metadata.redb").display()), Some(EACCES)),
        (format!("read {}", cluster.secret().display()), Some(EACCES)),
        (format!("read /proc/{pid}/environ"), Some(EACCES)),
        (format!("read /proc/{pid}/mem"), Some(EACCES)),
        (format!("connect {}", member.address().port()), Some(EACCES)),
        (format!("signal {pid}"), Some(EPERM)),
    ];
    check_tries(&cluster, &tries).await;
}

/// Adds the model that tries what its rows say.
async fn add_hostile(cluster: &LocalCluster) {
    let folder = cluster.scratch("hostile");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("model.py"), HOSTILE).unwrap();
    let words = ["model", "add", folder.to_str().unwrap()];
    cluster.eventually("the model is added", MODEL_LIMIT, async || idunno(cluster, &words)).await;
    cluster.trained(&["hostile".parse().unwrap()]).await;
}

/// Has the model try things, each of which must meet this error or none.
async fn check_tries(cluster: &LocalCluster, tries: &[(String, Option<u64>)]) {
    let mut rows = String::new();
    for (row, _) in tries {
        writeln!(rows, "{}", json!({ "input": row })).unwrap();
    }
    put_text(cluster, "tries.jsonl", &rows).await;
    let job = cluster.add_job("hostile", "tries.jsonl", 4).await;
    cluster.start_job(job).await;
    cluster.finished(job, MODEL_LIMIT).await;
    let results = cluster.results(job).await;
    let answers: Vec<_> = results.values().map(|row| row.output.as_u64()).collect();
    for ((tried, wanted), answer) in tries.iter().zip(&answers) {
        assert_eq!(answer, wanted, "{tried}");
    }
    assert_eq!(answers.len(), tries.len());
}

/// A Python with the model server that another user can start: the tests' own, or, if that lies where nobody else can go, the
/// system's with the same packages.
fn python_of_other_user() -> Option<Command> {
    let asked = Command::new(python())
        .args(["-c", "import sys, sysconfig; print(sysconfig.get_path('purelib'), sys.prefix)"])
        .output()
        .unwrap();
    let said = String::from_utf8(asked.stdout).unwrap();
    let (packages, prefix) = said.trim().split_once(' ').unwrap();
    let own = || Command::new(python());
    let of_system = || {
        let mut command = Command::new("/usr/bin/python3");
        command.env("PYTHONPATH", packages).env("IDUNNO_MODEL_DATA", format!("{prefix}/share/idunno/data"));
        command
    };
    let as_other = |mut command: Command| {
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
        command
    };
    let can_start = |mut command: Command| {
        command.args(["-c", "import idunno_model_server.app, numpy"]);
        command.output().is_ok_and(|output| output.status.success())
    };
    if can_start(as_other(own())) {
        return Some(as_other(own()));
    }
    can_start(as_other(of_system())).then(|| as_other(of_system()))
}

/// A model server of another user, as `idunno-model-server.service` runs it, and the folders that it shares with a member.
struct OtherUsersServer {
    folder: tempfile::TempDir,
    process: Child,
}

impl OtherUsersServer {
    /// `None` if that user cannot start this Python.
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        for (name, user, mode) in [("run", NOBODY, 0o750), ("work", NOBODY, 0o700), ("files", 0, 0o750)] {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            chown(&path, Some(user), Some(NOBODY)).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        }
        let mut command = python_of_other_user()?;
        command.args(["-m", "idunno_model_server", "--socket-mode", "660", "--threads", "1"]);
        for (option, place) in
            [("--socket", "run/socket"), ("--work-dir", "work"), ("--packages-dir", "files/packages")]
        {
            command.arg(option).arg(folder.path().join(place));
        }
        let process = command.spawn().unwrap();
        Some(Self { folder, process })
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

impl Drop for OtherUsersServer {
    fn drop(&mut self) {
        // What it started ends with it.
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_server_of_another_user_runs_packages_and_trains_them() {
    const EPERM: u64 = 1;
    const EACCES: u64 = 13;
    let _turn = heavy().await;
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root starts processes of another user");
        return;
    }
    let Some(server) = OtherUsersServer::start() else {
        println!("skipped: {} lies where another user cannot go", python().display());
        return;
    };
    let (url, files) = (format!("unix:{}", server.path("run/socket")), server.path("files"));
    let cluster = LocalCluster::start_at_url(1, &url, &["--model-files-dir", &files]).await;
    add_hostile(&cluster).await;
    let socket = std::fs::metadata(server.path("run/socket")).unwrap();
    assert_eq!(socket.mode() & 0o777, 0o660, "its user and its group may call it");

    let packages = server.path("files/packages");
    let package = std::fs::read_dir(packages).unwrap().next().unwrap().unwrap().path();
    let artefact = package.join("files/model.py").display().to_string();
    let member = &cluster.members[0];
    let pid = member.pid().unwrap();
    let metadata = member.data_dir.join("metadata.redb");
    // By the users alone: these hold on a kernel that does not confine processes, too.
    let tries = [
        (format!("read {artefact}"), None),
        (format!("write {artefact}"), Some(EACCES)),
        (format!("delete {artefact}"), Some(EACCES)),
        (format!("list {}", member.data_dir.display()), Some(EACCES)),
        (format!("read {}", metadata.display()), Some(EACCES)),
        (format!("read {}", cluster.secret().display()), Some(EACCES)),
        (format!("read /proc/{pid}/environ"), Some(EACCES)),
        (format!("signal {pid}"), Some(EPERM)),
    ];
    check_tries(&cluster, &tries).await;

    let mut texts = String::from("input,label\n");
    for row in 0..40 {
        writeln!(texts, "text number {row},{}", if row % 2 == 0 { "even" } else { "odd" }).unwrap();
    }
    put_text(&cluster, "texts.csv", &texts).await;
    idunno(&cluster, &["train-start", "newsgroups-linear", "--dataset", "texts.csv", "--wait"]).unwrap();
}
