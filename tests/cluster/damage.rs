//! A damaged data directory: every file of it, damaged in every way, either costs nothing or is refused in one line that names
//! the file and the way out, with an exit status that keeps systemd from restarting it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Daemon, LocalCluster, SOON, heavy};
use crate::recovery::recover;

/// The exit status for damaged data (`runtime::failure` in the daemon).
const DATA: i32 = 65;

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Zeroed,
    Emptied,
    Halved,
    OneBitFlipped,
    Deleted,
}

const ALL: [Damage; 5] =
    [Damage::Zeroed, Damage::Emptied, Damage::Halved, Damage::OneBitFlipped, Damage::Deleted];

impl Damage {
    fn inflict(self, file: &Path) {
        let mut bytes = fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        match self {
            Self::Zeroed => bytes.fill(0),
            Self::Emptied => bytes.clear(),
            Self::Halved => bytes.truncate(middle),
            Self::OneBitFlipped => {
                if let Some(byte) = bytes.get_mut(middle) {
                    *byte ^= 1;
                }
            }
            Self::Deleted => return fs::remove_file(file).unwrap(),
        }
        fs::write(file, bytes).unwrap();
    }
}

/// What a file's loss means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// It is made again.
    Spare,
    /// Every damage is refused, deletion too.
    Needed,
    /// Deleted it is made again; damaged it is refused, unless what is left can be read.
    Learned,
}

/// Copies the files of a directory, not its folders but those of blobs.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// The daemon's directory as it was, without its logs.
fn restore(daemon: &Daemon, whole: &Path) {
    for entry in fs::read_dir(&daemon.data_dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    // They may be elsewhere, or not there yet.
    let _ = fs::remove_dir_all(daemon.data_dir.join("logs"));
    copy(whole, &daemon.data_dir);
}

/// Starts the daemon on damaged data. Returns what it said if it refused.
async fn refusal(daemon: &mut Daemon, file: &str, damage: Damage) -> Option<String> {
    daemon.spawn();
    let status = daemon.started_or_ended().await;
    let errors = daemon.errors();
    assert!(!errors.contains("panicked"), "{file} {damage:?}: {errors}");
    let Some(status) = status else {
        if file == "cluster.json" && damage != Damage::Deleted {
            says_that_it_is_refused(daemon).await;
        }
        daemon.reap();
        return None;
    };
    assert_eq!(status.code(), Some(DATA), "{file} {damage:?}: {errors}");
    let lines: Vec<&str> = errors.lines().filter(|line| line.starts_with("idunnod: ")).collect();
    let [line] = lines[..] else { panic!("{file} {damage:?}: {errors}") };
    assert!(line.contains(&daemon.data_dir.join(file).display().to_string()), "{file} {damage:?}: {line}");
    Some(line.to_owned())
}

/// Half of a number is a number: a member that takes its cluster for another one is refused, and logs what to do.
async fn says_that_it_is_refused(daemon: &Daemon) {
    let is_said = |line: &str| line.contains("not introduced") && line.contains("recover --forget-log");
    let limit = Instant::now() + SOON;
    while !daemon.log().lines().any(is_said) {
        assert!(Instant::now() < limit, "a wrong cluster.json went unnoticed\n{}", daemon.log_tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Damages each file in each way, and checks what a start makes of it.
async fn damage_each(daemon: &mut Daemon, whole: &Path, files: &[(&str, Weight, &str)]) {
    for &(file, weight, way_out) in files {
        for damage in ALL {
            restore(daemon, whole);
            damage.inflict(&daemon.data_dir.join(file));
            let refused = refusal(daemon, file, damage).await;
            println!("{file} {damage:?}: {}", refused.as_deref().unwrap_or("starts"));
            match (weight, damage) {
                (Weight::Spare, _) | (Weight::Learned, Damage::Deleted) => {
                    assert_eq!(refused, None, "{file} {damage:?}");
                }
                (Weight::Learned, Damage::OneBitFlipped | Damage::Halved) => {}
                // Most of a log's pages are free. The store's own tests flip bits all over it.
                (Weight::Needed, Damage::OneBitFlipped) if file == "metadata.redb" => {}
                (Weight::Learned | Weight::Needed, _) => {
                    let line = refused.unwrap_or_else(|| panic!("{file} {damage:?} went unnoticed"));
                    assert!(line.contains(way_out), "{file} {damage:?}: {line}");
                }
            }
        }
    }
}

/// A copy of what a daemon that was stopped left behind.
async fn stopped(daemon: &mut Daemon, to: PathBuf) -> PathBuf {
    daemon.signal(Signal::TERM);
    daemon.ended(SOON).await;
    copy(&daemon.data_dir, &to);
    fs::write(to.join("runtime.json"), "{}").unwrap();
    to
}

#[tokio::test(flavor = "multi_thread")]
async fn each_damaged_file_is_named_with_the_way_out_or_costs_nothing() {
    let _turn = heavy().await;
    let mut cluster = LocalCluster::start(1, false).await;
    cluster
        .eventually("the member remembers its cluster", SOON, async || {
            let file = cluster.members[0].data_dir.join("cluster.json");
            if file.exists() { Ok(()) } else { Err(String::from("no cluster.json")) }
        })
        .await;
    let path = cluster.path().to_owned();
    let whole = stopped(&mut cluster.members[0], path.join("whole")).await;
    fs::write(whole.join("peers.json"), r#"["127.0.0.1:1"]"#).unwrap();
    fs::write(whole.join("supersedes.json"), "[7]").unwrap();
    let forget_log = "recover --forget-log --yes";
    let files = [
        ("metadata.redb", Weight::Needed, forget_log),
        ("identity.json", Weight::Needed, forget_log),
        ("FORMAT", Weight::Learned, "echo 'idunno 2'"),
        ("cluster.json", Weight::Learned, forget_log),
        ("peers.json", Weight::Spare, ""),
        ("supersedes.json", Weight::Spare, ""),
        ("runtime.json", Weight::Spare, ""),
        ("lock", Weight::Spare, ""),
    ];
    damage_each(&mut cluster.members[0], &whole, &files).await;
    fs::remove_file(whole.join("cluster.json")).unwrap();
    fs::write(whole.join("must-join.json"), "true").unwrap();
    damage_each(&mut cluster.members[0], &whole, &[("must-join.json", Weight::Learned, forget_log)]).await;

    let whole = stopped(&mut cluster.introducer, path.join("introducer-whole")).await;
    let files =
        [("introducer.json", Weight::Learned, "delete it"), ("FORMAT", Weight::Learned, "echo 'idunno 2'")];
    damage_each(&mut cluster.introducer, &whole, &files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_with_a_damaged_log_takes_the_way_out_that_it_names_and_keeps_its_blobs() {
    let _turn = heavy().await;
    let mut cluster = LocalCluster::start(4, false).await;
    let expected = crate::harness::Expected::small("kept", 0..20);
    expected.put(&cluster).await;
    cluster.kill(&[1]);
    Damage::Zeroed.inflict(&cluster.members[1].data_dir.join("metadata.redb"));
    let line = refusal(&mut cluster.members[1], "metadata.redb", Damage::Zeroed).await.unwrap();
    let (_, command) = line.split_once("run 'idunnod recover ").unwrap();
    let (arguments, _) = command.split_once('\'').unwrap();
    let further: Vec<&str> = arguments.split(' ').take_while(|word| *word != "--data-dir").collect();
    recover(&cluster.members[1].data_dir, &further).unwrap();
    cluster.restart(&[1]).await;
    cluster.ready().await;
    expected.verify(&cluster).await;
}
