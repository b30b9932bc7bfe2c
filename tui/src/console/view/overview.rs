//! The overview: health, throughput and recent events.

use idunno_shared::wire::control::{ClusterView, JobState, JobView, StoreView};
use idunno_shared::wire::jobs::ServerState;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};
use unicode_width::UnicodeWidthStr;

use super::{empty, figures, table};
use crate::answer::text;
use crate::console::layout::WIDE;
use crate::console::rate_history::{RateSeries, STEPS_MAX};
use crate::console::rows::progress;
use crate::console::state::State;
use crate::console::theme::{Theme, Tone};

/// Lines of the figures, including the title.
const FIGURES: u16 = 10;
/// Columns of the figures beside the charts.
const FIGURES_WIDTH: u16 = 57;
/// Lines that are left to the events at least.
const EVENTS_MIN: u16 = 4;
/// Lines of the first steps.
const FIRST_STEPS: u16 = 8;
const BAR: usize = 10;
/// The coordinator's steps take 5 s.
const STEPS_PER_MINUTE: usize = 12;
/// The highest chart, in lines.
const CHART_MAX: usize = 8;

pub(super) fn draw(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let Some(view) = &state.view else {
        let text = Paragraph::new(empty::page(state)).style(state.theme.style(Tone::Dim));
        frame.render_widget(text.wrap(Wrap { trim: true }), area);
        return;
    };
    let jobs = charted_jobs(state, view);
    let areas = areas(area, jobs.len(), view.jobs.is_empty());
    let inside = Rect { width: areas.figures.width.saturating_sub(2), ..areas.figures };
    frame.render_widget(Paragraph::new(figures(state, view, inside.width)), inside);
    draw_charts(state, &jobs, frame, areas.charts);
    draw_events(state, frame, areas.events);
}

struct OverviewAreas {
    figures: Rect,
    charts: Rect,
    events: Rect,
}

fn areas(area: Rect, charted_jobs: usize, no_jobs: bool) -> OverviewAreas {
    if area.width >= WIDE {
        // The charts take what they can use, the events the rest.
        let charts = u16::try_from(charted_jobs.max(1) * (CHART_MAX + 1) + 2).unwrap_or(u16::MAX);
        let top = charts.max(FIGURES).min(area.height / 3 * 2);
        let [top, events] =
            Layout::vertical([Constraint::Length(top), Constraint::Min(EVENTS_MIN)]).areas(area);
        let [figures, charts] =
            Layout::horizontal([Constraint::Length(FIGURES_WIDTH), Constraint::Min(0)]).areas(top);
        return OverviewAreas { figures, charts, events };
    }
    let room = area.height.saturating_sub(FIGURES + EVENTS_MIN).max(3);
    let needed = match charted_jobs {
        _ if no_jobs => FIRST_STEPS,
        0 => 0,
        jobs => u16::try_from(jobs).unwrap_or(u16::MAX).saturating_mul(3).saturating_add(1),
    };
    let parts = [Constraint::Max(FIGURES), Constraint::Length(needed.min(room)), Constraint::Min(0)];
    let [figures, charts, events] = Layout::vertical(parts).areas(area);
    OverviewAreas { figures, charts, events }
}

fn figures(state: &State, view: &ClusterView, width: u16) -> Vec<Line<'static>> {
    let theme = state.theme;
    let store = &view.store;
    let current = |label: &str, spans: Vec<Span<'static>>| {
        let mut all = vec![Span::styled(format!("{label:<13}"), theme.style(Tone::Dim))];
        all.extend(spans);
        Line::from(all)
    };
    // Only who is up is known without a coordinator.
    let line = |label: &str, mut spans: Vec<Span<'static>>| {
        if state.is_outdated() {
            spans.iter_mut().for_each(|span| span.style = theme.style(Tone::Dim));
        }
        current(label, spans)
    };
    let raw = |text: String| vec![Span::raw(text)];
    let voters = figures::voters(view);
    let mut members = figures::members(view, theme);
    members.push(Span::raw(format!("({} of {} voters up)", voters.up, voters.all)));
    let ready = view.workers.iter().filter(|worker| worker.server == ServerState::Ready).count();
    let files =
        format!("{} in {}, {}", store.files, text::count(store.blobs, "blob"), text::bytes(store.bytes));
    vec![
        Line::styled("CLUSTER", theme.style(Tone::Title)),
        health_line(state, view, width),
        current("members", members),
        line("servers", raw(format!("{ready} of {} ready", view.workers.len()))),
        line("jobs", raw(job_counts(view))),
        line("fairness gap", vec![fairness_gap(view, theme)]),
        line("files", raw(files)),
        line("copies", vec![copies(&view.store, theme)]),
        Line::raw(""),
    ]
}

