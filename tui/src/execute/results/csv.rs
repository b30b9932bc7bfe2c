//! Rows as CSV: the answer in a column of its own, and the whole output as JSON beside it.

use std::collections::BTreeMap;

use idunno_shared::client::results::Answer;
use serde_json::value::RawValue;

use crate::answer::Failure;

/// The header. `answer` is the first label of the output, if it names one.
const COLUMNS: [&str; 11] =
    ["query", "name", "id", "label", "answer", "output", "error", "model", "version", "worker", "attempt"];

/// Rows of JSON as CSV with a header, without the last line's end.
pub fn table(rows: &[String]) -> Result<String, Failure> {
    let mut text = line(&COLUMNS.map(String::from))?;
    for row in rows {
        text.push('\n');
        text.push_str(&self::row(row)?);
    }
    Ok(text)
}

/// The header alone.
pub fn header() -> Result<String, Failure> {
    line(&COLUMNS.map(String::from))
}

/// One row.
pub fn row(row: &str) -> Result<String, Failure> {
    let row: BTreeMap<&str, &RawValue> =
        serde_json::from_str(row).map_err(|error| Failure::error(format!("a row is not JSON: {error}")))?;
    let json = |name: &str| row.get(name).map_or("null", |raw| raw.get());
    let answer = || Answer::of(&serde_json::from_str(json("output")).ok()?).shown();
    let field = |name: &str| match (name, json(name)) {
        ("answer", _) => answer().unwrap_or_default(),
        (_, "null") => String::new(),
        // As it was written: a number may have more digits than any number here.
        ("output", json) => json.to_owned(),
        (_, json) => serde_json::from_str(json).unwrap_or_else(|_| json.to_owned()),
    };
    line(&COLUMNS.map(field))
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
        let text = table(&rows).unwrap();
        let lines: Vec<&str> = text.split('\n').collect();
        assert_eq!(lines[0], "query,name,id,label,answer,output,error,model,version,worker,attempt");
        assert_eq!(
            lines[1],
            r#"0,"d/a, b",,cat,cat,"{""top5"":[{""index"":7,""label"":""cat""}]}",,m,v,m1,2"#
        );
        assert_eq!(lines[2], r#"1,d/1,,,,,"no ""image""",,,,"#);
        assert!(row("nonsense").is_err());
    }

    #[test]
    fn what_a_row_contains_is_written_as_it_stands_there() {
        let row =
            row(r#"{"query":1,"id":123456789012345678901,"label":1.10,"output":{"b":1.0,"a":"\ud83d"}}"#)
                .unwrap();
        assert_eq!(row, r#"1,,123456789012345678901,1.10,,"{""b"":1.0,""a"":""\ud83d""}",,,,,"#);
    }
}
