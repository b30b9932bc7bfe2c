//! The list of files: one folder level of the store at a time, or all names, in pages from the coordinator.

use idunno_shared::wire::control::{FileOrder, FolderEntry};

use super::query::{FILES_PER_PAGE, FilesPage, FilesQuery, QueryError};

/// The list is refreshed at most this often, and a long one less often.
const PERIOD_MS: u64 = 1000;
/// The coordinator looks at all entries for a page, in about a microsecond each. So it does that a hundredth of the time.
const ENTRIES_PER_MS: u64 = 100;

#[derive(Clone, Debug, Default)]
pub struct FileList {
    /// The folder that is shown, with its slash; empty for the top.
    pub folder: String,
    /// Whether all files are shown in one list.
    flat: bool,
    /// The query for the page that is shown.
    query: FilesQuery,
    pub entries: Vec<FolderEntry>,
    /// The position of the first entry in the whole list.
    first: u64,
    /// Entries of the whole list.
    total: u64,
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
    pub fn next_query(
        &mut self,
        filter: &str,
        order: FileOrder,
        revision: Option<u64>,
        now_ms: u64,
    ) -> Option<FilesQuery> {
        let prefix = format!("{}{filter}", self.folder);
        let wanted = FilesQuery { prefix, flat: self.flat, order, first: self.query.first };
        if self.query != wanted {
            self.query = FilesQuery { first: 0, ..wanted };
            self.revision = None;
            self.in_flight = None;
        }
        let outdated = self.revision.is_none()
            || (self.revision != revision && now_ms.saturating_sub(self.queried_ms) >= self.period_ms());
        if self.in_flight.is_some() || !outdated {
            return None;
        }
        self.revision = revision;
        self.queried_ms = now_ms;
        self.in_flight = Some(self.query.clone());
        self.in_flight.clone()
    }

    fn period_ms(&self) -> u64 {
        PERIOD_MS.max(self.total / ENTRIES_PER_MS)
    }

    /// Takes a page of files. False for the answer to a query that was abandoned, which is dropped.
    pub fn accept(&mut self, query: &FilesQuery, result: Result<FilesPage, QueryError>) -> bool {
        if self.in_flight.as_ref() != Some(query) {
            return false;
        }
        self.in_flight = None;
        self.generation += 1;
        match result {
            Ok(FilesPage { entries, first, total }) => {
                self.entries = entries;
                self.first = first;
                self.total = total;
                // The list may have become shorter than the page that was asked for.
                self.query.first = first;
                self.error = None;
            }
            Err(error) => self.error = Some(error.to_string()),
        }
        true
    }

    /// Turns to the next or the previous page. False if there is none.
    pub fn turn_page(&mut self, forward: bool) -> bool {
        let next = self.first + self.entries.len() as u64;
        let first = if forward {
            Some(next).filter(|next| *next < self.total)
        } else {
            // Back from the page that was asked for, whether it has come or not.
            let asked = self.query.first;
            Some(asked.saturating_sub(FILES_PER_PAGE.into())).filter(|_| asked > 0)
        };
        let Some(first) = first else { return false };
        self.query.first = first;
        self.in_flight = None;
        self.revision = None;
        true
    }

    /// The order of the page that was asked for last.
    pub const fn order(&self) -> FileOrder {
        self.query.order
    }

    /// The positions of the first and the last entry from 1, and the number of all.
    pub fn position(&self) -> (u64, u64, u64) {
        (self.first + 1, self.first + self.entries.len() as u64, self.total)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_refreshed_less_often() {
        let refreshed_ms = |total: u64| {
            let mut list = FileList::default();
            let mut query =
                |revision, now_ms| list.next_query("", FileOrder::default(), Some(revision), now_ms);
            let asked = query(1, 0).unwrap();
            assert!(list.accept(&asked, Ok(FilesPage { total, ..FilesPage::default() })));
            // Each second the metadata is new.
            let mut seconds = 1..60;
            let is_due = |second: &u64| {
                list.next_query("", FileOrder::default(), Some(second + 1), second * 1000).is_some()
            };
            seconds.find(is_due).unwrap() * 1000
        };
        assert_eq!((refreshed_ms(1_000), refreshed_ms(1_000_000)), (1_000, 10_000));
    }
}
