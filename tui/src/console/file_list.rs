//! The list of files: one folder level of the store at a time, or all names, in pages from the coordinator.

use idunno_shared::wire::control::FolderEntry;

use super::query::{FILES_PER_PAGE, FilesPage, FilesQuery, QueryError};

/// The list is refreshed at most this often.
const PERIOD_MS: u64 = 1000;

#[derive(Clone, Debug, Default)]
pub struct FileList {
    /// The folder that is shown, with its slash; empty for the top.
    pub folder: String,
    /// Whether all files are shown in one list.
    flat: bool,
    /// The query for the page that is shown.
    query: FilesQuery,
    /// Where the previous pages start.
    previous: Vec<Option<FolderEntry>>,
    pub entries: Vec<FolderEntry>,
    /// Whether more entries follow.
    more: bool,
    /// Counts answers and changes of folder, so that the table knows when it is out of date.
    pub generation: u64,
    /// Why the last query failed.
    pub error: Option<String>,
    /// The query in flight.
    pub in_flight: Option<FilesQuery>,
    queried_ms: u64,
    /// The metadata's revision at the last query.
    revision: Option<u64>,
}

impl FileList {
    /// The query to send now, if the list may be out of date. `filter` begins the names that are listed, and `revision` is
    /// the metadata's.
    pub fn next_query(&mut self, filter: &str, revision: Option<u64>, now_ms: u64) -> Option<FilesQuery> {
        let prefix = format!("{}{filter}", self.folder);
        if self.query.prefix != prefix || self.query.flat != self.flat {
            self.query = FilesQuery { prefix, after: None, flat: self.flat };
            self.previous.clear();
            self.revision = None;
            self.in_flight = None;
        }
        let outdated = self.revision.is_none()
            || (self.revision != revision && now_ms.saturating_sub(self.queried_ms) >= PERIOD_MS);
        if self.in_flight.is_some() || !outdated {
            return None;
        }
        self.revision = revision;
        self.queried_ms = now_ms;
        self.in_flight = Some(self.query.clone());
        self.in_flight.clone()
    }

    /// Takes a page of files. False for the answer to a query that was abandoned, which is dropped.
    pub fn accept(&mut self, query: &FilesQuery, result: Result<FilesPage, QueryError>) -> bool {
        if self.in_flight.as_ref() != Some(query) {
            return false;
        }
        self.in_flight = None;
        self.generation += 1;
        match result {
            Ok(page) => {
                self.entries = page.entries;
                self.more = page.more;
                self.error = None;
            }
            Err(error) => self.error = Some(error.to_string()),
        }
        true
    }

    /// Turns to the next or the previous page. False if there is none.
    pub fn turn_page(&mut self, forward: bool) -> bool {
        if forward {
            let full = self.entries.len() >= FILES_PER_PAGE as usize;
            let Some(last) = self.entries.last().filter(|_| self.more || full) else { return false };
            self.previous.push(self.query.after.clone());
            self.query.after = Some(last.clone());
        } else {
            let Some(start) = self.previous.pop() else { return false };
            self.query.after = start;
        }
        self.in_flight = None;
        self.revision = None;
        true
    }

    /// Shows a folder, which is empty until its entries come.
    pub fn show_folder(&mut self, folder: String) {
        self.folder = folder;
        self.entries.clear();
        self.generation += 1;
    }

    /// Switches between folders and one list of all files.
    pub fn toggle_flat(&mut self) {
        self.flat = !self.flat;
    }
}
