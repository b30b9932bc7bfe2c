//! Rows as CSV: the answer in a column of its own, and the whole output as JSON beside it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use idunno_shared::client::results::Answer;
use idunno_shared::wire::control::JobView;
use serde_json::value::RawValue;

use crate::answer::Failure;

/// The header. `answer` is the first label of the output, if it names one.
const COLUMNS: [&str; 11] =
    ["query", "name", "id", "label", "answer", "output", "error", "model", "version", "worker", "attempt"];

/// The columns of a job's rows: the common ones, then those of its records that come back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    kept: Kept,
}

/// The columns of records.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kept {
    /// A column each.
    Named(Vec<String>),
    /// They differ from row to row: one column has them as a JSON object.
    Object,
}

impl Default for Kept {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

impl Columns {
    /// Those of a job that was started.
    pub fn of(job: &JobView) -> Self {
        let Some(format) = &job.details.records else { return Self::default() };
        let names = format.kept().map(|names| names.into_iter().map(ToString::to_string).collect());
        Self { kept: names.map_or(Kept::Object, Kept::Named) }
    }

    /// Rows of JSON as CSV with a header, without the last line's end.
    pub fn table(&self, rows: &[String]) -> Result<String, Failure> {
        let mut text = self.header()?;
        for row in rows {
            text.push('\n');
            text.push_str(&self.row(row)?);
        }
        Ok(text)
    }

    /// The header alone. A column of the records whose name is one of ours is called `fields.NAME`.
    pub fn header(&self) -> Result<String, Failure> {
        let kept =
            match &self.kept {
                Kept::Object => vec![String::from("fields")],
                Kept::Named(names) => names
                    .iter()
                    .map(|name| {
                        if COLUMNS.contains(&name.as_str()) { format!("fields.{name}") } else { name.clone() }
                    })
                    .collect(),
            };
        line(&[COLUMNS.map(String::from).to_vec(), kept].concat())
    }

    /// One row.
    pub fn row(&self, row: &str) -> Result<String, Failure> {
        let row = object(row)?;
        let json = |name: &str| row.get(name).map_or("null", |raw| raw.get());
        let answer = || Answer::of(&serde_json::from_str(json("output")).ok()?).shown();
        let field = |name: &str| match (name, json(name)) {
            ("answer", _) => answer().unwrap_or_default(),
            // As it was written: a number may have more digits than any number here.
            ("output", json) if json != "null" => json.to_owned(),
            (_, json) => text(json),
        };
        let mut fields = COLUMNS.map(field).to_vec();
        match &self.kept {
            Kept::Object => fields.push(text(json("fields"))),
            Kept::Named(names) if names.is_empty() => {}
            Kept::Named(names) => {
                let kept = row.get("fields").map(|raw| object(raw.get())).transpose()?.unwrap_or_default();
                let of_row =
                    |name: &String| kept.get(name.as_str()).map_or_else(String::new, |raw| text(raw.get()));
                fields.extend(names.iter().map(of_row));
            }
        }
        line(&fields)
    }
}

fn object(json: &str) -> Result<BTreeMap<Cow<'_, str>, &RawValue>, Failure> {
    serde_json::from_str(json).map_err(|error| Failure::error(format!("a row is not JSON: {error}")))
}

/// A value as a field of CSV: a text without its quotes, nothing for null, and all else as it was written.
fn text(json: &str) -> String {
    if json == "null" {
        return String::new();
    }
    serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())
}

fn line(fields: &[String]) -> Result<String, Failure> {
    let wrong = |error: String| Failure::error(format!("cannot write CSV: {error}"));
    let mut writer =
        ::csv::WriterBuilder::new().terminator(::csv::Terminator::Any(b'\n')).from_writer(Vec::new());
    writer.write_record(fields).map_err(|error| wrong(error.to_string()))?;
    let bytes = writer.into_inner().map_err(|error| wrong(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_their_answer_beside_the_whole_output() {
        let rows = [
            r#"{"query":0,"name":"d/a, b","label":"cat","model":"m","version":"v","output":{"top5":[{"index":7,"label":"cat"}]},"worker":"m1","attempt":2}"#.to_owned(),
            r#"{"query":1,"name":"d/1","error":"no \"image\""}"#.to_owned(),
        ];
        let text = Columns::default().table(&rows).unwrap();
        let lines: Vec<&str> = text.split('\n').collect();
        assert_eq!(lines[0], "query,name,id,label,answer,output,error,model,version,worker,attempt");
        assert_eq!(
            lines[1],
            r#"0,"d/a, b",,cat,cat,"{""top5"":[{""index"":7,""label"":""cat""}]}",,m,v,m1,2"#
        );
        assert_eq!(lines[2], r#"1,d/1,,,,,"no ""image""",,,,"#);
        assert!(Columns::default().row("nonsense").is_err());
    }

    #[test]
    fn what_a_row_contains_is_written_as_it_stands_there() {
        let row = Columns::default()
            .row(r#"{"query":1,"id":123456789012345678901,"label":1.10,"output":{"b":1.0,"a":"\ud83d"}}"#)
            .unwrap();
        assert_eq!(row, r#"1,,123456789012345678901,1.10,,"{""b"":1.0,""a"":""\ud83d""}",,,,,"#);
    }

    #[test]
    fn columns_of_the_records_come_after_the_others() {
        let kept = ["city", "id", "a \u{e9}\"b"].map(String::from).to_vec();
        let columns = Columns { kept: Kept::Named(kept) };
        let header = columns.header().unwrap();
        assert!(header.ends_with(",attempt,city,fields.id,\"a \u{e9}\"\"b\""), "{header}");
        let row = columns
            .row(r#"{"query":1,"id":7,"fields":{"id":1.10,"a \u00e9\"b":"x, y","other":1,"city":null}}"#)
            .unwrap();
        assert_eq!(row, r#"1,,7,,,,,,,,,,1.10,"x, y""#);
        assert_eq!(columns.row(r#"{"query":2,"error":"no"}"#).unwrap(), "2,,,,,,no,,,,,,,");
        let all = Columns { kept: Kept::Object };
        let row = all.row(r#"{"query":1,"fields":{"b":1.10,"a":[]}}"#).unwrap();
        assert!(all.header().unwrap().ends_with(",attempt,fields"));
        assert_eq!(row, r#"1,,,,,,,,,,,"{""b"":1.10,""a"":[]}""#);
    }
}
