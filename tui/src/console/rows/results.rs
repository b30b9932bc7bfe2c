//! A job's results: what each answer says, in columns.

use std::collections::BTreeMap;

use idunno_shared::client::results::{Answer, scalar};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::console::table::{Cell, Column, DataRow, TableContent};
use crate::console::theme::Tone;

/// Fields of outputs that get a column.
const FIELDS_MAX: usize = 4;
/// Rows that decide which fields those are.
const FIELDS_OF_ROWS: usize = 100;
/// What an answer column shows already, or what repeats it.
const NO_FIELDS: [&str; 5] = ["label", "index", "top5", "probability", "score"];

/// A row of results, reduced to what a person looks for.
#[derive(Clone, Debug, Default, PartialEq)]
struct ResultRow {
    query: u64,
    /// The input's name.
    name: String,
    /// The record's own id.
    id: Option<String>,
    /// The true label.
    label: Option<String>,
    answer: Option<String>,
    probability: Option<f64>,
    is_correct: Option<bool>,
    /// Values of the output's own fields, by name.
    fields: Vec<(String, String)>,
    error: Option<String>,
    worker: Option<String>,
}

#[derive(Deserialize)]
struct Line<'a> {
    query: u64,
    #[serde(default)]
    name: String,
    id: Option<Value>,
    label: Option<Value>,
    #[serde(borrow)]
    output: Option<&'a RawValue>,
    error: Option<String>,
    worker: Option<String>,
}

impl ResultRow {
    /// Reads a line of results; `None` if it is not JSON of a row.
    fn read(line: &str) -> Option<Self> {
        let Line { query, name, id, label, output, error, worker } = serde_json::from_str(line).ok()?;
        let output: Option<Value> = output.and_then(|output| serde_json::from_str(output.get()).ok());
        let answer = output.as_ref().map(Answer::of).unwrap_or_default();
        let choice =
            output.as_ref().map(|output| output.get("top5").and_then(|top| top.get(0)).unwrap_or(output));
        let probability = choice
            .and_then(|choice| ["probability", "score"].iter().find_map(|name| choice.get(*name)?.as_f64()));
        let label = label.as_ref().and_then(scalar);
        let is_correct = label.as_deref().filter(|_| output.is_some()).map(|label| answer.is(label));
        let fields = output.as_ref().map(fields).unwrap_or_default();
        let (id, answer) = (id.as_ref().and_then(scalar), answer.shown());
        Some(Self { query, name, id, label, answer, probability, is_correct, fields, error, worker })
    }

    fn answer(&self) -> Cell {
        match (&self.error, &self.answer) {
            (Some(error), _) => Cell::state(Tone::Bad, error.as_str()),
            (None, Some(answer)) => match self.is_correct {
                Some(true) => Cell::state(Tone::Good, answer.as_str()),
                Some(false) => Cell::state(Tone::Warn, answer.as_str()),
                None => Cell::plain(answer.as_str()),
            },
            (None, None) => Cell::dash(),
        }
    }
}

/// The output's own fields: those of an object, without what the answer shows. Lists and objects are JSON in one line.
fn fields(output: &Value) -> Vec<(String, String)> {
    let Value::Object(object) = output else {
        let is_answer = scalar(output).is_some();
        return if is_answer { Vec::new() } else { vec![(String::from("output"), output.to_string())] };
    };
    let own = object.iter().filter(|(name, _)| !NO_FIELDS.contains(&name.as_str()));
    own.map(|(name, value)| (name.clone(), scalar(value).unwrap_or_else(|| value.to_string()))).collect()
}

/// The fields that get a column: those that most rows have, scalar or not, in the order of their names.
fn field_names(rows: &[ResultRow]) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, _) in rows.iter().take(FIELDS_OF_ROWS).flat_map(|row| &row.fields) {
        *counts.entry(name).or_default() += 1;
    }
    let mut names: Vec<(&str, usize)> = counts.into_iter().collect();
    names.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut names: Vec<String> =
        names.into_iter().take(FIELDS_MAX).map(|(name, _)| name.to_owned()).collect();
    names.sort_unstable();
    names
}

