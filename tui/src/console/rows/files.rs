//! The rows of the files page: folders, and files with their versions and holders.

use idunno_shared::wire::blobs::COPIES;
use idunno_shared::wire::control::{ClusterView, FileSummary, FolderEntry, Liveness};

use super::super::state::Files;
use super::super::table::{Cell, Column, Content, Row, column};
use super::super::theme::Role;
use crate::answer::text;
use crate::execute::files::holder_names;

pub(super) fn content(files: &Files, view: &ClusterView) -> Content {
    let columns = columns();
    let row = |entry: &FolderEntry| match entry {
        FolderEntry::Folder(name) => {
            let shown = name.strip_prefix(&files.folder).unwrap_or(name);
            let mut cells = vec![Cell::of(Role::Key, crate::tail::printable(shown))];
            cells.resize(columns.len(), Cell::default());
            Row { key: name.clone(), cells }
        }
        FolderEntry::File(file) => file_row(file, &files.folder, view),
    };
    let rows = files.rows.iter().map(row).collect();
    (columns, rows)
}

/// Those of [`file_row`].
pub(super) fn columns() -> Vec<Column> {
    vec![
        column("NAME", false, 0),
        column("SIZE", true, 1),
        column("VERSION", true, 4),
        column("KEPT", true, 6),
        column("COPIES", true, 2),
        column("HOLDERS", false, 3),
        column("CREATED UTC", false, 5),
    ]
}

pub(super) fn file_row(file: &FileSummary, folder: &str, view: &ClusterView) -> Row {
    let holders = holder_names(file, &view.members);
    let copies = copies(file.holders.len(), file.size, view);
    let name = file.name.as_str();
    Row {
        key: file.name.to_string(),
        cells: vec![
            Cell::plain(crate::tail::printable(name.strip_prefix(folder).unwrap_or(name))),
            Cell::figure(file.size as f64, text::bytes(file.size)),
            Cell::count(file.version),
            Cell::count(file.versions.into()),
            copies,
            Cell::plain(holders.join(" ")),
            Cell::figure(file.created_ms as f64, text::moment(file.created_ms)),
        ],
    }
}

/// How many copies there are, and whether that is enough for so many live members.
pub(super) fn copies(holders: usize, size: u64, view: &ClusterView) -> Cell {
    let live = view.members.iter().filter(|member| member.liveness == Liveness::Alive).count();
    let wanted = COPIES.min(live);
    let role = match holders {
        _ if size == 0 => Role::Dim,
        0 => Role::Bad,
        some if some < wanted => Role::Warn,
        _ => Role::Good,
    };
    Cell { value: Some(holders as f64), ..Cell::state(role, holders.to_string()) }
}
