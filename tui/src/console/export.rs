//! What is shown, as text: for the clipboard and for files.

use super::rows;
use super::state::{Page, State};
use super::table::Table;

/// The selected row, its cells separated by tabs.
pub fn row(state: &State) -> Option<String> {
    let table = state.table()?;
    let key = table.cursor.key.as_ref()?;
    let row = table.rows.iter().find(|row| row.key == *key)?;
    let cells: Vec<&str> = row.cells.iter().map(|cell| cell.text.trim()).collect();
    Some(cells.join("\t"))
}

/// The page: all lines of the log that are kept, else all rows of the table.
pub fn page(state: &State) -> String {
    if state.reads_log() {
        return state.log.text();
    }
    if state.page == Page::Overview && state.details.is_empty() {
        return state.view.as_ref().map(crate::execute::status::summary).unwrap_or_default() + "\n";
    }
    table(&rows::whole(state))
}

fn table(table: &Table) -> String {
    let titles: Vec<String> = table
        .columns
        .iter()
        .map(|column| format!("{}{}", if column.right { ">" } else { "" }, column.title.replace(' ', "_")))
        .collect();
    let mut text = crate::answer::table::Table::new(&titles.join(" "));
    for row in &table.rows {
        text.push(row.cells.iter().map(|cell| cell.text.trim().to_owned()).collect());
    }
    text.render() + "\n"
}
