//! Examples of the JSON of commands on jobs and their results.

use idunno_console::answer::document::List;
use idunno_console::answer::jobs::{
    AddedJob, CancelledJob, DeletedJob, JobAssignment, JobBatchSize, JobExplanation, JobShare, JobStats,
    JobWeight, Lease, Processing, SharingPolicy, StartedJob, StoppedJobs, Tokens, Webhook,
};
use idunno_console::answer::records::{RecordsFormat, RecordsRead};
use idunno_console::answer::results::{
    ConfusionPair, DeadLetter, DroppedDeadLetters, JobConfusion, ResultsFile, RetriedDeadLetters,
};
use idunno_console::answer::words::{Auto, BatchSize, JobState, LeaseStage, Policy};

use super::cluster::member;
use super::examples::{CREATED_MS, DIGEST, Examples, words};

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
pub(super) fn running_job() -> JobStats {
    JobStats {
        job: "job-1".into(),
        name: Some("nightly".into()),
        model: "squeezenet1.1".into(),
        model_version: Some(DIGEST.into()),
        dataset: "test-data".into(),
        parameters: [("top".into(), "5".into())].into(),
        state: JobState::Running,
        reason: None,
        owner: Some("ada".into()),
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
        records: None,
        tokens: Some(Tokens { prompt: 25_200, completion: 4_800, total: 30_000, rate_per_s: 4_000.0 }),
        webhook: Some(Webhook { url: "https://hooks.example.com/idunno".into(), due: true, failure: None }),
        reused: 250,
        reused_from: Some("job-4".into()),
    }
}

/// A job that was added and nothing else.
fn records() -> RecordsRead {
    RecordsRead {
        format: RecordsFormat::Csv,
        delimiter: Some(";".into()),
        quote: Some("\"".into()),
        header: Some(true),
        input_column: Some("text".into()),
        label_column: Some("stars".into()),
        id_column: None,
        kept_columns: Some(words(&["city"])),
    }
}

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
        tokens: None,
        webhook: None,
        reused: 0,
        reused_from: None,
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
        records: Some(records()),
        ..running_job()
    }
}

pub(super) fn jobs(command: &str) -> Option<Examples> {
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
                StartedJob { job: job(), submitted: 1000, started: true, records: Some(records()) },
                StartedJob { job: "job-2".into(), submitted: 30, started: false, records: None },
            ],
        }),
        "start-job --wait" | "wait-job" | "get-job-history" => {
            Examples::of(&List { items: vec![done_job()] })
        }
        "stop-job" => Examples::of(&StoppedJobs { jobs: words(&["job-1", "job-2"]) }),
        "cancel-job" => Examples::of(&CancelledJob { job: job() }),
        "delete-job" => Examples::of(&DeletedJob { job: job() }),
        "get-job-stats" => Examples::of(&List { items: vec![running_job(), added_job(), paused_job()] })
            .and(&List::<JobStats> { items: Vec::new() }),
        "explain" => Examples::of(&JobExplanation {
            job: job(),
            state: JobState::Running,
            summary: "waits: no member has loaded its version of 'mine'".into(),
            details: words(&["m1: it cannot load 'mine': no such module"]),
            next: Some("idunno model show mine".into()),
        }),
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

fn dead_letter() -> DeadLetter {
    DeadLetter {
        query: 7,
        name: "test-data/7.jpg".into(),
        error: "not an image".into(),
        member: "m2".into(),
        attempts: 3,
        dropped: false,
        id: Some("r-17".into()),
        label: Some(3.into()),
    }
}

pub(super) fn results(command: &str) -> Option<Examples> {
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
