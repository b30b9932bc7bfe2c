//! The overview: whether the cluster is well, how fast it works, and what happened last.

use idunno_shared::wire::control::{ClusterView, JobState, JobView};
use idunno_shared::wire::jobs::ServerState;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};
use unicode_width::UnicodeWidthStr;

use super::{figures, table};
use crate::answer::text;
use crate::console::history::{Curve, STEPS_MAX};
use crate::console::layout::WIDE;
use crate::console::rows::progress;
use crate::console::state::{Link, State};
use crate::console::theme::{Role, Theme};

/// Lines of the figures, their title among them.
const FIGURES: u16 = 10;
/// Columns of the figures where they stand beside the charts.
const FIGURES_WIDTH: u16 = 57;
/// The least that the events get.
const EVENTS_MIN: u16 = 4;
/// Lines of the first steps.
const FIRST_STEPS: u16 = 8;
const BAR: usize = 10;
/// The coordinator's steps are of 5 s.
const STEPS_A_MINUTE: usize = 12;
/// The highest chart, in lines.
const CHART_MAX: usize = 8;

pub(super) fn draw(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let Some(view) = &state.view else {
        let text = Paragraph::new(table::empty(state)).style(state.theme.style(Role::Dim));
        frame.render_widget(text.wrap(Wrap { trim: true }), area);
        return;
    };
    let jobs = charted(state, view);
    let (facts, charts, events) = if area.width >= WIDE {
        // The charts take what they can use, the events the rest.
        let charts = u16::try_from(jobs.len().max(1) * (CHART_MAX + 1) + 2).unwrap_or(u16::MAX);
        let top = charts.max(FIGURES).min(area.height / 3 * 2);
        let [top, events] =
            Layout::vertical([Constraint::Length(top), Constraint::Min(EVENTS_MIN)]).areas(area);
        let [facts, charts] =
            Layout::horizontal([Constraint::Length(FIGURES_WIDTH), Constraint::Min(0)]).areas(top);
        (facts, charts, events)
    } else {
        let wanted = u16::try_from(jobs.len()).unwrap_or(u16::MAX).saturating_mul(3).saturating_add(1);
        let room = area.height.saturating_sub(FIGURES + EVENTS_MIN);
        let wanted = if view.jobs.is_empty() { FIRST_STEPS } else { wanted };
        let charts = if wanted == 1 { 0 } else { wanted.min(room.max(3)) };
        let parts = [Constraint::Max(FIGURES), Constraint::Length(charts), Constraint::Min(0)];
        let [facts, charts, events] = Layout::vertical(parts).areas(area);
        (facts, charts, events)
    };
    let inside = Rect { width: facts.width.saturating_sub(2), ..facts };
    frame.render_widget(Paragraph::new(facts_text(state, view, inside.width)), inside);
    draw_charts(state, &jobs, frame, charts);
    draw_events(state, frame, events);
}

fn labelled(label: &str, theme: Theme, spans: Vec<Span<'static>>) -> Line<'static> {
    let mut line = vec![Span::styled(format!("{label:<13}"), theme.style(Role::Dim))];
    line.extend(spans);
    Line::from(line)
}

fn facts_text(state: &State, view: &ClusterView, width: u16) -> Vec<Line<'static>> {
    let theme = state.theme;
    let (role, reasons) = figures::verdict(view);
    let word = match role {
        Role::Good => "healthy",
        Role::Warn => "degraded",
        _ => "in danger",
    };
    // Nobody vouches for it while no coordinator is in sight.
    let (role, seen) = match (&state.link, role) {
        (Link::Live, role) => (role, ""),
        (_, Role::Good) => (Role::Warn, "no coordinator in sight, was "),
        (_, role) => (role, "no coordinator in sight, was "),
    };
    let told =
        |role: Role, text: String| Span::styled(format!("{} {text}", theme.glyph(role)), theme.style(role));
    let raw = |text: String| vec![Span::raw(text)];
    let ready = view.workers.iter().filter(|worker| worker.server == ServerState::Ready).count();
    let (up, voters) = figures::voters(view);
    let store = &view.store;
    let copies = match (store.unavailable, store.under_replicated) {
        (0, 0) => told(Role::Good, String::from("all there")),
        (0, short) => told(Role::Warn, format!("{short} short, {} under way", store.copying)),
        (lost, short) => told(Role::Bad, format!("{lost} without a live copy, {short} short")),
    };
    let gap = figures::gap(view).map_or_else(
        || vec![Span::styled("fewer than two jobs run", theme.style(Role::Dim))],
        |(jobs, gap)| {
            let policy = text::policy(view.policy).0;
            raw(format!("{:.0} % between {jobs} jobs, policy {policy}", gap * 100.0))
        },
    );
    let count = |wanted: fn(&JobState) -> bool| view.jobs.iter().filter(|job| wanted(&job.state)).count();
    let mut members = figures::members(view, theme);
    members.push(Span::raw(format!("({up} of {voters} voters up)")));
    let verdict = format!("{seen}{word}{}{}", if reasons.is_empty() { "" } else { ": " }, reasons.join(", "));
    let verdict = table::cut(verdict, usize::from(width.saturating_sub(2)));
    vec![
        Line::styled("CLUSTER", theme.style(Role::Title)),
        Line::from(told(role, verdict)),
        labelled("members", theme, members),
        labelled("servers", theme, raw(format!("{ready} of {} ready", view.workers.len()))),
        labelled(
            "jobs",
            theme,
            raw(format!(
                "{} running, {} paused, {} done",
                count(|state| *state == JobState::Running),
                count(|state| matches!(state, JobState::Paused(_))),
                count(|state| *state == JobState::Done),
            )),
        ),
        labelled("fairness gap", theme, gap),
        labelled(
            "files",
            theme,
            raw(format!(
                "{} in {}, {}",
                store.files,
                text::count(store.blobs, "blob"),
                text::bytes(store.bytes)
            )),
        ),
        labelled("copies", theme, vec![copies]),
        Line::raw(""),
    ]
}

