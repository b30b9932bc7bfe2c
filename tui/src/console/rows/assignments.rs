//! Who works on what: the assignments page, a job's members, and leased batches.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::control::{
    AssignmentView, ClusterView, JobState, LeaseStage, LeaseView, WorkerView,
};

use super::members;
use crate::console::rate_history::RateHistory;
use crate::console::table::{Cell, Column, DataRow, Mark, RowWindow, TableContent};
use crate::console::theme::Tone;
use crate::execute::leases;
use crate::execute::members::natural;

/// Jobs that have a column.
const JOBS_MAX: usize = 8;
/// A share that changed by less counts as unchanged.
const CHANGE_MIN: f64 = 0.05;

/// Members by jobs, with each job's share of the member's last minute and its trend.
pub(super) fn content(view: &ClusterView, rates: &RateHistory, window: &RowWindow) -> TableContent {
    let jobs = jobs_with_column(view);
    let mut columns = vec![Column::text("MEMBER", 0), Column::text("NOW", 1)];
    columns.extend((2..).zip(&jobs).map(|(rank, job)| Column::number(job.to_string().to_uppercase(), rank)));
    columns.push(Column::text("MODEL SERVER", 20));
    let workers: BTreeMap<NodeId, &WorkerView> = view.workers.iter().map(|it| (it.node, it)).collect();
    let mut assignments: Vec<&AssignmentView> = view.assignments.iter().collect();
    assignments.sort_by_cached_key(|assignment| natural(&assignment.name));
    let rows = assignments.into_iter().enumerate().map(|(line, assignment)| {
        if !window.contains(line) {
            return DataRow { key: assignment.name.clone(), cells: Vec::new() };
        }
        assignment_row(assignment, &jobs, workers.get(&assignment.node).copied(), rates)
    });
    TableContent::new(columns, rows.collect())
}

/// The jobs that run, and those that recently had a share.
fn jobs_with_column(view: &ClusterView) -> Vec<JobId> {
    // Evaluated only if there is a job that does not run.
    let had_share = LazyCell::new(|| -> BTreeSet<JobId> {
        let shares = view.assignments.iter().flat_map(|assignment| &assignment.shares);
        shares.filter(|(_, share)| *share > 0.0).map(|(id, _)| *id).collect()
    });
    let shown = view.jobs.iter().filter(|job| job.state == JobState::Running || had_share.contains(&job.id));
    shown.map(|job| job.id).take(JOBS_MAX).collect()
}

fn assignment_row(
    assignment: &AssignmentView,
    jobs: &[JobId],
    worker: Option<&WorkerView>,
    rates: &RateHistory,
) -> DataRow {
    let current: Vec<String> = assignment.current.iter().map(ToString::to_string).collect();
    let now = if current.is_empty() {
        Cell::state(Tone::Dim, "idle")
    } else {
        Cell::state(Tone::Good, current.join(" "))
    };
    let mut cells = vec![Cell::plain(assignment.name.clone()), now];
    for job in jobs {
        let share = share_of(assignment, *job);
        let trend = match rates.share_before(assignment.node, *job) {
            Some(before) if share > before + CHANGE_MIN => "up ",
            Some(before) if share < before - CHANGE_MIN => "dn ",
            _ => "",
        };
        let tone = if share > 0.0 { Tone::Plain } else { Tone::Dim };
        cells.push(Cell { tone, ..Cell::number(share, format!("{trend}{}", percent(share))) });
    }
    cells.push(worker.map_or_else(|| Cell::plain("-"), |worker| members::server(&worker.server)));
    DataRow { key: assignment.name.clone(), cells }
}

fn share_of(assignment: &AssignmentView, job: JobId) -> f64 {
    assignment.shares.iter().find(|(id, _)| *id == job).map_or(0.0, |(_, share)| *share)
}

fn percent(share: f64) -> String {
    format!("{:>3.0} %", share * 100.0)
}

pub(super) fn job_members(job: JobId, view: &ClusterView) -> TableContent {
    let columns = vec![Column::text("MEMBER", 0), Column::text("SHARE OF 60 S", 1), Column::text("NOW", 0)];
    let mut rows: Vec<DataRow> =
        view.assignments.iter().map(|assignment| job_member_row(assignment, job)).collect();
    rows.sort_by(|a, b| natural(&a.key).cmp(&natural(&b.key)));
    TableContent::new(columns, rows)
}

fn job_member_row(assignment: &AssignmentView, job: JobId) -> DataRow {
    let now = if assignment.current.contains(&job) {
        Cell::state(Tone::Good, "working on it")
    } else if assignment.current.is_empty() {
        Cell::state(Tone::Dim, "idle")
    } else {
        Cell::state(Tone::Dim, "working on other jobs")
    };
    let share = share_of(assignment, job);
    let share = Cell { mark: Mark::Bar(share), ..Cell::number(share, percent(share)) };
    DataRow { key: assignment.name.clone(), cells: vec![Cell::plain(assignment.name.clone()), share, now] }
}

/// Leased batches, each worker's in the order in which it runs them.
pub(super) fn batches(leases: &[LeaseView]) -> TableContent {
    let columns = vec![
        Column::text("MEMBER", 0),
        Column::text("STAGE", 0),
        Column::text("JOB", 1),
        Column::number("QUERIES", 2),
        Column::number("COUNT", 3),
        Column::number("ATTEMPT", 4),
        Column::number("TERM", 5),
    ];
    let mut leases: Vec<&LeaseView> = leases.iter().collect();
    leases.sort_by_cached_key(|view| natural(&view.name));
    TableContent::new(columns, leases.into_iter().map(batch_row).collect())
}

fn batch_row(view: &LeaseView) -> DataRow {
    let lease = &view.lease;
    let first = lease.range.first;
    let tone = if view.stage == LeaseStage::Waiting { Tone::Dim } else { Tone::Good };
    DataRow {
        key: format!("{} {} {} {}", view.name, lease.job, first, lease.attempt),
        cells: vec![
            Cell::plain(view.name.clone()),
            Cell::state(tone, leases::stage(view.stage)),
            Cell::plain(lease.job.to_string()),
            Cell::number(first as f64, leases::queries(view)),
            Cell::count(lease.range.count.into()),
            Cell::count(lease.attempt.into()),
            Cell::count(lease.term.0),
        ],
    }
}
