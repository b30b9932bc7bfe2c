//! Rows as CSV: the answer in a column of its own, and the whole output as JSON beside it.

use idunno_shared::client::results::Answer;
use serde_json::Value;

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
    let row: Value =
        serde_json::from_str(row).map_err(|error| Failure::error(format!("a row is not JSON: {error}")))?;
    let field = |name: &str| match (name, row.get(name)) {
        ("answer", _) => row.get("output").and_then(|output| Answer::of(output).shown()).unwrap_or_default(),
        (_, None | Some(Value::Null)) => String::new(),
        ("output", Some(output)) => output.to_string(),
        (_, Some(Value::String(text))) => text.clone(),
        (_, Some(other)) => other.to_string(),
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
}
