//! The console in a real terminal, on a real cluster of three processes whose coordinator is killed.
//!
//! Needs `idunnod` beside `idunno` (`cargo build -p idunno-daemon`).

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

mod disks;
mod pty;
mod truth;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use idunno_console::console::terminal::Screen;
use rustix::process::Signal;

use disks::SmallDisk;
use pty::{LIMIT, Terminal};

const IDUNNO: &str = env!("CARGO_BIN_EXE_idunno");
/// Set in the process that panics while it owns the terminal.
const PANICS: &str = "IDUNNO_TEST_PANICS";
/// For this long an idle console must write nothing.
const QUIET: Duration = Duration::from_secs(5);

/// One cluster at a time: the tests depend on timing, and CI machines are small.
static GATE: Mutex<()> = Mutex::new(());

struct Cluster {
    /// Unmounted before the folder is removed.
    disks: Vec<SmallDisk>,
    dir: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Cluster {
    fn start() -> Self {
        let alone = GATE.lock().unwrap_or_else(PoisonError::into_inner);
        Self { disks: Vec::new(), dir: tempfile::tempdir().unwrap(), _alone: alone }.up()
    }

    /// One whose members have a small disk each.
    fn start_on_small_disks() -> Self {
        let alone = GATE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let disks = ["m1", "m2", "m3"].map(|name| SmallDisk::mount(dir.path().join(name))).into();
        Self { disks, dir, _alone: alone }.up()
    }

    fn up(self) -> Self {
        let cluster = self;
        let daemon = daemon();
        let up = ["local", "up", "--members", "3", "--idunnod", daemon.to_str().unwrap()];
        let done = cluster.run(&up);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        cluster
    }

    fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(IDUNNO);
        command.args(["--dir", self.path()]).args(arguments).env_remove("IDUNNO_CLUSTER");
        command.output().unwrap()
    }

    fn console(&self, variables: &[(&str, &str)]) -> Terminal {
        Terminal::start(Path::new(IDUNNO), &["--dir", self.path()], variables)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.run(&["local", "down"]);
    }
}

/// The daemon's binary, which another package builds.
fn daemon() -> PathBuf {
    let program = Path::new(IDUNNO).with_file_name("idunnod");
    assert!(program.is_file(), "build it first: cargo build -p idunno-daemon");
    program
}

fn coordinator(screen: &str) -> String {
    let after = screen.split("coordinator ").nth(1).unwrap_or_default();
    after.split(['@', ' ']).next().unwrap_or_default().to_owned()
}

#[test]
fn the_tour_is_shown_once() {
    let cluster = Cluster::start();
    let config = cluster.dir.path().join("new/idunno");
    let settings = [("IDUNNO_CONFIG_DIR", config.to_str().unwrap())];
    let mut console = cluster.console(&settings);
    console.shows("tour 1 of 3");
    console.press("\r");
    console.shows("tour 2 of 3");
    console.press("\x1b");
    console.until("no tour", |it| !it.screen().contains("tour "));
    console.until("it is remembered", |_| config.join("tour-seen").exists());
    let mut again = cluster.console(&settings);
    again.shows("● LIVE");
    assert!(!again.screen().contains("tour "), "{}", again.screen());
    again.press("\x14");
    again.shows("tour 1 of 3");
}

#[test]
fn the_console_survives_its_coordinator_and_keeps_the_selection_and_the_events() {
    let cluster = Cluster::start();
    let config = cluster.dir.path().join("kept");
    std::fs::create_dir(&config).unwrap();
    std::fs::write(config.join("tour-seen"), "").unwrap();
    let settings = [("IDUNNO_CONFIG_DIR", config.to_str().unwrap())];
    let mut console = cluster.console(&settings);
    console.shows("● LIVE");
    console.press("2");
    console.until("three members", |it| it.screen().matches("● up").count() == 3);
    console.press("j");
    console.until("m2 selected", |it| it.is_selected("m2"));
    // Before the others vote, no cluster survives its only voter.
    console.until("all are voters", |it| it.screen().matches("voter").count() == 2);
    let before = coordinator(&console.screen());
    let (first, seen) = (console.frames.len(), console.screen());
    assert!(seen.contains("term "), "{seen}");

    assert!(cluster.run(&["local", "kill", "--coordinator"]).status.success());
    console.until("another coordinator", |it| {
        let screen = it.screen();
        screen.contains("● LIVE") && coordinator(&screen) != before
    });
    let frames = &console.frames[first..];
    assert!(frames.iter().any(|frame| frame.contains("ELECTING")), "{}", frames.join("\n---\n"));
    for frame in frames {
        // Never blank: the last data stays on screen.
        assert!(frame.contains("NAME") && frame.contains("m1") && frame.contains("m3"), "{frame}");
    }
    console.until("m2 selected", |it| it.is_selected("m2"));
    console.until("the dead member", |it| it.screen().contains("✖ dead"));
    console.press("8");
    console.shows(&format!("{before} is dead"));
    console.shows("became coordinator in term");
    console.press("q");
    assert_eq!(console.exit_code(), 0);
    let mut again = cluster.console(&settings);
    again.shows("● LIVE");
    again.press("8");
    again.shows(&format!("{before} is dead"));
    again.shows("became coordinator in term");
}

