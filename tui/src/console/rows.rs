//! The rows of the table pages, and the selection among them.

use idunno_shared::wire::control::{
    ClusterView, FileSummary, JobState, JobView, Liveness, LogRole, MemberView,
};
use idunno_shared::wire::jobs::{ModelState, ServerState};

use super::state::{Cursor, Page, State};
use super::theme::Role;
use crate::execute::{files::holder_names, jobs, members::natural, text};

/// A column: its title, whether it is right-aligned, and its rank. On a narrow screen the highest ranks go first.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its title.
    pub title: &'static str,
    /// Whether figures stand in it.
    pub right: bool,
    /// 0 stays always.
    pub rank: u8,
}

const fn column(title: &'static str, right: bool, rank: u8) -> Column {
    Column { title, right, rank }
}

/// A cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// What it means; drawn with its glyph if it is a state.
    pub role: Role,
    /// Whether it is a state, with a glyph.
    pub glyph: bool,
    /// A share to be drawn as a bar before the text.
    pub share: Option<f64>,
}

fn plain(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), ..Cell::default() }
}

fn state_cell(text: impl Into<String>, role: Role) -> Cell {
    Cell { text: text.into(), role, glyph: true, share: None }
}

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it is about: the selection is by this.
    pub key: String,
    /// Its cells, one a column.
    pub cells: Vec<Cell>,
}

const MEMBERS: [Column; 9] = [
    column("NAME", false, 0),
    column("STATE", false, 0),
    column("ROLE", false, 1),
    column("ADDRESS", false, 3),
    column("MODEL SERVER", false, 2),
    column("MODELS", false, 4),
    column("INC", true, 6),
    column("GEN", true, 7),
    column("ID", false, 8),
];

const JOBS: [Column; 13] = [
    column("JOB", false, 0),
    column("STATE", false, 0),
    column("MODEL", false, 2),
    column("PROGRESS", false, 1),
    column("DONE", true, 3),
    column("DEAD", true, 4),
    column("TOTAL", true, 5),
    column("QPS", true, 2),
    column("P50 MS", true, 7),
    column("P99 MS", true, 8),
    column("ETA", true, 6),
    column("TOP-1", true, 9),
    column("DATASET", false, 10),
];

const VMS: [Column; 5] = [
    column("VM", false, 0),
    column("NOW", false, 0),
    column("SHARES OF 60 S", false, 1),
    column("MODEL SERVER", false, 3),
    column("MODELS", false, 2),
];

const FILES: [Column; 6] = [
    column("NAME", false, 0),
    column("VERSION", true, 2),
    column("KEPT", true, 5),
    column("SIZE", true, 1),
    column("CREATED", false, 4),
    column("HOLDERS", false, 3),
];

/// The columns of a page.
pub const fn columns(page: Page) -> &'static [Column] {
    match page {
        Page::Members => &MEMBERS,
        Page::Jobs => &JOBS,
        Page::Vms => &VMS,
        Page::Files => &FILES,
        Page::Log => &[],
    }
}

/// The rows of a page that pass its filter.
pub fn rows(state: &State, page: Page) -> Vec<Row> {
    let Some(view) = &state.view else { return Vec::new() };
    let mut rows: Vec<Row> = match page {
        Page::Members => view.members.iter().map(|member| member_row(view, member)).collect(),
        Page::Jobs => view.jobs.iter().map(job_row).collect(),
        Page::Vms => vm_rows(view),
        // The filter of this page was applied by the coordinator.
        Page::Files => return state.files.rows.iter().map(|file| file_row(view, file)).collect(),
        Page::Log => return Vec::new(),
    };
    if page != Page::Jobs {
        rows.sort_by_cached_key(|row| natural(&row.key));
    }
    let filter = state.filters.get(&page).map(|filter| filter.to_lowercase()).unwrap_or_default();
    rows.retain(|row| row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&filter)));
    rows
}

fn member_row(view: &ClusterView, member: &MemberView) -> Row {
    let role = match member.liveness {
        Liveness::Alive => Role::Good,
        Liveness::Suspect => Role::Warn,
        Liveness::Dead => Role::Bad,
        Liveness::Left => Role::Dim,
    };
    let blocked = if member.udp_blocked { " UDP blocked" } else { "" };
    let worker = view.workers.iter().find(|worker| worker.node == member.id);
    let coordinates = if member.role == LogRole::Coordinator { Role::Title } else { Role::Plain };
    Row {
        key: member.name.to_string(),
        cells: vec![
            plain(member.name.to_string()),
            state_cell(format!("{}{blocked}", text::liveness(member.liveness)), role),
            Cell { role: coordinates, ..plain(text::role(member.role)) },
            plain(member.address.to_string()),
            worker.map_or_else(|| plain("-"), |worker| server_cell(&worker.server)),
            models_cell(worker.map_or(&[], |worker| &worker.models)),
            plain(member.incarnation.to_string()),
            plain(member.generation.to_string()),
            Cell { role: Role::Dim, ..plain(member.id.to_string()) },
        ],
    }
}

