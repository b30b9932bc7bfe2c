//! What the program takes care of: nothing is done to the wrong member or file, nothing by halves, nothing left behind.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

mod fake;

use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use fake::{cluster, code, err, idunno, out};
use idunno_shared::ids::{Digest, JobId};
use idunno_shared::wire::blobs::{BlobRef, Holder, PlacedBlob};
use idunno_shared::wire::control::{
    Attributes, Change, Changed, ControlReply, ControlRequest, FileVersion, JobState, JobView, MemberView,
    ModelView, SegmentView,
};
use idunno_shared::wire::frame::Reply;
use idunno_shared::wire::jobs::QueryRange;
use idunno_shared::wire::refusal::{Refusal, RefusalCode};

/// A holder that takes connections, and answers none.
static FROZEN: LazyLock<TcpListener> = LazyLock::new(|| TcpListener::bind("127.0.0.1:0").unwrap());

fn job() -> JobView {
    let added = JobView::added(JobId(1), "m".parse().unwrap(), "d".parse().unwrap(), 2.into());
    JobView { submitted: 5, ..added }
}

/// Knows one job, and a file that never comes; nobody coordinates its models.
fn answer(request: ControlRequest, member: &MemberView) -> Reply {
    let reply = match request {
        ControlRequest::Members => ControlReply::Members(vec![member.clone()]),
        ControlRequest::Join | ControlRequest::Leave => ControlReply::Done,
        ControlRequest::JobPage { .. } => ControlReply::JobPage { jobs: vec![job()], more: false },
        ControlRequest::Jobs(Some(JobId(1))) => ControlReply::Jobs(vec![job()]),
        ControlRequest::Models => return Reply::Refused(Refusal::new(RefusalCode::NoQuorum, "not now")),
        ControlRequest::Change { change: Change::TrainStart { models, .. }, .. } => {
            ControlReply::Changed(Changed::Training(models))
        }
        ControlRequest::Change { change: Change::StartJob { job: JobId(1), .. }, .. } => {
            ControlReply::Changed(Changed::JobStarted { submitted: 5 })
        }
        ControlRequest::Locate { names, .. } => {
            let holder = Holder { node: member.id, address: FROZEN.local_addr().unwrap() };
            let blob = BlobRef { digest: Digest::default(), size: 7 };
            let file = FileVersion {
                name: names[0].clone(),
                version: 1,
                size: 7,
                digest: Digest::default(),
                created_ms: 0,
                extents: vec![PlacedBlob { blob, holders: vec![holder] }],
                attributes: Attributes::new(),
            };
            ControlReply::Located(vec![Some(file)])
        }
        other => panic!("{other:?}"),
    };
    Reply::Control(Box::new(reply))
}

#[test]
fn orders_to_leave_and_join_name_their_member() {
    let address = cluster(answer).to_string();
    let several = format!("{address},127.0.0.1:1");
    for verb in ["leave", "join"] {
        let nobody = idunno(&["--cluster", &several, verb]);
        assert!(code(&nobody) == 2 && err(&nobody).contains("--member"), "{}", err(&nobody));
        for arguments in
            [&["--cluster", &address, verb][..], &["--cluster", &several, verb, "--member", "m1"]]
        {
            let done = idunno(arguments);
            assert_eq!(code(&done), 0, "{}", err(&done));
        }
    }
}

#[test]
fn several_jobs_are_changed_only_if_all_exist() {
    let address = cluster(answer).to_string();
    let with = |arguments: &[&str]| idunno(&[&["--cluster", address.as_str()], arguments].concat());
    for verb in ["start-job", "stop-job"] {
        let output = with(&[verb, "job-1", "job-9", "job-8"]);
        assert_eq!(code(&output), 3, "{}", err(&output));
        assert!(err(&output).contains("there is no job-9: get-job-stats lists the jobs"), "{}", err(&output));
    }
    // The fake refuses to start a job twice.
    let once = with(&["start-job", "job-1", "job-1"]);
    assert_eq!((code(&once), out(&once).as_str()), (0, "job-1 started: 5 queries\n"), "{}", err(&once));
}

