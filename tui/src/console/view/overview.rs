//! The overview: health, throughput and recent events.

use idunno_shared::wire::control::{ClusterView, JobState, JobView, StoreView};
use idunno_shared::wire::jobs::ServerState;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};
use unicode_width::UnicodeWidthStr;

use super::chart::{BELOW, Chart};
use super::timeline::{self, RATE_UNIT};
use super::{cluster_map, empty, figures, table};
use crate::answer::text;
use crate::console::event_fold;
use crate::console::layout::WIDE;
use crate::console::rate_history::{RateSeries, STEPS_MAX, fairness_gap};
use crate::console::rows::progress;
use crate::console::state::State;
use crate::console::theme::{Theme, Tone};
use crate::console::wrap::wrapped_words;

/// Lines of the figures, including the title, if the health needs one.
const FIGURES: u16 = 10;
/// Lines of the health, at most.
const HEALTH_MAX: usize = 3;
/// Columns of the figures beside the charts, of 200 columns more.
const FIGURES_WIDTH: u16 = 57;
/// Lines that are left to the events at least.
const EVENTS_MIN: u16 = 4;
/// Lines of the first steps.
const FIRST_STEPS: u16 = 8;
const BAR: usize = 10;
/// Columns of an event's time and glyph.
const EVENT_INDENT: usize = 12;
/// Lines of a chart without axes, with its label, if there is room for all; and at least.
const CHART: u16 = 3;
const CHART_MIN: u16 = 2;
/// Lines of a chart with axes, with its label.
const CHART_WITH_AXES: u16 = 9;
/// Members whose load is shown on the overview.
const LOADS_MAX: usize = 10;
/// Lines of the chart of the fairness.
const FAIRNESS: u16 = 8;
/// Lines of the map, at most.
const MAP_MAX: u16 = 14;

pub(super) fn draw(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let Some(view) = &state.view else {
        let text = Paragraph::new(empty::page(state)).style(state.theme.style(Tone::Dim));
        frame.render_widget(text.wrap(Wrap { trim: true }), area);
        return;
    };
    let jobs = charted_jobs(state, view);
    if area.width >= WIDE {
        draw_wide(state, view, &jobs, frame, area);
    } else {
        draw_narrow(state, view, &jobs, frame, area);
    }
}

/// The figures, the map and the events at the left, the charts at the right.
fn draw_wide(state: &State, view: &ClusterView, jobs: &[&JobView], frame: &mut Frame<'_>, area: Rect) {
    let left = FIGURES_WIDTH.max(area.width * 2 / 5);
    let [left, right] = Layout::horizontal([Constraint::Length(left), Constraint::Min(0)]).areas(area);
    let inside = Rect { width: left.width.saturating_sub(2), ..left };
    let width = usize::from(inside.width);
    let room = MAP_MAX.min(area.height.saturating_sub(FIGURES + EVENTS_MIN) / 2);
    let map = cluster_map::lines(state, view, width, usize::from(room));
    let figures = figures(state, view, inside.width);
    let parts = [lines(figures.len()), lines(map.len()) + 1].map(Constraint::Length);
    let [figure_area, map_area, events] =
        Layout::vertical([parts[0], parts[1], Constraint::Min(0)]).areas(inside);
    frame.render_widget(Paragraph::new(figures), figure_area);
    frame.render_widget(Paragraph::new(map), map_area);
    draw_events(state, frame, events);

    let width = usize::from(right.width);
    let loads = cluster_map::loads(state, view, width, state.rates.members.len().min(LOADS_MAX) + 1);
    let needed = lines(jobs.len().clamp(1, 3)) * CHART_WITH_AXES + 1;
    let rest = right.height.saturating_sub(needed + lines(loads.len()) + 1);
    let fairness = if view.jobs.is_empty() || rest < FAIRNESS { 0 } else { FAIRNESS };
    let parts =
        [Constraint::Min(0), Constraint::Length(lines(loads.len()) + 1), Constraint::Length(fairness)];
    let [charts, load_area, fairness_area] = Layout::vertical(parts).areas(right);
    draw_charts(state, jobs, frame, charts);
    frame.render_widget(Paragraph::new(loads), load_area);
    let chart = timeline::fairness(state, width, usize::from(fairness));
    frame.render_widget(Paragraph::new(chart), fairness_area);
}

