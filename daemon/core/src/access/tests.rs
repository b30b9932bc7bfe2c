//! The table, and what a submitter may claim. `tests/cluster/security.rs` sends every request that there is.

use idunno_shared::access::{Issued, Prefix};
use idunno_shared::ids::{Digest, NodeId, OpId, Term};
use idunno_shared::wire::control::{FileCopy, NewFile, SeenCertificate};
use idunno_shared::wire::jobs::{BatchSize, Policy, Training};
use idunno_shared::wire::membership::TcpPing;

use super::*;
use crate::metadata::{Action, AskedBy, Command};

fn name(text: &str) -> SubjectName {
    text.parse().unwrap()
}

fn grant(text: &str, role: Role, prefixes: &[&str]) -> Grant {
    let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
    Grant { name: name(text), role, prefixes }
}

fn change(change: Change) -> Request {
    Request::Control(ControlRequest::Change { op: OpId(1, 2), change })
}

fn delete(file: &str) -> Request {
    change(Change::Delete { name: file.parse().unwrap() })
}

fn add_job(weight: Option<u32>) -> Change {
    Change::AddJob {
        model: "mnist-mlp".parse().unwrap(),
        dataset: "data".parse().unwrap(),
        batch_size: BatchSize::Auto,
        options: JobOptions { weight, ..JobOptions::default() },
    }
}

/// Jobs 1 to 3: anna's, ben's, and one of before there was security.
fn state() -> State {
    let mut state = State::new();
    let models = vec!["mnist-mlp".parse().unwrap()];
    let train = Change::TrainStart { models, training: Training { seed: 1, ..Training::default() } };
    let owners = [Some(name("anna")), Some(name("ben")), None];
    let changes = [(train, None)].into_iter().chain(owners.map(|owner| (add_job(None), owner)));
    for (change, by) in changes {
        let action = Action::Change(change);
        let by = by.map(|name| AskedBy { name, role: Role::Submitter, gone: Vec::new() });
        state.apply(&Command { at_ms: 1, op: None, action, upload: None, by }).unwrap();
    }
    state
}

fn allowed(grant: &Grant, request: &Request) -> bool {
    denial(grant, request).is_none()
}

fn denial(grant: &Grant, request: &Request) -> Option<Denial> {
    decide(Asker { role: grant.role, grant: Some(grant) }, need(request), Some(&state())).err()
}

#[test]
fn each_role_may_do_what_the_one_below_it_may_and_more() {
    let upload = UploadId { term: Term(1), number: 1 };
    let issued = Issued { certificate: Digest::of(b"x"), grant: grant("x", Role::Viewer, &[]), ends_ms: 0 };
    let seen = SeenCertificate { issued: issued.clone(), seen_ms: 0 };
    assert_eq!(seen.issued, issued);
    let job = JobId(1);
    let by_role = [
        (
            Role::Viewer,
            vec![
                Request::Control(ControlRequest::Models),
                Request::Control(ControlRequest::Watch),
                Request::Control(ControlRequest::Log { after: None }),
                Request::Control(ControlRequest::Identities { after: None, limit: 1, ending: None }),
                Request::Introduction(IntroductionRequest::ListMembers),
            ],
        ),
        (
            Role::Submitter,
            vec![
                Request::Control(ControlRequest::Plan { upload: None, blobs: vec![], exclude: vec![] }),
                Request::Control(ControlRequest::EndUpload(upload)),
                delete("a/b"),
                change(Change::CommitFiles { upload, files: vec![] }),
                change(add_job(Some(1))),
                change(Change::start(job)),
                change(Change::StopJob { job }),
                change(Change::CancelJob { job }),
                change(Change::DeleteJob { job }),
                change(Change::SetWebhook { job, url: None }),
                change(Change::SetBatchSize { job, batch_size: BatchSize::Auto }),
                change(Change::RetryDeadLetters { job, queries: vec![] }),
                change(Change::DropDeadLetters { job, queries: vec![] }),
            ],
        ),
        (
            Role::Operator,
            vec![
                Request::Control(ControlRequest::Join),
                Request::Control(ControlRequest::Leave),
                Request::Control(ControlRequest::Backup),
                change(add_job(Some(2))),
                change(Change::SetWeight { job, weight: 1 }),
                change(Change::SetPolicy(Policy::Fifo)),
                change(Change::TrainStop { models: vec![] }),
                change(Change::RemoveModel { model: "mine".parse().unwrap(), force: false }),
                change(Change::RevokeIdentity { name: name("ben"), unseen: false }),
            ],
        ),
        (
            Role::Member,
            vec![
                Request::Ping(TcpPing { target: NodeId(1), believed: None }),
                Request::Control(ControlRequest::NoteIdentity(issued)),
            ],
        ),
    ];
    for role in Role::ALL {
        let anna = grant("anna", role, &["a"]);
        for (needed, requests) in &by_role {
            for request in requests {
                assert_eq!(allowed(&anna, request), role >= *needed, "{role}: {request:?}");
            }
        }
    }
}

