//! Aligned columns.

use ratatui::text::Span;

/// A table of text. A column whose title starts with `>` is right-aligned.
#[derive(Clone, Debug, Default)]
pub struct Table {
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows; titles separated by blanks.
    pub fn new(titles: &str) -> Self {
        let right = titles.split(' ').map(|title| title.starts_with('>')).collect();
        let header = titles.split(' ').map(|title| title.trim_start_matches('>').to_owned()).collect();
        Self { right, rows: vec![header] }
    }

    /// Appends a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.push(cells.into());
    }

    /// Appends a row of as many cells as there are titles.
    pub fn push(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The lines, without the last one's end.
    pub fn render(&self) -> String {
        let width_of = |cell: &String| Span::raw(cell.as_str()).width();
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(width_of).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let mut lines = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(&self.right) {
                let padding = " ".repeat(width.saturating_sub(width_of(cell)));
                let (before, behind) = if *right { (padding.as_str(), "") } else { ("", padding.as_str()) };
                line.push_str(before);
                line.push_str(cell);
                line.push_str(behind);
                line.push_str("  ");
            }
            lines.push(line.trim_end().to_owned());
        }
        lines.join("\n")
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
}
