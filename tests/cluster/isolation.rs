//! What other processes of the machine can do: one that has the daemon's user, as that of a model may have, and one of another
//! user.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{LocalCluster, heavy, idunnod, light};

const NOBODY: u32 = 65_534;
const LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

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