/// The health of the cluster. Without a coordinator it is what it last was, but for the members, if one of them answers.
fn health_line(state: &State, view: &ClusterView, width: u16) -> Line<'static> {
    let health = figures::health(view);
    let word = match health.tone {
        Tone::Good => "healthy",
        Tone::Warn => "degraded",
        _ => "critical",
    };
    let tone = if state.is_outdated() { health.tone.at_least_warn() } else { health.tone };
    let prefix = match (state.is_outdated(), state.members_ms) {
        (false, _) => "",
        (true, Some(_)) => "no coordinator, ",
        (true, None) => "not connected, was ",
    };
    let problems =
        if health.problems.is_empty() { String::new() } else { format!(": {}", health.problems.join(", ")) };
    let text = table::cut(format!("{prefix}{word}{problems}"), usize::from(width.saturating_sub(2)));
    Line::from(with_glyph(tone, &text, state.theme))
}

fn with_glyph(tone: Tone, text: &str, theme: Theme) -> Span<'static> {
    Span::styled(format!("{} {text}", theme.glyph(tone)), theme.style(tone))
}

fn job_counts(view: &ClusterView) -> String {
    let mut running = 0;
    let mut paused = 0;
    let mut done = 0;
    for job in &view.jobs {
        match job.state {
            JobState::Running => running += 1,
            JobState::Paused(_) => paused += 1,
            JobState::Done => done += 1,
            JobState::Added | JobState::Stopped | JobState::Cancelled | JobState::Waiting(_) => {}
        }
    }
    format!("{running} running, {paused} paused, {done} done")
}

fn fairness_gap(view: &ClusterView, theme: Theme) -> Span<'static> {
    match figures::fairness_gap(view) {
        None => Span::styled("fewer than two running jobs", theme.style(Tone::Dim)),
        Some(gap) => {
            let policy = text::policy(view.policy).0;
            Span::raw(format!("{:.0} % between {} jobs, policy {policy}", gap.share * 100.0, gap.jobs))
        }
    }
}

fn copies(store: &StoreView, theme: Theme) -> Span<'static> {
    match (store.unavailable, store.under_replicated) {
        (0, 0) => with_glyph(Tone::Good, "fully replicated", theme),
        (0, under) => {
            let text = format!("{under} under-replicated, {} copying", store.copying);
            with_glyph(Tone::Warn, &text, theme)
        }
        (unavailable, under) => {
            let text = format!("{unavailable} unavailable, {under} under-replicated");
            with_glyph(Tone::Bad, &text, theme)
        }
    }
}

/// The jobs with a chart: those that run, then those with recent answers.
fn charted_jobs<'a>(state: &State, view: &'a ClusterView) -> Vec<&'a JobView> {
    let has_answers = |job: &&JobView| state.rates.jobs.get(&job.id).is_some_and(RateSeries::has_answers);
    let mut jobs: Vec<&JobView> =
        view.jobs.iter().filter(|job| job.state == JobState::Running || has_answers(job)).collect();
    jobs.sort_by_key(|job| job.state != JobState::Running);
    jobs
}