fn server_cell(server: &ServerState) -> Cell {
    let (word, reason) = text::server_state(server);
    let role = match server {
        ServerState::Ready => Role::Good,
        ServerState::Starting => Role::Warn,
        ServerState::Down(_) => Role::Bad,
    };
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    state_cell(format!("{word}{reason}"), role)
}

fn models_cell(models: &[(idunno_shared::names::ModelName, ModelState)]) -> Cell {
    let mut role = Role::Plain;
    let mut parts = Vec::new();
    for (model, state) in models {
        let (word, reason) = text::model_state(state);
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        parts.push(format!("{model} {word}{reason}"));
        if matches!(state, ModelState::Failed(_)) {
            role = Role::Bad;
        }
    }
    Cell { role, ..plain(parts.join(", ")) }
}

fn job_row(job: &JobView) -> Row {
    let (word, reason) = text::job_state(&job.state);
    let role = match job.state {
        JobState::Running | JobState::Done => Role::Good,
        JobState::Paused(_) => Role::Bad,
        JobState::Stopped => Role::Warn,
        JobState::Added => Role::Dim,
    };
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let over = job.done + job.dead;
    let share = if job.submitted == 0 { 0.0 } else { over as f64 / job.submitted as f64 };
    // Rounded down, so that 100 % means all.
    let percent = over.saturating_mul(100).checked_div(job.submitted).unwrap_or(0);
    Row {
        key: job.id.to_string(),
        cells: vec![
            plain(job.id.to_string()),
            state_cell(format!("{word}{reason}"), role),
            plain(job.model.to_string()),
            Cell { share: Some(share), ..plain(format!("{percent:>3} %")) },
            plain(job.done.to_string()),
            Cell { role: if job.dead > 0 { Role::Bad } else { Role::Plain }, ..plain(job.dead.to_string()) },
            plain(job.submitted.to_string()),
            plain(format!("{:.1}", job.rate_10s_qps)),
            plain(format!("{:.1}", job.processing_ms.median)),
            plain(format!("{:.1}", job.processing_ms.p99)),
            plain(job.eta_s.map_or_else(|| String::from("-"), text::seconds)),
            plain(
                jobs::accuracy(job)
                    .map_or_else(|| String::from("-"), |share| format!("{:.1} %", share * 100.0)),
            ),
            plain(job.dataset.to_string()),
        ],
    }
}

fn vm_rows(view: &ClusterView) -> Vec<Row> {
    let row = |assignment: &idunno_shared::wire::control::AssignmentView| {
        let worker = view.workers.iter().find(|worker| worker.node == assignment.node);
        let current: Vec<String> = assignment.current.iter().map(ToString::to_string).collect();
        let shares: Vec<String> =
            assignment.shares.iter().map(|(job, share)| format!("{job} {:.0} %", share * 100.0)).collect();
        let now = if current.is_empty() {
            state_cell("idle", Role::Dim)
        } else {
            state_cell(current.join(" "), Role::Good)
        };
        Row {
            key: assignment.name.clone(),
            cells: vec![
                plain(assignment.name.clone()),
                now,
                plain(shares.join(", ")),
                worker.map_or_else(|| plain("-"), |worker| server_cell(&worker.server)),
                models_cell(worker.map_or(&[], |worker| &worker.models)),
            ],
        }
    };
    view.assignments.iter().map(row).collect()
}

fn file_row(view: &ClusterView, file: &FileSummary) -> Row {
    let holders = holder_names(file, &view.members);
    let role = if holders.is_empty() && file.size > 0 { Role::Bad } else { Role::Plain };
    Row {
        key: file.name.to_string(),
        cells: vec![
            plain(crate::tail::printable(file.name.as_str())),
            plain(file.version.to_string()),
            plain(file.versions.to_string()),
            plain(text::bytes(file.size)),
            plain(text::moment(file.created_ms)),
            Cell { role, ..plain(holders.join(" ")) },
        ],
    }
}

/// Moves the selection, or the log, by so many lines.
pub fn move_by(state: &mut State, by: i64) {
    if state.page == Page::Log {
        let filter = state.filter().to_owned();
        state.log.scroll(by, &filter);
        return;
    }
    let rows = rows(state, state.page);
    let Some(last) = rows.len().checked_sub(1) else { return };
    let cursor = state.cursors.entry(state.page).or_default();
    let steps = usize::try_from(by.unsigned_abs()).unwrap_or(usize::MAX);
    let line = match (&cursor.key, by < 0) {
        // Nothing selected: the first step selects where the last thing was.
        (None, _) => cursor.line.min(last),
        (Some(_), true) => cursor.line.saturating_sub(steps),
        (Some(_), false) => cursor.line.saturating_add(steps).min(last),
    };
    *cursor = Cursor { key: Some(rows[line].key.clone()), line };
}

/// Follows the selected thing to its line; if it has gone nothing is selected.
pub fn settle(state: &mut State) {
    let page = state.page;
    let Some(key) = state.cursors.get(&page).and_then(|cursor| cursor.key.clone()) else { return };
    let line = rows(state, page).iter().position(|row| row.key == key);
    let cursor = state.cursors.entry(page).or_default();
    match line {
        Some(line) => cursor.line = line,
        None => cursor.key = None,
    }
}
