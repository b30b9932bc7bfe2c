//! What a command comes back with: an [`Answer`], the same facts as JSON and as text, or a [`Failure`] with its exit code;
//! and how facts are worded and laid out.

pub mod failure;
pub mod table;
pub mod text;

use serde_json::Value;

pub use failure::{Exit, Failure};

use crate::command::Output;

/// What a command found or did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// For programs.
    pub data: Data,
    /// For people; lines, without the last line's end.
    pub text: String,
    /// Why it is only a part of what was asked, if it is.
    pub incomplete: Option<String>,
    /// What a person should know beside it, and no program needs.
    pub note: Option<String>,
}

/// What programs get.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// One JSON value.
    Value(Value),
    /// The text is JSON lines already.
    Lines,
}

impl Default for Data {
    fn default() -> Self {
        Self::Value(Value::Null)
    }
}

impl Answer {
    /// A whole answer.
    pub fn new(data: Value, text: impl Into<String>) -> Self {
        Self { data: Data::Value(data), text: text.into(), ..Self::default() }
    }

    /// The same answer, said to be a part.
    #[must_use]
    pub fn incomplete(mut self, why: impl Into<String>) -> Self {
        self.incomplete = Some(why.into());
        self
    }

    /// The same answer with a note beside it.
    #[must_use]
    pub fn noted(mut self, note: Option<String>) -> Self {
        self.note = note;
        self
    }

    /// What it puts on stdout.
    pub fn rendered(&self, output: Output) -> String {
        match (&self.data, output) {
            (Data::Value(Value::Array(rows)), Output::Jsonl) => {
                rows.iter().map(Value::to_string).flat_map(|row| [row, String::from("\n")]).collect()
            }
            (Data::Value(value), Output::Json | Output::Jsonl) => format!("{value}\n"),
            (Data::Lines, Output::Json | Output::Jsonl) | (_, Output::Table) if self.text.is_empty() => {
                String::new()
            }
            _ => format!("{}\n", self.text),
        }
    }
}
