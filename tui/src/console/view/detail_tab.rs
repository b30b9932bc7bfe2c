//! What is looked into: its figures, the names of its parts, and the part that is open.

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::control::ClusterView;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::table;
use crate::answer::text;
use crate::console::detail::{Detail, Target};
use crate::console::history::{Curve, STEPS_MAX, newest};
use crate::console::msg::Facts;
use crate::console::rows::{job_state, progress};
use crate::console::state::State;
use crate::console::theme::{Role, Theme};
use crate::execute::jobs;

const BAR: usize = 20;

/// The head, and the table below it.
pub(super) fn areas(detail: &Detail, body: Rect) -> (Rect, Rect) {
    let head = match detail.target {
        Target::Job(_) => 6,
        Target::Member(..) => 5,
        Target::File(_) => 3,
    };
    let [head, table] = Layout::vertical([Constraint::Max(head), Constraint::Min(1)]).areas(body);
    (head, table)
}

pub(super) fn draw(state: &State, detail: &Detail, frame: &mut Frame<'_>, area: Rect) {
    let theme = state.theme;
    let (head, rest) = areas(detail, area);
    let mut lines = vec![trail(state, theme)];
    if let Some(view) = &state.view {
        lines.extend(match &detail.target {
            Target::Job(id) => job(state, *id, view, head.width),
            Target::Member(id, _) => member(state, *id, view),
            Target::File(_) => file(detail),
        });
    }
    // The names of the parts stand right above the table, whatever fits of the figures.
    let room = usize::from(head.height).saturating_sub(1);
    lines.truncate(room.max(1));
    lines.resize(room.max(1), Line::raw(""));
    lines.push(parts(detail, theme));
    frame.render_widget(Paragraph::new(lines), head);
    if detail.table.rows.is_empty() {
        let text = Paragraph::new(empty(detail)).style(theme.style(Role::Dim));
        frame.render_widget(text.wrap(Wrap { trim: true }), rest);
    } else {
        table::draw(state, frame, rest);
    }
}

/// Where one is: the page, and what was looked into one after the other.
fn trail(state: &State, theme: Theme) -> Line<'static> {
    let mut names = vec![state.page.title().to_owned()];
    names.extend(state.details.iter().map(|detail| detail.target.title()));
    Line::styled(names.join(" > "), theme.style(Role::Title))
}

fn parts(detail: &Detail, theme: Theme) -> Line<'static> {
    let names = detail.target.parts().iter().enumerate();
    let spans = names.map(|(number, name)| {
        let role = if number == detail.part { Role::Selected } else { Role::Dim };
        Span::styled(format!(" {name} "), theme.style(role))
    });
    Line::from(spans.collect::<Vec<_>>())
}

fn empty(detail: &Detail) -> String {
    match (&detail.error, &detail.facts, &detail.target, detail.part) {
        (Some(error), ..) => crate::tail::printable(error),
        _ if !detail.table.filter.is_empty() => String::from("nothing passes the filter; Esc clears it"),
        (None, None, _, _) if detail.asked.is_some() => String::from("asking"),
        (_, Some(Facts::Letters(..)), ..) => String::from("no dead letters: no query failed for good"),
        (_, Some(Facts::Leases(_)), ..) => String::from("no batch is in a worker's hands"),
        (_, _, Target::Job(_), 0) => String::from("no worker has reported"),
        (_, _, Target::Job(_), _) => String::from("no results yet"),
        (_, _, Target::Member(..), 0) => String::from("it holds no files"),
        (_, _, Target::Member(..), _) => String::from("its worker has not reported"),
        (_, Some(Facts::Versions(versions)), ..) if !versions.is_empty() => {
            String::from("an empty file: no extents")
        }
        (_, _, Target::File(_), _) => String::from("nothing here"),
    }
}

