//! A table on screen: rows, the selection by identity, sort order and filter.
//!
//! Rows are rebuilt only when what they show has changed; drawing uses them as they are.

use std::cmp::Ordering;
use std::ops::Range;

use super::theme::Tone;
use crate::execute::members::natural;
use crate::tail::printable;

/// Blanks between two columns.
pub const GAP: usize = 2;

#[derive(Clone, Debug)]
pub struct Column {
    pub title: String,
    /// Numbers are aligned to the right.
    pub right: bool,
    /// On a narrow screen the columns of the highest rank are dropped first; rank 0 always stays.
    pub rank: u8,
}

impl Column {
    pub fn text(title: impl Into<String>, rank: u8) -> Self {
        Self { title: title.into(), right: false, rank }
    }

    pub fn number(title: impl Into<String>, rank: u8) -> Self {
        Self { title: title.into(), right: true, rank }
    }
}

/// What is drawn before a cell's text.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Mark {
    #[default]
    None,
    /// The glyph of the cell's tone.
    State,
    /// A share of 0 to 1.
    Bar(f64),
    Sparkline {
        values: Vec<f64>,
        /// The value at full height.
        top: f64,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    pub text: String,
    pub tone: Tone,
    pub mark: Mark,
    /// What a number is sorted by.
    pub value: Option<f64>,
}