#[test]
fn a_job_that_is_over_is_not_guessed_where_it_is_changed() {
    let over = |id| JobView { id: JobId(id), state: JobState::Done, ..job() };
    let address = cluster(move |request, _| match request {
        ControlRequest::JobPage { .. } => {
            Reply::Control(Box::new(ControlReply::JobPage { jobs: vec![over(1), over(2)], more: false }))
        }
        other => panic!("{other:?}"),
    })
    .to_string();
    for verb in
        [&["delete-job", "m", "--yes"][..], &["dead-letters", "drop", "m"], &["dead-letters", "retry", "m"]]
    {
        for dry_run in [&[][..], &["--dry-run"]] {
            let refused = idunno(&[&["--cluster", address.as_str()], dry_run, verb].concat());
            assert_eq!(code(&refused), 6, "{verb:?}: {}", out(&refused));
            assert!(err(&refused).contains("say job-1 or job-2"), "{verb:?}: {}", err(&refused));
        }
    }
}

/// Whatever destroys names its option where nobody can be asked, and does nothing; the manual's commands never ask.
#[test]
fn what_destroys_needs_its_confirmation_where_nobody_can_be_asked() {
    static CHANGES: AtomicUsize = AtomicUsize::new(0);
    let address = cluster(|request, member| match request {
        ControlRequest::Models => {
            let model = ModelView {
                model: "m".parse().unwrap(),
                version: None,
                training: false,
                failure: None,
                workers: vec![],
                progress: vec![],
                metrics: vec![],
                package: None,
            };
            Reply::Control(Box::new(ControlReply::Models(vec![model])))
        }
        ControlRequest::Change { change, .. } => {
            CHANGES.fetch_add(1, Ordering::Relaxed);
            let changed = match change {
                Change::DropDeadLetters { .. } => Changed::Dropped { queries: 1 },
                Change::Delete { .. } => Changed::Deleted { versions: 1 },
                _ => Changed::Done,
            };
            Reply::Control(Box::new(ControlReply::Changed(changed)))
        }
        other => answer(other, member),
    })
    .to_string();
    let with = |arguments: &[&str]| idunno(&[&["--cluster", address.as_str()], arguments].concat());
    let destroying = [
        (&["cancel-job", "job-1"][..], "this ends job-1 for good"),
        (&["dead-letters", "drop", "job-1"], "all dead letters of job-1"),
        (&["dead-letters", "drop", "job-1", "3"], "1 dead letter of job-1"),
        (&["model", "rm", "m"], "this permanently removes model m"),
        (&["identity", "revoke", "anna"], "all identities and access keys of anna"),
        (&["delete-job", "job-1"], "this permanently deletes job-1"),
    ];
    for (arguments, what) in destroying {
        let refused = with(arguments);
        assert_eq!(code(&refused), 6, "{arguments:?}: {}", err(&refused));
        assert!(err(&refused).contains(what), "{arguments:?}: {}", err(&refused));
        assert!(err(&refused).ends_with(": pass --yes to confirm\n"), "{}", err(&refused));
    }
    assert_eq!(CHANGES.load(Ordering::Relaxed), 0);
    for (arguments, _) in destroying {
        let done = with(&[arguments, &["--yes"]].concat());
        assert_eq!(code(&done), 0, "{arguments:?}: {}", err(&done));
    }
    assert_eq!(CHANGES.load(Ordering::Relaxed), destroying.len());
    assert_eq!(code(&with(&["model", "rm", "other"])), 3, "what does not exist is not asked about");
    for arguments in [&["delete", "a"][..], &["stop-job", "job-1"]] {
        let done = with(arguments);
        assert_eq!(code(&done), 0, "{arguments:?}: {}", err(&done));
    }
}

