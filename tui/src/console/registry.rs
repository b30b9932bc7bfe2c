//! The one table of actions and commands: keys, help, palette, `:` line and completion are derived from it.
//!
//! Actions are listed here with their default keys; commands come from the grammar ([`crate::command::registry`]). No
//! single key changes the cluster: a command's keys begin with `a`, which lists what may follow, and open its form.

use std::sync::LazyLock;

use super::page::Page;
use crate::command::registry::{CommandInfo, Danger, entries};

/// What the console does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    ShowPage(Page),
    NextPage,
    PreviousPage,
    MoveLines(i64),
    MoveScreens(i64),
    First,
    Last,
    Left,
    Right,
    /// Opens the details of the selection; never changes anything.
    Open,
    /// Closes the details; clears the filter.
    Back,
    CommandLine,
    Filter,
    Palette,
    Help,
    ConnectNow,
    LastResult,
    Freeze,
    SortNext,
    SortPrevious,
    SortReverse,
    /// Shows all about the selection.
    Describe,
    /// The same as JSON.
    Json,
    /// Shows the log lines of the selection.
    LogsOf,
    Copy,
    CopyRow,
    Save,
    Mouse,
    Theme,
    Tour,
    ToggleFlat,
    NextFiles,
    PreviousFiles,
    FollowLog,
    Wrap,
    LogLevel,
    LogContext,
    NextMatch,
    PreviousMatch,
    SwitchCluster,
    Suspend,
    Quit,
}

/// Where a key is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Everywhere,
    On(Page),
}

impl Scope {
    /// Whether both may hold at once.
    pub fn overlaps(self, other: Self) -> bool {
        self == Self::Everywhere || other == Self::Everywhere || self == other
    }
}

#[derive(Clone, Debug)]
pub enum ItemKind {
    Action(Action),
    /// Opens the command's form, or runs it if it has no arguments.
    Command(Box<CommandInfo>),
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its name in the keymap file and on the `:` line.
    pub name: String,
    /// The default keys.
    pub keys: Vec<&'static str>,
    pub scope: Scope,
    pub kind: ItemKind,
    pub help: String,
}

impl Item {
    pub fn danger(&self) -> Danger {
        match &self.kind {
            ItemKind::Action(_) => Danger::None,
            ItemKind::Command(entry) => entry.danger,
        }
    }

    /// Whether it changes the cluster: read-only mode leaves it out.
    pub fn changes(&self) -> bool {
        matches!(&self.kind, ItemKind::Command(entry) if entry.changes)
    }
}

struct ActionSpec {
    name: &'static str,
    keys: &'static [&'static str],
    scope: Scope,
    action: Action,
    help: &'static str,
}

const fn everywhere(
    name: &'static str,
    keys: &'static [&'static str],
    action: Action,
    help: &'static str,
) -> ActionSpec {
    ActionSpec { name, keys, scope: Scope::Everywhere, action, help }
}

const fn files(
    name: &'static str,
    key: &'static [&'static str],
    action: Action,
    help: &'static str,
) -> ActionSpec {
    ActionSpec { scope: Scope::On(Page::Files), ..everywhere(name, key, action, help) }
}

const fn logs(
    name: &'static str,
    key: &'static [&'static str],
    action: Action,
    help: &'static str,
) -> ActionSpec {
    ActionSpec { scope: Scope::On(Page::Logs), ..everywhere(name, key, action, help) }
}