/// Jobs with a chart: those that run, then those whose curve is not over yet.
fn charted<'a>(state: &State, view: &'a ClusterView) -> Vec<&'a JobView> {
    let rises = |job: &&JobView| state.history.jobs.get(&job.id).is_some_and(Curve::rises);
    let mut jobs: Vec<&JobView> =
        view.jobs.iter().filter(|job| job.state == JobState::Running || rises(job)).collect();
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
    let title = format!("QUERIES PER SECOND, {} MIN", steps / STEPS_A_MINUTE);
    let mut lines = vec![Line::styled(title, theme.style(Role::Title))];
    if jobs.is_empty() {
        lines.extend(first_steps(state));
    }
    let room = usize::from(area.height).saturating_sub(1);
    let shown = jobs.len().min((room / 2).max(1));
    let height = (room.checked_div(shown).unwrap_or(0)).saturating_sub(1).min(CHART_MAX);
    let mut unknown = false;
    for (number, job) in jobs.iter().take(shown).enumerate() {
        let values = state.history.jobs.get(&job.id).map(|curve| curve.last(steps)).unwrap_or_default();
        unknown |= values.iter().any(|value| value.is_nan());
        let top = values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
        let wide: Vec<f64> = values.into_iter().flat_map(|value| std::iter::repeat_n(value, cells)).collect();
        lines.push(Line::raw(table::cut(label(job, top, width, theme), width)));
        let chart = theme.chart(&wide, wide.len(), height, top);
        lines.extend(chart.into_iter().map(|line| Line::styled(line, theme.style(Role::Curve(number)))));
    }
    let more = jobs.len() - shown;
    if more > 0 && lines.len() < usize::from(area.height) {
        lines.push(Line::styled(format!("and {more} more: see the jobs page"), theme.style(Role::Dim)));
    }
    if unknown {
        // A new coordinator knows nothing of the time before it.
        lines[0].push_span(Span::styled("  blank: not known", theme.style(Role::Dim)));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// What to do next where there is no job, for those who see this for the first time.
fn first_steps(state: &State) -> Vec<Line<'static>> {
    let theme = state.theme;
    let mut lines = vec![Line::styled("no job has run in this time", theme.style(Role::Dim)), Line::raw("")];
    let unused = state.view.as_ref().is_some_and(|view| view.jobs.is_empty());
    if state.read_only || !unused {
        return lines;
    }
    lines.push(Line::styled("FIRST STEPS", theme.style(Role::Title)));
    for (name, what) in [
        ("populate-test-data", "store a directory as a data set"),
        ("train-start", "train the models"),
        ("add-job", "add a job: a model over the data set"),
        ("start-job", "start it"),
    ] {
        let keys = state.keymap.hint(name).unwrap_or_default();
        lines.push(Line::from(vec![
            Span::styled(format!("{keys:<5}"), theme.style(Role::Key)),
            Span::raw(format!("{what}  ")),
            Span::styled(format!(":{name}"), theme.style(Role::Dim)),
        ]));
    }
    lines
}

/// What stands above a job's chart: what fits, the most important first.
fn label(job: &JobView, top: f64, width: usize, theme: Theme) -> String {
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
    for part in [state, bar, eta, format!("  top {top:.1}")] {
        if label.width() + part.width() <= width {
            label.push_str(&part);
        }
    }
    label
}

fn draw_events(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let theme = state.theme;
    let mut lines = vec![Line::styled("RECENT EVENTS", theme.style(Role::Title))];
    if state.events.list.is_empty() {
        lines.push(Line::styled("nothing has happened since the console was opened", theme.style(Role::Dim)));
    }
    let room = usize::from(area.height).saturating_sub(1);
    lines.extend(state.events.list.iter().rev().take(room).map(|event| {
        Line::from(vec![
            Span::styled(format!("{}  ", text::clock(event.at_ms)), theme.style(Role::Dim)),
            Span::styled(format!("{} {}", theme.glyph(event.role), event.text), theme.style(event.role)),
        ])
    }));
    frame.render_widget(Paragraph::new(lines), area);
}
