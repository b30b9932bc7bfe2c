//! Everything the console knows, and what may happen to it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use crossterm::event::KeyEvent;
use idunno_shared::names::FileName;
use idunno_shared::wire::control::{ClusterView, FileSummary};

use super::input::Input;
use super::log::{Log, LogLine};
use super::theme::Role;
use crate::command::{Output, Verb};
use crate::execute::{Answer, Failure};

/// Operations that are remembered.
pub const OPERATIONS_MAX: usize = 20;
/// Lines of a result that are shown.
pub const RESULT_LINES_MAX: usize = 10_000;
/// Files on one page.
pub const FILES_PER_PAGE: u32 = 200;
/// Live, but nothing was heard for so long: stale.
pub const STALE_AFTER_MS: u64 = 3500;
/// How long a notice stays.
pub const NOTICE_MS: u64 = 6000;

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Page {
    /// Members.
    Members,
    /// Jobs.
    Jobs,
    /// Who works for what.
    Vms,
    /// Files.
    Files,
    /// Logs.
    Log,
}

impl Page {
    /// All pages, in the order of their digits.
    pub const ALL: [Self; 5] = [Self::Members, Self::Jobs, Self::Vms, Self::Files, Self::Log];

    /// Its name on screen.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Members => "members",
            Self::Jobs => "jobs",
            Self::Vms => "VMs",
            Self::Files => "files",
            Self::Log => "log",
        }
    }

    /// The page `by` steps further, round about.
    #[must_use]
    pub fn step(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|page| *page == self).unwrap_or(0);
        Self::ALL[(at + by) % Self::ALL.len()]
    }
}

/// What is selected: a thing, not a line. The line is where to go on from when the thing has gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The selected thing's key.
    pub key: Option<String>,
    /// Where it was last.
    pub line: usize,
}

/// How the connection is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Looking for the coordinator.
    #[default]
    Connecting,
    /// The coordinator pushes.
    Live,
    /// Waiting to look again.
    Waiting {
        /// When, by the console's clock.
        until_ms: u64,
        /// How often it was tried.
        attempt: u32,
        /// What went wrong last.
        reason: String,
    },
}

/// What the connection's task tells.
#[derive(Clone, Debug)]
pub enum NetEvent {
    /// It looks for the coordinator.
    Connecting,
    /// The coordinator pushed.
    View(Box<ClusterView>),
    /// The coordinator answered that nothing is new.
    Confirmed,
    /// No luck: it tries again after a while.
    Waiting {
        /// How long, in milliseconds.
        wait_ms: u64,
        /// How often it was tried.
        attempt: u32,
        /// What went wrong.
        reason: String,
    },
}

/// A question for a page of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesQuery {
    /// How their names start.
    pub prefix: String,
    /// Behind which name.
    pub after: Option<FileName>,
}

/// The page of files.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// What is shown.
    pub query: FilesQuery,
    /// The starts of the pages before.
    pub before: Vec<Option<FileName>>,
    /// The rows.
    pub rows: Vec<FileSummary>,
    /// Whether there are more behind.
    pub more: bool,
    /// What went wrong at the last question.
    pub error: Option<String>,
    /// The question under way.
    pub asked: Option<FilesQuery>,
    /// When it was last asked.
    pub asked_ms: u64,
    /// The metadata's revision when the rows were asked for.
    pub revision: Option<u64>,
}

/// A command that was given.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its number.
    pub id: u64,
    /// As typed.
    pub title: String,
    /// How to show its answer.
    pub output: Output,
    /// When it was given.
    pub started_ms: u64,
    /// Files and bytes done so far.
    pub progress: (u64, u64),
    /// What came of it.
    pub result: Option<Shown>,
}

/// A result on screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Whether it went well.
    pub role: Role,
    /// The lines.
    pub lines: Vec<String>,
}

/// A result pane's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pane {
    /// The operation.
    pub operation: u64,
    /// Lines above.
    pub line: usize,
    /// Columns to the left.
    pub column: u16,
}

/// What a dialog asks about.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// A command.
    Command {
        /// As typed.
        title: String,
        /// The command: bound here, so that nothing that moves on screen changes its target.
        verb: Box<Verb>,
        /// How to show its answer.
        output: Output,
    },
    /// To quit while commands run.
    Quit,
}

