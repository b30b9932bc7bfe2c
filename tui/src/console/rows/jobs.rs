//! The rows of the jobs page.

use idunno_shared::wire::control::{ClusterView, JobState, JobView};

use super::super::table::{Cell, Content, Mark, Row, column};
use super::super::theme::Role;
use crate::answer::text;
use crate::execute::jobs;

pub(super) fn content(view: &ClusterView) -> Content {
    let columns = vec![
        column("JOB", false, 0),
        column("STATE", false, 0),
        column("PROGRESS", false, 1),
        column("Q/S", true, 2),
        column("ETA", true, 3),
        column("MODEL", false, 5),
        column("DONE", true, 5),
        column("DEAD", true, 4),
        column("PENDING", true, 6),
        column("TOTAL", true, 7),
        column("BATCH", true, 8),
        column("P50 MS", true, 9),
        column("P95 MS", true, 11),
        column("P99 MS", true, 10),
        column("TOP-1", true, 12),
        column("DATASET", false, 13),
        column("NAME", false, 14),
        column("WEIGHT", true, 15),
    ];
    (columns, view.jobs.iter().map(row).collect())
}

/// A job's state in glyph and word.
pub fn state(job: &JobView) -> Cell {
    let (word, reason) = text::job_state(&job.state);
    let role = match job.state {
        JobState::Running | JobState::Done => Role::Good,
        JobState::Paused(_) => Role::Bad,
        JobState::Stopped => Role::Warn,
        JobState::Cancelled => Role::Plain,
        JobState::Added => Role::Dim,
    };
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Cell::state(role, format!("{word}{reason}"))
}

/// How far a job is: the share that is over, and its percentage, rounded down so that 100 % means all.
pub fn progress(job: &JobView) -> (f64, u64) {
    let over = job.done + job.dead;
    let share = if job.submitted == 0 { 0.0 } else { over as f64 / job.submitted as f64 };
    (share, over.saturating_mul(100).checked_div(job.submitted).unwrap_or(0))
}

/// A figure, or a dash where there is none: 0 would be a figure.
fn or_dash(value: Option<f64>, text: String) -> Cell {
    match value {
        Some(value) => Cell::figure(value, text),
        None => Cell { value: Some(-1.0), ..Cell::of(Role::Dim, "-") },
    }
}

fn row(job: &JobView) -> Row {
    let rate = (job.state == JobState::Running || job.rate_10s_qps > 0.0).then_some(job.rate_10s_qps);
    let (share, percent) = progress(job);
    let ms = |value: f64| or_dash((value > 0.0).then_some(value), format!("{value:.1}"));
    let accuracy = jobs::accuracy(job);
    let dead = if job.dead > 0 { Role::Bad } else { Role::Plain };
    Row {
        key: job.id.to_string(),
        cells: vec![
            Cell::plain(job.id.to_string()),
            state(job),
            Cell { mark: Mark::Share(share), ..Cell::figure(share, format!("{percent:>3} %")) },
            or_dash(rate, format!("{:.1}", job.rate_10s_qps)),
            or_dash(job.eta_s, text::seconds(job.eta_s.unwrap_or(0.0))),
            Cell::plain(job.model.to_string()),
            Cell::count(job.done),
            Cell { role: dead, ..Cell::count(job.dead) },
            Cell::count(jobs::pending(job)),
            Cell::count(job.submitted),
            Cell::figure(u32::from(job.batch_size).into(), text::batch_size(job)),
            ms(job.processing_ms.median),
            ms(job.processing_ms.p95),
            ms(job.processing_ms.p99),
            or_dash(accuracy, format!("{:.1} %", accuracy.unwrap_or(0.0) * 100.0)),
            Cell::plain(job.dataset.to_string()),
            Cell::plain(jobs::name(job)),
            Cell::count(job.details.weight.into()),
        ],
    }
}
