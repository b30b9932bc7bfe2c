//! What actions do.

use super::detail::{Detail, Target};
use super::input::Input;
use super::registry::{Action, Does, Item};
use super::state::{Asked, Effect, Facts, Mode, Page, Pane, State};
use super::theme::Role;
use super::{dialog, export, filelist, form};

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
        Action::Line => state.mode = Mode::line(""),
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
        Action::Freeze => freeze(state, now_ms),
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
        Action::Context => return contexts(state, now_ms),
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
    if let Some(target) = target(state) {
        state.details.push(Detail::of(target));
    }
}

/// What Enter looks into: the thing that is selected.
fn target(state: &State) -> Option<Target> {
    let key = state.selected()?;
    let view = state.view.as_ref()?;
    let member = |name: &str| {
        let member = view.members.iter().find(|member| member.name.as_str() == name)?;
        Some(Target::Member(member.id, name.to_owned()))
    };
    let file = |name: &str| name.parse().ok().map(Target::File);
    match state.details.last() {
        None => match state.page {
            Page::Members | Page::Assignments => member(&key),
            Page::Jobs => key.parse().ok().map(Target::Job),
            Page::Files => file(&key),
            Page::Overview | Page::Models | Page::Logs | Page::Events => None,
        },
        Some(detail) => match (&detail.target, detail.part) {
            (Target::Job(_), 0) => member(&key),
            (Target::Job(_), 1) => member(key.split(' ').next()?),
            (Target::Job(id), 2) => match &detail.facts {
                Some(Facts::Letters(dead_letters, _)) => {
                    let dead_letter =
                        dead_letters.iter().find(|dead_letter| dead_letter.index.to_string() == key)?;
                    // A record is looked into as the file that it is in.
                    let dataset = view.jobs.iter().find(|job| job.id == *id)?.dataset.as_str();
                    let place = dead_letter.name.as_str().strip_prefix(dataset);
                    let is_record = place.is_some_and(|place| place.starts_with(':'));
                    file(if is_record { dataset } else { dead_letter.name.as_str() })
                }
                _ => None,
            },
            (Target::Member(..), 0) => file(&key),
            _ => None,
        },
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

/// Holds the screen as it is, or lets it go on.
fn freeze(state: &mut State, now_ms: u64) {
    match state.frozen.take() {
        None => state.frozen = Some((None, now_ms)),
        Some((latest, _)) => {
            if let Some(latest) = latest {
                state.view = Some(*latest);
                state.shown += 1;
            }
        }
    }
}

/// Offers the other clusters.
pub fn contexts(state: &mut State, now_ms: u64) -> Vec<Effect> {
    if state.contexts.is_empty() {
        state.tell("config.toml names no other cluster: see :info", Role::Warn, now_ms);
    } else {
        let offers = state.contexts.clone();
        state.mode = Mode::Line { input: Input::new("context "), recalled: None, offers };
    }
    Vec::new()
}