#[test]
fn a_refusal_names_the_role_that_is_needed_and_what_the_identity_has() {
    let viewer = grant("anna", Role::Viewer, &[]);
    let text = denial(&viewer, &Request::Control(ControlRequest::Leave)).unwrap().to_string();
    assert!(text.contains("an operator's identity") && text.contains("viewer anna"), "{text}");
    let text = denial(&viewer, &delete("a/b")).unwrap().to_string();
    assert!(text.contains("a submitter's identity") && text.contains("--role submitter"), "{text}");
    let submitter = grant("anna", Role::Submitter, &["a", "b/c"]);
    let text = denial(&submitter, &delete("b/d")).unwrap().to_string();
    assert!(text.contains("'b/d' is not below a/ and b/c/") && text.contains("submitter anna"), "{text}");
    let text = denial(&submitter, &change(Change::StopJob { job: JobId(2) })).unwrap().to_string();
    assert!(text.contains("job-2 belongs to ben") && text.contains("submitter anna"), "{text}");
}

#[test]
fn a_submitter_changes_files_below_its_prefixes_only() {
    let anna = grant("anna", Role::Submitter, &["a", "b/c"]);
    for inside in ["a/x", "a/a/x", "b/c/x"] {
        assert!(allowed(&anna, &delete(inside)), "{inside}");
    }
    for outside in ["a", "aa", "aa/x", "b/x", "b/cc", "b/c", "c/a/x", "models/mnist-mlp", "users/anna/x"] {
        assert!(!allowed(&anna, &delete(outside)), "{outside}");
    }
    // One file outside spoils the commit of many.
    let file = |path: &str| NewFile {
        name: path.parse().unwrap(),
        size: 0,
        digest: Digest::of(b""),
        extents: Vec::new(),
    };
    let commit = |paths: &[&str]| {
        let files = paths.iter().map(|path| file(path)).collect();
        change(Change::CommitFiles { upload: UploadId::default(), files })
    };
    assert!(allowed(&anna, &commit(&["a/1", "b/c/2"])));
    assert!(!allowed(&anna, &commit(&["a/1", "d/2", "b/c/3"])));
    let many = |paths: &[&str]| {
        change(Change::DeleteFiles { names: paths.iter().map(|path| path.parse().unwrap()).collect() })
    };
    assert!(allowed(&anna, &many(&["a/1", "b/c/2"])) && !allowed(&anna, &many(&["a/1", "d/2"])));
    let moved = |from: &str, to: &str, moves| {
        let copies = vec![FileCopy { from: from.parse().unwrap(), to: to.parse().unwrap() }];
        change(Change::CopyFiles { copies, moves, replace: false })
    };
    assert!(allowed(&anna, &moved("d/1", "a/1", false)) && !allowed(&anna, &moved("d/1", "a/1", true)));
    assert!(allowed(&anna, &moved("a/1", "b/c/1", true)) && !allowed(&anna, &moved("a/1", "d/1", false)));
    // The parts of an upload are where the file will be.
    assert!(allowed(&anna, &delete(".s3/uploads/a/x/1/00001")));
    for outside in [".s3/uploads/d/x/1/00001", ".s3/buckets/a", ".s3/a/x", "x/.s3/uploads/a/x"] {
        assert!(!allowed(&anna, &delete(outside)), "{outside}");
    }
    let none = grant("anna", Role::Submitter, &[]);
    assert!(!allowed(&none, &delete("a/x")), "no prefix covers nothing");
    let home = Grant { prefixes: vec![Prefix::of_home(&name("anna"))], ..none };
    assert!(allowed(&home, &delete("users/anna/x")) && !allowed(&home, &delete("users/ben/x")));
}

#[test]
fn a_submitter_steers_its_own_jobs_only() {
    let steer = |job| {
        [
            Change::SetBatchSize { job, batch_size: BatchSize::Auto },
            Change::start(job),
            Change::StopJob { job },
            Change::CancelJob { job },
            Change::DeleteJob { job },
            Change::RetryDeadLetters { job, queries: vec![] },
            Change::DropDeadLetters { job, queries: vec![] },
        ]
    };
    let (anna, ben) = (grant("anna", Role::Submitter, &[]), grant("ben", Role::Operator, &[]));
    for (job, is_annas) in [(1, true), (2, false), (3, false), (4, false)] {
        for asked in steer(JobId(job)) {
            assert_eq!(allowed(&anna, &change(asked.clone())), is_annas, "{asked}");
            assert!(allowed(&ben, &change(asked)));
        }
    }
    // A job that does not exist could be another's a moment later.
    let missing = denial(&anna, &change(Change::StopJob { job: JobId(4) }));
    assert_eq!(missing, Some(Denial::NoJob(JobId(4))));
    let weighty = denial(&anna, &change(add_job(Some(2))));
    assert!(matches!(weighty, Some(Denial::Weight { .. })));
}

#[test]
fn without_security_people_are_operators() {
    let asker = Asker { role: Role::Operator, grant: None };
    for request in [delete("a/b"), change(Change::StopJob { job: JobId(1) })] {
        assert_eq!(decide(asker, need(&request), Some(&state())), Ok(()));
    }
    assert!(asker.confined_to().is_none() && may_use(None, Some(&name("anna"))));
    assert!(!may_use(Some(&name("anna")), None) && !may_use(Some(&name("anna")), Some(&name("anna-2"))));
}
