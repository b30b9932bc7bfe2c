//! Applies messages to the state. Pure: no clock, no network, no terminal.

use idunno_shared::wire::control::{ClusterView, Liveness, LogRole, MemberView};
use ratatui::layout::Size;

use super::query::QueryError;
use super::state::{
    ConnectionState, DetailData, DetailQuery, Effect, Freeze, LogSource, Msg, NetEvent, Page, State,
};
use super::theme::Tone;
use super::{completion_names, files_page, input, operations, rows};
use crate::answer::text;

/// Views of an older term are ignored while a newer one was seen this recently: a deposed coordinator stops within its
/// lease. After that they are accepted, because a cluster that was set up again begins at term 1.
const TERM_MEMORY_MS: u64 = 30_000;
/// Members whose logs are streamed at once.
const LOG_SOURCES_MAX: usize = 16;

/// Applies a message and returns the effects to carry out.
pub fn update(state: &mut State, msg: Msg, now_ms: u64) -> Vec<Effect> {
    let mut effects = match msg {
        Msg::Key(key) => {
            state.dirty = true;
            input::press(state, key, now_ms)
        }
        other => {
            apply(state, other, now_ms);
            Vec::new()
        }
    };
    rows::refresh(state);
    effects.extend(files_page::next_query(state, now_ms));
    effects.extend(next_detail_query(state, now_ms));
    effects.extend(old_jobs(state, now_ms));
    effects.extend(log_stream_change(state));
    effects.extend(next_listing(state));
    effects
}

fn apply(state: &mut State, msg: Msg, now_ms: u64) {
    match msg {
        Msg::Key(_) => {}
        Msg::Mouse(event) => input::mouse(state, event),
        Msg::Paste(text) => input::paste(state, &text),
        Msg::Resized(width, height) => {
            state.size = Size { width, height };
            state.dirty = true;
        }
        Msg::Net(event) => apply_net_event(state, event, now_ms),
        Msg::Log(lines) => {
            state.log.append(lines);
            state.dirty |= state.shows_log();
        }
        Msg::Files(query, result) => files_page::accept(state, &query, result),
        Msg::Detail(query, result) => accept_detail(state, &query, result),
        Msg::OldJobs(result) => {
            state.old_jobs.accept(result);
            state.dirty = true;
        }
        Msg::LocalPaths(directory, entries) => {
            state.dirty |= state.local_paths.accept(&directory, entries);
        }
        Msg::Progress(id, progress) => operations::set_progress(state, id, progress),
        Msg::Finished(id, result) => operations::finish(state, id, result, now_ms),
        Msg::Saved(Ok(path)) => state.notify(format!("saved to {}", path.display()), Tone::Good, now_ms),
        Msg::Saved(Err(error)) => state.notify(error.to_string(), Tone::Bad, now_ms),
        Msg::Tick => tick(state, now_ms),
    }
}

/// Lists the directory of the local path that is being typed.
fn next_listing(state: &mut State) -> Option<Effect> {
    let path = completion_names::local_path_typed(state)?;
    state.local_paths.next_query(&path).map(Effect::ListDirectory)
}

fn next_detail_query(state: &mut State, now_ms: u64) -> Option<Effect> {
    if state.connection != ConnectionState::Live {
        return None;
    }
    let view = state.view.as_ref()?;
    state.details.last_mut()?.next_query(view, now_ms).map(Effect::FetchDetail)
}

/// Fetches the jobs that the view leaves out, once somebody looks at the jobs.
fn old_jobs(state: &mut State, now_ms: u64) -> Option<Effect> {
    if state.page != Page::Jobs || state.connection != ConnectionState::Live {
        return None;
    }
    let view = state.view.as_ref()?;
    state.old_jobs.is_due(view, now_ms).then_some(Effect::FetchOldJobs(view.jobs_left_out))
}

/// Hands an answer to the detail that waits for it; one that was abandoned meanwhile is dropped.
fn accept_detail(state: &mut State, query: &DetailQuery, result: Result<DetailData, QueryError>) {
    let mut details = state.details.iter_mut();
    if let Some(detail) = details.find(|detail| detail.in_flight.as_ref() == Some(query)) {
        detail.accept(result);
        state.dirty = true;
    }
}

