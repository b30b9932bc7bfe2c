//! Result rows: one JSON object per line, with the server's answer verbatim.
//!
//! Invariant: a row is strict JSON ([`crate::json_text`]), and its only line break is its last byte.
//! Bounds: a row is as long as its answer and a few kilobytes of names.

use idunno_shared::client::results::Answer;
use idunno_shared::ids::Digest;
use idunno_shared::names::{FileName, MemberName, ModelName};
use serde::Serialize;
use thiserror::Error;

use crate::json_text::{self, JsonText, NotStrict};

/// What all rows of a batch share, as they write it.
#[derive(Clone, Debug)]
pub struct RowContext {
    model_and_version: String,
    worker_and_attempt: String,
}

impl RowContext {
    pub fn new(model: &ModelName, version: &Digest, worker: &MemberName, attempt: u32) -> Self {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let (model, worker) = (quoted(model.as_str()), quoted(worker.as_str()));
        Self {
            model_and_version: format!(r#","model":{model},"version":"{version}","output":"#),
            worker_and_attempt: format!(",\"worker\":{worker},\"attempt\":{attempt}}}\n"),
        }
    }
}

/// The query that a row answers.
#[derive(Clone, Copy, Debug)]
pub struct RowIdentity<'a> {
    pub query: u64,
    pub name: &'a FileName,
    /// The record's own id.
    pub id: Option<&'a JsonText>,
    /// The true label.
    pub label: Option<&'a JsonText>,
    /// The record's columns that come back, as an object.
    pub fields: Option<&'a JsonText>,
}

/// An answer makes no row.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RowError {
    #[error("the model server's answer is neither JSON nor text")]
    Binary,
    #[error("the model's answer is no JSON that every program reads: {0}")]
    Broken(String),
}

/// Appends one row, or nothing.
pub fn write_row(
    rows: &mut Vec<u8>,
    context: &RowContext,
    identity: &RowIdentity<'_>,
    output: &[u8],
) -> Result<(), RowError> {
    let start = rows.len();
    let RowIdentity { query, name, id, label, fields } = identity;
    rows.extend_from_slice(br#"{"query":"#);
    write_json(rows, query);
    rows.extend_from_slice(br#","name":"#);
    write_json(rows, name.as_str());
    for (key, json) in [("id", id), ("label", label), ("fields", fields)] {
        if let Some(json) = json {
            for part in [",\"", key, "\":", json.as_str()] {
                rows.extend_from_slice(part.as_bytes());
            }
        }
    }
    rows.extend_from_slice(context.model_and_version.as_bytes());
    let written = write_output(rows, output);
    match &written {
        Ok(()) => rows.extend_from_slice(context.worker_and_attempt.as_bytes()),
        Err(_) => rows.truncate(start),
    }
    written
}

fn write_json<T: Serialize + ?Sized>(rows: &mut Vec<u8>, value: &T) {
    // Numbers and texts can be written as JSON, and memory takes them.
    let _ = serde_json::to_writer(rows, value);
}

fn write_output(rows: &mut Vec<u8>, output: &[u8]) -> Result<(), RowError> {
    match json_text::check(output) {
        // In JSON a raw line break can only be white space between tokens.
        Ok(()) => {
            rows.extend(output.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        }
        Err(NotStrict::Broken(why)) => return Err(RowError::Broken(why)),
        Err(NotStrict::Other) => {
            let text = std::str::from_utf8(output).map_err(|_| RowError::Binary)?;
            write_json(rows, text);
        }
    }
    Ok(())
}

/// Whether the answer's first choice is the true label. Answers of unknown shape count as wrong.
pub fn is_correct(output: &[u8], label: &str) -> bool {
    let Ok(output) = std::str::from_utf8(output) else { return false };
    match Answer::read(output) {
        Ok(answer) => answer.is(label),
        Err(_) => output.trim() == label,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(output: &[u8]) -> Result<String, RowError> {
        let mut rows = b"before\n".to_vec();
        let (model, worker) = ("squeezenet1.1".parse().unwrap(), "m3".parse().unwrap());
        let context = RowContext::new(&model, &Digest::of(b"x"), &worker, 1);
        let name = "test-data/a \"b\".jpg".parse().unwrap();
        let (id, label) = (JsonText::of_text("x"), JsonText::of_text("cat"));
        let fields = JsonText::object([("a b", JsonText::of_text("c"))].into_iter());
        let identity =
            RowIdentity { query: 12, name: &name, id: Some(&id), label: Some(&label), fields: Some(&fields) };
        let written = write_row(&mut rows, &context, &identity, output);
        let row = String::from_utf8(rows).unwrap().strip_prefix("before\n").unwrap().to_owned();
        assert_eq!(written.is_ok(), !row.is_empty());
        written.map(|()| row)
    }

    #[test]
    fn a_row_is_one_json_line_with_the_answer_verbatim() {
        let row = row(b"{\"top5\":\n[{\"index\":281,\"probability\":0.50}]}").unwrap();
        assert!(row.ends_with("\"worker\":\"m3\",\"attempt\":1}\n"), "{row}");
        assert!(
            row.starts_with(
                "{\"query\":12,\"name\":\"test-data/a \\\"b\\\".jpg\",\"id\":\"x\",\"label\":\"cat\",\"fields\":{\"a b\":\"c\"},\"model\":\"squeezenet1.1\""
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
        assert_eq!(row(b"\xff\xfe"), Err(RowError::Binary));
    }

    #[test]
    fn an_answer_that_would_break_a_reader_of_the_row_is_refused_with_its_place() {
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let deep = nested(127);
        for broken in ["{\"score\": NaN}", "\"\\ud83d\"", "[1e999]", &deep] {
            let found = row(broken.as_bytes());
            assert!(found.as_ref().is_err_and(|why| why.to_string().contains("line 1 column")), "{found:?}");
        }
        let deepest = row(nested(126).as_bytes()).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&deepest).is_ok());
    }

    #[test]
    fn correct_answers_are_recognised() {
        assert!(is_correct(br#"{"top5":[{"index":7,"label":"x"},{"index":8}]}"#, "7"));
        assert!(is_correct(br#"{"label":"good"}"#, "good") && is_correct(b"good\n", "good"));
        assert!(!is_correct(br#"{"top5":[]}"#, "7") && !is_correct(b"[1]", "1") && !is_correct(b"\xff", "x"));
    }
}
