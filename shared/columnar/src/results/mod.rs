//! Results as Parquet: the types of the columns, found in all rows, and a writer of rows of such types.
//!
//! The columns `query`, `name`, `id`, `label`, `output`, `error`, `model`, `version`, `worker` and `attempt` are always there,
//! and those of the records that come back. `id`, `label`, `output` and the columns of records have the type that all of
//! their values have: text, truth values, integers, floats, lists of numbers; any others hold JSON as it was written. If all
//! answers are objects, each field is a column `output.FIELD` of its own beside them.
//!
//! Bounds: [`FIELDS_MAX`] fields of answers get a column; a writer keeps a row group in memory, compressed.

#[cfg(test)]
mod tests;
mod types;
mod writer;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use self::types::Seen;
pub use self::writer::ResultsWriter;
use crate::error::WriteError;

/// Most fields of answers that get a column of their own.
pub const FIELDS_MAX: usize = 256;

/// A row of results.
#[derive(Debug, Deserialize)]
pub(crate) struct Row<'a> {
    #[serde(borrow)]
    query: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    label: Option<&'a RawValue>,
    #[serde(borrow)]
    output: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    version: Option<&'a RawValue>,
    #[serde(borrow)]
    worker: Option<&'a RawValue>,
    #[serde(borrow)]
    attempt: Option<&'a RawValue>,
    #[serde(borrow)]
    fields: Option<&'a RawValue>,
}

/// The values of an object, by name.
type Fields<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

fn object(json: &RawValue) -> Option<Result<Fields<'_>, serde_json::Error>> {
    json.get().starts_with('{').then(|| serde_json::from_str(json.get()))
}

/// Where a column has its values from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Query,
    Name,
    Id,
    Label,
    Output,
    OutputField(String),
    Error,
    Model,
    Version,
    Worker,
    Attempt,
    Kept(String),
    /// All columns of the record that come back, as an object.
    Fields,
}

/// A column of a file of results.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ResultColumn {
    name: String,
    source: Source,
    holds: types::ColumnType,
}

/// The fields of answers, while all answers are objects.
#[derive(Clone, Debug, Default)]
enum OutputFields {
    #[default]
    NoAnswer,
    Of(BTreeMap<String, Seen>),
    /// An answer is no object, or there are too many fields.
    None,
}

/// The types of the columns of all rows that were seen.
#[derive(Clone, Debug, Default)]
pub struct RowTypes {
    id: Seen,
    label: Seen,
    output: Seen,
    output_fields: OutputFields,
    /// The columns of records; `None` if they differ from row to row.
    kept: Option<Vec<(String, Seen)>>,
}

impl RowTypes {
    /// Of no rows. `kept` names the columns of records that come back; `None` if they differ from row to row.
    pub fn new(kept: Option<Vec<String>>) -> Self {
        let kept = kept.map(|names| names.into_iter().map(|name| (name, Seen::default())).collect());
        Self { kept, ..Self::default() }
    }

    /// Takes a row: JSON without its line end.
    pub fn observe(&mut self, row: &str) -> Result<(), WriteError> {
        let row: Row<'_> = serde_json::from_str(row)?;
        for (seen, json) in
            [(&mut self.id, row.id), (&mut self.label, row.label), (&mut self.output, row.output)]
        {
            if let Some(json) = json {
                seen.add(json.get());
            }
        }
        if let Some(output) = row.output {
            self.observe_fields(output)?;
        }
        if let (Some(kept), Some(fields)) = (&mut self.kept, row.fields.and_then(object)) {
            let fields = fields?;
            for (name, seen) in kept {
                if let Some(json) = fields.get(name.as_str()) {
                    seen.add(json.get());
                }
            }
        }
        Ok(())
    }

    fn observe_fields(&mut self, output: &RawValue) -> Result<(), serde_json::Error> {
        if matches!(self.output_fields, OutputFields::NoAnswer) {
            self.output_fields = OutputFields::Of(BTreeMap::new());
        }
        let OutputFields::Of(seen) = &mut self.output_fields else { return Ok(()) };
        if let Some(fields) = object(output) {
            for (name, json) in fields? {
                seen.entry(name.into_owned()).or_default().add(json.get());
            }
            if seen.len() <= FIELDS_MAX {
                return Ok(());
            }
        }
        self.output_fields = OutputFields::None;
        Ok(())
    }

    /// The columns of a file that holds these rows. No two have the same name.
    fn columns(&self) -> Vec<ResultColumn> {
        use types::ColumnType::{Int, Json, Text};
        let own = |name: &str, source, holds| ResultColumn { name: name.to_owned(), source, holds };
        let mut columns = vec![
            own("query", Source::Query, Int),
            own("name", Source::Name, Text),
            own("id", Source::Id, self.id.column_type()),
            own("label", Source::Label, self.label.column_type()),
            own("output", Source::Output, self.output.column_type()),
            own("error", Source::Error, Text),
            own("model", Source::Model, Text),
            own("version", Source::Version, Text),
            own("worker", Source::Worker, Text),
            own("attempt", Source::Attempt, Int),
        ];
        if let OutputFields::Of(fields) = &self.output_fields {
            columns.extend(fields.iter().map(|(name, seen)| ResultColumn {
                name: format!("output.{name}"),
                source: Source::OutputField(name.clone()),
                holds: seen.column_type(),
            }));
        }
        let mut taken: BTreeSet<String> = columns.iter().map(|column| column.name.clone()).collect();
        match &self.kept {
            None => columns.push(own("fields", Source::Fields, Json)),
            Some(kept) => columns.extend(kept.iter().map(|(field, seen)| {
                let mut name = field.clone();
                while !taken.insert(name.clone()) {
                    name = format!("fields.{name}");
                }
                ResultColumn { name, source: Source::Kept(field.clone()), holds: seen.column_type() }
            })),
        }
        columns
    }
}
