//! The rows of the assignments page: VMs by jobs, with each job's share of the VM's last minute and where it goes.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::control::{AssignmentView, ClusterView, JobState, WorkerView};

use super::super::history::History;
use super::super::table::{Cell, Column, Content, Row, Window, column};
use super::super::theme::Role;
use super::members;
use crate::execute::members::natural;

type Workers<'a> = BTreeMap<NodeId, &'a WorkerView>;

/// Most jobs that have a column.
const JOBS_MAX: usize = 8;
/// A share that moved by less is said to stay.
const MOVE_MIN: f64 = 0.05;

pub(super) fn content(view: &ClusterView, history: &History, window: &Window) -> Content {
    let jobs = jobs(view);
    let mut columns = vec![column("VM", false, 0), column("NOW", false, 1)];
    columns.extend(jobs.iter().enumerate().map(|(place, job)| Column {
        title: job.to_string().to_uppercase(),
        right: true,
        rank: u8::try_from(place + 2).unwrap_or(u8::MAX),
    }));
    columns.push(column("MODEL SERVER", false, 20));
    let workers: Workers<'_> = view.workers.iter().map(|worker| (worker.node, worker)).collect();
    let mut assignments: Vec<&AssignmentView> = view.assignments.iter().collect();
    assignments.sort_by_cached_key(|it| natural(&it.name));
    let row = |(line, it): (usize, &AssignmentView)| {
        if window.has(line) {
            row(it, &jobs, &workers, history)
        } else {
            Row { key: it.name.clone(), cells: Vec::new() }
        }
    };
    let rows = assignments.into_iter().enumerate().map(row).collect();
    (columns, rows)
}

/// The jobs that have a column: those that run, and those that had a share lately.
fn jobs(view: &ClusterView) -> Vec<JobId> {
    // Looked for only where a job that does not run may have a column.
    let had_share = LazyCell::new(|| -> BTreeSet<JobId> {
        let shares = view.assignments.iter().flat_map(|row| &row.shares);
        shares.filter(|(_, share)| *share > 0.0).map(|(id, _)| *id).collect()
    });
    let wanted = view.jobs.iter().filter(|job| job.state == JobState::Running || had_share.contains(&job.id));
    wanted.map(|job| job.id).take(JOBS_MAX).collect()
}

fn row(it: &AssignmentView, jobs: &[JobId], workers: &Workers<'_>, history: &History) -> Row {
    let current: Vec<String> = it.current.iter().map(ToString::to_string).collect();
    let now = if current.is_empty() {
        Cell::state(Role::Dim, "idle")
    } else {
        Cell::state(Role::Good, current.join(" "))
    };
    let mut cells = vec![Cell::plain(it.name.clone()), now];
    for job in jobs {
        let share = it.shares.iter().find(|(id, _)| id == job).map_or(0.0, |(_, share)| *share);
        let moved = match history.share_before(it.node, *job) {
            Some(before) if share > before + MOVE_MIN => "up ",
            Some(before) if share < before - MOVE_MIN => "dn ",
            _ => "",
        };
        let role = if share > 0.0 { Role::Plain } else { Role::Dim };
        let text = format!("{moved}{:>3.0} %", share * 100.0);
        cells.push(Cell { role, ..Cell::figure(share, text) });
    }
    let worker = workers.get(&it.node);
    cells.push(worker.map_or_else(|| Cell::plain("-"), |worker| members::server(&worker.server)));
    Row { key: it.name.clone(), cells }
}