fn job(state: &State, id: JobId, view: &ClusterView, width: u16) -> Vec<Line<'static>> {
    let theme = state.theme;
    let Some(job) = view.jobs.iter().find(|job| job.id == id) else {
        return vec![Line::raw("there is no such job any more")];
    };
    let (share, percent) = progress(job);
    let cell = job_state(job);
    let p = &job.processing_ms;
    let eta = job.eta_s.map(|eta| format!(", {} left", text::seconds(eta))).unwrap_or_default();
    let accuracy = jobs::accuracy(job).map(|it| format!("  top-1 {:.1} %", it * 100.0)).unwrap_or_default();
    let weight = match job.details.weight {
        0 | 1 => String::new(),
        weight => format!(", weight {weight}"),
    };
    let called = job.details.name.as_ref().map(|name| format!(", called {name}")).unwrap_or_default();
    let chart = chart(state.history.jobs.get(&id), width, theme);
    vec![
        Line::from(vec![
            Span::styled(format!("{} {}  ", theme.glyph(cell.role), cell.text), theme.style(cell.role)),
            Span::raw(format!(
                "{} {percent} % of {}  {} over {}{called}",
                theme.bar(share, BAR),
                job.submitted,
                job.model,
                job.dataset
            )),
        ]),
        Line::raw(format!(
            "{} done  {} dead  {} pending, {} of them leased  batch {}{weight}{accuracy}",
            job.done,
            job.dead,
            jobs::pending(job),
            job.leased,
            text::batch_size(job)
        )),
        Line::from(vec![
            Span::raw(format!(
                "{:.1} q/s over 10 s, {:.1} since the start{eta}  ",
                job.rate_10s_qps, job.rate_qps
            )),
            chart,
        ]),
        Line::raw(format!(
            "ms a query: mean {:.1}, deviation {:.1}, median {:.1}, p90 {:.1}, p95 {:.1}, p99 {:.1}",
            p.mean, p.std_dev, p.median, p.p90, p.p95, p.p99
        )),
    ]
}

/// A curve's last minutes in one line, if anything rises in it.
fn chart(curve: Option<&Curve>, width: u16, theme: Theme) -> Span<'static> {
    let Some(curve) = curve.filter(|curve| curve.rises()) else { return Span::raw("") };
    let values = curve.last(STEPS_MAX.min(usize::from(width / 3)));
    let top = values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
    let line = theme.chart(&values, values.len(), 1, top).remove(0);
    Span::styled(line.trim_start().to_owned(), theme.style(Role::Curve(0)))
}

fn member(state: &State, id: NodeId, view: &ClusterView) -> Vec<Line<'static>> {
    let theme = state.theme;
    let Some(member) = view.members.iter().find(|member| member.id == id) else {
        return vec![Line::raw("there is no such member any more")];
    };
    let cell = crate::console::rows::liveness(member);
    let load = view.loads.iter().find(|load| load.node == id);
    let curve = state.history.members.get(&id);
    let answers = match curve.and_then(|curve| newest(&curve.last(2))) {
        Some(rate) => {
            vec![Span::raw(format!("answers {rate:.1} q/s over 10 s  ")), chart(curve, state.size.0, theme)]
        }
        None => Vec::new(),
    };
    let held = load.map_or_else(
        || String::from("nothing is known of what it holds"),
        |load| {
            format!(
                "holds {} ({}); has {} in {} in hand",
                text::count(load.blobs, "blob"),
                text::bytes(load.bytes),
                text::queries(load.queries),
                if load.batches == 1 { String::from("1 batch") } else { format!("{} batches", load.batches) },
            )
        },
    );
    vec![
        Line::from(vec![
            Span::styled(format!("{} {}", theme.glyph(cell.role), cell.text), theme.style(cell.role)),
            Span::raw(format!(
                "  {}  {}  {}  incarnation {}  id {id}",
                member.address,
                text::role(member.role),
                text::count(member.generation, "start"),
                member.incarnation
            )),
        ]),
        Line::raw(held),
        Line::from(answers),
    ]
}

fn file(detail: &Detail) -> Vec<Line<'static>> {
    let Some(Facts::Versions(versions)) = &detail.facts else { return Vec::new() };
    let newest = versions.first().map(|newest| {
        format!(
            "version {}, {}, {} kept, written {} UTC",
            newest.version,
            text::bytes(newest.size),
            text::count(versions.len() as u64, "version"),
            text::moment(newest.created_ms)
        )
    });
    newest.into_iter().map(Line::raw).collect()
}
