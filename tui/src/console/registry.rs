//! The one table of what the console does: keys, help, palette, `:` line and completion are made from it.
//!
//! Actions stand here with their keys; commands come from the grammar ([`crate::command::registry`]) with theirs. No bare
//! key changes the cluster: a command's keys begin with `a`, which shows what may follow, and open its form.

use std::sync::LazyLock;

use super::page::Page;
use crate::command::registry::{CommandInfo, Danger, entries};

/// What the console does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Shows a page.
    Show(Page),
    /// The next page.
    NextPage,
    /// The page before.
    PrevPage,
    /// Selects so many lines further; whole screens where the second is set.
    Move(i64, bool),
    /// Selects the first line.
    First,
    /// Selects the last line.
    Last,
    /// Scrolls to the left, or one part back.
    Left,
    /// Scrolls to the right, or one part on.
    Right,
    /// Looks into what is selected.
    Open,
    /// Leaves what was looked into; clears the filter.
    Back,
    /// The `:` line.
    Line,
    /// The `/` line.
    Filter,
    /// All actions and commands, to be found by typing.
    Palette,
    /// Help.
    Help,
    /// Connects now.
    Retry,
    /// The last command's result.
    LastResult,
    /// Holds the screen, or lets it go on.
    Freeze,
    /// Sorts by the next column.
    SortNext,
    /// Sorts by the column before.
    SortPrev,
    /// Sorts the other way round.
    Reverse,
    /// Copies what is selected.
    Copy,
    /// Copies the selected row.
    CopyRow,
    /// Writes the page into a file.
    Save,
    /// Gives the mouse to the console, or back to the terminal.
    Mouse,
    /// The next theme.
    Theme,
    /// Folders, or all files in one list.
    Tree,
    /// The next page of files.
    NextFiles,
    /// The page of files before.
    PrevFiles,
    /// Follows the log's end.
    Follow,
    /// Wraps long lines.
    Wrap,
    /// The least level of lines that are shown.
    Level,
    /// Shows what stands around the lines found.
    Around,
    /// The next line found.
    NextFound,
    /// The line found before.
    PrevFound,
    /// Another cluster.
    Context,
    /// Stops the console, as a shell's job.
    Suspend,
    /// Ends the console.
    Quit,
}

/// Where a key counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// On every page.
    Everywhere,
    /// On one page.
    On(Page),
}

impl Scope {
    /// Whether both may hold at once.
    pub fn meets(self, other: Self) -> bool {
        self == Self::Everywhere || other == Self::Everywhere || self == other
    }
}

/// What an item does.
#[derive(Clone, Debug)]
pub enum Does {
    /// An action.
    Act(Action),
    /// A command: its form, or itself if it wants nothing.
    Command(Box<CommandInfo>),
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its name in the keymap file and on the `:` line.
    pub name: String,
    /// Its keys, unless the keymap file says otherwise.
    pub keys: Vec<&'static str>,
    /// Where they count.
    pub scope: Scope,
    /// What it does.
    pub does: Does,
    /// One line.
    pub help: String,
}

impl Item {
    /// What it may break.
    pub fn danger(&self) -> Danger {
        match &self.does {
            Does::Act(_) => Danger::None,
            Does::Command(entry) => entry.danger,
        }
    }

    /// Whether it changes the cluster: not there in read-only mode.
    pub fn changes(&self) -> bool {
        matches!(&self.does, Does::Command(entry) if entry.changes)
    }
}

