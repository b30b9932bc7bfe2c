//! What actions do.

use super::detail::{Detail, DetailTarget};
use super::registry::{Action, Item, ItemKind};
use super::state::{CommandLine, Effect, Freeze, Mode, Page, ResultPane, State};
use super::text_field::TextField;
use super::theme::Tone;
use super::{files_page, form, operations, rows, selected};

/// Runs an item; read-only mode refuses those that change the cluster.
pub fn run(state: &mut State, item: &Item, now_ms: u64) -> Vec<Effect> {
    if state.read_only && item.changes() {
        state.notify(format!("{} is refused: the console is read-only", item.name), Tone::Warn, now_ms);
        return Vec::new();
    }
    match &item.kind {
        ItemKind::Action(action) => act(state, *action, now_ms),
        ItemKind::Command(entry) => form::open(state, entry, now_ms),
    }
}

fn act(state: &mut State, action: Action, now_ms: u64) -> Vec<Effect> {
    match action {
        Action::ShowPage(page) => show_page(state, page),
        Action::NextPage => show_page(state, state.page.step(1)),
        Action::PreviousPage => show_page(state, state.page.step(Page::ALL.len() - 1)),
        Action::MoveLines(lines) => move_by(state, lines),
        Action::MoveScreens(screens) => {
            move_by(state, screens * i64::try_from(state.page_height()).unwrap_or(1));
        }
        Action::First => move_by(state, i64::MIN / 2),
        Action::Last => move_by(state, i64::MAX / 2),
        Action::Left => move_sideways(state, false),
        Action::Right => move_sideways(state, true),
        Action::Open => open(state),
        Action::Back => back(state),
        Action::CommandLine => state.mode = Mode::line(""),
        Action::Filter => {
            let before = current_filter(state).to_owned();
            state.mode = Mode::Filter { input: TextField::new(&before), before };
        }
        Action::Palette => state.mode = Mode::Palette { input: TextField::default(), selected: 0 },
        Action::Help => state.mode = Mode::Help { input: TextField::default(), line: 0 },
        Action::ConnectNow => return vec![Effect::RetryNow],
        Action::LastResult => {
            if let Some(operation) = state.operations.back() {
                state.mode = Mode::Result(ResultPane { operation: operation.id, ..ResultPane::default() });
            }
        }
        Action::Freeze => freeze_or_release(state, now_ms),
        Action::SortNext => state.table_mut().sort_by_neighbour(true),
        Action::SortPrevious => state.table_mut().sort_by_neighbour(false),
        Action::SortReverse => state.table_mut().reverse_sort(),
        Action::ToggleFlat => files_page::toggle_flat(state),
        Action::NextFiles => files_page::turn_page(state, true),
        Action::PreviousFiles => files_page::turn_page(state, false),
        Action::FollowLog => state.log.toggle_follow(),
        Action::Wrap => wrap(state, now_ms),
        Action::LogLevel => state.log.next_level(),
        Action::LogContext => state.log.context = !state.log.context,
        Action::NextMatch => state.log.find_match(true),
        Action::PreviousMatch => state.log.find_match(false),
        Action::Describe => return describe(state, "", now_ms),
        Action::Json => return describe(state, " --output json", now_ms),
        Action::LogsOf => logs_of(state),
        Action::Copy => return copy(state, state.selected(), now_ms),
        Action::CopyRow => return copy(state, rows::selected_row_as_text(state), now_ms),
        Action::Save => state.mode = Mode::line(&format!("save idunno-{}.txt", state.page.title())),
        Action::Mouse => {
            state.mouse = !state.mouse;
            let text = if state.mouse {
                "mouse captured; hold Shift to select text"
            } else {
                "mouse released to the terminal"
            };
            state.notify(text, Tone::Plain, now_ms);
            return vec![Effect::CaptureMouse(state.mouse)];
        }
        Action::Tour => state.mode = Mode::Tour { screen: 0 },
        Action::Theme => {
            state.theme = state.theme.next();
            state.notify(format!("theme {:?}", state.theme.palette).to_lowercase(), Tone::Plain, now_ms);
        }
        Action::SwitchCluster => return list_contexts(state, now_ms),
        Action::Suspend => return vec![Effect::Suspend],
        Action::Quit if state.running() == 0 => return vec![Effect::Quit],
        Action::Quit => operations::confirm_quit(state, now_ms),
    }
    Vec::new()
}

/// Shows a page and closes all details.
pub fn show_page(state: &mut State, page: Page) {
    state.page = page;
    state.details.clear();
    state.dirty = true;
}

/// Wraps long lines of the log or of the text on screen, or cuts them.
fn wrap(state: &mut State, now_ms: u64) {
    if state.shows_log() {
        state.log.toggle_wrap();
    } else if state.details.last().is_some_and(|detail| detail.tab.is_text()) {
        state.wrap_text = !state.wrap_text;
    } else {
        state.notify("only logs, previews and rows of results have lines to wrap", Tone::Warn, now_ms);
    }
}

