//! The files page: one folder level of the store at a time, or all names, in pages from the coordinator.

use idunno_shared::wire::control::FolderEntry;

use super::msg::{FilesPage, FilesQuery};
use super::queries::QueryError;
use super::state::{ConnectionState, Effect, Page, State};
use super::table::Cursor;

pub const FILES_PER_PAGE: u32 = 200;
/// The page is refreshed at most this often.
const PERIOD_MS: u64 = 1000;

#[derive(Clone, Debug, Default)]
pub struct FileList {
    /// The folder that is shown, with its slash; empty for the top.
    pub folder: String,
    /// Whether all files are shown in one list.
    pub flat: bool,
    /// The query for the page that is shown.
    pub query: FilesQuery,
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

/// The query to send now, if the page is on screen and may be out of date.
pub fn next_query(state: &mut State, now_ms: u64) -> Option<Effect> {
    if state.page != Page::Files || !state.details.is_empty() || state.connection != ConnectionState::Live {
        return None;
    }
    let revision = state.view.as_ref().map(|view| view.revision);
    let prefix = format!("{}{}", state.files.folder, state.filter());
    let files = &mut state.files;
    if files.query.prefix != prefix || files.query.flat != files.flat {
        files.query = FilesQuery { prefix, after: None, flat: files.flat };
        files.previous.clear();
        files.revision = None;
        files.in_flight = None;
    }
    let outdated = files.revision.is_none()
        || (files.revision != revision && now_ms.saturating_sub(files.queried_ms) >= PERIOD_MS);
    if files.in_flight.is_some() || !outdated {
        return None;
    }
    files.revision = revision;
    files.queried_ms = now_ms;
    files.in_flight = Some(files.query.clone());
    Some(Effect::FetchFiles(files.query.clone()))
}

/// Takes a page of files; the answer to a query that was abandoned is dropped.
pub fn accept(state: &mut State, query: &FilesQuery, result: Result<FilesPage, QueryError>) {
    let files = &mut state.files;
    if files.in_flight.as_ref() != Some(query) {
        return;
    }
    files.in_flight = None;
    files.generation += 1;
    match result {
        Ok(page) => {
            files.entries = page.entries;
            files.more = page.more;
            files.error = None;
        }
        Err(error) => files.error = Some(error.to_string()),
    }
    state.dirty = true;
}

/// Shows the next or the previous page of files, if there is one.
pub fn turn_page(state: &mut State, forward: bool) {
    let files = &mut state.files;
    if forward {
        let full = files.entries.len() >= FILES_PER_PAGE as usize;
        let Some(last) = files.entries.last().filter(|_| files.more || full) else { return };
        files.previous.push(files.query.after.clone());
        files.query.after = Some(last.clone());
    } else {
        let Some(start) = files.previous.pop() else { return };
        files.query.after = start;
    }
    files.in_flight = None;
    files.revision = None;
    state.table_mut().cursor = Cursor::default();
}

/// Enters the selected folder. Returns whether a folder was selected.
pub fn enter_folder(state: &mut State) -> bool {
    let Some(key) = state.selected().filter(|key| key.ends_with('/')) else { return false };
    show_folder(state, key);
    true
}

/// Goes to the parent folder, if there is one, and selects the folder that was left.
pub fn leave_folder(state: &mut State) {
    let left = state.files.folder.clone();
    let Some(path) = left.strip_suffix('/') else { return };
    let parent = path.rfind('/').map_or("", |slash| &path[..=slash]).to_owned();
    show_folder(state, parent);
    state.table_mut().select_when_present = Some(left);
}

/// Switches between folders and one list of all files.
pub fn toggle_flat(state: &mut State) {
    state.files.flat = !state.files.flat;
    let folder = state.files.folder.clone();
    show_folder(state, folder);
}

fn show_folder(state: &mut State, folder: String) {
    state.files.folder = folder;
    state.files.entries.clear();
    state.files.generation += 1;
    let table = state.table_mut();
    table.filter.clear();
    table.cursor = Cursor::default();
}
