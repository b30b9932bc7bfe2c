//! What the program takes care of: nothing is done to the wrong member or file, nothing by halves, nothing left behind.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

mod fake;

use std::net::TcpListener;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use fake::{cluster, code, err, idunno, out};
use idunno_shared::ids::{Digest, JobId};
use idunno_shared::wire::blobs::{BlobRef, Holder, PlacedBlob};
use idunno_shared::wire::control::{
    Change, Changed, ControlReply, ControlRequest, FileVersion, JobState, JobView, MemberView, SegmentView,
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
        ControlRequest::Jobs(None) => ControlReply::Jobs(vec![job()]),
        ControlRequest::Models => return Reply::Refused(Refusal::new(RefusalCode::NoQuorum, "not now")),
        ControlRequest::Change { change: Change::TrainStart { models, .. }, .. } => {
            ControlReply::Changed(Changed::Training(models))
        }
        ControlRequest::Change { change: Change::StartJob { job: JobId(1) }, .. } => {
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
        ControlRequest::Jobs(None) => Reply::Control(Box::new(ControlReply::Jobs(vec![over(1), over(2)]))),
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

#[test]
fn what_is_no_file_is_never_replaced() {
    let address = cluster(answer).to_string();
    for arguments in [
        &["get", "docs/report.pdf"][..],
        &["get-versions", "docs/report.pdf", "1"],
        &["get-job-results", "job-1"],
    ] {
        let output = idunno(&[&["--cluster", address.as_str()], arguments, &["/dev/null"]].concat());
        assert!(code(&output) == 6 && err(&output).contains("not a regular file"), "{}", err(&output));
    }
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
            other => panic!("{other:?}"),
        };
        Reply::Control(Box::new(reply))
    });
    let output = idunno(&["--cluster", &address.to_string(), "--timeout", "1", "get-job-results", "job-1"]);
    assert!(code(&output) == 1 && err(&output).contains("no holder returned"), "{}", err(&output));
    assert!(ASKED.load(Ordering::Relaxed) > 1, "it was given up at once");
}

/// A get whose holder never answers, ended by Ctrl-C.
#[cfg(unix)]
#[test]
fn an_interrupted_get_leaves_nothing_behind() {
    let (address, root) = (cluster(answer).to_string(), tempfile::tempdir().unwrap());
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
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), err(&output).as_str()), (130, "error: interrupted\n"));
    assert_eq!(entries(), 0, "a part was left");
}