fn draw_narrow(state: &State, view: &ClusterView, jobs: &[&JobView], frame: &mut Frame<'_>, area: Rect) {
    let room = area.height.saturating_sub(FIGURES + EVENTS_MIN).max(3);
    let of_a_job = if room > lines(jobs.len()) * CHART_WITH_AXES { CHART_WITH_AXES } else { CHART };
    let needed = match jobs.len() {
        _ if view.jobs.is_empty() => FIRST_STEPS,
        0 => 0,
        jobs => lines(jobs).saturating_mul(of_a_job).saturating_add(1),
    };
    let figures = figures(state, view, area.width.saturating_sub(2));
    let parts = [lines(figures.len()), needed.min(room)].map(Constraint::Max);
    let [figure_area, charts, events] =
        Layout::vertical([parts[0], parts[1], Constraint::Min(EVENTS_MIN)]).areas(area);
    frame.render_widget(Paragraph::new(figures), figure_area);
    draw_charts(state, jobs, frame, charts);
    draw_events(state, frame, events);
}

fn lines(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
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
    let mut lines = vec![Line::styled("CLUSTER", theme.style(Tone::Title))];
    lines.extend(health(state, view, width));
    lines.extend([
        current("members", members),
        line("servers", raw(format!("{ready} of {} ready", view.workers.len()))),
        line("jobs", raw(job_counts(view))),
        line("fairness gap", vec![fairness_text(view, theme)]),
        line("files", raw(files)),
        line("copies", vec![copies(&view.store, theme)]),
        Line::raw(""),
    ]);
    lines
}

/// The health of the cluster. Without a coordinator it is what it last was, but for the members, if one of them answers.
fn health(state: &State, view: &ClusterView, width: u16) -> Vec<Line<'static>> {
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
    let text = format!("{} {prefix}{word}{problems}", state.theme.glyph(tone));
    let parts = wrapped_words(&text, usize::from(width)).into_iter().take(HEALTH_MAX);
    parts.map(|part| Line::styled(part, state.theme.style(tone))).collect()
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

fn fairness_text(view: &ClusterView, theme: Theme) -> Span<'static> {
    match fairness_gap(view) {
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
    let title = format!("QUERIES PER SECOND, {} MIN", timeline::recent_minutes());
    let room = usize::from(area.height).saturating_sub(1);
    let shown = jobs.len().min((room / usize::from(CHART_MIN)).max(1));
    let height = (room.checked_div(shown).unwrap_or(0)).saturating_sub(1);
    let has_axes = height > BELOW + 2;
    let mut lines = Vec::new();
    let mut has_unknown = false;
    for job in jobs.iter().take(shown) {
        let values = state.rates.jobs.get(&job.id).map(|series| series.last(STEPS_MAX)).unwrap_or_default();
        has_unknown |= values.iter().any(|value| value.is_nan());
        let top = values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
        lines.push(Line::raw(table::cut(chart_label(job, top, width, theme), width)));
        let tone = timeline::job_tone(job);
        if has_axes {
            let values = timeline::stretched(&values, Chart::columns(width, RATE_UNIT));
            let moments = timeline::moments(state);
            let chart = timeline::recent_chart(state, &values, RATE_UNIT, tone);
            lines.extend(Chart { moments: Some(&moments), ..chart }.lines(theme, height));
        } else {
            let values = timeline::stretched(&values, width);
            let chart = theme.chart(&values, width, height, top);
            lines.extend(chart.into_iter().map(|line| Line::styled(line, theme.style(tone))));
        }
    }
    let mut remarks = Vec::new();
    if has_axes && !jobs.is_empty() {
        remarks.push(timeline::legend(theme));
    }
    if has_unknown {
        // A new coordinator does not know the rates before its term.
        remarks.push(vec![Span::styled("  blank: unknown", theme.style(Tone::Dim))]);
    }
    lines.insert(0, timeline::titled(title, remarks, width, theme));
    if jobs.is_empty() {
        lines.extend(first_steps(state));
    }
    let more = jobs.len() - shown;
    if more > 0 && lines.len() < usize::from(area.height) {
        lines.push(Line::styled(format!("and {more} more: see the jobs page"), theme.style(Tone::Dim)));
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
    let room = usize::from(area.height);
    let width = usize::from(area.width).saturating_sub(EVENT_INDENT);
    for event in event_fold::fold(&state.events.list).iter().rev() {
        if lines.len() >= room {
            break;
        }
        let mut time = Span::styled(format!("{}  ", text::clock(event.at_ms)), theme.style(Tone::Dim));
        let mut glyph = theme.glyph(event.tone);
        for part in wrapped_words(&event.text, width) {
            let text = Span::styled(format!("{glyph} {part}"), theme.style(event.tone));
            lines.push(Line::from(vec![time, text]));
            (time, glyph) = (Span::raw(" ".repeat(EVENT_INDENT - 2)), " ");
        }
    }
    frame.render_widget(Paragraph::new(lines), area);
}
