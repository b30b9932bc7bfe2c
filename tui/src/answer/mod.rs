//! What a command comes back with: an [`Answer`], the same facts as JSON and as text, or a [`Failure`] with its exit code.
//!
//! The types of the JSON are in [`jobs`], [`results`], [`files`], [`models`], [`cluster`], [`local`] and [`program`].

pub mod cluster;
pub mod document;
pub mod failure;
pub mod files;
pub mod identities;
pub mod jobs;
pub mod local;
pub mod models;
mod plain;
pub mod program;
pub mod records;
pub mod results;
pub mod schemas;
pub mod shown;
pub mod table;
pub mod text;
pub mod warnings;
pub mod words;

use document::{Document, List, Listed, to_json};
use idunno_shared::text::visible_lines;

pub use failure::{Exit, Failure};
use shown::{Layout, Shown};

use crate::command::Output;

/// What a command found or did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// For programs.
    pub data: Data,
    /// For people.
    pub text: Shown,
    /// Why the answer is incomplete, if it is.
    pub incomplete: Option<String>,
    /// A remark for people only.
    pub note: Option<String>,
}

/// What programs get, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Data {
    /// Nothing beyond the text.
    #[default]
    None,
    /// One document.
    Document(String),
    /// A list as one document, and each of its items as a document.
    List {
        /// The list.
        document: String,
        /// The items.
        items: Vec<String>,
    },
    /// The text itself, which is lines of JSON.
    Lines,
}

impl Answer {
    /// An answer that is one document.
    pub fn new(document: &impl Document, text: impl Into<Shown>) -> Self {
        Self { data: Data::Document(to_json(document)), text: text.into(), ..Self::default() }
    }

    /// An answer that is a list of documents.
    pub fn list<T: Listed>(items: Vec<T>, text: impl Into<Shown>) -> Self {
        let lines = items.iter().map(to_json).collect();
        let data = Data::List { document: to_json(&List { items }), items: lines };
        Self { data, text: text.into(), ..Self::default() }
    }

    /// A document that is JSON already, for programs only.
    pub fn of_json(document: String) -> Self {
        Self { data: Data::Document(document), ..Self::default() }
    }

    /// An answer for people only.
    pub fn text(text: impl Into<Shown>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// The same answer, marked incomplete.
    #[must_use]
    pub fn incomplete(mut self, why: impl Into<String>) -> Self {
        self.incomplete = Some(why.into());
        self
    }

    /// The same answer with a remark.
    #[must_use]
    pub fn noted(mut self, note: Option<String>) -> Self {
        self.note = note;
        self
    }

    /// What is written to stdout, however wide.
    pub fn rendered(&self, output: Output) -> String {
        self.rendered_within(output, None)
    }

    /// What is written to a terminal of `width` columns, or to stdout without one.
    pub fn rendered_within(&self, output: Output, width: Option<usize>) -> String {
        let shown = |layout| match self.text.render(layout) {
            text if text.is_empty() => text,
            text if self.data == Data::Lines => text + "\n",
            text => format!("{}\n", visible_lines(&text)),
        };
        match (&self.data, output) {
            (_, Output::Wide) => shown(Layout::Wide),
            (Data::None | Data::Lines, _) | (_, Output::Table) => {
                shown(width.map_or(Layout::Unlimited, Layout::Within))
            }
            (Data::Document(document) | Data::List { document, .. }, Output::Json) => format!("{document}\n"),
            (Data::Document(document), Output::Jsonl) => {
                plain::lines(document).unwrap_or_else(|| format!("{document}\n"))
            }
            (Data::List { items, .. }, Output::Jsonl) => {
                items.iter().flat_map(|item| [item.as_str(), "\n"]).collect()
            }
            (data, Output::Name) => visible_lines(&plain::names(data)).into_owned(),
            (data, Output::Csv) => visible_lines(&plain::csv(data)).into_owned(),
        }
    }
}
