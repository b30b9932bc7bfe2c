//! No process that a model starts outlives its model server, however that ends.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::harness::{LocalCluster, SOON, heavy, idunnod, python};

/// When it is imported by a server, it starts a child, a child in a session of its own, and a grandchild in a session of
/// its own whose parent ends at once. They write to no pipe of the server, so that nothing notices its end by one.
const MODEL: &str = r#"
import os, subprocess, sys
from pathlib import Path

if "--work-dir" in sys.argv:
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(["sleep", "600"], **quiet)
    leader = subprocess.Popen(["sleep", "600"], start_new_session=True, **quiet)
    shell = ["sh", "-c", "setsid sleep 600 < /dev/null > /dev/null 2>&1 & echo $!"]
    daemon = subprocess.run(shell, stdout=subprocess.PIPE, text=True, check=True).stdout
    work = Path(sys.argv[sys.argv.index("--work-dir") + 1])
    (work / "started.new").write_text(f"{os.getpid()} {os.getppid()} {child.pid} {leader.pid} {daemon}")
    (work / "started.new").rename(work / "started")
"#;

/// The processes of a model server.
#[derive(Clone, Debug)]
struct Family {
    server: Pid,
    guard: Pid,
    /// What the model started.
    started: Vec<Pid>,
}

impl Family {
    /// What the server of a member wrote down.
    fn read(data_dir: &Path) -> Result<Self, String> {
        let file = data_dir.join("model-server/started");
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let pids: Vec<Pid> =
            text.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap()).collect();
        assert_eq!(pids.len(), 5, "{text}");
        Ok(Self { server: pids[0], guard: pids[1], started: pids[2..].to_vec() })
    }

    /// Fails unless all its processes are gone; a zombie is none.
    fn is_gone(&self) -> Result<(), String> {
        let all = [&[self.server, self.guard], &self.started[..]].concat();
        let left: Vec<Pid> = all.into_iter().filter(|pid| is_alive(*pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} of {self:?} are alive")) }
    }

    fn assert_alive(&self) {
        for pid in [&[self.server, self.guard], &self.started[..]].concat() {
            assert!(is_alive(pid), "{pid:?} of {self:?} is gone already");
        }
    }
}

fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let is_zombie = stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']));
    !is_zombie && test_kill_process(pid).is_ok()
}

fn install(models: &Path) {
    std::fs::create_dir_all(models).unwrap();
    std::fs::write(models.join("forks.py"), MODEL).unwrap();
}

async fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        match look() {
            Ok(found) => return found,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{what}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_model_started_outlives_its_server_or_its_member() {
    let _turn = heavy().await;
    let mut cluster = LocalCluster::launch(1, true).await;
    let data_dir = cluster.members[0].data_dir.clone();
    // Model servers read the models when they start.
    cluster.ready().await;
    install(&cluster.path().join("models"));
    cluster.members[0].signal_model_server(Signal::KILL);
    let mut family = eventually("a server with the model", || Family::read(&data_dir)).await;
    type End = (&'static str, fn(&Family));
    let ends: [End; 3] = [
        ("the server is killed", |family| kill_process(family.server, Signal::KILL).unwrap()),
        ("the guard is killed", |family| kill_process(family.guard, Signal::KILL).unwrap()),
        ("the server ends by itself", |family| kill_process(family.server, Signal::TERM).unwrap()),
    ];
    for (end, apply) in ends {
        family.assert_alive();
        apply(&family);
        eventually(end, || family.is_gone()).await;
        let before = family.server;
        family = eventually("another server", || {
            Family::read(&data_dir).and_then(|family| {
                if family.server == before { Err(String::from("it has not started")) } else { Ok(family) }
            })
        })
        .await;
    }
    family.assert_alive();
    cluster.kill(&[0]);
    eventually("the member is killed", || family.is_gone()).await;
}

/// Runs `idunno` on a local cluster in `dir`.
fn idunno(dir: &Path, words: &[&str]) {
    let mut command = Command::new(idunnod().with_file_name("idunno"));
    command.args(["--dir", dir.to_str().unwrap(), "local"]).args(words);
    command.env("IDUNNO_MODELS_DIR", dir.join("models")).env("NO_COLOR", "1");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "idunno {words:?}: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_model_started_outlives_a_local_cluster() {
    let _turn = heavy().await;
    let dir = tempfile::tempdir().unwrap();
    install(&dir.path().join("models"));
    idunno(
        dir.path(),
        &["up", "--members", "2", "--threads", "1", "--model-server-python", python().to_str().unwrap()],
    );
    let family = |member: &str| Family::read(&dir.path().join(member)).unwrap();
    let (killed, stopped) = (family("m1"), family("m2"));
    killed.assert_alive();
    stopped.assert_alive();
    idunno(dir.path(), &["kill", "m1"]);
    eventually("local kill", || killed.is_gone()).await;
    stopped.assert_alive();
    idunno(dir.path(), &["down"]);
    eventually("local down", || stopped.is_gone()).await;
}
