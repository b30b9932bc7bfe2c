//! The details of a job, member or file: its figures, its tabs, and the open tab's table.

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::control::{ClusterView, JobView};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::empty::with_keys;
use super::panel;
use crate::answer::{jobs, text};
use crate::console::detail::{Detail, DetailTab, DetailTarget};
use crate::console::query::DetailData;
use crate::console::rate_history::{RateSeries, STEPS_MAX, current_rate};
use crate::console::rows::{job_state, liveness, progress};
use crate::console::state::State;
use crate::console::table::Cell;
use crate::console::theme::{Theme, Tone};
use crate::tail::printable;

const BAR: usize = 20;

pub(super) struct DetailAreas {
    head: Rect,
    pub(super) table: Rect,
}

pub(super) fn areas(detail: &Detail, body: Rect) -> DetailAreas {
    let height = match detail.target {
        DetailTarget::Job(_) => 6,
        DetailTarget::Member { .. } => 5,
        DetailTarget::File(_) | DetailTarget::Row { .. } => 3,
    };
    let [head, table] = Layout::vertical([Constraint::Max(height), Constraint::Min(1)]).areas(body);
    DetailAreas { head, table }
}

pub(super) fn draw(state: &State, detail: &Detail, frame: &mut Frame<'_>, area: Rect) {
    let theme = state.theme;
    let areas = areas(detail, area);
    let mut lines = vec![breadcrumbs(state)];
    if let Some(view) = &state.view {
        lines.extend(match &detail.target {
            DetailTarget::Job(id) => job(state, *id, view, areas.head.width),
            DetailTarget::Member { id, .. } => member(state, *id, view),
            DetailTarget::File(_) => file(detail),
            DetailTarget::Row { .. } => Vec::new(),
        });
    }
    // The tabs stand right above the table, however many figures fit.
    let room = usize::from(areas.head.height).saturating_sub(1).max(1);
    lines.truncate(room);
    lines.resize(room, Line::raw(""));
    lines.push(tabs(detail, theme));
    frame.render_widget(Paragraph::new(lines), areas.head);
    if detail.table.rows.is_empty() {
        let text = Paragraph::new(empty_text(state, detail)).style(theme.style(Tone::Dim));
        frame.render_widget(text.wrap(Wrap { trim: true }), areas.table);
    } else {
        panel::draw_with_table(state, frame, areas.table);
    }
}

/// The page and the details opened on it.
fn breadcrumbs(state: &State) -> Line<'static> {
    let mut names = vec![state.page.title().to_owned()];
    names.extend(state.details.iter().map(|detail| detail.target.title()));
    Line::styled(names.join(" > "), state.theme.style(Tone::Title))
}

fn tabs(detail: &Detail, theme: Theme) -> Line<'static> {
    let spans = detail.target.tabs().iter().map(|tab| {
        let tone = if *tab == detail.tab { Tone::Selected } else { Tone::Dim };
        Span::styled(format!(" {} ", tab.title()), theme.style(tone))
    });
    Line::from(spans.collect::<Vec<_>>())
}

fn empty_text(state: &State, detail: &Detail) -> String {
    if let Some(error) = &detail.error {
        return printable(error);
    }
    let start = [("start-job", "starts the job")];
    match (&detail.data, detail.tab) {
        _ if !detail.table.filter.is_empty() => String::from("no row matches the filter; Esc clears it"),
        (None, _) if detail.in_flight.is_some() => String::from("loading"),
        (Some(DetailData::DeadLetters(_)), _) => {
            String::from("no dead letters: no query has failed for good")
        }
        (Some(DetailData::Leases(_)), DetailTab::JobBatches) => {
            with_keys(state, "no batch is leased", &start)
        }
        (Some(DetailData::Leases(_)), _) => String::from("no batch is leased"),
        (Some(DetailData::Versions(versions)), _) if !versions.is_empty() => {
            String::from("an empty file: no extents")
        }
        (_, DetailTab::JobMembers) => with_keys(state, "no member works for it", &start),
        (_, DetailTab::JobBatches | DetailTab::JobDeadLetters | DetailTab::JobResults) => {
            with_keys(state, "no results yet", &start)
        }
        (_, DetailTab::MemberFiles) => {
            with_keys(state, "no files are stored on this member", &[("put", "stores one")])
        }
        (_, DetailTab::MemberModels | DetailTab::MemberBatches) => {
            with_keys(state, "the member's worker has not reported yet", &[("logs", "shows the logs")])
        }
        (_, DetailTab::FileExtents | DetailTab::FileVersions | DetailTab::FilePreview | DetailTab::Row) => {
            String::from("nothing to show")
        }
    }
}

