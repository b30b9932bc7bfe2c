//! How the records of a job's dataset are read, as text and as JSON.

use idunno_shared::names::ColumnName;
use idunno_shared::wire::jobs::RecordFormat;
use idunno_shared::wire::records::{ColumnNames, Keep, Quote};
use idunno_shared::wire::references::ReferenceSource;
use schemars::JsonSchema;
use serde::Serialize;

/// How the records of a dataset are read: found in the file when the job was started, or asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RecordsRead {
    /// How they are written.
    pub format: RecordsFormat,
    /// What separates the columns of CSV.
    pub delimiter: Option<String>,
    /// What encloses fields of CSV; null if nothing does.
    pub quote: Option<String>,
    /// Whether CSV has a header.
    pub header: Option<bool>,
    /// The column or field of the input; null if a line may be its own input.
    pub input_column: Option<String>,
    /// The column or field of the true label.
    pub label_column: Option<String>,
    /// The column or field of the record's own id.
    pub id_column: Option<String>,
    /// Other columns that come back in the rows; null if those of each row do that are in it.
    pub kept_columns: Option<Vec<String>>,
}

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RecordsFormat {
    /// One JSON value a line.
    Jsonl,
    /// Rows of columns.
    Csv,
    /// Rows of typed columns.
    Parquet,
    /// Objects outside the cluster.
    References,
}

fn text(name: Option<&ColumnName>) -> Option<String> {
    name.map(ToString::to_string)
}

impl From<&RecordFormat> for RecordsRead {
    fn from(format: &RecordFormat) -> Self {
        let kept_columns = format.kept().map(|names| names.into_iter().map(ToString::to_string).collect());
        let of_json = |columns: &ColumnNames| Self {
            format: RecordsFormat::Jsonl,
            delimiter: None,
            quote: None,
            header: None,
            input_column: text(columns.input.as_ref()),
            label_column: text(columns.label.as_ref()).or_else(|| Some("label".into())),
            id_column: text(columns.id.as_ref()).or_else(|| Some("id".into())),
            kept_columns: kept_columns.clone(),
        };
        match format {
            RecordFormat::Parquet(layout) => Self {
                format: RecordsFormat::Parquet,
                delimiter: None,
                quote: None,
                header: None,
                input_column: text(layout.columns.input.as_ref()),
                label_column: text(layout.columns.label.as_ref()),
                id_column: text(layout.columns.id.as_ref()),
                kept_columns,
            },
            RecordFormat::Jsonl => of_json(&ColumnNames::default()),
            RecordFormat::References(_) => {
                Self { format: RecordsFormat::References, ..of_json(&ColumnNames::default()) }
            }
            RecordFormat::JsonFields { columns, .. } => of_json(columns),
            RecordFormat::Csv { layout, .. } => Self {
                format: RecordsFormat::Csv,
                delimiter: Some(char::from(layout.delimiter).to_string()),
                quote: match layout.quote {
                    Quote::Double => Some("\"".into()),
                    Quote::Single => Some("'".into()),
                    Quote::None => None,
                },
                header: Some(layout.header),
                input_column: text(layout.names.input.as_ref()),
                label_column: text(layout.names.label.as_ref()),
                id_column: text(layout.names.id.as_ref()),
                kept_columns,
            },
        }
    }
}

/// The same in a line for people; `None` where there is nothing to tell.
pub fn sentence(format: &RecordFormat) -> Option<String> {
    let (written, columns, kept) = match format {
        RecordFormat::Jsonl => return None,
        RecordFormat::References(source) => return Some(objects(source)),
        RecordFormat::Parquet(layout) => (String::from("Parquet"), &layout.columns, None),
        RecordFormat::JsonFields { columns, keep } => {
            let kept = if *keep == Keep::All { Some(String::from("all other fields")) } else { None };
            (String::from("JSON lines"), columns, kept)
        }
        RecordFormat::Csv { layout, .. } => {
            let separator = match layout.delimiter {
                b'\t' => String::from("tabs"),
                byte => format!("'{}'", char::from(byte)),
            };
            let header = if layout.header { "a header" } else { "no header" };
            let quote = match layout.quote {
                Quote::Double => "",
                Quote::Single => ", single quotes",
                Quote::None => ", no quotes",
            };
            (format!("CSV with {separator} between its columns, {header}{quote}"), &layout.names, None)
        }
    };
    let roles = [("input", &columns.input), ("label", &columns.label), ("id", &columns.id)];
    let mut parts: Vec<String> =
        roles.iter().filter_map(|(role, name)| Some(format!("{role} '{}'", name.as_ref()?))).collect();
    let names = format.kept().unwrap_or_default();
    let names: Vec<String> = names.into_iter().map(|name| format!("'{name}'")).collect();
    parts.extend(
        kept.or_else(|| (!names.is_empty()).then(|| names.join(", "))).map(|kept| format!("keeps {kept}")),
    );
    let parts = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    Some(format!("reads {written}{parts}"))
}

fn objects(ReferenceSource { endpoint, anonymous, .. }: &ReferenceSource) -> String {
    let at = endpoint.as_ref().map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
    let how = if *anonymous { ", without credentials" } else { "" };
    format!("reads objects outside the cluster{at}{how}")
}

#[cfg(test)]
mod tests {
    use idunno_shared::wire::records::{Column, CsvLayout, ParquetLayout};

    use super::*;

    fn name(name: &str) -> ColumnName {
        name.parse().unwrap()
    }

    #[test]
    fn what_was_found_is_told_in_one_line() {
        let layout = CsvLayout {
            delimiter: b';',
            columns: 3,
            names: ColumnNames { input: Some(name("text")), label: Some(name("stars")), id: None },
            keep: vec![Column { number: 2, name: name("city") }],
            ..CsvLayout::default()
        };
        let csv = RecordFormat::Csv { input: 0, label: Some(1), id: None, layout };
        assert_eq!(
            sentence(&csv).unwrap(),
            "reads CSV with ';' between its columns, a header: input 'text', label 'stars', keeps 'city'"
        );
        assert_eq!(RecordsRead::from(&csv).kept_columns, Some(vec!["city".into()]));
        let json = RecordFormat::JsonFields {
            columns: ColumnNames { input: Some(name("text")), ..ColumnNames::default() },
            keep: Keep::All,
        };
        assert_eq!(sentence(&json).unwrap(), "reads JSON lines: input 'text', keeps all other fields");
        let parquet = RecordFormat::Parquet(ParquetLayout {
            columns: ColumnNames { input: Some(name("text")), id: Some(name("key")), label: None },
            keep: vec![name("city")],
            footer_bytes: 800,
            row_bytes: 40,
        });
        assert_eq!(sentence(&parquet).unwrap(), "reads Parquet: input 'text', id 'key', keeps 'city'");
        assert_eq!(RecordsRead::from(&parquet).id_column.as_deref(), Some("key"));
        assert_eq!((sentence(&RecordFormat::Jsonl), RecordsRead::from(&json).kept_columns), (None, None));
    }
}
