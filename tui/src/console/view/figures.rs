//! The cluster in a line of figures, and its verdict.

use idunno_shared::wire::control::{ClusterView, JobState, JobView, Liveness, LogRole};
use idunno_shared::wire::jobs::ServerState;
use ratatui::text::Span;

use crate::answer::text;
use crate::console::theme::{Role, Theme};
use crate::execute::status::census;

/// A figure that is of interest when it is not nothing.
fn tell(theme: Theme, count: usize, word: &str, role: Role) -> Span<'static> {
    let role = if count > 0 { role } else { Role::Dim };
    Span::styled(format!("{count} {word} "), theme.style(role))
}

/// Members by state.
pub(super) fn members(view: &ClusterView, theme: Theme) -> Vec<Span<'static>> {
    let [up, suspect, dead, left] = census(view);
    let mut spans = vec![
        tell(theme, up, "up", Role::Good),
        tell(theme, suspect, "suspect", Role::Warn),
        tell(theme, dead, "dead", Role::Bad),
    ];
    if left > 0 {
        spans.push(tell(theme, left, "left", Role::Plain));
    }
    spans
}

pub(super) fn line(view: &ClusterView, theme: Theme) -> Vec<Span<'static>> {
    let running: Vec<_> = running(view).collect();
    let rate: f64 = running.iter().map(|job| job.rate_10s_qps).fold(0.0, |sum, rate| sum + rate);
    let store = &view.store;
    let mut spans = vec![Span::raw("members ")];
    spans.extend(members(view, theme));
    for (count, word, role) in
        [(store.under_replicated, "lack copies", Role::Warn), (store.unavailable, "unavailable", Role::Bad)]
    {
        if count > 0 {
            spans.push(Span::styled(format!(" {} {count} {word} ", theme.glyph(role)), theme.style(role)));
        }
    }
    // What is wrong comes first: a narrow screen cuts the rest.
    spans.push(Span::raw(format!(" jobs {} running {rate:.1} q/s  files {}", running.len(), store.files)));
    spans
}

fn running(view: &ClusterView) -> impl Iterator<Item = &JobView> {
    view.jobs.iter().filter(|job| job.state == JobState::Running)
}

/// How far the rates of the jobs that run are apart: the widest gap over the largest. None for fewer than two.
pub(super) fn gap(view: &ClusterView) -> Option<(usize, f64)> {
    let rates: Vec<f64> = running(view).map(|job| job.rate_10s_qps).collect();
    let largest = rates.iter().copied().fold(0.0, f64::max);
    let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
    (rates.len() > 1 && largest > 0.0).then(|| (rates.len(), (largest - least) / largest))
}

/// The voters, and how many of them are up.
pub(super) fn voters(view: &ClusterView) -> (usize, usize) {
    let voters: Vec<_> = view
        .members
        .iter()
        .filter(|member| matches!(member.role, LogRole::Voter | LogRole::Coordinator))
        .collect();
    let up = voters.iter().filter(|member| member.liveness == Liveness::Alive).count();
    (up, voters.len())
}

/// What is wrong, the worst first; nothing if all is well.
pub(super) fn verdict(view: &ClusterView) -> (Role, Vec<String>) {
    let [_, suspect, dead, _] = census(view);
    let (up, all) = voters(view);
    let store = &view.store;
    let paused = view.jobs.iter().filter(|job| matches!(job.state, JobState::Paused(_))).count();
    let down = view.workers.iter().filter(|worker| matches!(worker.server, ServerState::Down(_))).count();
    let failed = view.models.iter().filter(|model| model.failure.is_some()).count();
    let named = |count: usize, noun: &str, what: &str| format!("{} {what}", text::count(count as u64, noun));
    let found = [
        (
            store.unavailable > 0,
            Role::Bad,
            format!("{} without a live copy", text::count(store.unavailable, "blob")),
        ),
        (up * 2 <= all, Role::Bad, format!("{up} of {all} voters up: no majority")),
        (paused > 0, Role::Bad, named(paused, "job", "paused")),
        (
            up * 2 == all + 1 && all > 2,
            Role::Warn,
            format!("{up} of {all} voters up: one more loss stops it"),
        ),
        (dead > 0, Role::Warn, named(dead, "member", "dead")),
        (suspect > 0, Role::Warn, named(suspect, "member", "suspect")),
        (
            store.under_replicated > 0,
            Role::Warn,
            format!("{} short of copies", text::count(store.under_replicated, "blob")),
        ),
        (down > 0, Role::Warn, named(down, "model server", "down")),
        (failed > 0, Role::Warn, named(failed, "training", "failed")),
    ];
    let found: Vec<_> = found.into_iter().filter(|(holds, ..)| *holds).collect();
    let worst = match found.iter().any(|(_, role, _)| *role == Role::Bad) {
        _ if found.is_empty() => Role::Good,
        true => Role::Bad,
        false => Role::Warn,
    };
    (worst, found.into_iter().map(|(_, _, text)| text).collect())
}
