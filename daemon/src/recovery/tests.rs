use std::fs;

use idunno_core::metadata::State;
use idunno_shared::backup::{self, BackupInfo};

use super::*;
use crate::runtime::data_dir::Identity;
use idunno_consensus::encode_state;

fn arguments(data_dir: &Path, forget_log: bool, yes: bool) -> Arguments {
    Arguments { data_dir: data_dir.to_path_buf(), forget_log, backup: None, yes }
}

/// A directory as a member leaves it, but for its log.
fn member(path: &Path) -> Identity {
    let data_dir = DataDir::open(path).unwrap();
    data_dir.write_json(CLUSTER_FILE, &NodeId(1)).unwrap();
    data_dir.write_json(PEERS_FILE, &["127.0.0.1:1"]).unwrap();
    fs::create_dir_all(path.join("blobs/ab")).unwrap();
    fs::write(path.join("blobs/ab/cd"), b"bytes").unwrap();
    fs::write(path.join(STORE_FILE), b"log").unwrap();
    data_dir.identity().unwrap()
}

fn output(arguments: &Arguments) -> String {
    let mut out = Vec::new();
    run(arguments, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn dropping_the_log_also_drops_the_identity_and_the_votes() {
    let dir = tempfile::tempdir().unwrap();
    let before = member(dir.path());
    let text = output(&arguments(dir.path(), true, false));
    assert!(text.contains("With --yes") && dir.path().join(STORE_FILE).exists(), "{text}");

    output(&arguments(dir.path(), true, true));
    let after = DataDir::open(dir.path()).unwrap().identity().unwrap();
    assert_ne!(before.id, after.id, "it might vote twice");
    for file in [STORE_FILE, CLUSTER_FILE, PEERS_FILE] {
        assert!(!dir.path().join(file).exists(), "{file} is still there");
    }
    assert_eq!(fs::read(dir.path().join("blobs/ab/cd")).unwrap(), b"bytes");
}

#[test]
fn a_directory_that_cannot_be_recovered_is_left_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let no_member = dir.path().join("no_member");
    let error = run(&arguments(&no_member, true, true), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("not the data directory of a member"), "{error}");
    assert!(!no_member.exists());

    let before = member(dir.path());
    let error = run(&arguments(dir.path(), false, true), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("cannot read the metadata log"), "{error}");
    let running = DataDir::open(dir.path()).unwrap();
    assert_eq!(running.identity().unwrap().id, before.id);
    let error = run(&arguments(dir.path(), true, true), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("in use by another daemon"), "{error}");
}

/// What determines how a member starts in a directory: its id, its cluster, the owner of its log, and whether it must join.
#[derive(Debug, PartialEq)]
struct Start {
    identity: Option<NodeId>,
    cluster: Option<NodeId>,
    log: Option<NodeId>,
    must_join: bool,
}

impl Start {
    /// `None` if a member refuses to start there.
    fn of(path: &Path) -> Option<Self> {
        let data_dir = DataDir::open(path).unwrap();
        check_startable(&data_dir).ok()?;
        let identity = data_dir.read_json::<Identity>(IDENTITY_FILE).unwrap().map(|identity| identity.id);
        let store = path.join(STORE_FILE);
        let log = store.exists().then(|| SurvivorLog::read(&store).unwrap().node);
        let cluster = data_dir.read_json(CLUSTER_FILE).unwrap();
        let must_join = path.join(MUST_JOIN_FILE).exists();
        // The log is opened under the member's id only.
        (log.is_none() || log == identity).then_some(Self { identity, cluster, log, must_join })
    }

    fn is_founder(&self) -> bool {
        self.identity.is_some()
            && self.log == self.identity
            && self.cluster == self.identity
            && !self.must_join
    }
}

fn origin() -> InitialState {
    InitialState::decode(3, 42, &encode_state(State::new()).unwrap()).unwrap()
}

/// A directory as a member of another's cluster leaves it, with its log.
fn with_log(path: &Path) -> NodeId {
    let id = member(path).id;
    fs::remove_file(path.join(STORE_FILE)).unwrap();
    origin().write_store(id, &path.join(STORE_FILE)).unwrap();
    id
}

fn backup_file(path: &Path) {
    let program_version = String::from("0.1.0");
    let about = BackupInfo {
        program_version,
        founder: Some(NodeId(1)),
        term: 3,
        index: 42,
        made_ms: 1,
        files: 0,
        jobs: 0,
    };
    let bytes = backup::encode(about, &encode_state(State::new()).unwrap()).unwrap();
    backup::write(path, &bytes).unwrap();
}

/// Interrupts `work` after each of its durable steps in turn, in a new directory each time, calls `check`, then repeats
/// `work` to its end and calls `check` again. Returns the number of steps.
fn interrupted(
    prepare: impl Fn(&Path),
    work: impl Fn(&Path, StepHook<'_>) -> Result<(), CannotRecover>,
    check: impl Fn(&Path, Option<Start>),
) -> usize {
    for steps in 1.. {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let mut left = steps;
        let stopped = work(dir.path(), &mut || {
            left -= 1;
            if left == 0 { Err(io::Error::other("stopped here").into()) } else { Ok(()) }
        });
        if stopped.is_ok() {
            return steps;
        }
        check(dir.path(), Start::of(dir.path()));
        work(dir.path(), &mut || Ok(())).unwrap();
        check(dir.path(), Start::of(dir.path()));
    }
    unreachable!()
}

#[test]
fn a_recovery_that_is_killed_at_any_step_leaves_no_mixture_and_can_be_repeated() {
    let old = std::cell::Cell::new(NodeId(0));
    let steps = interrupted(
        |path| old.set(with_log(path)),
        |path, passed| recover(&open(path)?, &mut Vec::new(), passed),
        |_, start| {
            let Some(start) = start else { return };
            let is_old = start.identity == Some(old.get())
                && start.log == Some(old.get())
                && start.cluster == Some(NodeId(1));
            assert!(is_old || (start.is_founder() && start.identity != Some(old.get())), "{start:?}");
        },
    );
    assert_eq!(steps, 9);
}

#[test]
fn a_restore_that_is_killed_at_any_step_founds_no_empty_cluster_over_blobs() {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("backup");
    backup_file(&file);
    let work = |path: &Path, passed: StepHook<'_>| restore(&file, path, true, &mut Vec::new(), passed);
    let forgetful = |path: &Path| {
        with_log(path);
        forget_log(&open(path).unwrap(), &mut Vec::new(), &mut || Ok(())).unwrap();
    };
    let check = |path: &Path, start: Option<Start>| {
        assert!(path.join("blobs/ab/cd").exists());
        let Some(start) = start else { return };
        assert!(start.is_founder() || (start.must_join && start.cluster.is_none()), "{start:?}");
    };
    assert_eq!(interrupted(forgetful, work, check), 9);
    let check = |_: &Path, start: Option<Start>| {
        let Some(start) = start else { return };
        assert!(start.is_founder() || (start.identity.is_none() && start.cluster.is_none()), "{start:?}");
    };
    assert_eq!(interrupted(|_| {}, work, check), 9);
}

#[test]
fn an_interrupted_drop_of_the_log_founds_no_cluster() {
    let old = std::cell::Cell::new(NodeId(0));
    let steps = interrupted(
        |path| old.set(with_log(path)),
        |path, passed| forget_log(&open(path)?, &mut Vec::new(), passed),
        |_, start| {
            let Some(start) = start else { return };
            let is_old = start.identity == Some(old.get()) && start.log == Some(old.get());
            let waits = start.must_join && start.log.is_none() && start.identity != Some(old.get());
            assert!((is_old && start.cluster.is_some()) || waits, "{start:?}");
        },
    );
    assert_eq!(steps, 8);
}

#[test]
fn a_damaged_cut_or_foreign_backup_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (file, path) = (dir.path().join("backup"), dir.path().join("member"));
    with_log(&path);
    let before = Start::of(&path);
    backup_file(&file);
    let whole = fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    let middle = whole.len() - 40;
    damaged[middle] ^= 1;
    for (bytes, words) in [
        (&damaged[..], "digest does not match"),
        (&whole[..whole.len() - 1], "bytes"),
        (b"something else", "is not a backup"),
    ] {
        fs::write(&file, bytes).unwrap();
        let error = restore(&file, &path, true, &mut Vec::new(), &mut || Ok(())).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("nothing was changed"), "{error}");
        assert!(error.contains(&file.display().to_string()), "{error}");
        assert_eq!(Start::of(&path), before);
        let no_member = dir.path().join("no_member");
        restore(&file, &no_member, true, &mut Vec::new(), &mut || Ok(())).unwrap_err();
        assert!(!no_member.exists());
    }
    fs::write(&file, &whole).unwrap();
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("introducer.json"), "{}").unwrap();
    let error = restore(&file, &other, true, &mut Vec::new(), &mut || Ok(())).unwrap_err();
    assert!(matches!(error, CannotRecover::NotEmpty { .. }), "{error}");

    let mut out = Vec::new();
    restore(&file, &path, false, &mut out, &mut || Ok(())).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("(term, index) = (3, 42)") && text.contains("Nothing was changed"), "{text}");
    assert_eq!(Start::of(&path), before);
    restore(&file, &path, true, &mut Vec::new(), &mut || Ok(())).unwrap();
    let after = Start::of(&path).unwrap();
    assert!(after.is_founder() && after.identity != before.unwrap().identity, "{after:?}");
}