/// A question before something is destroyed.
#[derive(Clone, Debug, PartialEq)]
pub struct Confirm {
    /// What about.
    pub asked: Asked,
    /// Whom it hits, by name and address, where that is one member.
    pub target: Option<String>,
    /// What must be typed; nothing if a key is enough.
    pub word: Option<String>,
    /// What has been typed.
    pub typed: Input,
    /// Whether "yes" is selected; "cancel" is at first.
    pub yes: bool,
    /// When it was opened: keys that were pressed before one could see it do not count.
    pub opened_ms: u64,
}

/// What the keys go to.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Mode {
    /// The page.
    #[default]
    Page,
    /// The `:` line.
    Line {
        /// What is typed.
        input: Input,
        /// Which entry of the history is shown.
        recalled: Option<usize>,
        /// What Tab offers.
        offers: Vec<String>,
    },
    /// The `/` line; what the filter was before.
    Filter {
        /// What is typed.
        input: Input,
        /// The filter that Esc brings back.
        before: String,
    },
    /// Help.
    Help {
        /// Lines above.
        line: usize,
    },
    /// A result.
    Pane(Pane),
    /// A question.
    Confirm(Box<Confirm>),
}

/// Everything the console knows.
#[derive(Clone, Debug)]
pub struct State {
    /// What the cluster is called.
    pub label: String,
    /// The one address that the console was given, if it was one.
    pub only_seed: Option<SocketAddr>,
    /// The page shown.
    pub page: Page,
    /// What the keys go to.
    pub mode: Mode,
    /// How the connection is.
    pub link: Link,
    /// The newest view.
    pub view: Option<ClusterView>,
    /// When the view was last known to be true.
    pub seen_ms: u64,
    /// What is selected on each page.
    pub cursors: BTreeMap<Page, Cursor>,
    /// Each page's filter.
    pub filters: BTreeMap<Page, String>,
    /// The page of files.
    pub files: Files,
    /// The logs.
    pub log: Log,
    /// Lines given before, oldest first.
    pub history: Vec<String>,
    /// Commands given, newest last.
    pub operations: VecDeque<Operation>,
    /// The next command's number.
    pub next_operation: u64,
    /// A line for the bottom, until when.
    pub notice: Option<(String, Role, u64)>,
    /// Rows that fit on the page, for paging.
    pub height: usize,
    /// Whether the screen is behind the state.
    pub dirty: bool,
}

impl State {
    /// A console that has just started.
    pub fn new(label: String) -> Self {
        Self {
            label,
            only_seed: None,
            page: Page::Members,
            mode: Mode::Page,
            link: Link::Connecting,
            view: None,
            seen_ms: 0,
            cursors: BTreeMap::new(),
            filters: BTreeMap::new(),
            files: Files::default(),
            log: Log::default(),
            history: Vec::new(),
            operations: VecDeque::new(),
            next_operation: 1,
            notice: None,
            height: 20,
            dirty: true,
        }
    }

    /// The filter of the page shown.
    pub fn filter(&self) -> &str {
        self.filters.get(&self.page).map_or("", String::as_str)
    }

    /// Whether what is shown is known to be true now.
    pub fn is_current(&self, now_ms: u64) -> bool {
        self.link == Link::Live && now_ms.saturating_sub(self.seen_ms) < STALE_AFTER_MS
    }

    /// Lines of text within a pane or help: it covers the page and the titles above it, and its frame takes two.
    pub fn pane_height(&self) -> usize {
        self.height.saturating_sub(1).max(1)
    }

    /// Commands under way.
    pub fn running(&self) -> usize {
        self.operations.iter().filter(|operation| operation.result.is_none()).count()
    }
}

/// What happens.
#[derive(Debug)]
pub enum Msg {
    /// A key.
    Key(KeyEvent),
    /// The terminal has another size: rows of the page.
    Resized(usize),
    /// From the connection.
    Net(NetEvent),
    /// New lines of logs.
    Log(Vec<LogLine>),
    /// A page of files came, or did not.
    Files(FilesQuery, Result<(Vec<FileSummary>, bool), String>),
    /// A command is under way: files and bytes done.
    Progress(u64, u64, u64),
    /// A command is done.
    Finished(u64, Result<Answer, Failure>),
    /// A second has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Carry a command out.
    Run(u64, Box<Verb>),
    /// Ask for a page of files.
    FetchFiles(FilesQuery),
    /// Try to connect now.
    RetryNow,
    /// End the console.
    Quit,
}
