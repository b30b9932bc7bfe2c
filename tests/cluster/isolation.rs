//! What a process that has the daemon's user, as that of a model may have, can read of the daemon.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{idunnod, light};

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
