//! Pages of the files of a folder, or of all files below it, in any order.
//!
//! A page of a sorted list looks at every entry of the list, and says how many there are. A million files take some tenths
//! of a second and 50 MB, so the shell does it on a thread of its own, one page at a time, on a snapshot of the metadata.

use std::cmp::Ordering;

use idunno_core::metadata::{FileRecord, State};
use idunno_shared::folders;
use idunno_shared::ids::NodeId;
use idunno_shared::names::FileName;
use idunno_shared::wire::control::{FileKey, FileOrder, FolderEntry, ITEMS_PER_REQUEST_MAX};

use super::folders::end_of_folder;

/// The page that somebody asks for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// How all names begin.
    pub prefix: String,
    /// Whether files in subfolders are listed, in place of the subfolders.
    pub flat: bool,
    pub order: FileOrder,
    /// The position of the first entry; beyond the end it means the last page.
    pub first: u64,
    pub limit: u32,
}

/// A page of a sorted list.
#[derive(Clone, Debug, PartialEq)]
pub struct SortedPage {
    /// The position of the first entry.
    pub first: u64,
    /// All entries of the list.
    pub total: u64,
    pub entries: Vec<FolderEntry>,
}

/// One page. Copies count where `is_live` is true of their holder.
pub fn page(state: &State, wanted: &Wanted, is_live: impl Fn(NodeId) -> bool) -> SortedPage {
    let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX).clamp(1, ITEMS_PER_REQUEST_MAX);
    let mut rows = rows(state, wanted, &is_live);
    let total = rows.len();
    let last_page = total.saturating_sub(1) / limit * limit;
    let first = usize::try_from(wanted.first).unwrap_or(usize::MAX).min(last_page);
    let rows = window(&mut rows, first, limit, wanted.order);
    let mut entries: Vec<FolderEntry> = rows.iter().filter_map(|row| row.entry(state)).collect();
    for entry in &mut entries {
        if let FolderEntry::File(file) = entry {
            file.holders.retain(|&holder| is_live(holder));
        }
    }
    SortedPage { first: first as u64, total: total as u64, entries }
}

/// An entry of the list before it is written out.
struct Row<'a> {
    name: &'a str,
    /// `None` for a folder.
    file: Option<(&'a FileName, &'a FileRecord)>,
    /// What the list is sorted by, unless that is the name; folders have none.
    value: Option<u64>,
}

impl Row<'_> {
    fn entry(&self, state: &State) -> Option<FolderEntry> {
        match self.file {
            None => Some(FolderEntry::Folder(self.name.to_owned())),
            Some((name, file)) => state.summary(name, file).map(FolderEntry::File),
        }
    }

    /// Folders come before what has a value, and equal values are in the order of their names.
    fn compare(&self, other: &Self, descending: bool) -> Ordering {
        let by_value = self.value.cmp(&other.value);
        let by_value = if descending { by_value.reverse() } else { by_value };
        by_value.then_with(|| self.name.cmp(other.name))
    }
}

/// All entries, in name order.
fn rows<'a>(state: &'a State, wanted: &'a Wanted, is_live: &impl Fn(NodeId) -> bool) -> Vec<Row<'a>> {
    let prefix = wanted.prefix.as_str();
    let is_listed = |name: &str| prefix.starts_with(folders::S3) || !name.starts_with(folders::S3);
    let (mut rows, mut cursor) = (Vec::new(), None);
    'levels: loop {
        let after = cursor.take();
        for (name, file) in state.files(prefix, after.as_ref()) {
            let text = name.as_str();
            let slash = text[prefix.len()..].find('/').filter(|_| !wanted.flat || !is_listed(text));
            if let Some(slash) = slash {
                let folder = &text[..=prefix.len() + slash];
                if is_listed(folder) {
                    rows.push(Row { name: folder, file: None, value: None });
                }
                // One step, however many files the folder holds. There is a name behind it: see there.
                let Some(end) = end_of_folder(folder) else { return rows };
                cursor = Some(end);
                continue 'levels;
            }
            let value = value(state, file, wanted.order.key, is_live);
            rows.push(Row { name: text, file: Some((&**name, file)), value });
        }
        return rows;
    }
}

/// What a file is sorted by.
fn value(state: &State, file: &FileRecord, key: FileKey, is_live: &impl Fn(NodeId) -> bool) -> Option<u64> {
    let newest = file.version(None)?;
    match key {
        FileKey::Name => None,
        FileKey::Size => Some(newest.size()),
        FileKey::Version => Some(newest.number),
        FileKey::Kept => Some(file.versions().count() as u64),
        FileKey::Copies => {
            let holders = state.holders_of_all(&newest.extents);
            Some(holders.into_iter().filter(|&holder| is_live(holder)).count() as u64)
        }
        FileKey::Created => Some(newest.created_ms),
    }
}

/// The rows from `first` on, `limit` at most, in their order; the others stay unsorted. They come in name order.
fn window<'r, 'a>(
    rows: &'r mut [Row<'a>],
    first: usize,
    limit: usize,
    order: FileOrder,
) -> &'r mut [Row<'a>] {
    if order.key == FileKey::Name {
        if order.descending {
            rows.reverse();
        }
        let end = rows.len().min(first + limit);
        return rows.get_mut(first..end).unwrap_or_default();
    }
    let compare = |a: &Row<'_>, b: &Row<'_>| a.compare(b, order.descending);
    if first > 0 && first < rows.len() {
        rows.select_nth_unstable_by(first, compare);
    }
    let rest = rows.get_mut(first..).unwrap_or_default();
    if limit < rest.len() {
        rest.select_nth_unstable_by(limit, compare);
    }
    let end = limit.min(rest.len());
    let window = &mut rest[..end];
    window.sort_unstable_by(compare);
    window
}

