//! Invalid requests are refused with the right code and the name at fault, and change nothing.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use idunno_shared::client::files::{GetError, NoProgress, PutError, PutItem, PutOptions};
use idunno_shared::client::frames::{read_frame, write_frame};
use idunno_shared::client::link::Dial;
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::ids::{JobId, NodeId, OpId, Term, UploadId};
use idunno_shared::wire::control::{Change, Changed, ControlRequest, JobOptions, JobState, NewFile};
use idunno_shared::wire::frame::{Answer, Purpose, Reply};
use idunno_shared::wire::jobs::Training;
use idunno_shared::wire::refusal::RefusalCode::{Conflict, Invalid, NotFound, UploadOver};
use tokio::time::timeout;

use crate::harness::{
    Expected, LocalCluster, assert_refused, dataset, heavy, light, name, put_dataset, run_to_end,
};

fn add_job(model: &str, dataset: &str, batch_size: u32) -> Change {
    let (model, dataset) = (model.parse().unwrap(), dataset.parse().unwrap());
    Change::AddJob { model, dataset, batch_size: batch_size.into(), options: JobOptions::default() }
}

fn train(models: &[&str]) -> Change {
    Change::TrainStart {
        models: models.iter().map(|model| model.parse().unwrap()).collect(),
        training: Training { seed: 1, ..Training::default() },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_and_change_nothing() {
    let _turn = light().await;
    let cluster = LocalCluster::start(1, false).await;
    let (client, files) = (cluster.client(), cluster.files());
    let kept = Expected::small("kept", 0..3);
    kept.put(&cluster).await;
    let job = cluster.add_job("mnist-mlp", "kept", 8).await;
    let empty = cluster.add_job("mnist-mlp", "nothing-here", 8).await;
    let revision = cluster.revision().await;
    let unknown = JobId(77);

    let upload = UploadId { term: Term(1), number: 999 };
    let digest = idunno_shared::ids::Digest::default();
    let lost = NewFile { name: name("x"), size: 0, digest, extents: Vec::new() };
    for (change, code, named) in [
        (add_job("no-such-model", "kept", 8), NotFound, "no-such-model"),
        (train(&["no-such-model"]), NotFound, "no-such-model"),
        (train(&["mnist-mlp", "no-such-model"]), NotFound, "no-such-model"),
        (add_job("mnist-mlp", "kept", 5000), Invalid, "5000"),
        (Change::SetBatchSize { job, batch_size: 5000.into() }, Invalid, "5000"),
        (Change::SetBatchSize { job: unknown, batch_size: 5.into() }, NotFound, "job-77"),
        (Change::start(unknown), NotFound, "job-77"),
        (Change::StopJob { job: unknown }, NotFound, "job-77"),
        (Change::RetryDeadLetters { job: unknown, queries: vec![] }, NotFound, "job-77"),
        (Change::start(job), Conflict, "mnist-mlp"),
        (Change::start(empty), Conflict, "mnist-mlp"),
        (Change::StopJob { job }, Conflict, "has not been started"),
        (Change::RetryDeadLetters { job, queries: vec![] }, Conflict, "no dead letters"),
        (Change::Delete { name: name("kept/none") }, NotFound, "kept/none"),
        (Change::CommitFiles { upload, files: vec![lost] }, UploadOver, "upload"),
    ] {
        println!("{change:?}");
        assert_refused(client.change(change).await, &code, named);
    }
    for (request, named) in [
        (ControlRequest::Jobs(Some(unknown)), "job-77"),
        (ControlRequest::Assignments(Some(unknown)), "job-77"),
        (ControlRequest::Results { job: unknown, skip: 0, limit: 10 }, "job-77"),
        (ControlRequest::DeadLetters { job: unknown, from: 0, limit: 10 }, "job-77"),
        (ControlRequest::Versions { name: name("kept/none"), limit: 5 }, "kept/none"),
    ] {
        println!("{request:?}");
        assert_refused(client.control(request).await, &NotFound, named);
    }
    let stored = ControlRequest::Stored { member: NodeId(1), after: None, limit: 10 };
    assert_refused(client.control(stored).await, &NotFound, "0000000000000001");

    let target = cluster.scratch("target");
    let error = files.get_file(&name("kept/none"), None, &target, &NoProgress).await.unwrap_err();
    assert!(matches!(&error, GetError::NotFound { name } if name.as_str() == "kept/none"), "{error}");
    let error = files.get_file(&name("kept/0001"), Some(9), &target, &NoProgress).await.unwrap_err();
    assert!(matches!(&error, GetError::NoVersion { version: 9, .. }), "{error}");
    assert!(!target.exists(), "a get that failed left something behind");
    for (path, word) in
        [(cluster.scratch("missing"), "missing"), (cluster.path().join("scratch"), "directory")]
    {
        let item = PutItem { name: name("x"), path };
        let error = files.put_files(vec![item], PutOptions::default(), &NoProgress).await.unwrap_err();
        assert!(matches!(&error, PutError::Local { .. }) && error.to_string().contains(word), "{error}");
    }

    assert_eq!(cluster.revision().await, revision, "something changed");
    kept.verify(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_started_and_stopped_once() {
    let _turn = heavy().await;
    let cluster = LocalCluster::start(1, true).await;
    put_dataset(&cluster, &dataset("digits", 2000).await, "digits").await;
    cluster.train(&["mnist-mlp"]).await;
    let client = cluster.client();
    let empty = cluster.add_job("mnist-mlp", "nothing-here", 8).await;
    assert_refused(client.change(Change::start(empty)).await, &Conflict, "nothing-here");
    let job = cluster.add_job("mnist-mlp", "digits", 1).await;
    // One change under one id, asked twice, is made once and answered alike.
    let start = ControlRequest::Change { op: OpId(1, 2), change: Change::start(job) };
    for _ in 0..2 {
        let reply = client.control(start.clone()).await.unwrap();
        let changed =
            idunno_shared::wire::control::ControlReply::Changed(Changed::JobStarted { submitted: 2000 });
        assert_eq!(format!("{reply:?}"), format!("{changed:?}"));
    }
    // A second start is harmless, and says so.
    let before = |state| Changed::StartedBefore { submitted: 2000, state };
    assert_eq!(cluster.change(Change::start(job)).await, before(JobState::Running));
    cluster.change(Change::StopJob { job }).await;
    assert_refused(client.change(Change::StopJob { job }).await, &Conflict, "job-2 is already stopped");
    assert_eq!(cluster.start_job(job).await, 2000);
    cluster.change(Change::SetBatchSize { job, batch_size: 64.into() }).await;
    cluster.finished(job, Duration::from_secs(60)).await;
    assert_eq!(cluster.change(Change::start(job)).await, before(JobState::Done));
    cluster.all_results(job, 2000).await;
}

/// The wire's messages as far as a `Delete` needs them, with an unchecked name.
#[derive(serde::Serialize)]
struct RawCall<'a> {
    id: u64,
    request: RawRequest<'a>,
}

#[derive(serde::Serialize)]
enum RawRequest<'a> {
    Control(RawControl<'a>),
}

#[derive(serde::Serialize)]
enum RawControl<'a> {
    Change { op: OpId, change: RawChange<'a> },
}

#[derive(serde::Serialize)]
enum RawChange<'a> {
    Delete { name: &'a str },
}

/// Sends a `Delete` of any name, and returns the answer.
async fn delete_raw(door: &TcpConnector, address: SocketAddr, name: &str) -> Reply {
    let change = RawChange::Delete { name };
    let request = RawRequest::Control(RawControl::Change { op: OpId::random(), change });
    let mut link = door.dial(address, Purpose::Calls).await.unwrap();
    write_frame(&mut link.writer, &RawCall { id: 1, request }).await.unwrap();
    let answer = timeout(Duration::from_secs(5), read_frame::<Answer, _>(&mut link.reader)).await;
    answer.expect("no answer").expect("the connection ended before the answer").reply
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_names_from_the_wire_are_refused() {
    let _turn = light().await;
    let cluster = LocalCluster::start(1, false).await;
    let kept = Expected::small("kept", 0..3);
    kept.put(&cluster).await;
    let revision = cluster.revision().await;
    let address = cluster.members[0].address();
    let none = delete_raw(&cluster.door(), address, "none").await;
    assert!(matches!(&none, Reply::Refused(refusal) if refusal.code == NotFound), "{none:?}");
    for bad in ["", "/etc/passwd", "../../x", "a/../b", "a//b", "a\nb", "a\u{0}b", &"/".repeat(1100)] {
        let answer = delete_raw(&cluster.door(), address, bad).await;
        let Reply::Refused(refusal) = answer else { panic!("{bad:?}: {answer:?}") };
        println!("{bad:.20?}: {refusal}");
        assert_eq!(refusal.code, Invalid, "{refusal}");
    }
    assert_eq!(cluster.revision().await, revision, "something changed");
    kept.verify(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_cannot_start_says_why() {
    const LIMIT: Duration = Duration::from_secs(10);
    let _turn = light().await;
    let cluster = LocalCluster::start(1, false).await;
    let introducer = cluster.introducer.address().to_string();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let held = TcpListener::bind(taken).unwrap();
    let taken = held.local_addr().unwrap().to_string();
    let port = held.local_addr().unwrap().port().to_string();
    let fresh = cluster.scratch("fresh").display().to_string();
    let secret = cluster.secret().display().to_string();
    let in_use = cluster.members[0].data_dir.display().to_string();
    let file = cluster.scratch("bad.toml");
    std::fs::write(&file, "lisen = '127.0.0.1:0'\n").unwrap();
    let file = file.display().to_string();
    let member = |listen: &str, data_dir: &str, more: &[&str]| {
        let mut arguments =
            vec!["member", "--listen", listen, "--data-dir", data_dir, "--introducer", &introducer];
        arguments.extend(["--name", "late", "--secret", &secret]);
        arguments.extend(more);
        run_to_end(&arguments, LIMIT)
    };
    for ((status, errors), words) in [
        (member(&taken, &fresh, &[]), ["in use", port.as_str()]),
        (member("127.0.0.1:0", &in_use, &[]), ["in use", in_use.as_str()]),
        (member("127.0.0.1:0", &fresh, &["--config", &file]), ["lisen", file.as_str()]),
        (member("0.0.0.0:0", &fresh, &[]), ["listen", "0.0.0.0"]),
        (member("127.0.0.1:0", &fresh, &["--heartbeat-ms", "1"]), ["heartbeat_ms", "1"]),
        (
            member("127.0.0.1:0", &fresh, &["--model-server-python", "/nowhere/python"]),
            ["model_server_python", "/nowhere"],
        ),
        (
            run_to_end(&["introducer", "--listen", &taken, "--data-dir", &fresh, "--secret", &secret], LIMIT),
            ["in use", port.as_str()],
        ),
    ] {
        println!("{status}: {}", errors.trim());
        assert!(!status.success(), "it succeeded: {errors}");
        assert!(words.iter().all(|word| errors.contains(word)), "{words:?} are not both in: {errors}");
    }
}
