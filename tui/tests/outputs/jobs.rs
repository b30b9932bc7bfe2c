//! The jobs of [`super::world`]: one that is done, one that runs and one that was only added.

use idunno_shared::ids::{Digest, JobId};
use idunno_shared::wire::control::{Distribution, JobDetails, JobState, JobView};

use super::world::NOW_MS;

pub(crate) fn all() -> Vec<JobView> {
    let added =
        JobView::added(JobId(3), "squeezenet1.1".parse().unwrap(), "photos".parse().unwrap(), 32.into());
    let done = JobView {
        id: JobId(1),
        version: Some(Digest([7; 32])),
        state: JobState::Done,
        submitted: 3,
        done: 2,
        dead: 1,
        rate_qps: 1.5,
        running_s: 2.0,
        processing_ms: Distribution { mean: 5.6, std_dev: 1.25, median: 5.5, p90: 7.0, p95: 8.0, p99: 9.9 },
        labelled: 2,
        correct: 1,
        local_share: 0.5,
        details: JobDetails {
            name: Some("nightly".parse().unwrap()),
            weight: 2,
            created_ms: NOW_MS - 60_000,
            started_ms: Some(NOW_MS - 50_000),
            finished_ms: Some(NOW_MS - 48_000),
            results: Some("results/job-1.jsonl".parse().unwrap()),
            owner: Some("anna".parse().unwrap()),
            ..JobDetails::default()
        },
        ..added.clone()
    };
    let running = JobView {
        id: JobId(2),
        state: JobState::Running,
        submitted: 1000,
        done: 400,
        dead: 0,
        leased: 32,
        rate_10s_qps: 143.2,
        rate_qps: 120.0,
        running_s: 4.0,
        eta_s: Some(4.0),
        batch_now: 32,
        details: JobDetails {
            weight: 1,
            created_ms: NOW_MS - 10_000,
            started_ms: Some(NOW_MS - 4_000),
            ..JobDetails::default()
        },
        ..done.clone()
    };
    vec![done, running, added]
}

/// The rows of the first job, but for its dead letter.
pub(crate) fn rows() -> String {
    let row = |query: u64, label: &str| {
        let version = "07".repeat(32);
        format!(
            "{{\"query\":{query},\"name\":\"photos/{query}.jpg\",\"label\":\"tabby\",\"model\":\"squeezenet1.1\",\
             \"version\":\"{version}\",\"output\":{{\"top5\":[{{\"index\":281,\"label\":\"{label}\",\
             \"probability\":0.75}}]}},\"worker\":\"m1\",\"attempt\":1}}\n"
        )
    };
    [row(0, "tabby"), row(1, "lynx")].concat()
}