fn apply_net_event(state: &mut State, event: NetEvent, now_ms: u64) {
    match event {
        NetEvent::Connecting => {
            // Between two attempts the screen keeps showing why it waits.
            if !matches!(state.connection, ConnectionState::Waiting { .. }) {
                state.connection = ConnectionState::Connecting;
            }
            state.dirty = true;
        }
        NetEvent::View(view) => accept_view(state, *view, now_ms),
        NetEvent::Confirmed => {
            state.dirty |= !state.is_current(now_ms);
            state.connection = ConnectionState::Live;
            state.fresh_ms = now_ms;
        }
        NetEvent::Waiting { wait_ms, attempt, reason, member_reachable, members } => {
            if state.connection == ConnectionState::Live {
                state.lost_ms = Some(now_ms);
                let wall_ms = state.wall_ms(now_ms);
                state.events.record(wall_ms, Tone::Warn, "console", format!("connection lost: {reason}"));
            }
            state.connection =
                ConnectionState::Waiting { until_ms: now_ms + wait_ms, attempt, reason, member_reachable };
            state.dirty = true;
            if let Some(members) = members {
                accept_members(state, members, now_ms);
            }
        }
    }
}

/// Without a coordinator, members know best who is up. What else the view shows stays as it last was.
fn accept_members(state: &mut State, mut members: Vec<MemberView>, now_ms: u64) {
    let at_ms = state.wall_ms(now_ms);
    state.members_ms = Some(now_ms);
    let (Some(shown), None) = (&mut state.view, &state.frozen) else { return };
    for member in &mut members {
        let known = shown.members.iter().find(|known| known.id == member.id);
        member.role = match known.map_or(member.role, |known| known.role) {
            LogRole::Coordinator => LogRole::Voter,
            role => role,
        };
    }
    let view = ClusterView { members, at_ms, ..shown.clone() };
    state.events.compare(shown, &view);
    *shown = view;
    state.view_generation += 1;
}

fn accept_view(state: &mut State, mut view: ClusterView, now_ms: u64) {
    let newest_term = newest_view(state).map_or(view.term, |newest| newest.term);
    if view.term < newest_term && now_ms.saturating_sub(state.fresh_ms) < TERM_MEMORY_MS {
        return;
    }
    state.dirty |= !state.is_current(now_ms);
    state.connection = ConnectionState::Live;
    state.fresh_ms = now_ms;
    state.members_ms = None;
    if let Some(lost_ms) = state.lost_ms.take() {
        let span = text::seconds(now_ms.saturating_sub(lost_ms) as f64 / 1000.0);
        let wall_ms = state.wall_ms(now_ms);
        state.events.record(wall_ms, Tone::Good, "console", format!("reconnected after {span}"));
    }
    let charts_moved = state.rates.take(&mut view);
    let newest = match &state.frozen {
        Some(Freeze { latest: Some(latest), .. }) => Some(latest.as_ref()),
        _ => state.view.as_ref(),
    };
    if let Some(newest) = newest {
        state.events.compare(newest, &view);
    }
    if let Some(freeze) = &mut state.frozen {
        freeze.latest = Some(Box::new(view));
        return;
    }
    // A view that differs in its time alone is no change; a chart that moves is.
    let unchanged = state.view.as_mut().is_some_and(|shown| {
        shown.at_ms = view.at_ms;
        *shown == view
    });
    if !unchanged {
        state.view = Some(view);
    }
    if !unchanged || charts_moved {
        state.view_generation += 1;
        state.dirty = true;
    }
}

fn newest_view(state: &State) -> Option<&ClusterView> {
    match &state.frozen {
        Some(Freeze { latest: Some(latest), .. }) => Some(latest),
        _ => state.view.as_ref(),
    }
}

fn tick(state: &mut State, now_ms: u64) {
    if state.notice.as_ref().is_some_and(|notice| now_ms >= notice.until_ms) {
        state.notice = None;
        state.dirty = true;
    }
    // Only ages and running commands change with time alone.
    let shows_age = !state.is_current(now_ms) || state.frozen.is_some();
    state.dirty |= shows_age || state.running() > 0;
}

/// Starts and stops the streaming of the members' logs with the log page.
fn log_stream_change(state: &mut State) -> Option<Effect> {
    let view = state.view.as_ref()?;
    let sources: Vec<LogSource> = if state.page == Page::Logs {
        let live = view.members.iter().filter(|member| member.liveness != Liveness::Dead);
        let wanted = state.log.member.as_ref();
        let live = live.filter(|member| wanted.is_none_or(|name| member.name.as_str() == name));
        live.take(LOG_SOURCES_MAX)
            .map(|member| LogSource { name: member.name.to_string(), address: member.address })
            .collect()
    } else {
        Vec::new()
    };
    if sources == state.log_sources {
        return None;
    }
    state.log_sources.clone_from(&sources);
    Some(Effect::StreamLogs(sources))
}