pub(super) fn content(lines: &[String]) -> TableContent {
    let rows: Vec<ResultRow> = lines.iter().filter_map(|line| ResultRow::read(line)).collect();
    let names = field_names(&rows);
    let has = |is: fn(&ResultRow) -> bool| rows.iter().any(is);
    let (has_answer, has_probability) =
        (has(|row| row.answer.is_some() || row.error.is_some()), has(|row| row.probability.is_some()));
    let (has_label, has_id) = (has(|row| row.label.is_some()), has(|row| row.id.is_some()));
    let mut columns = vec![Column::number("QUERY", 0)];
    let mut add = |is_shown: bool, column: Column| {
        if is_shown {
            columns.push(column);
        }
    };
    add(has_answer, Column::text("ANSWER", 0));
    add(has_probability, Column::number("PROBABILITY", 1));
    add(has_label, Column::text("LABEL", 2));
    for (rank, name) in (4..).zip(&names) {
        add(true, Column::text(name.to_uppercase(), rank));
    }
    add(has_id, Column::text("ID", 9));
    add(true, Column::text("INPUT", 3));
    add(true, Column::text("MEMBER", 10));
    let optional = |text: &Option<String>| text.as_deref().map_or_else(Cell::dash, Cell::plain);
    let row = |row: &ResultRow| {
        let mut cells = vec![Cell::count(row.query)];
        let mut add = |is_shown: bool, cell: Cell| {
            if is_shown {
                cells.push(cell);
            }
        };
        add(has_answer, row.answer());
        let probability = |value: f64| Cell::number(value, format!("{value:.3}"));
        add(has_probability, row.probability.map_or_else(Cell::dash, probability));
        add(has_label, optional(&row.label));
        for name in &names {
            let value = row.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
            add(true, value.map_or_else(Cell::dash, field_cell));
        }
        add(has_id, optional(&row.id));
        add(true, Cell::plain(row.name.as_str()));
        add(true, optional(&row.worker));
        DataRow { key: row.query.to_string(), cells }
    };
    let table_rows = rows.iter().map(row).collect();
    TableContent::new(columns, table_rows)
}

/// A number sorts as one.
fn field_cell(text: &str) -> Cell {
    Cell { value: text.parse().ok().filter(|value: &f64| value.is_finite()), ..Cell::plain(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_in_the_usual_shapes() {
        let version = "7".repeat(64);
        let read = |output: &str, label: &str| {
            let row = format!(
                r#"{{"query":3,"name":"d/a.jpg"{label},"model":"m","version":"{version}","output":{output},"worker":"m2","attempt":1}}"#
            );
            ResultRow::read(&row).unwrap()
        };
        let top5 = r#"{"top5":[{"index":1,"label":"cat","probability":0.91},{"index":2,"label":"dog","probability":0.05}]}"#;
        let cat = read(top5, r#","label":"cat""#);
        assert_eq!(
            (cat.answer.as_deref(), cat.probability, cat.is_correct),
            (Some("cat"), Some(0.91), Some(true))
        );
        assert_eq!(read(top5, r#","label":"dog""#).is_correct, Some(false));
        let scored = read(r#"{"label":"POSITIVE","score":0.5,"tokens":9}"#, "");
        assert_eq!((scored.answer.as_deref(), scored.probability), (Some("POSITIVE"), Some(0.5)));
        assert_eq!(scored.fields, [(String::from("tokens"), String::from("9"))]);
        assert_eq!(read("\"a tabby\"", "").answer.as_deref(), Some("a tabby"));
        let list = read("[0.1,0.2]", "");
        assert_eq!((list.answer, list.fields), (None, vec![("output".into(), "[0.1,0.2]".into())]));
        let dead = ResultRow::read(r#"{"query":4,"name":"d/b","error":"no image"}"#).unwrap();
        assert_eq!(dead.answer().text, "no image");
        assert_eq!(ResultRow::read("second"), None);
    }

    #[test]
    fn columns_are_those_that_the_rows_have() {
        let lines = [
            r#"{"query":0,"name":"a","output":{"text":"yes","n":2,"z":1},"worker":"m1"}"#,
            r#"{"query":1,"name":"b","output":{"text":"no","n":10,"a":[1],"b":true},"worker":"m1"}"#,
        ];
        let content = content(&lines.map(String::from));
        let titles: Vec<&str> = content.columns.iter().map(|column| column.title.as_str()).collect();
        assert_eq!(
            titles,
            ["QUERY", "A", "B", "N", "TEXT", "INPUT", "MEMBER"],
            "the four that most rows have"
        );
        assert_eq!(content.rows[0].cells[3].value, Some(2.0), "a number sorts as one");
        assert_eq!(content.rows[1].cells[1].text, "[1]");
    }
}
