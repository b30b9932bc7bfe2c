//! Aligned columns without lines between them, for terminals and pipes alike.

use comfy_table::{CellAlignment, Table as Columns, presets};
use idunno_shared::text::visible;

/// Blanks between two columns.
const GAP: u16 = 2;

/// A table of text. A column whose title starts with `>` is right-aligned.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Columns,
}

impl Table {
    /// A table without rows; titles separated by blanks.
    pub fn new(titles: &str) -> Self {
        let mut columns = Columns::new();
        columns.load_style(presets::NOTHING);
        columns.set_header(titles.split(' ').map(|title| title.trim_start_matches('>')));
        for (column, title) in columns.column_iter_mut().zip(titles.split(' ')) {
            column.set_padding((0, GAP));
            if title.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { columns }
    }

    /// Appends a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.columns.add_row(cells.iter().map(|cell| visible(cell)));
    }

    /// Appends a row of as many cells as there are titles.
    pub fn push(&mut self, cells: Vec<String>) {
        self.columns.add_row(cells.iter().map(|cell| visible(cell)));
    }

    /// The lines, without the last one's end.
    pub fn render(&self) -> String {
        self.columns.trim_fmt()
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new("NAME >SIZE");
        table.row(["a".into(), "1".into()]);
        table.row(["naïve".into(), "12345".into()]);
        assert_eq!(table.render(), "NAME    SIZE\na          1\nnaïve  12345");
    }

    #[test]
    fn wide_characters_take_two_columns_and_nothing_is_cut_or_trails() {
        let mut table = Table::new("NAME >SIZE NOTE");
        let long = "x".repeat(300);
        table.row(["文件".into(), "1".into(), String::new()]);
        table.row(["a".into(), String::new(), long.clone()]);
        assert_eq!(table.render(), format!("NAME  SIZE  NOTE\n文件     1\na           {long}"));
    }
}
