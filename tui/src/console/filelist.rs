//! The files page: one level of the store at a time, or all names; in pages from the coordinator.

use idunno_shared::wire::control::FolderEntry;

use super::state::{Effect, FILES_PER_PAGE, FilesQuery, Link, Page, State};

/// The files page asks again at most this often.
const PERIOD_MS: u64 = 1000;

/// Asks for the page of files when it is shown and what it shows may be old.
pub fn ask(state: &mut State, now_ms: u64) -> Option<Effect> {
    if state.page != Page::Files || !state.details.is_empty() || state.link != Link::Live {
        return None;
    }
    let revision = state.view.as_ref().map(|view| view.revision);
    let prefix = format!("{}{}", state.files.folder, state.filter());
    let files = &mut state.files;
    if files.query.prefix != prefix || files.query.flat != files.flat {
        files.query = FilesQuery { prefix, after: None, flat: files.flat };
        files.before.clear();
        (files.revision, files.asked) = (None, None);
    }
    let old = files.revision.is_none()
        || (files.revision != revision && now_ms.saturating_sub(files.asked_ms) >= PERIOD_MS);
    if files.asked.is_some() || !old {
        return None;
    }
    (files.revision, files.asked_ms) = (revision, now_ms);
    files.asked = Some(files.query.clone());
    Some(Effect::FetchFiles(files.query.clone()))
}

/// Takes a page of files; an answer to a question that was given up meanwhile is dropped.
pub fn answer(state: &mut State, query: &FilesQuery, result: Result<(Vec<FolderEntry>, bool), String>) {
    let files = &mut state.files;
    if files.asked.as_ref() != Some(query) {
        return;
    }
    files.asked = None;
    files.generation += 1;
    match result {
        Ok((rows, more)) => (files.rows, files.more, files.error) = (rows, more, None),
        Err(error) => files.error = Some(error),
    }
    state.dirty = true;
}

/// Goes a page of files on or back; whether there is one.
pub fn turn(state: &mut State, on: bool) -> bool {
    let files = &mut state.files;
    if on {
        let full = files.rows.len() >= FILES_PER_PAGE as usize;
        let Some(last) = files.rows.last().filter(|_| files.more || full) else { return false };
        files.before.push(files.query.after.clone());
        files.query.after = Some(last.clone());
    } else {
        let Some(before) = files.before.pop() else { return false };
        files.query.after = before;
    }
    (files.asked, files.revision) = (None, None);
    state.table_mut().cursor = super::page::Cursor::default();
    true
}

/// Goes into a folder; whether the selected thing is one.
pub fn enter(state: &mut State) -> bool {
    let Some(key) = state.selected().filter(|key| key.ends_with('/')) else { return false };
    go(state, key);
    true
}

/// Goes to the folder above; whether there is one. What was left is selected.
pub fn leave(state: &mut State) -> bool {
    let left = state.files.folder.clone();
    let Some(path) = left.strip_suffix('/') else { return false };
    let above = path.rfind('/').map_or("", |slash| &path[..=slash]).to_owned();
    go(state, above);
    state.table_mut().wanted = Some(left);
    true
}

/// Shows folders, or all files in one list.
pub fn toggle(state: &mut State) {
    state.files.flat = !state.files.flat;
    let folder = state.files.folder.clone();
    go(state, folder);
}

fn go(state: &mut State, folder: String) {
    state.files.folder = folder;
    state.files.rows.clear();
    state.files.generation += 1;
    let table = state.table_mut();
    table.filter.clear();
    table.cursor = super::page::Cursor::default();
}
