//! Files: the files page, a member's files, and a file's versions and extents.

use idunno_shared::wire::blobs::{COPIES, PlacedBlob};
use idunno_shared::wire::control::{
    ClusterView, FileKey, FileOrder, FileSummary, FileVersion, FolderEntry, Liveness,
};

use super::members::MemberNames;
use crate::answer::text;
use crate::console::file_list::FileList;
use crate::console::table::{Cell, Column, DataRow, SortOrder, TableContent};
use crate::console::theme::Tone;
use crate::execute::files::holder_names;
use crate::execute::members::natural;

pub(super) fn content(files: &FileList, view: &ClusterView) -> TableContent {
    let rows = files.entries.iter().map(|entry| match entry {
        FolderEntry::Folder(name) => folder_row(name, &files.folder),
        FolderEntry::File(file) => file_row(file, &files.folder, view),
    });
    TableContent { arranged: true, ..TableContent::new(columns(), rows.collect()) }
}

/// The order of the files page for the coordinator, which sorts. Holders are sorted by their number.
pub fn order(sort: Option<SortOrder>) -> FileOrder {
    const KEYS: [FileKey; 7] = [
        FileKey::Name,
        FileKey::Size,
        FileKey::Version,
        FileKey::Kept,
        FileKey::Copies,
        FileKey::Copies,
        FileKey::Created,
    ];
    let order = sort.and_then(|SortOrder { column, descending }| {
        KEYS.get(column).map(|&key| FileOrder { key, descending })
    });
    order.unwrap_or_default()
}

pub(super) fn stored(files: &[FileSummary], view: &ClusterView) -> TableContent {
    TableContent::new(columns(), files.iter().map(|file| file_row(file, "", view)).collect())
}

fn columns() -> Vec<Column> {
    vec![
        Column::text("NAME", 0),
        Column::number("SIZE", 1),
        Column::number("VERSION", 4),
        Column::number("KEPT", 6),
        Column::number("COPIES", 2),
        Column::text("HOLDERS", 3),
        Column::text("CREATED UTC", 5),
    ]
}

fn folder_row(name: &str, folder: &str) -> DataRow {
    let relative = name.strip_prefix(folder).unwrap_or(name);
    let mut cells = vec![Cell::with_tone(Tone::Key, relative)];
    cells.resize(columns().len(), Cell::default());
    DataRow { key: name.to_owned(), cells }
}

fn file_row(file: &FileSummary, folder: &str, view: &ClusterView) -> DataRow {
    let name = file.name.as_str();
    let relative = name.strip_prefix(folder).unwrap_or(name);
    DataRow {
        key: name.to_owned(),
        cells: vec![
            Cell::plain(relative),
            Cell::number(file.size as f64, text::bytes(file.size)),
            Cell::count(file.version),
            Cell::count(file.versions.into()),
            copies(file.holders.len(), file.size, view),
            holders(&holder_names(file, &view.members)),
            Cell::number(file.created_ms as f64, text::moment(file.created_ms)),
        ],
    }
}

/// The names of holders, which are sorted by their number.
fn holders(names: &[String]) -> Cell {
    Cell::number(names.len() as f64, names.join(" "))
}

/// The number of copies, coloured by whether that is enough for the number of live members.
fn copies(holders: usize, size: u64, view: &ClusterView) -> Cell {
    let live = view.members.iter().filter(|member| member.liveness == Liveness::Alive).count();
    let required = COPIES.min(live);
    let tone = match holders {
        _ if size == 0 => Tone::Dim,
        0 => Tone::Bad,
        some if some < required => Tone::Warn,
        _ => Tone::Good,
    };
    Cell { value: Some(holders as f64), ..Cell::state(tone, holders.to_string()) }
}

pub(super) fn versions(versions: &[FileVersion]) -> TableContent {
    let columns = vec![
        Column::number("VERSION", 0),
        Column::number("SIZE", 1),
        Column::text("CREATED UTC", 2),
        Column::number("EXTENTS", 3),
        Column::text("DIGEST", 4),
    ];
    let rows = versions.iter().map(|version| DataRow {
        key: version.version.to_string(),
        cells: vec![
            Cell::count(version.version),
            Cell::number(version.size as f64, text::bytes(version.size)),
            Cell::number(version.created_ms as f64, text::moment(version.created_ms)),
            Cell::count(version.extents.len() as u64),
            Cell::with_tone(Tone::Dim, version.digest.to_string()),
        ],
    });
    TableContent::new(columns, rows.collect())
}

/// The extents of the newest version and their holders.
pub(super) fn extents(versions: &[FileVersion], view: &ClusterView) -> TableContent {
    let columns = vec![
        Column::number("EXTENT", 0),
        Column::number("SIZE", 2),
        Column::number("COPIES", 1),
        Column::text("HOLDERS", 0),
        Column::text("DIGEST", 3),
    ];
    let names = MemberNames::of(view);
    let extents = versions.first().into_iter().flat_map(|version| &version.extents);
    let rows = (0..).zip(extents).map(|(number, extent)| extent_row(number, extent, &names, view));
    TableContent::new(columns, rows.collect())
}

fn extent_row(number: u64, extent: &PlacedBlob, names: &MemberNames<'_>, view: &ClusterView) -> DataRow {
    let mut names: Vec<String> = extent.holders.iter().map(|holder| names.get(holder.node)).collect();
    names.sort_by(|a, b| natural(a).cmp(&natural(b)));
    DataRow {
        key: number.to_string(),
        cells: vec![
            Cell::count(number),
            Cell::number(extent.blob.size as f64, text::bytes(extent.blob.size)),
            copies(extent.holders.len(), extent.blob.size, view),
            holders(&names),
            Cell::with_tone(Tone::Dim, extent.blob.digest.to_string()),
        ],
    }
}
