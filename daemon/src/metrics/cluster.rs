//! Metrics of the cluster, exported by the coordinator.

use idunno_shared::wire::control::{ClusterView, JobState, JobView};
use idunno_shared::wire::jobs::ModelState;
use prometheus::{Gauge, GaugeVec, IntGauge, IntGaugeVec, Opts, Registry};

const JOB_LABELS: [&str; 3] = ["job", "name", "model"];

pub(super) fn register(registry: &Registry, view: &ClusterView) -> prometheus::Result<()> {
    let gauge = |name: &str, help: &str, value: u64| {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(whole(value));
        registry.register(Box::new(gauge))
    };
    let store = &view.store;
    gauge("files", "Files in the store.", store.files)?;
    gauge("files_blobs", "Blobs of all kept versions and results, each counted once.", store.blobs)?;
    gauge("files_bytes", "Bytes of all kept versions and results, each blob counted once.", store.bytes)?;
    gauge("blobs_under_replicated", "Blobs with fewer live copies than wanted.", store.under_replicated)?;
    gauge("blobs_unavailable", "Blobs without any live copy.", store.unavailable)?;
    gauge("copies_under_way", "Copies in progress.", store.copying)?;
    jobs(registry, &view.jobs)?;
    models(registry, view)
}

fn jobs(registry: &Registry, jobs: &[JobView]) -> prometheus::Result<()> {
    let states = ["added", "running", "stopped", "paused", "done", "cancelled"];
    let by_state = IntGaugeVec::new(Opts::new("jobs", "Jobs by state."), &["state"])?;
    for state in states {
        let count = jobs.iter().filter(|job| state_name(&job.state) == state).count();
        by_state.with_label_values(&[state]).set(whole(count as u64));
    }
    let labels = [&JOB_LABELS[..], &["state"]].concat();
    let queries =
        IntGaugeVec::new(Opts::new("job_queries", "Queries of an unfinished job, by state."), &labels)?;
    let rate = GaugeVec::new(
        Opts::new("job_rate_queries_per_second", "Queries answered per second over the last 10 seconds."),
        &JOB_LABELS,
    )?;
    let paused = IntGaugeVec::new(
        Opts::new("job_paused", "1 for a job that the cluster paused because its model fails."),
        &JOB_LABELS,
    )?;
    for job in jobs.iter().filter(|job| !job.state.is_over()) {
        let id = job.id.to_string();
        let name = job.details.name.as_ref().map_or("", |name| name.as_str());
        let of_job = [id.as_str(), name, job.model.as_str()];
        let pending = job.submitted.saturating_sub(job.done + job.dead + job.leased);
        let counts =
            [("answered", job.done), ("dead", job.dead), ("leased", job.leased), ("pending", pending)];
        for (state, count) in counts {
            queries.with_label_values(&[of_job[0], of_job[1], of_job[2], state]).set(whole(count));
        }
        rate.with_label_values(&of_job).set(job.rate_10s_qps);
        paused.with_label_values(&of_job).set(i64::from(matches!(job.state, JobState::Paused(_))));
    }
    let gap = Gauge::new(
        "rates_gap_ratio",
        "Relative gap between the slowest and the fastest running job's rate by weight, 0 to 1.",
    )?;
    gap.set(rates_gap(jobs));
    registry.register(Box::new(by_state))?;
    registry.register(Box::new(queries))?;
    registry.register(Box::new(rate))?;
    registry.register(Box::new(paused))?;
    registry.register(Box::new(gap))
}

fn models(registry: &Registry, view: &ClusterView) -> prometheus::Result<()> {
    let ready =
        IntGaugeVec::new(Opts::new("model_workers_ready", "Workers that have a model loaded."), &["model"])?;
    let training =
        IntGaugeVec::new(Opts::new("model_training", "1 for a model whose training is wanted."), &["model"])?;
    for model in &view.models {
        let loaded = model.workers.iter().filter(|(_, state)| matches!(state, ModelState::Ready(_))).count();
        ready.with_label_values(&[model.model.as_str()]).set(whole(loaded as u64));
        training.with_label_values(&[model.model.as_str()]).set(i64::from(model.training));
    }
    registry.register(Box::new(ready))?;
    registry.register(Box::new(training))
}

fn state_name(state: &JobState) -> &'static str {
    match state {
        JobState::Added => "added",
        JobState::Running => "running",
        JobState::Stopped => "stopped",
        JobState::Paused(_) => "paused",
        JobState::Done => "done",
        JobState::Cancelled => "cancelled",
        JobState::Waiting(_) => "waiting",
    }
}

/// 0 if fewer than two jobs run or none answered within the window.
fn rates_gap(jobs: &[JobView]) -> f64 {
    let running = jobs.iter().filter(|job| job.state == JobState::Running);
    let rates: Vec<f64> =
        running.map(|job| job.rate_10s_qps / f64::from(job.details.weight.max(1))).collect();
    let (most, least) = rates
        .iter()
        .fold((0.0_f64, f64::INFINITY), |(most, least), rate| (most.max(*rate), least.min(*rate)));
    if rates.len() < 2 || most <= 0.0 { 0.0 } else { (most - least) / most }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