/// Moves the selection, or scrolls the log. A step past the last file turns to the next page of files.
pub fn move_by(state: &mut State, by: i64) {
    state.dirty = true;
    if state.shows_log() {
        state.log.scroll(by);
        return;
    }
    let before = state.table().map_or(0, |table| table.cursor.line);
    state.table_mut().move_by(by);
    let after = state.table().map_or(0, |table| table.cursor.line);
    let is_stopped = by == 1 && before == after && state.selected().is_some();
    let is_at_end = after + 1 == state.files.entries.len();
    if is_stopped && is_at_end && state.page == Page::Files && state.details.is_empty() {
        files_page::turn_page(state, true);
    }
}

fn move_sideways(state: &mut State, right: bool) {
    match state.details.last_mut() {
        Some(detail) => detail.switch_tab(right),
        None if state.page == Page::Logs => state.log.scroll_sideways(right),
        None if state.page == Page::Files && right => _ = files_page::enter_folder(state),
        None if state.page == Page::Files => files_page::leave_folder(state),
        None => {}
    }
}

fn open(state: &mut State) {
    // Without a selection the first press selects, so that only a row that is visibly selected is opened.
    if state.selected().is_none() && state.table().is_some_and(|table| !table.rows.is_empty()) {
        move_by(state, 0);
        return;
    }
    if state.page == Page::Files && state.details.is_empty() && files_page::enter_folder(state) {
        return;
    }
    if let Some(target) = selected::target(state) {
        state.details.push(Detail::new(target));
    }
}

/// Runs the command that shows the selection, or else what the details are of.
fn describe(state: &mut State, option: &str, now_ms: u64) -> Vec<Effect> {
    let target = selected::target(state).or_else(|| state.details.last().map(|detail| detail.target.clone()));
    let command = match target {
        Some(DetailTarget::Job(id)) => Some(format!("get-job-stats {id}")),
        Some(DetailTarget::Member { name, .. }) => Some(format!("list_self --member {}", quoted(&name))),
        Some(DetailTarget::File(name)) => Some(format!("ls {}", quoted(name.as_str()))),
        Some(DetailTarget::Row { .. }) => None,
        None => match (state.page, state.selected()) {
            (Page::Models, Some(model)) => Some(format!("model show {}", quoted(&model))),
            (Page::Files, Some(folder)) => Some(format!("ls {}", quoted(&folder))),
            _ => None,
        },
    };
    let Some(command) = command else {
        state.notify("select a member, a job, a file or a model first", Tone::Warn, now_ms);
        return Vec::new();
    };
    operations::submit(state, &format!("{command}{option}"), now_ms)
}

fn quoted(text: &str) -> String {
    shell_words::quote(text).into_owned()
}

/// Shows the log lines of the selected member, or those that name the selected job or model. Where nothing is logged by
/// itself it moves to the right, as vi's key does.
fn logs_of(state: &mut State) {
    let selected = state.selected().filter(|_| state.details.is_empty());
    match (state.page, selected) {
        (Page::Members | Page::Assignments, Some(member)) => {
            show_page(state, Page::Logs);
            state.log.member = Some(member);
            state.log.set_filter(String::new());
        }
        (Page::Jobs | Page::Models, Some(name)) => {
            show_page(state, Page::Logs);
            state.log.member = None;
            state.log.set_filter(name);
        }
        _ => move_sideways(state, true),
    }
}

fn back(state: &mut State) {
    state.notice = None;
    if !current_filter(state).is_empty() {
        set_filter(state, String::new());
    } else if state.shows_log() {
        state.log.member = None;
    } else if state.details.pop().is_none() && state.page == Page::Files {
        files_page::leave_folder(state);
    }
}

/// The filter of the log or the table on screen.
pub fn current_filter(state: &State) -> &str {
    if state.shows_log() { state.log.filter() } else { state.filter() }
}

pub fn set_filter(state: &mut State, text: String) {
    if state.shows_log() {
        state.log.set_filter(text);
    } else {
        state.table_mut().filter = text;
    }
}

fn copy(state: &mut State, text: Option<String>, now_ms: u64) -> Vec<Effect> {
    let Some(text) = text else {
        state.notify("nothing is selected", Tone::Warn, now_ms);
        return Vec::new();
    };
    state.notify(format!("copied: {text}"), Tone::Plain, now_ms);
    vec![Effect::Copy(text)]
}

/// Freezes the screen, or releases it and shows the newest view.
fn freeze_or_release(state: &mut State, now_ms: u64) {
    match state.frozen.take() {
        None => state.frozen = Some(Freeze { since_ms: now_ms, latest: None }),
        Some(Freeze { latest: Some(latest), .. }) => {
            state.view = Some(*latest);
            state.view_generation += 1;
        }
        Some(Freeze { latest: None, .. }) => {}
    }
}

/// Opens the `:` line and lists the clusters of config.toml.
pub fn list_contexts(state: &mut State, now_ms: u64) -> Vec<Effect> {
    if state.contexts.is_empty() {
        state.notify("config.toml defines no other cluster: see :info", Tone::Warn, now_ms);
    } else {
        let completions = state.contexts.clone();
        state.mode = Mode::Line(CommandLine { completions, ..CommandLine::new("context ") });
    }
    Vec::new()
}