#[test]
fn a_dry_run_writes_no_local_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("written");
    let path = path.to_str().unwrap();
    for verb in [
        &["cluster", "init", "--out", path][..],
        &["get", "a", path],
        &["get-versions", "a", "2", path],
        &["get-dataset", "a", path],
        &["get-job-results", "job-1", path],
        &["backup", path],
        &["man", path],
    ] {
        let refused = idunno(&[&["--dry-run", "--cluster", "127.0.0.1:1"], verb].concat());
        assert_eq!(code(&refused), 2, "{verb:?}: {}{}", out(&refused), err(&refused));
        assert!(err(&refused).contains("this one writes local files"), "{verb:?}: {}", err(&refused));
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_models_name_stands_for_its_job() {
    let address = cluster(answer).to_string();
    let with = |arguments: &[&str]| idunno(&[&["--cluster", address.as_str()], arguments].concat());
    let started = with(&["start-job", "m", "job-1"]);
    assert_eq!(
        (code(&started), out(&started).as_str()),
        (0, "job-1 started: 5 queries\n"),
        "{}",
        err(&started)
    );
    let planned = with(&["--dry-run", "stop-job", "lenet"]);
    assert_eq!(code(&planned), 3, "{}", out(&planned));
    assert!(err(&planned).contains("no job of a model lenet"), "{}", err(&planned));
}

#[test]
fn waiting_outlasts_a_cluster_without_a_coordinator() {
    let address = cluster(answer).to_string();
    let output = idunno(&["--cluster", &address, "--timeout", "1", "train-start", "mnist-mlp", "--wait"]);
    assert_eq!(code(&output), 5, "nobody answers what becomes of it: {}", err(&output));
}

/// A member that coordinates, and knows an empty file and a job without rows.
fn empty(request: ControlRequest, member: &MemberView) -> Reply {
    let file = FileVersion {
        name: "empty".parse().unwrap(),
        version: 1,
        size: 0,
        digest: Digest::default(),
        created_ms: 0,
        extents: vec![],
        attributes: Attributes::new(),
    };
    let reply = match request {
        ControlRequest::Versions { .. } => ControlReply::Versions(vec![file]),
        ControlRequest::Locate { .. } => ControlReply::Located(vec![Some(file)]),
        ControlRequest::DeadLetters { .. } => ControlReply::DeadLetters { dead_letters: vec![], more: false },
        ControlRequest::Results { .. } => {
            ControlReply::Results { segments: vec![], more: false, job: JobView { submitted: 0, ..job() } }
        }
        other => return answer(other, member),
    };
    Reply::Control(Box::new(reply))
}

#[test]
fn directories_are_not_replaced_and_devices_take_what_they_are_given() {
    let address = cluster(empty).to_string();
    for arguments in [&["get", "empty"][..], &["get-versions", "empty", "1"], &["get-job-results", "job-1"]] {
        let to = |target| idunno(&[&["--cluster", address.as_str()], arguments, &[target]].concat());
        let refused = to("/tmp");
        assert!(code(&refused) == 6 && err(&refused).contains("it is a directory"), "{}", err(&refused));
        assert_ne!(code(&to("/dev/null")), 6, "{arguments:?}: {}", err(&to("/dev/null")));

        assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_is_standard_output_gets_the_data_and_stays_that_file() {
    use std::os::unix::fs::MetadataExt;

    let (address, root) = (cluster(empty).to_string(), tempfile::tempdir().unwrap());
    let path = root.path().join("out");
    for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let file = std::fs::File::create(&path).unwrap();
        let inode = file.metadata().unwrap().ino();
        let output = Command::new(env!("CARGO_BIN_EXE_idunno"))
            .args(["--cluster", &address, "get-versions", "empty", "1", name])
            .stdout(file)
            .stderr(std::process::Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(code(&output), 0, "{}", err(&output));
        assert_eq!(path.metadata().unwrap().ino(), inode, "{name} was replaced");
        let got = std::fs::read_to_string(&path).unwrap();
        assert!(got.starts_with("==== empty version 1 ") && got.ends_with(" ====\n\n"), "{name}: {got:?}");
        assert!(err(&output).starts_with("note: "), "{}", err(&output));
        assert!(err(&output).ends_with("1 version on standard output\n"), "{}", err(&output));
    }
    assert_eq!(root.path().read_dir().unwrap().count(), 1);
}

/// What cannot be written to standard error is lost, and the exit code is the command's.
#[cfg(target_os = "linux")]
#[test]
fn a_standard_error_that_takes_nothing_changes_no_outcome() {
    let address = cluster(answer).to_string();
    for (arguments, expected) in [(&["stop-job", "job-9"][..], 3), (&["no-such-command"], 2)] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_idunno"));
        let status = command.args(["--cluster", &address]).args(arguments).stderr(full).status().unwrap();
        assert_eq!(status.code(), Some(expected), "{arguments:?}");
    }
}

#[test]
fn settings_that_are_not_understood_stop_every_command_that_asks_a_cluster() {
    let (address, dir) = (cluster(answer).to_string(), tempfile::tempdir().unwrap());
    let path = dir.path().join("config.toml");
    std::fs::write(&path, "read_only = true\n[aliases]\nx = 'delete'\n[colours]\n").unwrap();
    let with = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_idunno"));
        command.args(arguments).env("IDUNNO_CONFIG_DIR", dir.path()).output().unwrap()
    };
    for arguments in [&["--cluster", &address, "delete", "a"][..], &["ls"], &["x", "a"], &[], &["shell"]] {
        let refused = with(arguments);
        let place = format!("error: {}, line 4: '[colours]': ", path.display());
        assert!(code(&refused) == 2 && err(&refused).starts_with(&place), "{}", err(&refused));
    }
    for arguments in [&["--help"][..], &["keys"], &["gen-config"], &["completions", "bash"]] {
        assert!([0, 7].contains(&code(&with(arguments))), "{arguments:?}: {}", err(&with(arguments)));
    }
    let info = with(&["info"]);
    assert!(code(&info) == 7 && err(&info).contains("line 4"), "{}", err(&info));
}

#[test]
fn what_a_terminal_would_obey_is_shown_as_escapes() {
    let address = cluster(|request, member| match request {
        ControlRequest::Jobs(None) => {
            let dataset = "gpj.\u{202e}exe\u{200b}".parse().unwrap();
            let state = JobState::Paused(String::from("\u{1b}[2Jall is well\r\n"));
            Reply::Control(Box::new(ControlReply::Jobs(vec![JobView { dataset, state, ..job() }])))
        }
        ControlRequest::Models => Reply::Refused(Refusal::not_found("\u{1b}]0;title\u{7}no models\u{9b}1m")),
        other => answer(other, member),
    })
    .to_string();
    let shown = |arguments: &[&str]| {
        let output = idunno(&[&["--cluster", address.as_str()], arguments].concat());
        out(&output) + &err(&output)
    };
    for arguments in [&["get-job-stats"][..], &["get-models"], &["--output", "json", "get-job-stats"]] {
        let text = shown(arguments);
        let hidden = text.chars().find(|c| *c != '\n' && idunno_shared::text::is_hidden(*c));
        assert_eq!(hidden, None, "{text:?}");
    }
    assert!(shown(&["get-models"]).contains("\\u{1b}]0;title\\u{7}no models\\u{9b}1m"));
}

#[test]
fn a_segment_that_nobody_gives_is_located_again() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = cluster(move |request, member| {
        let reply = match request {
            ControlRequest::DeadLetters { .. } => {
                ControlReply::DeadLetters { dead_letters: vec![], more: false }
            }
            ControlRequest::Results { skip: 0, .. } => {
                ASKED.fetch_add(1, Ordering::Relaxed);
                let blob = BlobRef { digest: Digest::default(), size: 7 };
                let segment = PlacedBlob { blob, holders: vec![Holder { node: member.id, address: gone }] };
                let segments = vec![SegmentView { segment, ranges: vec![QueryRange { first: 0, count: 1 }] }];
                ControlReply::Results { segments, more: false, job: job() }
            }
            other => return answer(other, member),
        };
        Reply::Control(Box::new(reply))
    });
    let output = idunno(&["--cluster", &address.to_string(), "--timeout", "1", "get-job-results", "job-1"]);
    assert!(code(&output) == 1 && err(&output).contains("no holder returned"), "{}", err(&output));
    assert!(ASKED.load(Ordering::Relaxed) > 1, "it was given up at once");
}

/// A get whose holder never answers, ended by Ctrl-C, by a request to end, and by a terminal that closes.
#[cfg(unix)]
#[test]
fn an_interrupted_get_leaves_nothing_behind() {
    use rustix::process::Signal;

    let address = cluster(answer).to_string();
    for (signal, exit, word) in [
        (Signal::INT, 130, "interrupted"),
        (Signal::TERM, 143, "terminated"),
        (Signal::HUP, 143, "terminated"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("slow");
        let child = Command::new(env!("CARGO_BIN_EXE_idunno"))
            .args(["--cluster", &address, "get", "slow", &target.display().to_string()])
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let entries = || root.path().read_dir().unwrap().count();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while entries() == 0 {
            assert!(std::time::Instant::now() < deadline, "the get did not begin");
            std::thread::yield_now();
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((code(&output), err(&output)), (exit, format!("error: {word}\n")));
        assert_eq!(entries(), 0, "a part was left");
    }
}
