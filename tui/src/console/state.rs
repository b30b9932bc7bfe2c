//! Everything the console knows.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use idunno_shared::wire::control::{ClusterView, FolderEntry};

use super::detail::Detail;
use super::events::Events;
use super::history::History;
use super::keymap::{Chord, Keymap};
use super::log::Log;
pub use super::mode::{Asked, Confirm, Form, Mode, Pane};
pub use super::msg::{Effect, Facts, FilesQuery, Msg, NetEvent, Question};
pub use super::page::{Cursor, Page};
use super::table::Table;
use super::theme::{Role, Theme};
use crate::command::alias::Aliases;
use crate::command::values::MemberRef;
use crate::command::{Output, Palette};

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
/// How long a coordinator may be out of sight before the console says that it reconnects, not that one is elected,
/// if no member answers meanwhile.
pub const ELECTING_MS: u64 = 10_000;

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
        /// Whether a member answers.
        answered: bool,
    },
}

/// The page of files.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The folder that is shown, with its slash; empty for the top.
    pub folder: String,
    /// Whether all files are shown in one list.
    pub flat: bool,
    /// What is shown.
    pub query: FilesQuery,
    /// The starts of the pages before.
    pub before: Vec<Option<FolderEntry>>,
    /// The rows.
    pub rows: Vec<FolderEntry>,
    /// Counts the answers, so that what was made of them is known to be old.
    pub generation: u64,
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

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Done,
    /// In part.
    Partial,
    /// Not.
    Failed,
    /// The coordinator went away before it answered: it may be done or not.
    Unknown,
}

/// A command that was given.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its number.
    pub id: u64,
    /// As typed.
    pub title: String,
    /// Whether it changes the cluster.
    pub changes: bool,
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
    /// How it ended.
    pub outcome: Outcome,
    /// The lines.
    pub lines: Vec<String>,
}

impl Outcome {
    /// What it means.
    pub const fn role(self) -> Role {
        match self {
            Self::Done => Role::Good,
            Self::Partial | Self::Unknown => Role::Warn,
            Self::Failed => Role::Bad,
        }
    }

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Partial => "done in part",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// Everything the console knows.
#[derive(Clone, Debug)]
pub struct State {
    /// What the cluster is called.
    pub label: String,
    /// The clusters of the settings.
    pub contexts: Vec<String>,
    /// The settings' short names for commands.
    pub aliases: Aliases,
    /// The one address that the console was given, if it was one.
    pub default_member: Option<MemberRef>,
    /// Whether nothing may be changed.
    pub read_only: bool,
    /// Whether the cluster itself would refuse changes.
    pub is_viewer: bool,
    /// The wall clock when the console's clock was 0, in milliseconds since the epoch.
    pub epoch_ms: u64,
    /// The theme.
    pub theme: Theme,
    /// Whether the mouse is the console's.
    pub mouse: bool,
    /// The keys.
    pub keymap: Arc<Keymap>,
    /// Keys of a sequence that is not complete.
    pub pressed: Vec<Chord>,
    /// The page shown.
    pub page: Page,
    /// What was looked into, from the page on.
    pub details: Vec<Detail>,
    /// What the keys go to.
    pub mode: Mode,
    /// How the connection is.
    pub link: Link,
    /// When the coordinator was lost.
    pub lost_ms: Option<u64>,
    /// The newest view, or the one that is held.
    pub view: Option<ClusterView>,
    /// Counts the views shown, so that what was made of them is known to be old.
    pub shown: u64,
    /// The newest view, while another is held; since when.
    pub frozen: Option<(Option<Box<ClusterView>>, u64)>,
    /// When a view was last known to be true.
    pub seen_ms: u64,
    /// Each page's table.
    pub tables: BTreeMap<Page, Table>,
    /// How figures went.
    pub history: History,
    /// What happened.
    pub events: Events,
    /// The page of files.
    pub files: Files,
    /// The logs.
    pub log: Log,
    /// Members whose logs are streamed.
    pub streams: Vec<(String, SocketAddr)>,
    /// Lines given before, oldest first.
    pub given: Vec<String>,
    /// Commands given, newest last.
    pub operations: VecDeque<Operation>,
    /// The next command's number.
    pub next_operation: u64,
    /// A line for the bottom, until when.
    pub notice: Option<(String, Role, u64)>,
    /// The screen's width and height.
    pub size: (u16, u16),
    /// Whether the screen is behind the state.
    pub dirty: bool,
}

impl State {
    /// A console that has just started.
    pub fn new(label: String) -> Self {
        Self {
            label,
            contexts: Vec::new(),
            aliases: Aliases::new(),
            default_member: None,
            read_only: false,
            is_viewer: false,
            epoch_ms: 0,
            theme: Theme { palette: Palette::Dark, unicode: true },
            mouse: false,
            keymap: Arc::new(Keymap::default()),
            pressed: Vec::new(),
            page: Page::Overview,
            details: Vec::new(),
            mode: Mode::Page,
            link: Link::Connecting,
            lost_ms: None,
            view: None,
            shown: 0,
            frozen: None,
            seen_ms: 0,
            tables: BTreeMap::new(),
            history: History::default(),
            events: Events::default(),
            files: Files::default(),
            log: Log::default(),
            streams: Vec::new(),
            given: Vec::new(),
            operations: VecDeque::new(),
            next_operation: 1,
            notice: None,
            size: (80, 24),
            dirty: true,
        }
    }

    /// The table that the keys go to: of what is looked into, else of the page.
    pub fn table(&self) -> Option<&Table> {
        self.details.last().map(|detail| &detail.table).or_else(|| self.tables.get(&self.page))
    }

    /// The same, to be changed.
    pub fn table_mut(&mut self) -> &mut Table {
        match self.details.last_mut() {
            Some(detail) => &mut detail.table,
            None => self.tables.entry(self.page).or_default(),
        }
    }

    /// The key of what is selected.
    pub fn selected(&self) -> Option<String> {
        self.table()?.cursor.key.clone()
    }

    /// The filter of what is shown.
    pub fn filter(&self) -> &str {
        self.table().map_or("", |table| table.filter.as_str())
    }

    /// Whether what is shown is known to be true now.
    pub fn is_current(&self, now_ms: u64) -> bool {
        self.link == Link::Live && now_ms.saturating_sub(self.seen_ms) < STALE_AFTER_MS
    }

    /// Whether the page is the log, and nothing is looked into.
    pub fn reads_log(&self) -> bool {
        self.page == Page::Logs && self.details.is_empty()
    }

    /// Rows that fit on the page, for paging.
    pub fn height(&self) -> usize {
        super::layout::page_height(self.size.1)
    }

    /// Lines of text within a pane or help: it covers the page and the titles above it, and its frame takes two.
    pub fn pane_height(&self) -> usize {
        self.height().saturating_sub(1).max(1)
    }

    /// Commands under way.
    pub fn running(&self) -> usize {
        self.operations.iter().filter(|operation| operation.result.is_none()).count()
    }

    /// Says something at the bottom for a while.
    pub fn tell(&mut self, text: impl Into<String>, role: Role, now_ms: u64) {
        self.notice = Some((crate::tail::printable(&text.into()), role, now_ms + NOTICE_MS));
        self.dirty = true;
    }

    /// The wall clock, in milliseconds since the epoch.
    pub fn wall_ms(&self, now_ms: u64) -> u64 {
        self.epoch_ms + now_ms
    }
}