#[test]
fn a_new_cluster_knows_which_ones_it_replaces() {
    let dir = tempfile::tempdir().unwrap();
    with_log(dir.path());
    let file = dir.path().with_extension("backup");
    backup_file(&file);
    let supersedes =
        |path: &Path| DataDir::open(path).unwrap().read_json::<Vec<NodeId>>(SUPERSEDES_FILE).unwrap();
    recover(&open(dir.path()).unwrap(), &mut Vec::new(), &mut || Ok(())).unwrap();
    assert_eq!(supersedes(dir.path()), Some(vec![NodeId(1)]));
    let second = Start::of(dir.path()).unwrap().cluster.unwrap();
    recover(&open(dir.path()).unwrap(), &mut Vec::new(), &mut || Ok(())).unwrap();
    assert_eq!(supersedes(dir.path()), Some(vec![second, NodeId(1)]));
    forget_log(&open(dir.path()).unwrap(), &mut Vec::new(), &mut || Ok(())).unwrap();
    assert_eq!(supersedes(dir.path()), None);

    let empty = tempfile::tempdir().unwrap();
    restore(&file, empty.path(), true, &mut Vec::new(), &mut || Ok(())).unwrap();
    assert_eq!(supersedes(empty.path()), Some(vec![NodeId(1)]), "the backup's cluster");
}
