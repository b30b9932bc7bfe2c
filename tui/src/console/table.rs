//! A table on screen: rows, the selection by identity, the order and the filter.
//!
//! Rows are made anew only when what they show changed; drawing takes them as they are.

use std::ops::Range;

use super::page::Cursor;
use super::theme::Role;
use crate::execute::members::natural;

/// A column: its title, whether it is right-aligned, and its rank. On a narrow screen the highest ranks go first.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its title.
    pub title: String,
    /// Whether figures stand in it.
    pub right: bool,
    /// 0 stays always.
    pub rank: u8,
}

/// How a cell is drawn before its text.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Mark {
    /// Text alone.
    #[default]
    None,
    /// A state: with its role's glyph.
    State,
    /// A share of 0 to 1, as a bar.
    Share(f64),
    /// A course of values, as a small chart up to a value.
    Course(Vec<f64>, f64),
}

/// A cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// What it means.
    pub role: Role,
    /// What is drawn before the text.
    pub mark: Mark,
    /// What it is sorted by, if it is a figure.
    pub value: Option<f64>,
}

impl Cell {
    /// Text.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Text that means something.
    pub fn of(role: Role, text: impl Into<String>) -> Self {
        Self { role, ..Self::plain(text) }
    }

    /// A state, with its glyph.
    pub fn state(role: Role, text: impl Into<String>) -> Self {
        Self { mark: Mark::State, ..Self::of(role, text) }
    }

    /// A whole number.
    pub fn count(number: u64) -> Self {
        Self::figure(number as f64, number.to_string())
    }

    /// A figure, as it is written.
    pub fn figure(value: f64, text: impl Into<String>) -> Self {
        Self { value: Some(value), ..Self::plain(text) }
    }
}

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it is about: the selection is by this.
    pub key: String,
    /// Its cells, one a column.
    pub cells: Vec<Cell>,
}

/// Columns and rows.
pub type Content = (Vec<Column>, Vec<Row>);

/// A column.
pub fn column(title: &str, right: bool, rank: u8) -> Column {
    Column { title: title.to_owned(), right, rank }
}

/// What a table was made of: it is made anew when this differs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Made {
    /// The state's count of views.
    pub shown: u64,
    /// What it shows beside the view, counted.
    pub page: u64,
    /// The filter.
    pub filter: String,
    /// The order.
    pub sort: Option<(usize, bool)>,
    /// The rows that have their cells.
    pub window: Window,
}

/// Which rows of a long table get their cells: those that may be in sight. A filter or an order wants all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window(Range<usize>);

/// A window moves by so many rows, and reaches twice as far before and behind the selected one.
const WINDOW_STEP: usize = 100;

impl Window {
    /// All rows.
    pub const ALL: Self = Self(0..usize::MAX);

    /// The rows near the selected one.
    pub fn around(table: &Table) -> Self {
        if !table.filter.is_empty() || table.sort.is_some() {
            return Self::ALL;
        }
        let middle = table.cursor.line / WINDOW_STEP * WINDOW_STEP;
        Self(middle.saturating_sub(2 * WINDOW_STEP)..middle + 3 * WINDOW_STEP)
    }

    /// Whether the row at this line gets its cells.
    pub fn has(&self, line: usize) -> bool {
        self.0.contains(&line)
    }
}

/// A table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, filtered and in order.
    pub rows: Vec<Row>,
    /// What is selected.
    pub cursor: Cursor,
    /// What is to be selected when its row comes.
    pub wanted: Option<String>,
    /// Only rows with this text are shown.
    pub filter: String,
    /// Which column the rows are sorted by, and whether downwards.
    pub sort: Option<(usize, bool)>,
    /// How many there are without the filter.
    pub total: usize,
    /// What it was made of.
    pub made: Option<Made>,
}

impl Table {
    /// Takes new rows; `prefiltered` ones have been through the filter.
    pub fn fill(&mut self, columns: Vec<Column>, mut rows: Vec<Row>, prefiltered: bool) {
        self.total = rows.len();
        let filter = self.filter.to_lowercase();
        if !prefiltered && !filter.is_empty() {
            rows.retain(|row| row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&filter)));
        }
        if let Some((column, down)) = self.sort.filter(|(column, _)| *column < columns.len()) {
            sort(&mut rows, column, down);
        }
        (self.columns, self.rows) = (columns, rows);
        self.settle();
    }

    /// Follows the selected thing to its line; if it has gone nothing is selected.
    fn settle(&mut self) {
        let comes = |key: &String| self.rows.iter().any(|row| row.key == *key);
        if let Some(key) = self.wanted.take_if(|key| comes(key)) {
            self.cursor.key = Some(key);
        }
        let Some(key) = &self.cursor.key else { return };
        match self.rows.iter().position(|row| row.key == *key) {
            Some(line) => self.cursor.line = line,
            None => self.cursor.key = None,
        }
    }

    /// Moves the selection by so many lines.
    pub fn move_by(&mut self, by: i64) {
        let Some(last) = self.rows.len().checked_sub(1) else { return };
        let steps = usize::try_from(by.unsigned_abs()).unwrap_or(usize::MAX);
        let line = match (&self.cursor.key, by < 0) {
            // Nothing selected: the first step selects where the last thing was.
            (None, _) if steps < self.rows.len() => self.cursor.line.min(last),
            (_, true) => self.cursor.line.saturating_sub(steps),
            (_, false) => self.cursor.line.saturating_add(steps).min(last),
        };
        self.select(line);
    }

    /// Selects a line.
    pub fn select(&mut self, line: usize) {
        if let Some(row) = self.rows.get(line) {
            self.cursor = Cursor { key: Some(row.key.clone()), line };
        }
    }

    /// The first line shown of so many: the selected one stays in the middle, except near the ends.
    pub fn first(&self, height: usize) -> usize {
        self.cursor.line.saturating_sub(height / 2).min(self.rows.len().saturating_sub(height))
    }

    /// Sorts by the next column, or the one before; behind the last one the order is the page's own again.
    pub fn sort_by_next(&mut self, on: bool) {
        let places = self.columns.len() + 1;
        let at = self.sort.map_or(0, |(column, _)| column + 1);
        let next = if on { at + 1 } else { at + places - 1 } % places;
        // Figures are looked at from the largest.
        let down = |column: usize| self.columns.get(column).is_some_and(|column| column.right);
        self.sort = next.checked_sub(1).map(|column| (column, down(column)));
    }

    /// Sorts by a column, or the other way round if that is done already.
    pub fn sort_by(&mut self, column: usize) {
        self.sort = match self.sort {
            Some((sorted, down)) if sorted == column => Some((column, !down)),
            _ => Some((column, self.columns.get(column).is_some_and(|column| column.right))),
        };
    }
}

fn sort(rows: &mut [Row], column: usize, down: bool) {
    rows.sort_by(|a, b| {
        let ((a_value, a_text), (b_value, b_text)) = (key(a, column), key(b, column));
        let order = a_value.total_cmp(&b_value).then_with(|| a_text.cmp(&b_text));
        if down { order.reverse() } else { order }
    });
}

/// What a row is sorted by: its figure, or its text where it has none.
fn key(row: &Row, column: usize) -> (f64, (&str, u64, &str)) {
    let cell = row.cells.get(column);
    match cell.and_then(|cell| cell.value) {
        Some(value) => (value, Default::default()),
        None => (f64::NEG_INFINITY, natural(cell.map_or("", |cell| cell.text.as_str()))),
    }
}
