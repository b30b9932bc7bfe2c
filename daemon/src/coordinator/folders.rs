//! One level of the store: names are flat, and what stands before a slash is shown as a folder.
//!
//! A folder is skipped in one step, however much it holds: the next name looked for is behind all that start with it.

use idunno_core::metadata::State;
use idunno_shared::names::FileName;
use idunno_shared::wire::control::{FolderEntry, ITEMS_PER_REQUEST_MAX};

/// Behind every name that starts with the text before it.
const LAST: char = char::MAX;

/// The entries of a folder behind `after`, and whether there are more.
pub fn level(
    state: &State,
    prefix: &str,
    after: Option<&FolderEntry>,
    limit: u32,
) -> (Vec<FolderEntry>, bool) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).clamp(1, ITEMS_PER_REQUEST_MAX);
    let mut entries = Vec::new();
    let mut place = after.and_then(behind);
    loop {
        let (mut next, _) = state.list(prefix, place.as_ref(), 1);
        let Some(file) = next.pop() else { return (entries, false) };
        if entries.len() == limit {
            return (entries, true);
        }
        let rest = file.name.as_str().get(prefix.len()..).unwrap_or_default();
        let entry = match rest.find('/') {
            Some(slash) => FolderEntry::Folder(file.name.as_str()[..=prefix.len() + slash].to_owned()),
            None => FolderEntry::File(file),
        };
        let Some(end) = behind(&entry) else { return (entries, false) };
        place = Some(end);
        entries.push(entry);
    }
}

/// The place behind an entry. None only for a folder whose name leaves no room for a longer one.
fn behind(entry: &FolderEntry) -> Option<FileName> {
    match entry {
        FolderEntry::File(file) => Some(file.name.clone()),
        FolderEntry::Folder(name) => format!("{name}{LAST}").parse().ok(),
    }
}