#[cfg(test)]
mod tests {
    use idunno_core::metadata::{Action, Command};
    use idunno_shared::ids::{Digest, UploadId};
    use idunno_shared::wire::blobs::BlobRef;
    use idunno_shared::wire::control::{Change, NewFile};

    use super::*;

    /// Files with their sizes. One of size `s` is held by `1 + s % 4` members.
    fn state_with(files: impl Iterator<Item = (String, u64)>) -> State {
        let file = |(name, size): (String, u64)| {
            let digest = Digest::of(name.as_bytes());
            let holders = (1..=1 + size % 4).map(NodeId).collect();
            let extents = vec![(BlobRef { digest, size }, holders)];
            NewFile { name: name.parse().unwrap(), size, digest, extents }
        };
        let mut state = State::new();
        let files: Vec<NewFile> = files.map(file).collect();
        for files in files.chunks(ITEMS_PER_REQUEST_MAX) {
            let change = Change::CommitFiles { upload: UploadId::default(), files: files.to_vec() };
            let action = Action::Change(change);
            state.apply(&Command { at_ms: 1, op: None, action, upload: None, by: None }).unwrap();
        }
        state
    }

    fn wanted(prefix: &str, key: FileKey, descending: bool) -> Wanted {
        let order = FileOrder { key, descending };
        Wanted { prefix: prefix.to_owned(), flat: false, order, first: 0, limit: 200 }
    }

    fn names(page: &SortedPage) -> Vec<String> {
        let name = |entry: &FolderEntry| match entry {
            FolderEntry::Folder(name) => name.clone(),
            FolderEntry::File(file) => file.name.to_string(),
        };
        page.entries.iter().map(name).collect()
    }

    #[test]
    fn pages_of_a_sorted_list_are_pages_of_the_whole_list() {
        // 7 and 1009 have no common divisor, so all sizes differ.
        let size = |number: u64| (number * 7) % 1009 + 1;
        let state = state_with((0..1005).map(|number| (format!("data/f{number:04}"), size(number))));
        for descending in [true, false] {
            let mut wanted = wanted("data/", FileKey::Size, descending);
            let mut sizes = Vec::new();
            for first in (0..1005).step_by(200) {
                wanted.first = first;
                let page = page(&state, &wanted, |_| true);
                assert_eq!((page.first, page.total), (first, 1005));
                sizes.extend(page.entries.iter().map(|entry| match entry {
                    FolderEntry::File(file) => file.size,
                    FolderEntry::Folder(name) => panic!("{name}"),
                }));
            }
            let mut sorted: Vec<u64> = (0..1005).map(size).collect();
            sorted.sort_unstable();
            if descending {
                sorted.reverse();
            }
            assert_eq!(sizes, sorted);
        }
    }

    #[test]
    fn a_page_beyond_the_end_is_the_last_one() {
        let state = state_with((0..1005).map(|number| (format!("f{number:04}"), 1)));
        let late = Wanted { first: 5000, ..wanted("", FileKey::Name, false) };
        let last = page(&state, &late, |_| true);
        assert_eq!((last.first, last.total, last.entries.len()), (1000, 1005, 5));
        let none = page(&State::new(), &late, |_| true);
        assert_eq!((none.first, none.total, none.entries.len()), (0, 0, 0));
    }

    #[test]
    fn folders_are_listed_once_and_what_gateways_keep_is_not() {
        let all = ["a", "b/c/d", "b/e", "b0", ".s3/x", "z/1", "z/2"];
        let state = state_with(all.iter().zip(1..).map(|(name, size)| ((*name).to_owned(), size)));
        let listed = |wanted: &Wanted| names(&page(&state, wanted, |_| true));
        assert_eq!(listed(&wanted("", FileKey::Name, false)), ["a", "b/", "b0", "z/"]);
        assert_eq!(listed(&wanted("", FileKey::Name, true)), ["z/", "b0", "b/", "a"]);
        assert_eq!(listed(&wanted("", FileKey::Size, true)), ["b0", "a", "b/", "z/"], "folders have no size");
        assert_eq!(listed(&wanted("b/", FileKey::Name, false)), ["b/c/", "b/e"]);
        assert_eq!(listed(&wanted(".s3/", FileKey::Name, false)), [".s3/x"]);
        let flat = Wanted { flat: true, ..wanted("", FileKey::Size, true) };
        assert_eq!(listed(&flat), ["z/2", "z/1", "b0", "b/e", "b/c/d", "a"]);
    }

    #[test]
    fn copies_count_where_their_holder_is_up() {
        let state = state_with(
            [("a", 3), ("b", 1), ("c", 2)].map(|(name, size)| (name.to_owned(), size)).into_iter(),
        );
        let most = page(&state, &wanted("", FileKey::Copies, true), |_| true);
        assert_eq!(names(&most), ["a", "c", "b"], "4, 3 and 2 copies");
        let two = page(&state, &wanted("", FileKey::Copies, true), |node| node.0 < 3);
        assert_eq!(names(&two), ["a", "b", "c"], "2 copies each");
        let FolderEntry::File(file) = &two.entries[0] else { panic!("{two:?}") };
        assert_eq!(file.holders, [NodeId(1), NodeId(2)]);
    }
}
