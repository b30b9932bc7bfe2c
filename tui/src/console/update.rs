//! What happens to the state. Pure: no clock, no network, no terminal.

use idunno_shared::wire::control::ClusterView;

use super::operations::{self, operation};
use super::state::{Effect, Link, Msg, NetEvent, Page, State};
use super::theme::Role;
use super::{filelist, keys, mouse, rows};
use crate::answer::text;

/// Views of an older term are ignored, as long as a newer one was seen this recently: a deposed coordinator ends within
/// its lease, but a cluster that was made anew begins at term 1.
const TERM_MEMORY_MS: u64 = 30_000;
/// Up to so many members' logs are streamed at once.
const STREAMS_MAX: usize = 16;

/// Takes a message; returns what is to be done.
pub fn update(state: &mut State, msg: Msg, now_ms: u64) -> Vec<Effect> {
    let mut effects = match msg {
        Msg::Key(key) => {
            state.dirty = true;
            keys::press(state, key, now_ms)
        }
        Msg::Mouse(event) => mouse::act(state, event),
        Msg::Paste(text) => {
            keys::paste(state, &text);
            Vec::new()
        }
        Msg::Resized(width, height) => {
            state.size = (width, height);
            state.dirty = true;
            Vec::new()
        }
        other => {
            facts(state, other, now_ms);
            Vec::new()
        }
    };
    rows::refresh(state);
    effects.extend(filelist::ask(state, now_ms));
    effects.extend(ask(state, now_ms));
    effects.extend(stream(state));
    effects
}

/// Asks for what is looked into, where the view does not have it.
fn ask(state: &mut State, now_ms: u64) -> Option<Effect> {
    if state.link != Link::Live {
        return None;
    }
    let view = state.view.as_ref()?;
    state.details.last_mut()?.ask(view, now_ms).map(Effect::Look)
}

/// Takes what was found out.
fn facts(state: &mut State, msg: Msg, now_ms: u64) {
    match msg {
        Msg::Net(event) => net(state, event, now_ms),
        Msg::Log(lines) => {
            state.log.append(lines);
            state.dirty |= state.reads_log();
        }
        Msg::Files(query, result) => filelist::answer(state, &query, result),
        Msg::Seen(question, result) => {
            let taken = state.details.iter_mut().any(|detail| detail.answer(&question, result.clone()));
            state.dirty |= taken;
        }
        Msg::Progress(id, files, bytes) => {
            if let Some(operation) = operation(state, id)
                && operation.progress != (files, bytes)
            {
                operation.progress = (files, bytes);
                state.dirty = true;
            }
        }
        Msg::Finished(id, result) => operations::finished(state, id, result, now_ms),
        Msg::Saved(Ok(path)) => state.tell(format!("written to {path}"), Role::Good, now_ms),
        Msg::Saved(Err(error)) => state.tell(error, Role::Bad, now_ms),
        Msg::Tick => tick(state, now_ms),
        Msg::Key(_) | Msg::Mouse(_) | Msg::Paste(_) | Msg::Resized(..) => {}
    }
}

fn net(state: &mut State, event: NetEvent, now_ms: u64) {
    match event {
        NetEvent::Connecting => {
            // Between two tries the screen goes on to say why it waits.
            if !matches!(state.link, Link::Waiting { .. }) {
                state.link = Link::Connecting;
            }
            state.dirty = true;
        }
        NetEvent::View(view) => take_view(state, *view, now_ms),
        NetEvent::Confirmed => {
            state.dirty |= !state.is_current(now_ms);
            (state.seen_ms, state.link) = (now_ms, Link::Live);
        }
        NetEvent::Waiting { wait_ms, attempt, reason, answered } => {
            if state.link == Link::Live {
                state.lost_ms = Some(now_ms);
                let wall_ms = state.wall_ms(now_ms);
                state.events.note(wall_ms, Role::Warn, "console", format!("lost sight: {reason}"));
            }
            state.link = Link::Waiting { until_ms: now_ms + wait_ms, attempt, reason, answered };
            state.dirty = true;
        }
    }
}

fn take_view(state: &mut State, mut view: ClusterView, now_ms: u64) {
    let newest = newest(state).map_or(view.term, |shown| shown.term);
    if view.term < newest && now_ms.saturating_sub(state.seen_ms) < TERM_MEMORY_MS {
        return;
    }
    state.dirty |= !state.is_current(now_ms);
    (state.link, state.seen_ms) = (Link::Live, now_ms);
    if let Some(lost_ms) = state.lost_ms.take() {
        let span = text::seconds(now_ms.saturating_sub(lost_ms) as f64 / 1000.0);
        let wall_ms = state.wall_ms(now_ms);
        state.events.note(wall_ms, Role::Good, "console", format!("in sight again after {span}"));
    }
    let moved = state.history.take(&mut view);
    if let Some(old) = newest_taken(state) {
        state.events.compare(&old, &view);
        put_newest(state, old);
    }
    if let Some((latest, _)) = &mut state.frozen {
        *latest = Some(Box::new(view));
        return;
    }
    // The time alone is no news; a chart that moves is.
    let same = state.view.as_mut().is_some_and(|shown| {
        shown.at_ms = view.at_ms;
        *shown == view
    });
    if !same {
        state.view = Some(view);
    }
    if !same || moved {
        state.shown += 1;
        state.dirty = true;
    }
}

fn newest(state: &State) -> Option<&ClusterView> {
    match &state.frozen {
        Some((Some(latest), _)) => Some(latest),
        _ => state.view.as_ref(),
    }
}

/// The newest view, taken out for a comparison: it is not copied for that.
fn newest_taken(state: &mut State) -> Option<ClusterView> {
    match &mut state.frozen {
        Some((latest @ Some(_), _)) => latest.take().map(|latest| *latest),
        _ => state.view.take(),
    }
}

fn put_newest(state: &mut State, view: ClusterView) {
    match &mut state.frozen {
        Some((latest, _)) if state.view.is_some() => *latest = Some(Box::new(view)),
        _ => state.view = Some(view),
    }
}

fn tick(state: &mut State, now_ms: u64) {
    if state.notice.as_ref().is_some_and(|(_, _, until_ms)| now_ms >= *until_ms) {
        state.notice = None;
        state.dirty = true;
    }
    // Ages and running commands change with time; nothing else does.
    let ages = !state.is_current(now_ms) || state.frozen.is_some();
    state.dirty |= ages || state.running() > 0;
}

/// Has the logs of members streamed while they are read.
fn stream(state: &mut State) -> Option<Effect> {
    use idunno_shared::wire::control::Liveness;
    let view = state.view.as_ref()?;
    let wanted: Vec<_> = if state.page == Page::Logs {
        let live = view.members.iter().filter(|member| member.liveness != Liveness::Dead);
        live.take(STREAMS_MAX).map(|member| (member.name.to_string(), member.address)).collect()
    } else {
        Vec::new()
    };
    if wanted == state.streams {
        return None;
    }
    state.streams.clone_from(&wanted);
    Some(Effect::Stream(wanted))
}