fn draw_charts(state: &State, jobs: &[&JobView], frame: &mut Frame<'_>, area: Rect) {
    if area.height == 0 {
        return;
    }
    let theme = state.theme;
    let width = usize::from(area.width).saturating_sub(1);
    // A step is as many cells wide as the screen allows.
    let steps = STEPS_MAX.min(width);
    let cells = (width / STEPS_MAX).max(1);
    let title = format!("QUERIES PER SECOND, {} MIN", steps / STEPS_PER_MINUTE);
    let mut lines = vec![Line::styled(title, theme.style(Tone::Title))];
    if jobs.is_empty() {
        lines.extend(first_steps(state));
    }
    let room = usize::from(area.height).saturating_sub(1);
    let shown = jobs.len().min((room / 2).max(1));
    let height = (room.checked_div(shown).unwrap_or(0)).saturating_sub(1).min(CHART_MAX);
    let mut has_unknown = false;
    for (number, job) in jobs.iter().take(shown).enumerate() {
        let values = state.rates.jobs.get(&job.id).map(|series| series.last(steps)).unwrap_or_default();
        has_unknown |= values.iter().any(|value| value.is_nan());
        let top = values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
        let wide: Vec<f64> = values.into_iter().flat_map(|value| std::iter::repeat_n(value, cells)).collect();
        lines.push(Line::raw(table::cut(chart_label(job, top, width, theme), width)));
        let chart = theme.chart(&wide, wide.len(), height, top);
        lines.extend(chart.into_iter().map(|line| Line::styled(line, theme.style(Tone::Series(number)))));
    }
    let more = jobs.len() - shown;
    if more > 0 && lines.len() < usize::from(area.height) {
        lines.push(Line::styled(format!("and {more} more: see the jobs page"), theme.style(Tone::Dim)));
    }
    if has_unknown {
        // A new coordinator does not know the rates before its term.
        lines[0].push_span(Span::styled("  blank: unknown", theme.style(Tone::Dim)));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// What to do next while there is no job, for new users.
fn first_steps(state: &State) -> Vec<Line<'static>> {
    let theme = state.theme;
    let mut lines = vec![Line::styled("no job has run recently", theme.style(Tone::Dim)), Line::raw("")];
    let is_new = state.view.as_ref().is_some_and(|view| view.jobs.is_empty());
    if state.read_only || !is_new {
        return lines;
    }
    lines.push(Line::styled("FIRST STEPS", theme.style(Tone::Title)));
    for (name, what) in [
        ("populate-test-data", "store a directory as a dataset"),
        ("train-start", "train the models"),
        ("add-job", "add a job: a model on a dataset"),
        ("start-job", "start it"),
    ] {
        let keys = state.keymap.hint(name).unwrap_or_default();
        lines.push(Line::from(vec![
            Span::styled(format!("{keys:<5}"), theme.style(Tone::Key)),
            Span::raw(format!("{what}  ")),
            Span::styled(format!(":{name}"), theme.style(Tone::Dim)),
        ]));
    }
    lines
}

/// The line above a job's chart: as much as fits, the most important first.
fn chart_label(job: &JobView, top: f64, width: usize, theme: Theme) -> String {
    let (share, percent) = progress(job);
    let head = format!("{} {}  {:.1} q/s", job.id, job.model, job.rate_10s_qps);
    let bar = format!("  {} {percent} %", theme.bar(share, BAR));
    let eta = job.eta_s.map(|eta| format!("  {} left", text::seconds(eta))).unwrap_or_default();
    let state = if job.state == JobState::Running {
        String::new()
    } else {
        format!("  {}", text::job_state(&job.state).0)
    };
    let mut label = head;
    for part in [state, bar, eta, format!("  peak {top:.1}")] {
        if label.width() + part.width() <= width {
            label.push_str(&part);
        }
    }
    label
}

fn draw_events(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let theme = state.theme;
    let mut lines = vec![Line::styled("RECENT EVENTS", theme.style(Tone::Title))];
    if state.events.list.is_empty() {
        lines.push(Line::styled("no events since the console was opened", theme.style(Tone::Dim)));
    }
    let room = usize::from(area.height).saturating_sub(1);
    lines.extend(state.events.list.iter().rev().take(room).map(|event| {
        Line::from(vec![
            Span::styled(format!("{}  ", text::clock(event.at_ms)), theme.style(Tone::Dim)),
            Span::styled(format!("{} {}", theme.glyph(event.tone), event.text), theme.style(event.tone)),
        ])
    }));
    frame.render_widget(Paragraph::new(lines), area);
}
