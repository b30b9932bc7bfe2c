//! The page of files: which folder it shows, and when its list is asked for.

use super::query::{FilesPage, FilesQuery, QueryError};
use super::rows;
use super::state::{ConnectionState, Effect, Page, State};

/// The query to send now, if the page is on screen and may be out of date.
pub fn next_query(state: &mut State, now_ms: u64) -> Option<Effect> {
    if state.page != Page::Files || !state.details.is_empty() || state.connection != ConnectionState::Live {
        return None;
    }
    let revision = state.view.as_ref().map(|view| view.revision);
    let filter = state.filter().to_owned();
    let order = rows::file_order(state.table().and_then(|table| table.sort));
    if order != state.files.order() {
        // Another order has another first page.
        state.table_mut().start_anew();
    }
    state.files.next_query(&filter, order, revision, now_ms).map(Effect::FetchFiles)
}

/// Takes a page of files.
pub fn accept(state: &mut State, query: &FilesQuery, result: Result<FilesPage, QueryError>) {
    state.dirty |= state.files.accept(query, result);
}

/// Shows the next or the previous page of files, if there is one.
pub fn turn_page(state: &mut State, forward: bool) {
    if state.files.turn_page(forward) {
        state.table_mut().start_anew();
    }
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
    state.files.toggle_flat();
    let folder = state.files.folder.clone();
    show_folder(state, folder);
}

fn show_folder(state: &mut State, folder: String) {
    state.files.show_folder(folder);
    let table = state.table_mut();
    table.filter.clear();
    table.start_anew();
}
