//! Jobs: the jobs page, and a job's dead letters.

use idunno_shared::wire::control::{ClusterView, DeadLetter, JobState, JobView};

use super::members::MemberNames;
use crate::answer::{jobs, text};
use crate::console::table::{Cell, Column, DataRow, Mark, TableContent};
use crate::console::theme::Tone;

pub(super) fn content<'a>(jobs: impl Iterator<Item = &'a JobView>) -> TableContent {
    let columns = vec![
        Column::text("JOB", 0),
        Column::text("STATE", 0),
        Column::text("PROGRESS", 1),
        Column::number("Q/S", 2),
        Column::number("ETA", 3),
        Column::text("MODEL", 5),
        Column::number("DONE", 5),
        Column::number("DEAD", 4),
        Column::number("PENDING", 6),
        Column::number("TOTAL", 7),
        Column::number("BATCH", 8),
        Column::number("P50 MS", 9),
        Column::number("P95 MS", 11),
        Column::number("P99 MS", 10),
        Column::number("TOP-1", 12),
        Column::text("DATASET", 13),
        Column::text("NAME", 14),
        Column::number("WEIGHT", 15),
    ];
    TableContent::new(columns, jobs.map(row).collect())
}

fn row(job: &JobView) -> DataRow {
    let rate = (job.state == JobState::Running || job.rate_10s_qps > 0.0).then_some(job.rate_10s_qps);
    let (share, percent) = progress(job);
    let accuracy = jobs::accuracy(job);
    let dead = if job.dead > 0 { Tone::Bad } else { Tone::Plain };
    DataRow {
        key: job.id.to_string(),
        cells: vec![
            Cell::plain(job.id.to_string()),
            state(job),
            Cell { mark: Mark::Bar(share), ..Cell::number(share, format!("{percent:>3} %")) },
            number_or_dash(rate, format!("{:.1}", job.rate_10s_qps)),
            number_or_dash(job.eta_s, text::seconds(job.eta_s.unwrap_or(0.0))),
            Cell::plain(job.model.to_string()),
            Cell::count(job.done),
            Cell { tone: dead, ..Cell::count(job.dead) },
            Cell::count(jobs::pending(job)),
            Cell::count(job.submitted),
            Cell::number(u32::from(job.batch_size).into(), text::batch_size(job)),
            milliseconds(job.processing_ms.median),
            milliseconds(job.processing_ms.p95),
            milliseconds(job.processing_ms.p99),
            number_or_dash(accuracy, format!("{:.1} %", accuracy.unwrap_or(0.0) * 100.0)),
            Cell::plain(job.dataset.to_string()),
            Cell::plain(text::job_name(job)),
            Cell::count(job.details.weight.into()),
        ],
    }
}

/// A job's state as glyph and word.
pub fn state(job: &JobView) -> Cell {
    let (word, reason) = text::job_state(&job.state);
    let tone = match job.state {
        JobState::Running | JobState::Done => Tone::Good,
        JobState::Paused(_) => Tone::Bad,
        JobState::Stopped => Tone::Warn,
        JobState::Cancelled | JobState::Waiting(_) => Tone::Plain,
        JobState::Added => Tone::Dim,
    };
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Cell::state(tone, format!("{word}{reason}"))
}

/// The share of a job that is over, and its percentage, rounded down so that 100 % means all.
pub fn progress(job: &JobView) -> (f64, u64) {
    let over = job.done + job.dead;
    let share = if job.submitted == 0 { 0.0 } else { over as f64 / job.submitted as f64 };
    (share, over.saturating_mul(100).checked_div(job.submitted).unwrap_or(0))
}

fn milliseconds(value: f64) -> Cell {
    number_or_dash((value > 0.0).then_some(value), format!("{value:.1}"))
}

/// A missing value sorts below 0.
fn number_or_dash(value: Option<f64>, text: String) -> Cell {
    match value {
        Some(value) => Cell::number(value, text),
        None => Cell { value: Some(-1.0), ..Cell::dash() },
    }
}

pub(super) fn dead_letters(dead_letters: &[DeadLetter], view: &ClusterView) -> TableContent {
    let columns = vec![
        Column::number("QUERY", 0),
        Column::text("REASON", 0),
        Column::text("FILE", 1),
        Column::number("ATTEMPTS", 3),
        Column::text("WORKER", 2),
    ];
    let names = MemberNames::of(view);
    let rows = dead_letters.iter().map(|dead_letter| DataRow {
        key: dead_letter.index.to_string(),
        cells: vec![
            Cell::count(dead_letter.index),
            Cell::state(Tone::Bad, dead_letter.reason.as_str()),
            Cell::plain(dead_letter.name.as_str()),
            Cell::count(dead_letter.attempts.into()),
            Cell::plain(names.get(dead_letter.worker)),
        ],
    });
    TableContent::new(columns, rows.collect())
}
