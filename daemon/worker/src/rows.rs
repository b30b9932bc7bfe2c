//! Result rows: one JSON object a line, the server's answer in it as it came.
//!
//! Invariant: a row holds no line break but its last byte, and is valid JSON. Bounds: a row is as long as its answer
//! and a kilobyte or two of names.

use std::io::Write as _;

use idunno_shared::client::results::Answer;
use idunno_shared::ids::Digest;
use idunno_shared::names::{FileName, MemberName, ModelName};
use serde::de::IgnoredAny;

/// What the rows of a batch have in common.
#[derive(Clone, Copy, Debug)]
pub struct RowFrame<'a> {
    /// The model.
    pub model: &'a ModelName,
    /// Its version.
    pub version: &'a Digest,
    /// The worker's name.
    pub worker: &'a MemberName,
    /// The lease's attempt.
    pub attempt: u32,
}

/// Which query a row answers.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Its number.
    pub query: u64,
    /// Its name.
    pub name: &'a FileName,
    /// What its file calls it.
    pub id: Option<&'a str>,
    /// Its true label.
    pub label: Option<&'a str>,
}

/// Appends one row. False, and nothing appended: the answer is neither JSON nor text.
#[must_use]
pub fn write_row(rows: &mut Vec<u8>, frame: &RowFrame<'_>, named: &Named<'_>, output: &[u8]) -> bool {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let RowFrame { model, version, worker, attempt } = frame;
    let start = rows.len();
    let (model, worker) = (quoted(model.as_str()), quoted(worker.as_str()));
    let Named { query, name, id, label } = named;
    let further = |key: &str, text: Option<&str>| {
        text.map(|text| format!(r#","{key}":{}"#, quoted(text))).unwrap_or_default()
    };
    let (id, label, name) = (further("id", *id), further("label", *label), quoted(name.as_str()));
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
        // Within JSON a raw line break is always white space between tokens.
        rows.extend(output.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        return true;
    }
    let Ok(text) = std::str::from_utf8(output) else { return false };
    rows.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    true
}

/// Whether an answer puts the true label first, as far as answers of its shape are understood.
pub fn is_right(output: &[u8], label: &str) -> bool {
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
        let frame = RowFrame { model: &model, version: &Digest::of(b"x"), worker: &worker, attempt: 1 };
        let name = "test-data/a \"b\".jpg".parse().unwrap();
        let named = Named { query: 12, name: &name, id: Some("x"), label: Some("cat") };
        let written = write_row(&mut rows, &frame, &named, output);
        let row = String::from_utf8(rows).unwrap().strip_prefix("before\n").unwrap().to_owned();
        assert_eq!(written, !row.is_empty());
        written.then_some(row)
    }

    #[test]
    fn a_row_is_one_line_of_json_with_the_answer_verbatim() {
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
    fn text_becomes_a_string_and_other_bytes_no_row() {
        assert!(row(b"tabby cat\n").unwrap().contains("\"output\":\"tabby cat\\n\","));
        assert_eq!(row(b"\xff\xfe"), None);
    }

    #[test]
    fn right_answers_are_told_from_wrong_ones() {
        assert!(is_right(br#"{"top5":[{"index":7,"label":"x"},{"index":8}]}"#, "7"));
        assert!(is_right(br#"{"label":"good"}"#, "good") && is_right(b"good\n", "good"));
        assert!(!is_right(br#"{"top5":[]}"#, "7") && !is_right(b"[1]", "1") && !is_right(b"\xff", "x"));
    }
}