fn state_span(theme: Theme, state: &Cell) -> Span<'static> {
    Span::styled(format!("{} {}", theme.glyph(state.tone), state.text), theme.style(state.tone))
}

fn job(state: &State, id: JobId, view: &ClusterView, width: u16) -> Vec<Line<'static>> {
    let theme = state.theme;
    let Some(job) = state.old_jobs.find(view, id) else {
        return vec![Line::raw("this job no longer exists")];
    };
    let (share, percent) = progress(job);
    let name = job.details.name.as_ref().map(|name| format!(", named {name}")).unwrap_or_default();
    let eta = job.eta_s.map(|eta| format!(", {} left", text::seconds(eta))).unwrap_or_default();
    let times = &job.processing_ms;
    vec![
        Line::from(vec![
            state_span(theme, &job_state(job)),
            Span::raw(format!(
                "  {} {percent} % of {}  {} on {}{name}",
                theme.bar(share, BAR),
                job.submitted,
                job.model,
                printable(job.dataset.as_str())
            )),
        ]),
        Line::raw(job_counts(job)),
        Line::from(vec![
            Span::raw(format!(
                "{:.1} q/s over 10 s, {:.1} since the start{eta}  ",
                job.rate_10s_qps, job.rate_qps
            )),
            sparkline(state.rates.jobs.get(&id), width, theme),
        ]),
        Line::raw(format!(
            "ms/query by batch: mean {:.1}, sd {:.1}, median {:.1}, p90 {:.1}, p95 {:.1}, p99 {:.1}",
            times.mean, times.std_dev, times.median, times.p90, times.p95, times.p99
        )),
    ]
}

fn job_counts(job: &JobView) -> String {
    let accuracy = jobs::accuracy(job).map(|it| format!("  top-1 {:.1} %", it * 100.0)).unwrap_or_default();
    let weight = match job.details.weight {
        0 | 1 => String::new(),
        weight => format!(", weight {weight}"),
    };
    let owner = job.details.owner.as_ref().map(|owner| format!("  owner {owner}")).unwrap_or_default();
    format!(
        "{} done  {} dead  {} pending ({} leased)  batch {}{weight}{owner}{accuracy}",
        job.done,
        job.dead,
        jobs::pending(job),
        job.leased,
        text::batch_size(job)
    )
}

/// The last minutes of a series in one line; nothing if it has no answers.
fn sparkline(series: Option<&RateSeries>, width: u16, theme: Theme) -> Span<'static> {
    let Some(series) = series.filter(|series| series.has_answers()) else { return Span::raw("") };
    let values = series.last(STEPS_MAX.min(usize::from(width / 3)));
    let top = values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
    let line = theme.chart(&values, values.len(), 1, top).remove(0);
    Span::styled(line.trim_start().to_owned(), theme.style(Tone::Series(0)))
}

fn member(state: &State, id: NodeId, view: &ClusterView) -> Vec<Line<'static>> {
    let theme = state.theme;
    let Some(member) = view.members.iter().find(|member| member.id == id) else {
        return vec![Line::raw("this member no longer exists")];
    };
    let liveness = liveness(member);
    let load = match view.loads.iter().find(|load| load.node == id) {
        None => String::from("the member has not reported its load yet"),
        Some(load) => format!(
            "stores {} ({}); {} leased in {}",
            text::count(load.blobs, "blob"),
            text::bytes(load.bytes),
            text::queries(load.queries),
            if load.batches == 1 { String::from("1 batch") } else { format!("{} batches", load.batches) },
        ),
    };
    let series = state.rates.members.get(&id);
    let rate = series.and_then(|series| current_rate(&series.last(2)));
    let answers = rate.map_or_else(Vec::new, |rate| {
        let text = format!("answers {rate:.1} q/s over 10 s  ");
        vec![Span::raw(text), sparkline(series, state.size.width, theme)]
    });
    vec![
        Line::from(vec![
            state_span(theme, &liveness),
            Span::raw(format!(
                "  {}  {}  {}  incarnation {}  id {id}",
                member.address,
                text::role(member.role),
                text::count(member.generation, "start"),
                member.incarnation
            )),
        ]),
        Line::raw(load),
        Line::from(answers),
    ]
}

fn file(detail: &Detail) -> Vec<Line<'static>> {
    let Some(DetailData::Versions(versions)) = &detail.data else { return Vec::new() };
    let Some(newest) = versions.first() else { return Vec::new() };
    vec![Line::raw(format!(
        "version {}, {}, {} kept, created {} UTC",
        newest.version,
        text::bytes(newest.size),
        text::count(versions.len() as u64, "version"),
        text::moment(newest.created_ms)
    ))]
}
