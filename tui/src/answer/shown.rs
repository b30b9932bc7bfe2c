//! What people read of an answer: lines and tables, laid out when it is known how wide the terminal is.

use super::table::Table;

/// How much of an answer is shown, and in what width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// All columns of all tables, however wide.
    Wide,
    /// All columns, and summaries in place of tables where there are such: for a pipe or a file.
    #[default]
    Unlimited,
    /// Tables fit into so many columns of a terminal.
    Within(usize),
}

/// Lines and tables, one below the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown(Vec<Block>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Block {
    Lines(String),
    Table(Table),
    /// Lines that say the same as a table.
    Card(String, Table),
}

impl Shown {
    /// A card, in whose place [`Layout::Wide`] has a table.
    pub fn card(lines: String, table: Table) -> Self {
        Self(vec![Block::Card(lines, table)])
    }

    /// Appends lines or a table below.
    #[must_use]
    pub fn then(mut self, more: impl Into<Self>) -> Self {
        self.0.extend(more.into().0);
        self
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|block| matches!(block, Block::Lines(text) if text.is_empty()))
    }

    /// The lines, without the last one's end.
    pub fn render(&self, layout: Layout) -> String {
        let block = |block: &Block| match (block, layout) {
            (Block::Lines(text) | Block::Card(text, _), Layout::Unlimited | Layout::Within(_))
            | (Block::Lines(text), Layout::Wide) => text.clone(),
            (Block::Table(table), Layout::Within(width)) => table.fitted(width),
            (Block::Table(table) | Block::Card(_, table), Layout::Unlimited | Layout::Wide) => table.render(),
        };
        self.0.iter().map(block).collect::<Vec<_>>().join("\n")
    }
}

impl From<String> for Shown {
    fn from(text: String) -> Self {
        Self(vec![Block::Lines(text)])
    }
}

impl From<&str> for Shown {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<Table> for Shown {
    fn from(table: Table) -> Self {
        Self(vec![Block::Table(table)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_a_table_only_in_full_width() {
        let mut table = Table::new("JOB +STATE");
        table.row(["job-1".into(), "running".into()]);
        let shown = Shown::card(String::from("job-1 runs"), table.clone()).then("a remark");
        assert_eq!(shown.render(Layout::Unlimited), "job-1 runs\na remark");
        assert_eq!(shown.render(Layout::Within(6)), "job-1 runs\na remark");
        assert_eq!(shown.render(Layout::Wide), format!("{}\na remark", table.render()));
        assert!(Shown::from("").is_empty() && !shown.is_empty() && !Shown::from(table).is_empty());
    }
}
