//! The JSON of every command: its schema in `tui/schemas`, an example in `tui/tests/golden`.
//!
//! `UPDATE_SCHEMAS=1 cargo test -p idunno-console --test answers` rewrites both.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use idunno_console::answer::cluster::{
    Backup, ClusterStatus, Event, LogLine, Member, MemberIdentity, MemberList, Membership, MembershipChange,
    Model, ModelAtMember, ModelServer, StoppedTraining, Store, TrainedModels, TrainingProgress,
};
use idunno_console::answer::document::{Document, List, to_json};
use idunno_console::answer::files::{
    DeletedFile, DownloadedDataset, DownloadedFile, File, FileList, FileVersion, FileVersions,
    UploadedDataset, UploadedFile,
};
use idunno_console::answer::jobs::{
    AddedJob, CancelledJob, DeletedJob, JobAssignment, JobBatchSize, JobShare, JobStats, JobWeight, Lease,
    Processing, SharingPolicy, StartedJob, StoppedJobs,
};
use idunno_console::answer::local::{
    KilledMember, KilledMembers, LocalCluster, LocalMember, LocalProcess, StartedProcesses, StoppedCluster,
};
use idunno_console::answer::program::{
    ClusterSecret, CompletionScript, Context, DryRun, Error, ErrorDetail, Info, IssuedIdentity, KeyBinding,
    ManualPages, SettingsFile, SettingsPath,
};
use idunno_console::answer::results::{
    ConfusionPair, DeadLetter, DroppedDeadLetters, JobConfusion, ResultsFile, RetriedDeadLetters,
};
use idunno_console::answer::schemas::{CommandSchema, commands};
use idunno_console::answer::text;
use idunno_console::answer::words::{
    Auto, BatchSize, JobState, LeaseStage, LogRole, MemberState, ModelState, Policy, ServerState,
};
use idunno_console::command::registry::entries;
use idunno_shared::wire::{control, jobs};
use serde::Serialize;
use serde_json::Value;

const CREATED_MS: u64 = 1_795_398_600_000;
const DIGEST: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

/// Commands that answer with nothing in JSON: a shell gives its commands' answers.
const WITHOUT_JSON: [&str; 1] = ["shell"];

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn updates() -> bool {
    std::env::var_os("UPDATE_SCHEMAS").is_some()
}

/// Compares a committed file with what the code makes, or rewrites it.
fn check(path: &Path, made: &str) {
    if updates() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, made).unwrap();
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    let hint = "UPDATE_SCHEMAS=1 cargo test -p idunno-console --test answers rewrites it";
    assert!(committed == made, "{} is not what the code makes: {hint}\n{made}", path.display());
}

