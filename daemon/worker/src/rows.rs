//! Result rows: one JSON object per line, with the server's answer verbatim.
//!
//! Invariant: a row is valid JSON, and its only line break is its last byte. Bounds: a row is as long as its answer and a
//! few kilobytes of names.

use std::io::Write as _;

use idunno_shared::client::results::Answer;
use idunno_shared::ids::Digest;
use idunno_shared::names::{FileName, MemberName, ModelName};
use serde::de::IgnoredAny;

/// What all rows of a batch share.
#[derive(Clone, Copy, Debug)]
pub struct RowContext<'a> {
    pub model: &'a ModelName,
    pub version: &'a Digest,
    pub worker: &'a MemberName,
    pub attempt: u32,
}

/// The query that a row answers.
#[derive(Clone, Copy, Debug)]
pub struct RowIdentity<'a> {
    pub query: u64,
    pub name: &'a FileName,
    /// The record's own id.
    pub id: Option<&'a str>,
    /// The true label.
    pub label: Option<&'a str>,
}

/// Appends one row. Appends nothing and returns false if the answer is neither JSON nor text.
#[must_use]
pub fn write_row(
    rows: &mut Vec<u8>,
    context: &RowContext<'_>,
    identity: &RowIdentity<'_>,
    output: &[u8],
) -> bool {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let RowContext { model, version, worker, attempt } = context;
    let start = rows.len();
    let model = quoted(model.as_str());
    let worker = quoted(worker.as_str());
    let RowIdentity { query, name, id, label } = identity;
    let optional = |key: &str, text: Option<&str>| {
        text.map(|text| format!(r#","{key}":{}"#, quoted(text))).unwrap_or_default()
    };
    let name = quoted(name.as_str());
    let id = optional("id", *id);
    let label = optional("label", *label);
    let head = write!(
        rows,
        r#"{{"query":{query},"name":{name}{id}{label},"model":{model},"version":"{version}","output":"#
    );
    let written = head.is_ok() && write_output(rows, output);
    let written = written && writeln!(rows, r#","worker":{worker},"attempt":{attempt}}}"#).is_ok();
    if !written {
        rows.truncate(start);
    }
    written
}

fn write_output(rows: &mut Vec<u8>, output: &[u8]) -> bool {
    if serde_json::from_slice::<IgnoredAny>(output).is_ok() {
        // In JSON a raw line break can only be white space between tokens.
        rows.extend(output.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        return true;
    }
    let Ok(text) = std::str::from_utf8(output) else { return false };
    rows.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    true
}

/// Whether the answer's first choice is the true label. Answers of unknown shape count as wrong.
pub fn is_correct(output: &[u8], label: &str) -> bool {
    match serde_json::from_slice(output) {
        Ok(value) => Answer::of(&value).is(label),
        Err(_) => std::str::from_utf8(output).is_ok_and(|text| text.trim() == label),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(output: &[u8]) -> Option<String> {
        let mut rows = b"before\n".to_vec();
        let (model, worker) = ("squeezenet1.1".parse().unwrap(), "m3".parse().unwrap());
        let context = RowContext { model: &model, version: &Digest::of(b"x"), worker: &worker, attempt: 1 };
        let name = "test-data/a \"b\".jpg".parse().unwrap();
        let identity = RowIdentity { query: 12, name: &name, id: Some("x"), label: Some("cat") };
        let written = write_row(&mut rows, &context, &identity, output);
        let row = String::from_utf8(rows).unwrap().strip_prefix("before\n").unwrap().to_owned();
        assert_eq!(written, !row.is_empty());
        written.then_some(row)
    }

    #[test]
    fn a_row_is_one_json_line_with_the_answer_verbatim() {
        let row = row(b"{\"top5\":\n[{\"index\":281,\"probability\":0.50}]}").unwrap();
        assert!(row.ends_with("\"worker\":\"m3\",\"attempt\":1}\n"), "{row}");
        assert!(
            row.starts_with(
                "{\"query\":12,\"name\":\"test-data/a \\\"b\\\".jpg\",\"id\":\"x\",\"label\":\"cat\",\"model\":\"squeezenet1.1\""
            )
        );
        assert!(row.contains("\"output\":{\"top5\": [{\"index\":281,\"probability\":0.50}]},"), "{row}");
        assert_eq!(row.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&row).unwrap();
        assert_eq!(value["output"]["top5"][0]["index"], 281);
    }

    #[test]
    fn text_becomes_a_string_and_other_bytes_are_rejected() {
        assert!(row(b"tabby cat\n").unwrap().contains("\"output\":\"tabby cat\\n\","));
        assert_eq!(row(b"\xff\xfe"), None);
    }

    #[test]
    fn correct_answers_are_recognised() {
        assert!(is_correct(br#"{"top5":[{"index":7,"label":"x"},{"index":8}]}"#, "7"));
        assert!(is_correct(br#"{"label":"good"}"#, "good") && is_correct(b"good\n", "good"));
        assert!(!is_correct(br#"{"top5":[]}"#, "7") && !is_correct(b"[1]", "1") && !is_correct(b"\xff", "x"));
    }
}
