//! Tables for the terminal. A table is laid out when it is known how wide the terminal is.

use comfy_table::{CellAlignment, Table as Columns, presets};
use idunno_shared::text::visible;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Blanks between two columns.
const GAP: u16 = 2;
/// A column of text is not cut below this width.
const TEXT_WIDTH_MIN: usize = 12;

/// A table of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    titles: Vec<Title>,
    rows: Vec<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Title {
    text: String,
    /// Numbers are aligned to the right.
    right: bool,
    /// Left out where the table does not fit.
    optional: bool,
}

impl Table {
    /// A table without rows; titles separated by blanks. A column whose title starts with `>` is right-aligned. One with `+`
    /// before that is left out where the table does not fit.
    pub fn new(titles: &str) -> Self {
        let title = |word: &str| {
            let (optional, word) = (word.starts_with('+'), word.trim_start_matches('+'));
            Title { text: word.trim_start_matches('>').to_owned(), right: word.starts_with('>'), optional }
        };
        Self { titles: titles.split(' ').map(title).collect(), rows: Vec::new() }
    }

    /// Appends a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.push(cells.into());
    }

    /// Appends a row of as many cells as there are titles.
    pub fn push(&mut self, cells: Vec<String>) {
        self.rows.push(cells.into_iter().map(|cell| visible(&cell).into_owned()).collect());
    }

    /// The lines with all columns, without the last line's end.
    pub fn render(&self) -> String {
        self.lay_out(&(0..self.titles.len()).collect::<Vec<_>>(), None)
    }

    /// The lines in at most `width` columns: optional columns are left out from the right, then long texts are cut, which end
    /// in `~`. A last line says what is hidden. Columns that are not optional are never left out.
    pub fn fitted(&self, width: usize) -> String {
        let natural: Vec<usize> = (0..self.titles.len()).map(|index| self.natural(index)).collect();
        let mut shown: Vec<usize> = (0..self.titles.len()).collect();
        let gap = usize::from(GAP);
        let taken = |shown: &[usize]| {
            shown.iter().map(|&index| natural[index] + gap).sum::<usize>().saturating_sub(gap)
        };
        while taken(&shown) > width {
            let Some(last) = shown.iter().rposition(|&index| self.titles[index].optional) else { break };
            shown.remove(last);
        }
        let over = taken(&shown).saturating_sub(width);
        let texts = shown.iter().filter(|&&index| !self.titles[index].right);
        let longest = texts.max_by_key(|&&index| natural[index]).copied().filter(|_| over > 0);
        let limit = longest.map(|index| {
            let least = TEXT_WIDTH_MIN.max(self.titles[index].text.width());
            (index, natural[index].saturating_sub(over).max(least).min(natural[index]))
        });
        let mut text = self.lay_out(&shown, limit);
        let hidden = self.titles.len() - shown.len();
        if hidden > 0 {
            let noun = if hidden == 1 { "column is" } else { "columns are" };
            text = format!("{text}\n{hidden} more {noun} shown with -o wide");
        }
        text
    }

    /// The width of a column's longest text.
    fn natural(&self, index: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.width());
        cells.max().unwrap_or(0).max(self.titles[index].text.width())
    }

    /// The lines of these columns, one of which may have a limit.
    fn lay_out(&self, shown: &[usize], limit: Option<(usize, usize)>) -> String {
        let mut columns = Columns::new();
        columns.load_style(presets::NOTHING);
        columns.set_header(shown.iter().map(|&index| self.titles[index].text.as_str()));
        for (column, &index) in columns.column_iter_mut().zip(shown) {
            column.set_padding((0, GAP));
            if self.titles[index].right {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for row in &self.rows {
            let cell = |index: usize| {
                let text = row.get(index).map_or("", String::as_str);
                match limit {
                    Some((limited, width)) if limited == index => cut(text, width),
                    _ => text.to_owned(),
                }
            };
            columns.add_row(shown.iter().map(|&index| cell(index)));
        }
        columns.trim_fmt()
    }
}

/// A text of at most `width` columns; one that was cut ends in `~`.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (mut short, mut taken) = (String::new(), 0);
    for c in text.chars() {
        taken += c.width().unwrap_or(0);
        if taken >= width {
            break;
        }
        short.push(c);
    }
    short + "~"
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

    #[test]
    fn optional_columns_go_from_the_right_and_then_the_longest_text_is_cut() {
        let mut table = Table::new("NAME +>SIZE >COPIES +CREATED HOLDERS");
        table.row(["a".into(), "123".into(), "4".into(), "2026-12-02".into(), "m1 m2 m3 m4 m5 m6".into()]);
        assert_eq!(table.fitted(80), table.render(), "all of it fits");
        assert_eq!(
            table.fitted(45),
            "NAME  SIZE  COPIES  HOLDERS\na      123       4  m1 m2 m3 m4 m5 m6\n1 more column is shown with -o wide"
        );
        assert_eq!(
            table.fitted(28),
            "NAME  COPIES  HOLDERS\na          4  m1 m2 m3 m4 m~\n2 more columns are shown with -o wide"
        );
        assert!(table.fitted(1).lines().nth(1).unwrap().contains("m1 m2 m3 m4~"), "{}", table.fitted(1));
    }
}
