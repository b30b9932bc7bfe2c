//! Lists one level of the store: names are flat, and the part before a slash is shown as a folder.
//!
//! A folder is skipped in one step, however many files it holds: the next lookup starts after all names with its prefix.

use idunno_core::metadata::State;
use idunno_shared::names::FileName;
use idunno_shared::wire::control::{FolderEntry, ITEMS_PER_REQUEST_MAX};

/// The greatest characters of four, three, two and one bytes in UTF-8. A prefix followed by the first of them that still
/// fits sorts after every name with that prefix.
const GREATEST_CHARS: [char; 4] = [char::MAX, '\u{ffff}', '\u{7ff}', '~'];

/// The entries of a folder after `after`, and whether more follow.
pub fn level(
    state: &State,
    prefix: &str,
    after: Option<&FolderEntry>,
    limit: u32,
) -> (Vec<FolderEntry>, bool) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).clamp(1, ITEMS_PER_REQUEST_MAX);
    let mut entries = Vec::new();
    let mut cursor = after.and_then(end_of);
    loop {
        let (mut next, _) = state.list(prefix, cursor.as_ref(), 1);
        let Some(file) = next.pop() else { return (entries, false) };
        if entries.len() == limit {
            return (entries, true);
        }
        let rest = file.name.as_str().get(prefix.len()..).unwrap_or_default();
        let entry = match rest.find('/') {
            Some(slash) => FolderEntry::Folder(file.name.as_str()[..=prefix.len() + slash].to_owned()),
            None => FolderEntry::File(file),
        };
        let Some(end) = end_of(&entry) else { return (entries, false) };
        cursor = Some(end);
        entries.push(entry);
    }
}

/// The greatest name that belongs to an entry. Always `Some`: a folder contains a file.
fn end_of(entry: &FolderEntry) -> Option<FileName> {
    match entry {
        FolderEntry::File(file) => Some(file.name.clone()),
        FolderEntry::Folder(name) => end_of_folder(name),
    }
}

/// A name that sorts after all names in a folder, whose name ends in a slash. Always `Some` for one that contains a file,
/// whose name is longer than its own.
pub fn end_of_folder(folder: &str) -> Option<FileName> {
    GREATEST_CHARS.iter().find_map(|last| format!("{folder}{last}").parse().ok())
}

#[cfg(test)]
mod tests {
    use idunno_core::metadata::{Action, Command};
    use idunno_shared::ids::{Digest, NodeId, UploadId};
    use idunno_shared::names::FILE_NAME_BYTES_MAX;
    use idunno_shared::wire::blobs::BlobRef;
    use idunno_shared::wire::control::{Change, NewFile};

    use super::*;

    fn state_with(names: &[String]) -> State {
        let file = |name: &String| {
            let digest = Digest::of(name.as_bytes());
            let extents = vec![(BlobRef { digest, size: 1 }, vec![NodeId(1)])];
            NewFile { name: name.parse().unwrap(), size: 1, digest, extents }
        };
        let change =
            Change::CommitFiles { upload: UploadId::default(), files: names.iter().map(file).collect() };
        let mut state = State::new();
        state
            .apply(&Command { at_ms: 1, op: None, action: Action::Change(change), upload: None, by: None })
            .unwrap();
        state
    }

    /// Reads a whole level in pages.
    fn read(state: &State, prefix: &str, limit: u32) -> Vec<String> {
        let (mut names, mut after) = (Vec::new(), None);
        loop {
            let (entries, more) = level(state, prefix, after.as_ref(), limit);
            names.extend(entries.iter().map(|entry| match entry {
                FolderEntry::Folder(name) => name.clone(),
                FolderEntry::File(file) => file.name.to_string(),
            }));
            if !more {
                return names;
            }
            after = entries.last().cloned();
        }
    }

    #[test]
    fn a_level_lists_its_files_and_each_folder_once() {
        let names = ["a", "b/c/d", "b/c/e", "b/f", "b0", "c/g"].map(String::from);
        let state = state_with(&names);
        for limit in [1, 2, 100] {
            assert_eq!(read(&state, "", limit), ["a", "b/", "b0", "c/"], "{limit} at a time");
            assert_eq!(read(&state, "b/", limit), ["b/c/", "b/f"]);
        }
    }

    #[test]
    fn a_folder_with_the_longest_name_hides_no_later_name() {
        for room in 1..=5 {
            let folder = "f".repeat(FILE_NAME_BYTES_MAX - room - 1) + "/";
            let inside = format!("{folder}{}", "~".repeat(room));
            let state = state_with(&[format!("{folder}a"), inside, String::from("z")]);
            assert_eq!(read(&state, "", 100), [folder, String::from("z")], "room for {room} bytes");
        }
    }
}
