//! What happens to the state. Pure: no clock, no network, no terminal.

use super::keys;
use super::rows;
use super::state::{
    Effect, FILES_PER_PAGE, Link, Mode, Msg, NOTICE_MS, NetEvent, OPERATIONS_MAX, Operation, Page, Pane,
    RESULT_LINES_MAX, Shown, State,
};
use super::theme::Role;
use crate::cli::rendered;
use crate::command::{Output, Verb};
use crate::execute::{Answer, Failure};

/// Views of an older term are ignored, as long as a newer one was seen this recently: a deposed coordinator ends within
/// its lease, but a cluster that was made anew begins at term 1.
const TERM_MEMORY_MS: u64 = 30_000;
/// The files page asks again at most this often.
const FILES_PERIOD_MS: u64 = 1000;

/// Takes a message; returns what is to be done.
pub fn update(state: &mut State, msg: Msg, now_ms: u64) -> Vec<Effect> {
    let mut effects = match msg {
        Msg::Key(key) => {
            state.dirty = true;
            keys::press(state, key, now_ms)
        }
        Msg::Resized(height) => {
            state.height = height;
            state.dirty = true;
            Vec::new()
        }
        Msg::Net(event) => {
            net(state, event, now_ms);
            Vec::new()
        }
        Msg::Log(lines) => {
            state.log.append(lines);
            state.dirty |= state.page == Page::Log;
            Vec::new()
        }
        Msg::Files(query, result) => {
            // An answer to a question that was given up meanwhile is dropped.
            if state.files.asked.as_ref() == Some(&query) {
                state.files.asked = None;
                match result {
                    Ok((rows, more)) => {
                        (state.files.rows, state.files.more, state.files.error) = (rows, more, None);
                    }
                    Err(error) => state.files.error = Some(error),
                }
                state.dirty = true;
            }
            Vec::new()
        }
        Msg::Progress(id, files, bytes) => {
            if let Some(operation) = operation(state, id) {
                operation.progress = (files, bytes);
                state.dirty = true;
            }
            Vec::new()
        }
        Msg::Finished(id, result) => {
            finished(state, id, result, now_ms);
            Vec::new()
        }
        Msg::Tick => {
            tick(state, now_ms);
            Vec::new()
        }
    };
    rows::settle(state);
    effects.extend(ask_for_files(state, now_ms));
    effects
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
            state.seen_ms = now_ms;
            state.link = Link::Live;
        }
        NetEvent::Waiting { wait_ms, attempt, reason } => {
            state.link = Link::Waiting { until_ms: now_ms + wait_ms, attempt, reason };
            state.dirty = true;
        }
    }
}

fn take_view(state: &mut State, view: idunno_shared::wire::control::ClusterView, now_ms: u64) {
    let newest = state.view.as_ref().map_or(view.term, |shown| shown.term);
    if view.term < newest && now_ms.saturating_sub(state.seen_ms) < TERM_MEMORY_MS {
        return;
    }
    state.dirty |= !state.is_current(now_ms);
    state.link = Link::Live;
    state.seen_ms = now_ms;
    // The time alone is no news.
    let same = state.view.as_mut().is_some_and(|shown| {
        shown.at_ms = view.at_ms;
        *shown == view
    });
    if !same {
        state.view = Some(view);
        state.dirty = true;
    }
}

fn tick(state: &mut State, now_ms: u64) {
    if state.notice.as_ref().is_some_and(|(_, _, until_ms)| now_ms >= *until_ms) {
        state.notice = None;
        state.dirty = true;
    }
    // Ages and running commands change with time; nothing else does.
    state.dirty |= !state.is_current(now_ms) || state.running() > 0;
}