/// Files of commands that do not exist any more are to be deleted.
fn no_other_files(directory: &Path) {
    let names: BTreeSet<String> = commands().iter().map(CommandSchema::file_name).collect();
    let files =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(files.collect::<BTreeSet<_>>(), names, "{}", directory.display());
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

/// The documents of a command as JSON.
#[derive(Default)]
struct Examples(Vec<String>);

impl Examples {
    fn of<T: Document>(document: &T) -> Self {
        Self(vec![to_json(document)])
    }

    fn and<T: Document>(mut self, document: &T) -> Self {
        self.0.push(to_json(document));
        self
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn added() -> AddedJob {
    AddedJob {
        job: "job-1".into(),
        name: Some("nightly".into()),
        model: "squeezenet1.1".into(),
        dataset: "test-data".into(),
        batch_size: BatchSize::Fixed(32),
        parameters: [("top".into(), "5".into())].into(),
    }
}

/// A job of which everything is known.
fn running_job() -> JobStats {
    JobStats {
        job: "job-1".into(),
        name: Some("nightly".into()),
        model: "squeezenet1.1".into(),
        model_version: Some(DIGEST.into()),
        dataset: "test-data".into(),
        parameters: [("top".into(), "5".into())].into(),
        state: JobState::Running,
        reason: None,
        weight: 2,
        batch_size: BatchSize::Auto(Auto::Auto),
        last_batch_queries: 48,
        submitted: 1000,
        done: 600,
        dead_letters: 3,
        dead_letters_dropped: 1,
        pending: 397,
        leased: 96,
        rate_10s_qps: 81.5,
        rate_qps: 79.25,
        running_s: 7.5,
        eta_s: Some(4.75),
        processing_ms: Processing { mean: 12.5, std_dev: 1.5, median: 12.0, p90: 14.0, p95: 15.0, p99: 18.5 },
        labelled: 500,
        correct: 400,
        accuracy_top1: Some(0.8),
        duplicates_dropped: 32,
        local_share: 0.75,
        created_ms: CREATED_MS,
        started_ms: Some(CREATED_MS + 1000),
        finished_ms: None,
        results_file: None,
    }
}

/// A job that was added and nothing else.
fn added_job() -> JobStats {
    JobStats {
        job: "job-2".into(),
        name: None,
        model_version: None,
        parameters: [].into(),
        state: JobState::Added,
        batch_size: BatchSize::Fixed(32),
        last_batch_queries: 0,
        submitted: 0,
        done: 0,
        dead_letters: 0,
        dead_letters_dropped: 0,
        pending: 0,
        leased: 0,
        rate_10s_qps: 0.0,
        rate_qps: 0.0,
        running_s: 0.0,
        eta_s: None,
        processing_ms: Processing::default(),
        labelled: 0,
        correct: 0,
        accuracy_top1: None,
        duplicates_dropped: 0,
        local_share: 0.0,
        started_ms: None,
        ..running_job()
    }
}

fn paused_job() -> JobStats {
    JobStats {
        job: "job-3".into(),
        state: JobState::Paused,
        reason: Some("every batch failed: no image".into()),
        eta_s: None,
        ..running_job()
    }
}

fn done_job() -> JobStats {
    JobStats {
        state: JobState::Done,
        done: 997,
        pending: 0,
        leased: 0,
        eta_s: None,
        finished_ms: Some(CREATED_MS + 13_000),
        results_file: Some("results/job-1.jsonl".into()),
        ..running_job()
    }
}

fn member() -> Member {
    Member {
        name: "m1".into(),
        node_id: "00000000000000a1".into(),
        address: "127.0.0.1:7401".into(),
        state: MemberState::Up,
        since_ms: CREATED_MS,
        role: LogRole::Coordinator,
        udp_blocked: false,
        incarnation: 2,
        generation: 1,
    }
}

fn file_version() -> FileVersion {
    FileVersion {
        name: "docs/report.pdf".into(),
        version: 3,
        size_bytes: 12_345,
        digest: DIGEST.into(),
        created_ms: CREATED_MS,
    }
}

fn files() -> FileList {
    let FileVersion { name, version, size_bytes, digest, created_ms } = file_version();
    let holders = words(&["m1", "m2", "m4"]);
    FileList {
        items: vec![File { name, version, versions: 3, size_bytes, digest, created_ms, holders }],
        more: true,
    }
}

fn dead_letter() -> DeadLetter {
    DeadLetter {
        query: 7,
        name: "test-data/7.jpg".into(),
        error: "not an image".into(),
        member: "m2".into(),
        attempts: 3,
        dropped: false,
    }
}

fn secret() -> ClusterSecret {
    ClusterSecret { path: "secret.pem".into(), keys: words(&["3f5a", "90b1"]) }
}

fn log_line() -> LogLine {
    LogLine { member: "m1".into(), line: "2026-11-23T01:50:00Z INFO joined".into() }
}

fn jobs_examples(command: &str) -> Option<Examples> {
    let job = || String::from("job-1");
    Some(match command {
        "add-job" => {
            let unnamed = AddedJob { name: None, batch_size: BatchSize::Auto(Auto::Auto), ..added() };
            Examples::of(&added()).and(&unnamed)
        }
        "set-batch-size" => Examples::of(&JobBatchSize { job: job(), batch_size: BatchSize::Fixed(64) })
            .and(&JobBatchSize { job: job(), batch_size: BatchSize::Auto(Auto::Auto) }),
        "set-weight" => Examples::of(&JobWeight { job: job(), weight: 3 }),
        "set-policy" => Examples::of(&SharingPolicy { policy: Policy::Rate }),
        "start-job" => Examples::of(&List {
            items: vec![
                StartedJob { job: job(), submitted: 1000, started: true },
                StartedJob { job: "job-2".into(), submitted: 30, started: false },
            ],
        }),
        "start-job --wait" | "get-job-history" => Examples::of(&List { items: vec![done_job()] }),
        "stop-job" => Examples::of(&StoppedJobs { jobs: words(&["job-1", "job-2"]) }),
        "cancel-job" => Examples::of(&CancelledJob { job: job() }),
        "delete-job" => Examples::of(&DeletedJob { job: job() }),
        "get-job-stats" => Examples::of(&List { items: vec![running_job(), added_job(), paused_job()] })
            .and(&List::<JobStats> { items: Vec::new() }),
        "get-job-assigned-VMs" => Examples::of(&List {
            items: vec![JobAssignment {
                member: "m1".into(),
                node_id: member().node_id,
                shares: vec![JobShare { job: job(), share: 0.625 }],
                due: vec![JobShare { job: job(), share: 0.5 }],
                current_jobs: vec![job()],
            }],
        }),
        "get-job-leases" => {
            let lease = |stage, running_ms| Lease {
                member: "m1".into(),
                node_id: member().node_id,
                job: job(),
                first_query: 64,
                queries: 32,
                attempt: 1,
                term: 4,
                stage,
                running_ms,
            };
            let running = lease(LeaseStage::Running, Some(350));
            let others = [LeaseStage::Waiting, LeaseStage::Committing].map(|stage| lease(stage, None));
            Examples::of(&List { items: [running].into_iter().chain(others).collect() })
        }
        _ => return None,
    })
}

fn results_examples(command: &str) -> Option<Examples> {
    let job = || String::from("job-1");
    Some(match command {
        "get-job-results" => Examples::of(&ResultsFile {
            job: job(),
            path: "results.jsonl".into(),
            rows: 603,
            dead_letters: 3,
            pending: 397,
        }),
        "get-job-confusion" => {
            let pair = |label: &str, answer: &str, count| ConfusionPair {
                label: label.into(),
                answer: answer.into(),
                count,
            };
            Examples::of(&JobConfusion {
                job: job(),
                labelled: 500,
                correct: 400,
                pairs: vec![pair("cat", "cat", 400), pair("cat", "dog", 99), pair("cat", "-", 1)],
            })
        }
        "dead-letters list" => Examples::of(&List { items: vec![dead_letter()] }),
        "dead-letters show" => Examples::of(&dead_letter()),
        "dead-letters retry" => Examples::of(&RetriedDeadLetters { job: job(), queries: 2 }),
        "dead-letters drop" => Examples::of(&DroppedDeadLetters { job: job(), queries: 1 }),
        _ => return None,
    })
}

fn files_examples(command: &str) -> Option<Examples> {
    Some(match command {
        "populate-test-data" => Examples::of(&UploadedDataset {
            dataset: "test-data".into(),
            files: 990,
            size_bytes: 52_000_000,
            files_skipped: 10,
            copies: 4,
            copies_wanted: 4,
        }),
        "get-dataset" => Examples::of(&DownloadedDataset {
            dataset: "test-data".into(),
            directory: "./images".into(),
            files: 1000,
            size_bytes: 53_000_000,
        }),
        "put" => {
            let put = |size_bytes, copies| UploadedFile {
                name: "docs/report.pdf".into(),
                version: 3,
                size_bytes,
                copies,
                copies_wanted: copies,
            };
            Examples::of(&put(12_345, Some(4))).and(&put(0, None))
        }
        "get" => Examples::of(&DownloadedFile { path: "report.pdf".into(), version: file_version() }),
        "delete" => Examples::of(&DeletedFile { name: "docs/report.pdf".into(), versions: 3 }),
        "ls" | "store" => Examples::of(&files()),
        "get-versions" => {
            let versions = vec![file_version(), FileVersion { version: 2, ..file_version() }];
            Examples::of(&FileVersions { path: "report.txt".into(), versions })
        }
        _ => return None,
    })
}

fn status() -> ClusterStatus {
    let server = |member: &str, state, reason: Option<&str>| ModelServer {
        member: member.into(),
        state,
        reason: reason.map(Into::into),
    };
    ClusterStatus {
        coordinator: "m1".into(),
        term: 4,
        at_ms: CREATED_MS,
        revision: 1234,
        policy: Policy::Rate,
        members: vec![member()],
        model_servers: vec![
            server("m1", ServerState::Ready, None),
            server("m2", ServerState::Down, Some("it does not start")),
        ],
        jobs: vec![running_job()],
        store: Store {
            files: 1000,
            blobs: 1003,
            size_bytes: 52_012_345,
            under_replicated: 12,
            copying: 4,
            unavailable: 0,
        },
    }
}

fn models() -> Vec<Model> {
    let at = |member: &str, state, reason: Option<&str>| ModelAtMember {
        member: member.into(),
        state,
        reason: reason.map(Into::into),
    };
    let trained = Model {
        model: "squeezenet1.1".into(),
        version: Some(DIGEST.into()),
        training: false,
        progress: None,
        failure: None,
        metrics: [("accuracy".into(), "0.58".into())].into(),
        members: vec![
            at("m1", ModelState::Ready, None),
            at("m2", ModelState::Failed, Some("not enough memory")),
        ],
    };
    let progress = TrainingProgress {
        permille: 400,
        step: 2,
        steps: 5,
        metrics: [("loss".into(), "0.31".into())].into(),
    };
    let in_training = Model {
        model: "mnist-mlp".into(),
        version: None,
        training: true,
        progress: Some(progress),
        failure: Some("interrupted".into()),
        metrics: [].into(),
        members: vec![at("m3", ModelState::Training, None)],
    };
    vec![trained, in_training]
}

fn cluster_examples(command: &str) -> Option<Examples> {
    let change = |change| Examples::of(&MembershipChange { address: member().address, change });
    Some(match command {
        "train-start" => {
            Examples::of(&TrainedModels { models: words(&["squeezenet1.1", "mnist-mlp"]), trained: true })
        }
        "train-stop" => Examples::of(&StoppedTraining { models: words(&["mnist-mlp"]) }),
        "get-models" => Examples::of(&List { items: models() }),
        "join" => change(Membership::Joined),
        "leave" => change(Membership::Left),
        "list_mem" => Examples::of(&MemberList { answered_by: member().address, items: vec![member()] }),
        "list_self" => Examples::of(&MemberIdentity {
            member: member(),
            joined: true,
            data_dir: "/var/lib/idunno".into(),
            pid: 4242,
            program_version: "0.1.0".into(),
        }),
        "status" => Examples::of(&status()),
        "backup" => {
            let backup = |founder_node_id| Backup {
                path: "idunno.backup".into(),
                founder_node_id,
                program_version: "0.1.0".into(),
                term: 4,
                index: 5678,
                created_ms: CREATED_MS,
                files: 1000,
                jobs: 2,
            };
            Examples::of(&backup(Some(member().node_id))).and(&backup(None))
        }
        "events" => Examples::of(&Event {
            at_ms: CREATED_MS,
            subject: "election".into(),
            text: "m2 coordinates in term 5".into(),
        }),
        "logs" => Examples::of(&List { items: vec![log_line()] }),
        "logs --follow" => Examples::of(&log_line()),
        _ => return None,
    })
}

fn program_examples(command: &str) -> Option<Examples> {
    Some(match command {
        "info" => {
            let file = |name: &str, exists| SettingsPath {
                name: name.into(),
                path: format!("/home/ada/.config/idunno/{name}"),
                exists,
            };
            let lab = Context { cluster: "127.0.0.1:7401".into(), read_only: false };
            let info = Info {
                version: "0.1.0".into(),
                cluster: "127.0.0.1:7401".into(),
                directory: ".idunno".into(),
                read_only: false,
                timeout_s: Some(30.0),
                files: vec![file("config.toml", true), file("keymap.toml", false)],
                environment: [("IDUNNO_MEMBER".into(), "m1".into())].into(),
                contexts: [("lab".into(), lab)].into(),
                problems: words(&["config.toml: unknown field 'thema'"]),
            };
            Examples::of(&info).and(&Info { timeout_s: None, ..info })
        }
        "keys" => Examples::of(&List {
            items: vec![KeyBinding {
                action: "freeze".into(),
                keys: words(&["f9"]),
                page: "all".into(),
                meaning: "Freeze the screen".into(),
            }],
        }),
        "gen-config" => {
            Examples::of(&SettingsFile { path: "config.toml".into(), text: "#theme = \"dark\"\n".into() })
        }
        "completions" => {
            Examples::of(&CompletionScript { shell: "bash".into(), script: "complete -F _idunno".into() })
        }
        "man" => Examples::of(&ManualPages { directory: "man".into(), pages: 52 }),
        "cluster init" | "cluster rotate" => Examples::of(&secret()),
        "cluster issue" => {
            let issued = |name| IssuedIdentity {
                path: "ada.pem".into(),
                role: "operator".into(),
                name,
                valid_days: 90,
            };
            Examples::of(&issued(Some("ada".into()))).and(&issued(None))
        }
        "--dry-run" => Examples::of(&DryRun { would: words(&["start m2", "start m3"]) }),
        "error" => Examples::of(&Error {
            error: ErrorDetail {
                code: 3,
                kind: "not-found".into(),
                message: "no file matches 'docs/'".into(),
            },
        }),
        _ => return None,
    })
}

fn local_examples(command: &str) -> Option<Examples> {
    let name = || String::from("m1");
    let data_dir = || String::from("/tmp/idunno/m1");
    Some(match command {
        "local up" => Examples::of(&LocalCluster {
            directory: "/tmp/idunno".into(),
            members: vec![LocalMember {
                name: name(),
                address: Some(member().address),
                data_dir: data_dir(),
            }],
            model_servers: true,
            ready_s: 1.5,
        }),
        "local start" => Examples::of(&StartedProcesses { started: words(&["m1", "m2"]) }),
        "local kill" => Examples::of(&KilledMembers {
            killed: vec![KilledMember { name: name(), pid: Some(4242), coordinator: true }],
            at_ms: CREATED_MS,
        }),
        "local down" => Examples::of(&StoppedCluster { stopped: 8, forced: 1, purged: true }),
        "local status" => {
            let running = LocalProcess {
                name: name(),
                running: true,
                pid: Some(4242),
                address: Some(member().address),
                state: Some(MemberState::Up),
                role: Some(LogRole::Voter),
                data_dir: data_dir(),
            };
            let stopped = LocalProcess {
                name: "introducer".into(),
                running: false,
                pid: None,
                address: None,
                state: None,
                role: None,
                data_dir: "/tmp/idunno/introducer".into(),
            };
            Examples::of(&List { items: vec![running, stopped] })
        }
        _ => return None,
    })
}

fn examples(command: &str) -> Examples {
    jobs_examples(command)
        .or_else(|| results_examples(command))
        .or_else(|| files_examples(command))
        .or_else(|| cluster_examples(command))
        .or_else(|| program_examples(command))
        .or_else(|| local_examples(command))
        .unwrap_or_default()
}

#[test]
fn every_command_has_a_schema() {
    let with_schema: BTreeSet<&str> = commands().iter().map(|command| command.command).collect();
    let missing: Vec<String> = entries()
        .into_iter()
        .map(|entry| entry.name)
        .filter(|name| !with_schema.contains(name.as_str()) && !WITHOUT_JSON.contains(&name.as_str()))
        .collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn committed_schemas_are_those_of_the_code() {
    for command in commands() {
        check(&directory("schemas").join(command.file_name()), &pretty(&command.schema));
    }
    no_other_files(&directory("schemas"));
}

#[test]
fn examples_obey_their_schema_and_are_the_committed_ones() {
    for command in commands() {
        let CommandSchema { command: name, kind, schema } = &command;
        let validator = jsonschema::validator_for(schema.as_value()).unwrap();
        let mut golden = String::new();
        for example in examples(name).0 {
            let document: Value = serde_json::from_str(&example).unwrap();
            let errors: Vec<String> = validator.iter_errors(&document).map(|it| it.to_string()).collect();
            assert_eq!(errors, [""; 0], "{name}: {example}");
            assert_eq!((&document["apiVersion"], &document["kind"]), (&"idunno/v1".into(), &(*kind).into()));
            golden.push_str(&pretty(&document));
        }
        assert!(!golden.is_empty(), "{name} has no example");
        check(&directory("tests/golden").join(command.file_name()), &golden);
    }
    no_other_files(&directory("tests/golden"));
}

#[test]
fn a_document_without_a_required_field_is_refused() {
    for command in commands() {
        let validator = jsonschema::validator_for(command.schema.as_value()).unwrap();
        let Some(example) = examples(command.command).0.into_iter().next() else { continue };
        let document: Value = serde_json::from_str(&example).unwrap();
        for field in document.as_object().unwrap().keys() {
            let mut lacking = document.clone();
            lacking.as_object_mut().unwrap().remove(field);
            assert!(!validator.is_valid(&lacking), "{}: {field} is not required", command.command);
        }
    }
}

#[test]
fn json_and_tables_name_states_with_the_same_words() {
    fn same(word: impl Serialize, shown: &str) {
        assert_eq!(serde_json::to_value(word).unwrap(), shown);
    }
    use control::{JobState as Job, Liveness, LogRole as Role};
    for state in [Job::Added, Job::Running, Job::Stopped, Job::Paused("x".into()), Job::Done, Job::Cancelled]
    {
        same(JobState::from(&state), text::job_state(&state).0);
    }
    for state in [Liveness::Alive, Liveness::Suspect, Liveness::Dead, Liveness::Left] {
        same(MemberState::from(state), text::liveness(state));
    }
    for role in [Role::Coordinator, Role::Voter, Role::Learner, Role::Spare] {
        same(LogRole::from(role), text::role(role));
    }
    use jobs::{ModelState as AtWorker, Policy as Sharing, ServerState as Server};
    let version = idunno_shared::ids::Digest::default();
    for state in
        [AtWorker::Training, AtWorker::Loading, AtWorker::Ready(version), AtWorker::Failed("x".into())]
    {
        same(ModelState::from(&state), text::model_state(&state).0);
    }
    for state in [Server::Starting, Server::Ready, Server::Down("x".into())] {
        same(ServerState::from(&state), text::server_state(&state).0);
    }
    for policy in [Sharing::Rate, Sharing::Time, Sharing::Fifo] {
        same(Policy::from(policy), text::policy(policy).0);
    }
    for change in [Membership::Joined, Membership::Left] {
        same(change, change.word());
    }
}