type Line = (&'static str, &'static [&'static str], Scope, Action, &'static str);

const ALL: Scope = Scope::Everywhere;
const FILES: Scope = Scope::On(Page::Files);
const LOGS: Scope = Scope::On(Page::Logs);

const ACTIONS: [Line; 47] = [
    ("overview", &["1"], ALL, Action::Show(Page::Overview), "the cluster at a glance"),
    ("members", &["2"], ALL, Action::Show(Page::Members), "members, their state and load"),
    ("jobs", &["3"], ALL, Action::Show(Page::Jobs), "jobs and their progress"),
    ("assignments", &["4"], ALL, Action::Show(Page::Assignments), "which VM works for which job"),
    ("files", &["5"], ALL, Action::Show(Page::Files), "files, versions and holders"),
    ("models", &["6"], ALL, Action::Show(Page::Models), "models and their state on each VM"),
    ("logs", &["7"], ALL, Action::Show(Page::Logs), "logs of the members, merged by time"),
    ("events", &["8"], ALL, Action::Show(Page::Events), "elections, joins, deaths, repairs, commands"),
    ("next-page", &["tab"], ALL, Action::NextPage, "next page"),
    ("previous-page", &["shift-tab"], ALL, Action::PrevPage, "page before"),
    ("down", &["j", "down"], ALL, Action::Move(1, false), "one line down"),
    ("up", &["k", "up"], ALL, Action::Move(-1, false), "one line up"),
    ("screen-down", &["pagedown", "ctrl-f"], ALL, Action::Move(1, true), "one screen down"),
    ("screen-up", &["pageup", "ctrl-b"], ALL, Action::Move(-1, true), "one screen up"),
    ("first", &["g", "home"], ALL, Action::First, "first line"),
    ("last", &["G", "end"], ALL, Action::Last, "last line; follows the end of the log"),
    ("left", &["h", "left"], ALL, Action::Left, "scroll left; the part before of what is looked into"),
    ("right", &["l", "right"], ALL, Action::Right, "scroll right; the next part of what is looked into"),
    ("open", &["enter"], ALL, Action::Open, "look into what is selected; never changes anything"),
    ("back", &["esc", "backspace"], ALL, Action::Back, "back; clear the filter"),
    ("line", &[":"], ALL, Action::Line, "give a command; Tab completes, up and down recall"),
    ("filter", &["/"], ALL, Action::Filter, "show only what contains a text; files: whose names start so"),
    ("palette", &["ctrl-p"], ALL, Action::Palette, "find any action or command by typing"),
    ("help", &["?"], ALL, Action::Help, "this help; type to search it"),
    ("connect-now", &["r"], ALL, Action::Retry, "connect now instead of waiting"),
    ("last-result", &["o"], ALL, Action::LastResult, "show the last command's result again"),
    ("freeze", &["space"], ALL, Action::Freeze, "hold the screen; again: go on"),
    ("sort-next", &[">"], ALL, Action::SortNext, "sort by the next column"),
    ("sort-previous", &["<"], ALL, Action::SortPrev, "sort by the column before"),
    ("reverse", &["!"], ALL, Action::Reverse, "sort the other way round"),
    ("copy", &["y"], ALL, Action::Copy, "copy the name of what is selected"),
    ("copy-row", &["Y"], ALL, Action::CopyRow, "copy the selected row"),
    ("save", &["S"], ALL, Action::Save, "write the page into a file"),
    ("mouse", &["m"], ALL, Action::Mouse, "mouse to the console, or back to the terminal to select text"),
    ("theme", &["T"], ALL, Action::Theme, "next theme: dark, light, colour-blind, mono"),
    ("tree", &["t"], FILES, Action::Tree, "folders, or all files in one list"),
    ("files-next", &["n"], FILES, Action::NextFiles, "next page of files"),
    ("files-previous", &["p"], FILES, Action::PrevFiles, "page of files before"),
    ("follow", &["f"], LOGS, Action::Follow, "follow the log's end, or hold it"),
    ("wrap", &["w"], LOGS, Action::Wrap, "wrap long lines"),
    ("level", &["v"], LOGS, Action::Level, "least level: all, info, warn, error"),
    ("around", &["x"], LOGS, Action::Around, "show what stands around the lines found"),
    ("next-found", &["n"], LOGS, Action::NextFound, "next line found"),
    ("previous-found", &["N"], LOGS, Action::PrevFound, "line found before"),
    ("context", &["c"], ALL, Action::Context, "go to another cluster of config.toml"),
    ("suspend", &["ctrl-z"], ALL, Action::Suspend, "stop the console; 'fg' brings it back"),
    ("quit", &["q"], ALL, Action::Quit, "quit; the cluster goes on"),
];

const COMMAND_KEYS: [(&str, &str); 43] = [
    ("populate-test-data", "a p"),
    ("get-dataset", "a G"),
    ("train-start", "a t"),
    ("add-job", "a n"),
    ("set-batch-size", "a b"),
    ("start-job", "a s"),
    ("stop-job", "a x"),
    ("get-job-stats", "a i"),
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
    ("join", "a j"),
    ("leave", "a l"),
    ("list_mem", "a M"),
    ("list_self", "a S"),
    ("put", "a u"),
    ("get", "a g"),
    ("delete", "a D"),
    ("ls", "a f"),
    ("store", "a h"),
    ("get-versions", "a V"),
    ("status", "a c"),
    ("backup", "a A"),
    ("local up", "a U"),
    ("local start", "a R"),
    ("local kill", "a K"),
    ("local status", "a L"),
    ("local down", "a X"),
    ("info", "a I"),
    ("keys", "a k"),
    ("gen-config", "a O"),
];

/// The table.
pub fn items() -> &'static [Item] {
    static ITEMS: LazyLock<Vec<Item>> = LazyLock::new(|| {
        let mut items: Vec<Item> = ACTIONS
            .iter()
            .map(|&(name, keys, scope, action, help)| Item {
                name: name.to_owned(),
                keys: keys.to_vec(),
                scope,
                does: Does::Act(action),
                help: help.to_owned(),
            })
            .collect();
        // Where an action has a command's name the console shows its own page instead.
        let entries =
            entries().into_iter().filter(|entry| !ACTIONS.iter().any(|action| action.0 == entry.name));
        items.extend(entries.map(|entry| {
            let key = COMMAND_KEYS.iter().find(|(name, _)| *name == entry.name);
            Item {
                name: entry.name.clone(),
                keys: key.map(|(_, key)| vec![*key]).unwrap_or_default(),
                scope: ALL,
                help: entry.help.clone(),
                does: Does::Command(Box::new(entry)),
            }
        }));
        items
    });
    &ITEMS
}

/// The item of this name.
pub fn named(name: &str) -> Option<&'static Item> {
    items().iter().find(|item| item.name == name)
}
