//! The state of the console. [`super::update`] is all that changes it.

use std::collections::{BTreeMap, VecDeque};

use std::sync::Arc;

use idunno_shared::access::Grant;
use idunno_shared::wire::control::ClusterView;
use ratatui::layout::Size;

use super::detail::Detail;
use super::events::Events;
use super::file_list::FileList;
use super::keymap::{Chord, Keymap};
use super::layout;
use super::local_paths::LocalPaths;
use super::log_buffer::LogBuffer;
pub use super::mode::{CommandLine, ConfirmAction, ConfirmDialog, Form, Mode, ResultPane};
pub use super::msg::{Effect, LogSource, Msg, NetEvent, TransferProgress};
use super::old_jobs::OldJobs;
use super::operation::Operation;
pub use super::page::Page;
pub use super::query::{DetailData, DetailQuery, FilesPage, FilesQuery};
use super::rate_history::RateHistory;
use super::table::DataTable;
use super::theme::{Theme, Tone};
use crate::command::Palette;
use crate::command::alias::Aliases;
use crate::command::values::MemberRef;

/// A live connection that was silent for this long is shown as stale.
pub const STALE_AFTER_MS: u64 = 3500;
/// How long a notice stays on screen.
pub const NOTICE_MS: u64 = 6000;
/// For this long after the coordinator is lost the console shows ELECTING even if no member answers; after that,
/// RECONNECTING.
pub const ELECTING_MS: u64 = 10_000;

/// The state of the connection to the coordinator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ConnectionState {
    #[default]
    Connecting,
    Live,
    Waiting {
        /// When the next attempt starts, by the console's clock.
        until_ms: u64,
        attempt: u32,
        reason: String,
        member_reachable: bool,
    },
}

/// A short message on the bottom line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub text: String,
    pub tone: Tone,
    pub until_ms: u64,
}

/// The screen is held still; the newest view waits here until it is released.
#[derive(Clone, Debug)]
pub struct Freeze {
    pub since_ms: u64,
    pub latest: Option<Box<ClusterView>>,
}

#[derive(Clone, Debug)]
pub struct State {
    /// What the cluster is called on screen.
    pub label: String,
    /// Names of the clusters in config.toml.
    pub contexts: Vec<String>,
    pub aliases: Aliases,
    /// The address that the console was given, if it was exactly one.
    pub default_member: Option<MemberRef>,
    pub read_only: bool,
    /// Who the console is to the cluster, and what it may do there; `None` without security.
    pub grant: Option<Grant>,
    /// The wall clock when the console's clock was 0, in milliseconds since the epoch.
    pub epoch_ms: u64,
    pub theme: Theme,
    /// Whether the console captures the mouse.
    pub mouse: bool,
    pub keymap: Arc<Keymap>,
    /// Keys of an incomplete sequence.
    pub pending_keys: Vec<Chord>,
    pub page: Page,
    /// Details opened on top of the page, innermost last.
    pub details: Vec<Detail>,
    pub mode: Mode,
    pub connection: ConnectionState,
    /// When the connection to the coordinator was lost.
    pub lost_ms: Option<u64>,
    /// When a member last said who is up, since there is no coordinator that does.
    pub members_ms: Option<u64>,
    /// The view on screen.
    pub view: Option<ClusterView>,
    /// Counts the views shown, so that tables know when they are out of date.
    pub view_generation: u64,
    pub frozen: Option<Freeze>,
    /// When the view was last known to be current.
    pub fresh_ms: u64,
    pub tables: BTreeMap<Page, DataTable>,
    pub rates: RateHistory,
    pub events: Events,
    pub files: FileList,
    pub old_jobs: OldJobs,
    pub local_paths: LocalPaths,
    pub log: LogBuffer,
    /// Whether long lines of previews and rows of results are wrapped.
    pub wrap_text: bool,
    /// The members whose logs are being streamed.
    pub log_sources: Vec<LogSource>,
    /// Lines entered before, oldest first.
    pub command_history: Vec<String>,
    /// Newest last.
    pub operations: VecDeque<Operation>,
    pub next_operation: u64,
    pub notice: Option<Notice>,
    pub size: Size,
    /// Whether the screen must be drawn again.
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
            grant: None,
            epoch_ms: 0,
            theme: Theme { palette: Palette::Dark, unicode: true },
            mouse: false,
            keymap: Arc::new(Keymap::default()),
            pending_keys: Vec::new(),
            page: Page::Overview,
            details: Vec::new(),
            mode: Mode::Page,
            connection: ConnectionState::Connecting,
            lost_ms: None,
            members_ms: None,
            view: None,
            view_generation: 0,
            frozen: None,
            fresh_ms: 0,
            tables: BTreeMap::new(),
            rates: RateHistory::default(),
            events: Events::default(),
            files: FileList::default(),
            old_jobs: OldJobs::default(),
            local_paths: LocalPaths::default(),
            log: LogBuffer::default(),
            wrap_text: true,
            log_sources: Vec::new(),
            command_history: Vec::new(),
            operations: VecDeque::new(),
            next_operation: 1,
            notice: None,
            size: Size { width: 80, height: 24 },
            dirty: true,
        }
    }

    /// The table that receives the keys: that of the innermost detail, else that of the page.
    pub fn table(&self) -> Option<&DataTable> {
        self.details.last().map(|detail| &detail.table).or_else(|| self.tables.get(&self.page))
    }

    pub fn table_mut(&mut self) -> &mut DataTable {
        match self.details.last_mut() {
            Some(detail) => &mut detail.table,
            None => self.tables.entry(self.page).or_default(),
        }
    }

    /// The key of the selected row.
    pub fn selected(&self) -> Option<String> {
        self.table()?.cursor.key.clone()
    }

    pub fn filter(&self) -> &str {
        self.table().map_or("", |table| table.filter.as_str())
    }

    /// Whether the view is known to be current.
    pub fn is_current(&self, now_ms: u64) -> bool {
        self.connection == ConnectionState::Live && now_ms.saturating_sub(self.fresh_ms) < STALE_AFTER_MS
    }

    /// Whether the view is of a coordinator that does not answer any more.
    pub fn is_outdated(&self) -> bool {
        self.view.is_some() && self.connection != ConnectionState::Live
    }

    /// Whether the log is on screen.
    pub fn shows_log(&self) -> bool {
        self.page == Page::Logs && self.details.is_empty()
    }

    /// The number of rows that fit on the page.
    pub fn page_height(&self) -> usize {
        layout::page_height(self.size.height)
    }

    /// The number of lines inside an overlay: it covers the page and its column titles, less a border.
    pub fn overlay_height(&self) -> usize {
        self.page_height().saturating_sub(1).max(1)
    }

    /// The number of commands that are running.
    pub fn running(&self) -> usize {
        self.operations.iter().filter(|operation| operation.result.is_none()).count()
    }

    /// Shows a message on the bottom line for [`NOTICE_MS`].
    pub fn notify(&mut self, text: impl Into<String>, tone: Tone, now_ms: u64) {
        let text = crate::tail::printable(&text.into());
        self.notice = Some(Notice { text, tone, until_ms: now_ms + NOTICE_MS });
        self.dirty = true;
    }

    /// The wall clock, in milliseconds since the epoch.
    pub fn wall_ms(&self, now_ms: u64) -> u64 {
        self.epoch_ms + now_ms
    }
}