/// Asks for the files page when it is shown and what it shows may be old.
fn ask_for_files(state: &mut State, now_ms: u64) -> Option<Effect> {
    if state.page != Page::Files || state.link != Link::Live {
        return None;
    }
    let revision = state.view.as_ref().map(|view| view.revision);
    let prefix = state.filter().to_owned();
    let files = &mut state.files;
    if files.query.prefix != prefix {
        (files.query.prefix, files.query.after) = (prefix, None);
        files.before.clear();
        files.revision = None;
        files.asked = None;
    }
    let old = files.revision.is_none()
        || (files.revision != revision && now_ms.saturating_sub(files.asked_ms) >= FILES_PERIOD_MS);
    if files.asked.is_some() || !old {
        return None;
    }
    files.revision = revision;
    files.asked_ms = now_ms;
    files.asked = Some(files.query.clone());
    Some(Effect::FetchFiles(files.query.clone()))
}

/// Goes a page of files on or back.
pub fn turn_files(state: &mut State, on: bool) {
    let files = &mut state.files;
    if on {
        let full = files.rows.len() >= FILES_PER_PAGE as usize;
        let Some(last) = files.rows.last().filter(|_| files.more || full) else { return };
        files.before.push(files.query.after.clone());
        files.query.after = Some(last.name.clone());
    } else {
        let Some(before) = files.before.pop() else { return };
        files.query.after = before;
    }
    files.asked = None;
    files.revision = None;
    state.cursors.remove(&Page::Files);
}

/// Begins a command and shows its pane.
pub fn begin(state: &mut State, title: String, verb: Box<Verb>, output: Output, now_ms: u64) -> Effect {
    Effect::Run(remember(state, title, output, now_ms), verb)
}

/// Shows text as a command's result.
pub fn show_text(state: &mut State, title: String, text: &str, now_ms: u64) {
    let id = remember(state, title, Output::Table, now_ms);
    finished(state, id, Ok(Answer::new(serde_json::Value::Null, text)), now_ms);
}

fn remember(state: &mut State, title: String, output: Output, now_ms: u64) -> u64 {
    let id = state.next_operation;
    state.next_operation += 1;
    let operation = Operation { id, title, output, started_ms: now_ms, progress: (0, 0), result: None };
    state.operations.push_back(operation);
    while state.operations.len() > OPERATIONS_MAX {
        // The oldest that is done goes; those that run are kept.
        let Some(oldest) = state.operations.iter().position(|operation| operation.result.is_some()) else {
            break;
        };
        state.operations.remove(oldest);
    }
    state.mode = Mode::Pane(Pane { operation: id, ..Pane::default() });
    id
}

fn operation(state: &mut State, id: u64) -> Option<&mut Operation> {
    state.operations.iter_mut().find(|operation| operation.id == id)
}

fn finished(state: &mut State, id: u64, result: Result<Answer, Failure>, now_ms: u64) {
    let open = matches!(state.mode, Mode::Pane(pane) if pane.operation == id);
    let Some(operation) = operation(state, id) else { return };
    let shown = shown(result, operation.output);
    let word = if shown.role == Role::Good { "done" } else { "failed" };
    let notice = format!("{word}: {} (o shows it)", operation.title);
    let role = shown.role;
    operation.result = Some(shown);
    if !open {
        state.notice = Some((notice, role, now_ms + NOTICE_MS));
    }
    state.dirty = true;
}

fn shown(result: Result<Answer, Failure>, output: Output) -> Shown {
    let (role, text) = match result {
        Ok(answer) => {
            let mut text = rendered(&answer, output);
            let role = if answer.incomplete.is_some() { Role::Warn } else { Role::Good };
            text.extend(answer.incomplete.map(|why| format!("note: {why}")));
            (role, text)
        }
        Err(failure) => (Role::Bad, format!("{}: {failure}", failure.exit.word())),
    };
    let mut lines: Vec<String> = text.lines().take(RESULT_LINES_MAX).map(crate::tail::printable).collect();
    let rest = text.lines().count() - lines.len();
    if rest > 0 {
        lines.push(format!("... {rest} more lines: write them to a file instead"));
    }
    if lines.is_empty() {
        lines.push(String::from("done"));
    }
    Shown { role, lines }
}