const ACTIONS: [ActionSpec; 51] = [
    everywhere("overview", &["1"], Action::ShowPage(Page::Overview), "the cluster at a glance"),
    everywhere("members", &["2"], Action::ShowPage(Page::Members), "members, their state and load"),
    everywhere("jobs", &["3"], Action::ShowPage(Page::Jobs), "jobs and their progress"),
    everywhere("assignments", &["4"], Action::ShowPage(Page::Assignments), "which member works on which job"),
    everywhere("files", &["5"], Action::ShowPage(Page::Files), "files, versions and holders"),
    everywhere("models", &["6"], Action::ShowPage(Page::Models), "models and their state on each member"),
    everywhere("logs", &["7"], Action::ShowPage(Page::Logs), "the members' logs, merged by time"),
    everywhere(
        "events",
        &["8"],
        Action::ShowPage(Page::Events),
        "elections, joins, failures, repairs, commands",
    ),
    everywhere("next-page", &["tab"], Action::NextPage, "next page"),
    everywhere("previous-page", &["shift-tab"], Action::PreviousPage, "previous page"),
    everywhere("down", &["j", "down"], Action::MoveLines(1), "one line down"),
    everywhere("up", &["k", "up"], Action::MoveLines(-1), "one line up"),
    everywhere("screen-down", &["pagedown", "ctrl-f"], Action::MoveScreens(1), "one screen down"),
    everywhere("screen-up", &["pageup", "ctrl-b"], Action::MoveScreens(-1), "one screen up"),
    everywhere("first", &["g", "home"], Action::First, "first line"),
    everywhere("last", &["G", "end"], Action::Last, "last line; follow the end of the log"),
    everywhere("left", &["h", "left"], Action::Left, "scroll left; previous tab of the details"),
    everywhere("right", &["right"], Action::Right, "scroll right; next tab of the details"),
    everywhere("open", &["enter"], Action::Open, "open the details of the selection; never changes anything"),
    everywhere("back", &["esc", "backspace"], Action::Back, "back; clear the filter"),
    everywhere("line", &[":"], Action::CommandLine, "enter a command; Tab completes, Up and Down recall"),
    everywhere(
        "filter",
        &["/"],
        Action::Filter,
        "show only rows that contain a text; on files: names with a prefix",
    ),
    everywhere("palette", &["ctrl-p"], Action::Palette, "find any action or command by typing"),
    everywhere("help", &["?"], Action::Help, "this help; type to search"),
    everywhere("connect-now", &["r"], Action::ConnectNow, "reconnect now instead of waiting"),
    everywhere("last-result", &["o"], Action::LastResult, "show the last command's result again"),
    everywhere("freeze", &["space"], Action::Freeze, "freeze the screen; press again to resume"),
    everywhere("sort-next", &[">"], Action::SortNext, "sort by the next column"),
    everywhere("sort-previous", &["<"], Action::SortPrevious, "sort by the previous column"),
    everywhere("reverse", &["!"], Action::SortReverse, "reverse the sort order"),
    everywhere("describe", &["d"], Action::Describe, "describe the selection"),
    everywhere("json", &["y"], Action::Json, "show the selection as JSON"),
    everywhere(
        "logs-of",
        &["l"],
        Action::LogsOf,
        "logs of the selected member, job or model; elsewhere as right",
    ),
    everywhere("copy", &["Y"], Action::Copy, "copy the name of the selection"),
    everywhere("copy-row", &["ctrl-y"], Action::CopyRow, "copy the selected row"),
    everywhere("save", &["S"], Action::Save, "write the page to a file"),
    everywhere("mouse", &["m"], Action::Mouse, "capture the mouse, or release it for selecting text"),
    everywhere("theme", &["T"], Action::Theme, "next theme: dark, light, colour-blind, mono"),
    everywhere("tour", &["ctrl-t"], Action::Tour, "three screens for a start"),
    files("tree", &["t"], Action::ToggleFlat, "folders, or all files in one list"),
    files("files-next", &["n"], Action::NextFiles, "next page of files"),
    files("files-previous", &["p"], Action::PreviousFiles, "previous page of files"),
    logs("follow", &["f"], Action::FollowLog, "follow the end of the log, or hold"),
    everywhere("wrap", &["w"], Action::Wrap, "wrap long lines of logs, previews and rows of results"),
    logs("level", &["v"], Action::LogLevel, "minimum level: all, info, warn, error"),
    logs("match-context", &["x"], Action::LogContext, "show the lines around matches"),
    logs("next-match", &["n"], Action::NextMatch, "next match"),
    logs("previous-match", &["N"], Action::PreviousMatch, "previous match"),
    everywhere("context", &["c"], Action::SwitchCluster, "switch to another cluster of config.toml"),
    everywhere("suspend", &["ctrl-z"], Action::Suspend, "suspend the console; 'fg' resumes it"),
    everywhere("quit", &["q"], Action::Quit, "quit; the cluster keeps running"),
];

/// The default keys of commands.
const COMMAND_KEYS: [(&str, &str); 55] = [
    ("populate-test-data", "a p"),
    ("reference-data", "a J"),
    ("get-dataset", "a G"),
    ("train-start", "a t"),
    ("add-job", "a n"),
    ("set-batch-size", "a b"),
    ("start-job", "a s"),
    ("stop-job", "a x"),
    ("get-job-stats", "a i"),
    ("explain", "a a"),
    ("get-job-assigned-VMs", "a v"),
    ("get-job-leases", "a y"),
    ("get-job-results", "a o"),
    ("set-weight", "a w"),
    ("set-policy", "a P"),
    ("cancel-job", "a C"),
    ("delete-job", "a B"),
    ("get-job-history", "a H"),
    ("get-job-confusion", "a F"),
    ("dead-letters list", "a d"),
    ("dead-letters show", "a e"),
    ("dead-letters retry", "a r"),
    ("dead-letters drop", "a E"),
    ("train-stop", "a T"),
    ("get-models", "a m"),
    ("model add", "a Y"),
    ("model ls", "a q"),
    ("model show", "a z"),
    ("model test", "a Q"),
    ("model rm", "a Z"),
    ("join", "a j"),
    ("leave", "a l"),
    ("list_mem", "a M"),
    ("list_self", "a S"),
    ("put", "a u"),
    ("get", "a g"),
    ("delete", "a D"),
    ("rm", "a -"),
    ("cp", "a +"),
    ("mv", "a ="),
    ("ls", "a f"),
    ("store", "a h"),
    ("get-versions", "a V"),
    ("status", "a c"),
    ("backup", "a A"),
    ("identity ls", "a N"),
    ("identity revoke", "a W"),
    ("local up", "a U"),
    ("local start", "a R"),
    ("local kill", "a K"),
    ("local status", "a L"),
    ("local down", "a X"),
    ("info", "a I"),
    ("keys", "a k"),
    ("gen-config", "a O"),
];

/// All actions, then all commands.
pub fn items() -> &'static [Item] {
    static ITEMS: LazyLock<Vec<Item>> = LazyLock::new(|| {
        let mut items: Vec<Item> = ACTIONS
            .iter()
            .map(|spec| Item {
                name: spec.name.to_owned(),
                keys: spec.keys.to_vec(),
                scope: spec.scope,
                kind: ItemKind::Action(spec.action),
                help: spec.help.to_owned(),
            })
            .collect();
        // An action that is named like a command takes its place: the console has a page for it.
        let commands =
            entries().into_iter().filter(|entry| !ACTIONS.iter().any(|action| action.name == entry.name));
        items.extend(commands.map(|entry| {
            let key = COMMAND_KEYS.iter().find(|(name, _)| *name == entry.name);
            Item {
                name: entry.name.clone(),
                keys: key.map(|(_, key)| vec![*key]).unwrap_or_default(),
                scope: Scope::Everywhere,
                help: entry.help.clone(),
                kind: ItemKind::Command(Box::new(entry)),
            }
        }));
        items
    });
    &ITEMS
}

/// The item of this name.
pub fn find(name: &str) -> Option<&'static Item> {
    items().iter().find(|item| item.name == name)
}
