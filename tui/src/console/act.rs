//! What actions do.

use super::detail::{self, Detail};
use super::input::Input;
use super::registry::{Action, Does, Item};
use super::state::{Asked, Effect, Mode, Page, Pane, State};
use super::theme::Role;
use super::{dialog, export, filelist, form, line, update};

/// Does what an item does; in read-only mode what changes the cluster is not there.
pub fn run(state: &mut State, item: &Item, now_ms: u64) -> Vec<Effect> {
    if state.read_only && item.changes() {
        state.tell(format!("{} is refused: the console is read-only", item.name), Role::Warn, now_ms);
        return Vec::new();
    }
    match &item.does {
        Does::Act(action) => act(state, *action, now_ms),
        Does::Command(entry) => form::open(state, entry, now_ms),
    }
}

fn act(state: &mut State, action: Action, now_ms: u64) -> Vec<Effect> {
    match action {
        Action::Show(page) => show(state, page),
        Action::NextPage => show(state, state.page.step(1)),
        Action::PrevPage => show(state, state.page.step(Page::ALL.len() - 1)),
        Action::Move(by, screens) => {
            let step = if screens { i64::try_from(state.height()).unwrap_or(1) } else { 1 };
            move_by(state, by * step);
        }
        Action::First => move_by(state, i64::MIN / 2),
        Action::Last => move_by(state, i64::MAX / 2),
        Action::Left => sideways(state, false),
        Action::Right => sideways(state, true),
        Action::Open => open(state),
        Action::Back => back(state),
        Action::Line => state.mode = line::empty(),
        Action::Filter => {
            let before = current_filter(state);
            state.mode = Mode::Filter { input: Input::new(&before), before };
        }
        Action::Palette => state.mode = Mode::Palette { input: Input::default(), chosen: 0 },
        Action::Help => state.mode = Mode::Help { input: Input::default(), line: 0 },
        Action::Retry => return vec![Effect::RetryNow],
        Action::LastResult => {
            if let Some(operation) = state.operations.back() {
                state.mode = Mode::Pane(Pane { operation: operation.id, ..Pane::default() });
            }
        }
        Action::Freeze => update::freeze(state, now_ms),
        Action::SortNext => state.table_mut().sort_by_next(true),
        Action::SortPrev => state.table_mut().sort_by_next(false),
        Action::Reverse => {
            let table = state.table_mut();
            table.sort = Some(table.sort.map_or((0, true), |(column, down)| (column, !down)));
        }
        Action::Tree => filelist::toggle(state),
        Action::NextFiles => _ = filelist::turn(state, true),
        Action::PrevFiles => _ = filelist::turn(state, false),
        Action::Follow
        | Action::Wrap
        | Action::Level
        | Action::Around
        | Action::NextFound
        | Action::PrevFound => {
            state.log.act(action);
        }
        Action::Copy | Action::CopyRow => return copy(state, action == Action::CopyRow, now_ms),
        Action::Save => {
            let text = format!("save idunno-{}.txt", state.page.title());
            state.mode = Mode::Line { input: Input::new(&text), recalled: None, offers: Vec::new() };
        }
        Action::Mouse => {
            state.mouse = !state.mouse;
            let whose = if state.mouse { "the console; hold Shift to select text" } else { "the terminal" };
            state.tell(format!("the mouse belongs to {whose}"), Role::Plain, now_ms);
            return vec![Effect::Mouse(state.mouse)];
        }
        Action::Theme => {
            state.theme = state.theme.next();
            state.tell(format!("theme {:?}", state.theme.palette).to_lowercase(), Role::Plain, now_ms);
        }
        Action::Context => return line::contexts(state, now_ms),
        Action::Suspend => return vec![Effect::Suspend],
        Action::Quit if state.running() == 0 => return vec![Effect::Quit],
        Action::Quit => dialog::ask(state, Asked::Quit, None, None, now_ms),
    }
    Vec::new()
}

/// Shows a page, and what was looked into no more.
pub fn show(state: &mut State, page: Page) {
    state.page = page;
    state.details.clear();
    state.dirty = true;
}

/// Moves the selection, or the log. Past the end of a page of files the next one comes.
pub fn move_by(state: &mut State, by: i64) {
    state.dirty = true;
    if state.reads_log() {
        state.log.scroll(by);
        return;
    }
    let before = state.table().map_or(0, |table| table.cursor.line);
    state.table_mut().move_by(by);
    let after = state.table().map_or(0, |table| table.cursor.line);
    let steps = by == 1 && before == after && state.selected().is_some();
    if steps && state.page == Page::Files && state.details.is_empty() && after + 1 == state.files.rows.len() {
        filelist::turn(state, true);
    }
}

fn sideways(state: &mut State, right: bool) {
    match state.details.last_mut() {
        Some(detail) => detail.turn(right),
        None if state.page == Page::Logs => state.log.sideways(right),
        None if state.page == Page::Files && !right => _ = filelist::leave(state),
        None if state.page == Page::Files => _ = filelist::enter(state),
        None => {}
    }
}

/// Enter looks; it never changes anything.
fn open(state: &mut State) {
    // Where nothing is selected it selects first: what is opened is what one sees marked.
    if state.selected().is_none() && state.table().is_some_and(|table| !table.rows.is_empty()) {
        move_by(state, 0);
        return;
    }
    if state.page == Page::Files && state.details.is_empty() && filelist::enter(state) {
        return;
    }
    if let Some(target) = detail::target(state) {
        state.details.push(Detail::of(target));
    }
}

fn back(state: &mut State) {
    let filtered = !current_filter(state).is_empty();
    state.notice = None;
    if filtered {
        set_filter(state, String::new());
    } else if state.details.pop().is_none() && state.page == Page::Files {
        filelist::leave(state);
    }
}

fn current_filter(state: &State) -> String {
    if state.reads_log() { state.log.filter().to_owned() } else { state.filter().to_owned() }
}

/// Sets the filter of what is shown.
pub fn set_filter(state: &mut State, text: String) {
    if state.reads_log() {
        state.log.set_filter(text);
    } else {
        state.table_mut().filter = text;
    }
}

fn copy(state: &mut State, row: bool, now_ms: u64) -> Vec<Effect> {
    let text = if row { export::row(state) } else { state.selected() };
    let Some(text) = text else {
        state.tell("nothing is selected", Role::Warn, now_ms);
        return Vec::new();
    };
    state.tell(format!("copied: {text}"), Role::Plain, now_ms);
    vec![Effect::Copy(text)]
}