#[test]
fn an_idle_console_writes_nothing() {
    let cluster = Cluster::start();
    let mut console = cluster.console(&[]);
    console.shows("● LIVE");
    console.press("2");
    console.shows("MODEL SERVER");
    // A cluster that has just formed still has changes to show.
    let started = Instant::now();
    while console.read(QUIET) {
        assert!(started.elapsed() < 2 * LIMIT, "it never stops writing: {}", console.screen());
    }
}

#[test]
fn without_colours_the_selection_is_visible() {
    let cluster = Cluster::start();
    let mut console = cluster.console(&[("NO_COLOR", "1")]);
    console.shows("● LIVE");
    console.press("2");
    console.until("m1 selected", |it| it.is_selected("m1"));
    let raw = String::from_utf8_lossy(&console.raw).into_owned();
    assert!(!raw.contains("[38;5;") && !raw.contains("[48;5;"), "a colour was set");
}

#[test]
fn the_terminal_is_restored_after_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let mut console = Terminal::start(Path::new(IDUNNO), &["--dir", path], &[]);
    let before = console.before.clone();
    console.shows("idunno");
    console.until("raw mode", |it| it.settings() != before);
    console.signal(Signal::TERM);
    assert_eq!(console.exit_code(), 0);
    console.writes(b"\x1b[?1049l");
    assert_eq!(console.settings(), before);
}

#[test]
fn ctrl_z_restores_the_terminal_and_the_console_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let mut console = Terminal::start(Path::new(IDUNNO), &["--dir", path], &[]);
    let before = console.before.clone();
    console.shows("idunno");
    console.press("\x1a");
    console.until("stopped", |it| it.process_state() == Some('T'));
    console.writes(b"\x1b[?1049l");
    assert_eq!(console.settings(), before);
    console.signal(Signal::CONT);
    console.until("raw mode", |it| it.settings() != before);
    // A frame drawn from now on comes from the resumed loop, which reads keys again.
    let frames = console.frames.len();
    console.until("a new frame", |it| it.frames.len() > frames && it.screen().contains("overview"));
    console.press("q");
    assert_eq!(console.exit_code(), 0);
    assert_eq!(console.settings(), before);
}

#[test]
fn the_terminal_is_restored_after_a_panic() {
    if std::env::var_os(PANICS).is_some() {
        let _screen = Screen::open(true).unwrap();
        panic!("on purpose");
    }
    let test = std::env::current_exe().unwrap();
    let name = "the_terminal_is_restored_after_a_panic";
    let mut process = Terminal::start(&test, &["--exact", name, "--nocapture"], &[(PANICS, "1")]);
    let before = process.before.clone();
    assert_ne!(process.exit_code(), 0);
    process.writes(b"\x1b[?1000h");
    process.writes(b"\x1b[?1000l");
    process.writes(b"\x1b[?1049l");
    process.writes(b"on purpose");
    assert_eq!(process.settings(), before);
}

#[test]
fn a_person_is_asked_before_a_file_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let local = dir.path().join("kept");
    std::fs::write(&local, "old").unwrap();
    let get = ["--cluster", "127.0.0.1:1", "--timeout", "1", "get", "a", local.to_str().unwrap()];
    // Whoever says yes gets as far as the cluster, which is not there.
    for (answer, exit, said) in [("n", 6, "not confirmed"), ("", 6, "not confirmed"), ("y", 4, "no answer")] {
        let mut command = Terminal::start(Path::new(IDUNNO), &get, &[]);
        command.writes(b"go on? [y/N] ");
        command.press(&format!("{answer}\r"));
        command.writes(said.as_bytes());
        assert_eq!(command.exit_code(), exit, "{answer}");
    }
    assert_eq!(std::fs::read_to_string(&local).unwrap(), "old");
    // Without a person there is nobody to ask.
    let refused = Command::new(IDUNNO).args(get).stdin(std::process::Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(6) && said.contains("pass --force to confirm"), "{said}");
}

#[test]
fn a_person_is_asked_before_something_is_destroyed_and_not_by_the_manuals_commands() {
    let nowhere = ["--cluster", "127.0.0.1:1", "--timeout", "1"];
    let revoke = [&nowhere[..], &["identity", "revoke", "anna"]].concat();
    // Whoever says yes gets as far as the cluster, which is not there.
    for (answer, exit, said) in [("n", 6, "not confirmed"), ("y", 4, "no answer")] {
        let mut command = Terminal::start(Path::new(IDUNNO), &revoke, &[]);
        command.writes(b"at once and for good: go on? [y/N] ");
        command.press(&format!("{answer}\r"));
        command.writes(said.as_bytes());
        assert_eq!(command.exit_code(), exit, "{answer}");
    }
    for unasked in [&["delete", "a"][..], &["identity", "revoke", "anna", "--yes"]] {
        let mut command = Terminal::start(Path::new(IDUNNO), &[&nowhere[..], unasked].concat(), &[]);
        assert_eq!(command.exit_code(), 4, "{unasked:?}");
        assert!(!String::from_utf8_lossy(&command.raw).contains("go on?"), "{unasked:?}");
    }
}
