//! What stands below a table that leaves much of the screen free: more about the selection, or about the cluster.

use idunno_shared::wire::control::{ClusterView, JobView, ModelView};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::{cluster_map, table, timeline};
use crate::answer::text;
use crate::console::detail::DetailTarget;
use crate::console::rate_history::STEPS_MAX;
use crate::console::state::{Page, State};
use crate::console::theme::Tone;
use crate::console::wrap::wrapped_words;

/// Lines below which nothing is shown, the blank one above included.
const HEIGHT_MIN: u16 = 9;
/// Lines that a chart takes at most: taller ones say no more.
const CHART_MAX: usize = 24;
/// Lines of the loads of members, from which on there is room for the map, too.
const WITH_MAP: usize = 16;

/// A table, and what is below it.
pub(super) struct PanelAreas {
    pub(super) table: Rect,
    panel: Option<Rect>,
}

/// Divides the area of a table that may be short.
pub(super) fn split(state: &State, area: Rect) -> PanelAreas {
    let whole = PanelAreas { table: area, panel: None };
    let Some(rows) = state.table().map(|table| table.rows.len()).filter(|rows| *rows > 0) else {
        return whole;
    };
    let height = u16::try_from(rows + 1).unwrap_or(u16::MAX);
    if area.height.saturating_sub(height) < HEIGHT_MIN || !has_panel(state) {
        return whole;
    }
    let [table, _, panel] =
        Layout::vertical([Constraint::Length(height), Constraint::Length(1), Constraint::Min(0)]).areas(area);
    PanelAreas { table, panel: Some(panel) }
}

fn has_panel(state: &State) -> bool {
    let is_row = |target: &DetailTarget| matches!(target, DetailTarget::Row { .. });
    state.view.is_some() && state.details.last().is_none_or(|detail| !is_row(&detail.target))
}

pub(super) fn draw_with_table(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let areas = split(state, area);
    table::draw(state, frame, areas.table);
    if let (Some(panel), Some(view)) = (areas.panel, &state.view) {
        frame.render_widget(Paragraph::new(lines(state, view, panel)), panel);
    }
}

fn lines(state: &State, view: &ClusterView, area: Rect) -> Vec<Line<'static>> {
    let (width, height) = (usize::from(area.width).saturating_sub(1), usize::from(area.height));
    let chart = height.min(CHART_MAX);
    let job = |id| state.old_jobs.find(view, id);
    match (state.details.last().map(|detail| &detail.target), state.page) {
        (Some(DetailTarget::Job(id)), _) => {
            job(*id).map_or_else(Vec::new, |job| timeline::whole_job(state, job, width, chart))
        }
        (Some(DetailTarget::Member { id, name }), _) => {
            let series = state.rates.members.get(id).map(|series| series.last(STEPS_MAX));
            timeline::member(state, name, &series.unwrap_or_default(), width, chart)
        }
        (None, Page::Jobs) => selected_job(state, view)
            .map_or_else(Vec::new, |job| timeline::whole_job(state, job, width, chart)),
        (None, Page::Assignments) => timeline::fairness(state, width, chart),
        (None, Page::Events) => timeline::all_jobs(state, view, width, chart),
        (None, Page::Models) => {
            selected_model(state, view).map_or_else(Vec::new, |it| model(state, view, it, width))
        }
        _ => members(state, view, width, height),
    }
}

/// The map, and below it the load of each member, if both fit.
fn members(state: &State, view: &ClusterView, width: usize, height: usize) -> Vec<Line<'static>> {
    if height < WITH_MAP {
        return cluster_map::lines(state, view, width, height);
    }
    let mut lines = cluster_map::lines(state, view, width, height / 2);
    lines.push(Line::raw(""));
    let rest = height - lines.len();
    lines.extend(cluster_map::loads(state, view, width, rest));
    lines
}

fn selected_job<'a>(state: &'a State, view: &'a ClusterView) -> Option<&'a JobView> {
    let selected = state.selected().and_then(|key| key.parse().ok());
    selected.and_then(|id| state.old_jobs.find(view, id)).or_else(|| view.jobs.first())
}

fn selected_model<'a>(state: &State, view: &'a ClusterView) -> Option<&'a ModelView> {
    let selected = state.selected();
    let chosen = view.models.iter().find(|model| Some(model.model.as_str()) == selected.as_deref());
    chosen.or_else(|| view.models.first())
}

/// A model: what is known of it, and its state on each member.
fn model(state: &State, view: &ClusterView, model: &ModelView, width: usize) -> Vec<Line<'static>> {
    let theme = state.theme;
    let mut facts = vec![match &model.version {
        Some(version) => format!("version {version}"),
        None => String::from("no version yet: train-start makes one"),
    }];
    facts.extend(model.failure.as_ref().map(|reason| format!("the last training failed: {reason}")));
    let metrics: Vec<String> = model.metrics.iter().map(|(name, value)| format!("{name} {value}")).collect();
    if !metrics.is_empty() {
        facts.push(metrics.join(", "));
    }
    for (node, at) in &model.workers {
        let (word, reason) = text::model_state(at);
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        facts.push(format!("{} {word}{reason}", text::member_name(&view.members, *node)));
    }
    let mut lines = vec![Line::styled(model.model.to_string(), theme.style(Tone::Title))];
    lines.extend(facts.iter().flat_map(|fact| wrapped_words(fact, width)).map(Line::raw));
    lines
}