impl Cell {
    /// All cells are made here: no text reaches the screen with what a terminal would obey or not show.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: printable(&text.into()), ..Self::default() }
    }

    pub fn with_tone(tone: Tone, text: impl Into<String>) -> Self {
        Self { tone, ..Self::plain(text) }
    }

    /// A text with the glyph of its tone.
    pub fn state(tone: Tone, text: impl Into<String>) -> Self {
        Self { mark: Mark::State, ..Self::with_tone(tone, text) }
    }

    pub fn count(number: u64) -> Self {
        Self::number(number as f64, number.to_string())
    }

    pub fn number(value: f64, text: impl Into<String>) -> Self {
        Self { value: Some(value), ..Self::plain(text) }
    }

    /// Stands for a missing value.
    pub fn dash() -> Self {
        Self::with_tone(Tone::Dim, "-")
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct DataRow {
    /// What the row is about: it is selected by this.
    pub key: String,
    /// One per column; empty outside the [`RowWindow`].
    pub cells: Vec<Cell>,
}

/// New contents of a table.
#[derive(Clone, Debug, Default)]
pub struct TableContent {
    pub columns: Vec<Column>,
    pub rows: Vec<DataRow>,
    /// Whether the coordinator has filtered and sorted the rows.
    pub arranged: bool,
    /// Whether the first row is selected when the table opens.
    pub selects_first: bool,
}

impl TableContent {
    pub fn new(columns: Vec<Column>, rows: Vec<DataRow>) -> Self {
        Self { columns, rows, arranged: false, selects_first: true }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortOrder {
    pub column: usize,
    pub descending: bool,
}

/// Everything that a table's rows depend on: they are rebuilt when it changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableInputs {
    pub view_generation: u64,
    /// The generation of what the table shows beside the view.
    pub page_generation: u64,
    pub filter: String,
    pub sort: Option<SortOrder>,
    pub window: RowWindow,
    /// The width at which text is wrapped.
    pub wrap_width: Option<usize>,
}

/// The rows of a long table that get their cells: those that may be visible. A filter or a sort order needs all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowWindow(Range<usize>);

/// A window moves by this many rows, and reaches twice as far above and below the selection.
const WINDOW_STEP: usize = 100;

impl RowWindow {
    pub const ALL: Self = Self(0..usize::MAX);

    /// The rows near the selection.
    pub fn around(table: &DataTable) -> Self {
        if !table.filter.is_empty() || table.sort.is_some() {
            return Self::ALL;
        }
        let middle = table.cursor.line / WINDOW_STEP * WINDOW_STEP;
        Self(middle.saturating_sub(2 * WINDOW_STEP)..middle + 3 * WINDOW_STEP)
    }

    pub fn contains(&self, line: usize) -> bool {
        self.0.contains(&line)
    }
}

/// The selection: a thing rather than a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    pub key: Option<String>,
    /// Where the selected row was last: the selection resumes there once the row has gone.
    pub line: usize,
}

#[derive(Clone, Debug, Default)]
pub struct DataTable {
    pub columns: Vec<Column>,
    /// Filtered and sorted.
    pub rows: Vec<DataRow>,
    pub cursor: Cursor,
    /// The key to select as soon as its row is present.
    pub select_when_present: Option<String>,
    pub filter: String,
    pub sort: Option<SortOrder>,
    /// The number of rows before filtering.
    pub total: usize,
    /// Whether it has had rows since it was opened.
    opened: bool,
    pub built_from: Option<TableInputs>,
}

impl DataTable {
    pub fn fill(&mut self, content: TableContent) {
        let TableContent { columns, mut rows, arranged, selects_first } = content;
        self.total = rows.len();
        let filter = self.filter.to_lowercase();
        if !arranged && !filter.is_empty() {
            rows.retain(|row| row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&filter)));
        }
        if let Some(order) = self.sort.filter(|order| !arranged && order.column < columns.len()) {
            sort(&mut rows, order);
        }
        self.columns = columns;
        self.rows = rows;
        self.follow_selection();
        let selects_first = selects_first && self.cursor.key.is_none() && self.select_when_present.is_none();
        if !self.opened && selects_first {
            self.select(0);
        }
        // A selection that is lost later is not replaced: that would be another row than the person chose.
        self.opened |= !self.rows.is_empty();
    }

    /// Shows other rows from their beginning.
    pub fn start_anew(&mut self) {
        self.cursor = Cursor::default();
        self.opened = false;
    }

    /// Moves the cursor to where the selected row is now; if it has gone, nothing is selected.
    fn follow_selection(&mut self) {
        let is_present = |key: &String| self.rows.iter().any(|row| row.key == *key);
        if let Some(key) = self.select_when_present.take_if(|key| is_present(key)) {
            self.cursor.key = Some(key);
        }
        let Some(key) = &self.cursor.key else { return };
        match self.rows.iter().position(|row| row.key == *key) {
            Some(line) => self.cursor.line = line,
            None => self.cursor.key = None,
        }
    }

    /// Moves the selection by this many lines.
    pub fn move_by(&mut self, by: i64) {
        let Some(last) = self.rows.len().checked_sub(1) else { return };
        let steps = usize::try_from(by.unsigned_abs()).unwrap_or(usize::MAX);
        let line = match (&self.cursor.key, by < 0) {
            // Without a selection the first step selects where the last selection was.
            (None, _) if steps < self.rows.len() => self.cursor.line.min(last),
            (_, true) => self.cursor.line.saturating_sub(steps),
            (_, false) => self.cursor.line.saturating_add(steps).min(last),
        };
        self.select(line);
    }

    pub fn select(&mut self, line: usize) {
        if let Some(row) = self.rows.get(line) {
            self.cursor = Cursor { key: Some(row.key.clone()), line };
        }
    }

    /// The first of `height` visible lines: the selection stays in the middle, except near the ends.
    pub fn first_visible(&self, height: usize) -> usize {
        self.cursor.line.saturating_sub(height / 2).min(self.rows.len().saturating_sub(height))
    }

    /// Sorts by the next or the previous column; past the last column the table's own order returns.
    pub fn sort_by_neighbour(&mut self, forward: bool) {
        // Position 0 is the table's own order.
        let positions = self.columns.len() + 1;
        let current = self.sort.map_or(0, |order| order.column + 1);
        let step = if forward { 1 } else { positions - 1 };
        let next = (current + step) % positions;
        self.sort = next.checked_sub(1).map(|column| self.default_order(column));
    }

    /// Sorts by a column, or reverses the order if it is sorted by that column already.
    pub fn sort_by(&mut self, column: usize) {
        match self.sort {
            Some(order) if order.column == column => self.reverse_sort(),
            _ => self.sort = Some(self.default_order(column)),
        }
    }

    pub fn reverse_sort(&mut self) {
        self.sort = Some(match self.sort {
            Some(order) => SortOrder { descending: !order.descending, ..order },
            None => SortOrder { column: 0, descending: true },
        });
    }

    /// Numbers are sorted from the largest.
    fn default_order(&self, column: usize) -> SortOrder {
        SortOrder { column, descending: self.columns.get(column).is_some_and(|column| column.right) }
    }
}

fn sort(rows: &mut [DataRow], order: SortOrder) {
    rows.sort_by(|a, b| {
        let ascending = compare(a.cells.get(order.column), b.cells.get(order.column));
        if order.descending { ascending.reverse() } else { ascending }
    });
}

/// Compares by value; cells without one come first and compare by their text.
fn compare(a: Option<&Cell>, b: Option<&Cell>) -> Ordering {
    sort_value(a).total_cmp(&sort_value(b)).then_with(|| natural(sort_text(a)).cmp(&natural(sort_text(b))))
}

fn sort_value(cell: Option<&Cell>) -> f64 {
    cell.and_then(|cell| cell.value).unwrap_or(f64::NEG_INFINITY)
}

fn sort_text(cell: Option<&Cell>) -> &str {
    cell.filter(|cell| cell.value.is_none()).map_or("", |cell| cell.text.as_str())
}
