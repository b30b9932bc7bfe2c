//! The members at a glance: who is up, who votes, who works for which job, and who holds how much.

use std::collections::BTreeMap;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::control::{AssignmentView, ClusterView, Liveness, LoadView, LogRole, MemberView};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::table::cut;
use super::timeline::{job_tone, stretched};
use crate::answer::text;
use crate::console::rate_history::{STEPS_MAX, current_rate};
use crate::console::rows;
use crate::console::state::State;
use crate::console::theme::{Theme, Tone};
use crate::console::wrap::wrapped_words;
use crate::execute::members::natural;

/// Columns between two members.
const GAP: usize = 3;
/// The longest name that is shown whole.
const NAME_MAX: usize = 12;
/// Columns of a rate.
const RATE_WIDTH: usize = 8;

fn sorted(view: &ClusterView) -> Vec<&MemberView> {
    let mut members: Vec<&MemberView> = view.members.iter().collect();
    members.sort_by_cached_key(|member| natural(member.name.as_str()));
    members
}

fn name_width(members: &[&MemberView]) -> usize {
    members.iter().map(|member| member.name.as_str().width()).max().unwrap_or(0).min(NAME_MAX)
}

/// What the tiles of the map are made of.
struct Map<'a> {
    view: &'a ClusterView,
    theme: Theme,
    assignments: BTreeMap<NodeId, &'a AssignmentView>,
    loads: BTreeMap<NodeId, &'a LoadView>,
    /// The most bytes that a member holds.
    most: u64,
}

/// The map in at most `height` lines of `width` columns, with its title and what its signs mean.
pub(super) fn lines(state: &State, view: &ClusterView, width: usize, height: usize) -> Vec<Line<'static>> {
    let theme = state.theme;
    let loads: BTreeMap<NodeId, &LoadView> = view.loads.iter().map(|load| (load.node, load)).collect();
    let most = loads.values().map(|load| load.bytes).max().unwrap_or(0);
    let assignments = view.assignments.iter().map(|row| (row.node, row)).collect();
    let map = Map { view, theme, assignments, loads, most };
    let members = sorted(view);
    let mut lines = vec![Line::styled("CLUSTER MAP", theme.style(Tone::Title))];
    let legend = map.legend(width);
    let room = height.saturating_sub(1 + legend.len()).max(1);
    let name = name_width(&members);
    let tile = name + 6 + GAP;
    if members.len().div_ceil(((width + GAP) / tile).max(1)) <= room {
        let row = |row: &[&MemberView]| {
            Line::from(row.iter().flat_map(|member| map.tile(member, name)).collect::<Vec<_>>())
        };
        lines.extend(members.chunks(((width + GAP) / tile).max(1)).map(row));
    } else {
        // Too many for their names: a glyph each.
        let row =
            |row: &[&MemberView]| Line::from(row.iter().map(|member| map.glyph(member)).collect::<Vec<_>>());
        lines.extend(members.chunks(width.max(1)).take(room).map(row));
    }
    lines.extend(legend);
    lines.truncate(height);
    lines
}

impl Map<'_> {
    fn glyph(&self, member: &MemberView) -> Span<'static> {
        let tone = rows::liveness(member).tone;
        Span::styled(self.theme.glyph(tone), self.theme.style(tone))
    }

    /// A member: its state, its name, its part in votes, whether it works, and how much it holds.
    fn tile(&self, member: &MemberView, name: usize) -> Vec<Span<'static>> {
        let theme = self.theme;
        let is_up = member.liveness == Liveness::Alive;
        let tone = if is_up { Tone::Plain } else { Tone::Dim };
        let (role, role_tone) = match member.role {
            LogRole::Coordinator => ("C", Tone::Title),
            LogRole::Voter => ("V", tone),
            LogRole::Learner => ("L", tone),
            LogRole::Spare => (" ", tone),
        };
        let job = self.assignments.get(&member.id).and_then(|row| row.current.first());
        let job = job.and_then(|id| self.view.jobs.iter().find(|job| job.id == *id)).filter(|_| is_up);
        let (work, work_tone) = job.map_or((" ", tone), |job| (theme.work(), job_tone(job)));
        let held = self.loads.get(&member.id).map_or(0, |load| load.bytes);
        let share = if self.most == 0 { 0.0 } else { held as f64 / self.most as f64 };
        let text = cut(member.name.to_string(), name);
        let padding = name.saturating_sub(text.width());
        vec![
            self.glyph(member),
            Span::styled(format!(" {text}{} ", " ".repeat(padding)), theme.style(tone)),
            Span::styled(role, theme.style(role_tone)),
            Span::styled(work, theme.style(work_tone)),
            Span::styled(theme.level(share), theme.style(Tone::Key)),
            Span::raw(" ".repeat(GAP)),
        ]
    }

    fn legend(&self, width: usize) -> Vec<Line<'static>> {
        let (work, full) = (self.theme.work(), self.theme.level(1.0));
        let text = format!(
            "C coordinates, V votes, L learns, {work} works in its job's colour, {full} holds the most: {}",
            text::bytes(self.most)
        );
        let style = self.theme.style(Tone::Dim);
        wrapped_words(&text, width).into_iter().map(|line| Line::styled(line, style)).collect()
    }
}

/// The rates of members over the last minutes, a line each, on one scale; the busiest if there are too many.
pub(super) fn loads(state: &State, view: &ClusterView, width: usize, height: usize) -> Vec<Line<'static>> {
    let theme = state.theme;
    let mut members: Vec<(&MemberView, Vec<f64>)> = sorted(view)
        .into_iter()
        .filter_map(|member| Some((member, state.rates.members.get(&member.id)?.last(STEPS_MAX))))
        .collect();
    let top = members.iter().flat_map(|(_, values)| values).copied().filter(|value| value.is_finite());
    let top = top.fold(0.0, f64::max);
    let title = format!("MEMBER LOAD, {} MIN", super::timeline::recent_minutes());
    let room = height.saturating_sub(1);
    let left_out = members.len().saturating_sub(room);
    let mut remark = format!("  queries per second, full height {top:.1}");
    if left_out > 0 {
        let rate = |values: &[f64]| current_rate(values).unwrap_or(0.0);
        members.sort_by(|(_, a), (_, b)| rate(b).total_cmp(&rate(a)));
        members.truncate(room);
        remark = format!("  the busiest; {left_out} more on the members page");
    }
    let names: Vec<&MemberView> = members.iter().map(|(member, _)| *member).collect();
    let name = name_width(&names);
    let columns = width.saturating_sub(name + 2 + RATE_WIDTH).max(1);
    let remarks = vec![vec![Span::styled(remark, theme.style(Tone::Dim))]];
    let mut lines = vec![super::timeline::titled(title, remarks, width, theme)];
    for (member, values) in &members {
        let text = cut(member.name.to_string(), name);
        let rate = current_rate(values).map_or_else(|| String::from("-"), |rate| format!("{rate:.1}"));
        let bars = theme.chart(&stretched(values, columns), columns, 1, top).remove(0);
        lines.push(Line::from(vec![
            Span::raw(format!("{text:<name$}  ")),
            Span::styled(bars, theme.style(Tone::Key)),
            Span::raw(format!("{rate:>RATE_WIDTH$}")),
        ]));
    }
    lines
}
