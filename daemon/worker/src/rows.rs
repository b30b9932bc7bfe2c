//! Result rows: one JSON object per line, with the server's answer verbatim.
//!
//! Invariant: a row is strict JSON ([`crate::json_text`]), and its only line break is its last byte.
//! Bounds: a row is as long as its answer and a few kilobytes of names.

use idunno_shared::client::results::Answer;
use idunno_shared::ids::{Digest, JobId};
use idunno_shared::names::{FileName, MemberName, ModelName};
use memchr::memchr2;
use serde::Serialize;
use thiserror::Error;

use crate::json_text::{self, JsonText, LEVELS_MAX, NotStrict};

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

    /// What it takes of each row.
    pub fn bytes(&self) -> usize {
        self.model_and_version.len() + self.worker_and_attempt.len()
    }
}

/// What a row calls its input.
#[derive(Clone, Copy, Debug)]
pub enum RowName<'a> {
    File(&'a FileName),
    /// A record, by its number in the file from 0. The row counts from 1.
    Record(&'a QuotedName, u64),
}

/// The name of a file of records, as its rows write it.
#[derive(Clone, Debug)]
pub struct QuotedName(String);

impl From<&FileName> for QuotedName {
    fn from(name: &FileName) -> Self {
        let mut quoted = serde_json::Value::from(name.as_str()).to_string();
        quoted.pop();
        quoted.push(':');
        Self(quoted)
    }
}

/// The query that a row answers.
#[derive(Clone, Copy, Debug)]
pub struct RowIdentity<'a> {
    pub query: u64,
    pub name: RowName<'a>,
    /// The record's own id.
    pub id: Option<&'a JsonText>,
    /// The true label.
    pub label: Option<&'a JsonText>,
    /// The record's columns that come back, as an object.
    pub fields: Option<&'a JsonText>,
    /// The digest of the input, if a later job may take the answer over.
    pub digest: Option<&'a Digest>,
    /// The earlier job whose answer this is.
    pub reused_from: Option<JobId>,
}

/// An answer makes no row.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RowError {
    #[error("the model server's answer is neither JSON nor text")]
    Binary,
    #[error("the model's answer is no JSON that every program reads: {0}")]
    Broken(String),
}

/// Appends one row, or nothing. Says whether the answer's first choice is the true label, if there is one to compare with;
/// answers of unknown shape count as wrong.
pub fn write_row(
    rows: &mut Vec<u8>,
    context: &RowContext,
    identity: &RowIdentity<'_>,
    output: &[u8],
) -> Result<Option<bool>, RowError> {
    let RowIdentity { query, name, id, label, fields, digest, reused_from } = identity;
    let truth = label.and_then(JsonText::scalar);
    let (output, is_correct) = Output::read(output, truth.as_deref())?;
    rows.extend_from_slice(br#"{"query":"#);
    write_json(rows, query);
    rows.extend_from_slice(br#","name":"#);
    match name {
        RowName::File(name) => write_json(rows, name.as_str()),
        RowName::Record(QuotedName(file), number) => {
            rows.extend_from_slice(file.as_bytes());
            write_json(rows, &(number + 1));
            rows.push(b'"');
        }
    }
    for (key, json) in [("id", id), ("label", label), ("fields", fields)] {
        if let Some(json) = json {
            for part in [",\"", key, "\":", json.as_str()] {
                rows.extend_from_slice(part.as_bytes());
            }
        }
    }
    if let Some(digest) = digest {
        let hex = blake3::Hash::from_bytes(digest.0).to_hex();
        rows.extend_from_slice(br#","digest":""#);
        rows.extend_from_slice(hex.as_bytes());
        rows.push(b'"');
    }
    if let Some(job) = reused_from {
        rows.extend_from_slice(format!(r#","reused_from":"{job}""#).as_bytes());
    }
    rows.extend_from_slice(context.model_and_version.as_bytes());
    output.write(rows);
    rows.extend_from_slice(context.worker_and_attempt.as_bytes());
    Ok(is_correct)
}

fn write_json<T: Serialize + ?Sized>(rows: &mut Vec<u8>, value: &T) {
    // Numbers and texts can be written as JSON, and memory takes them.
    let _ = serde_json::to_writer(rows, value);
}

/// A model's answer that a row can hold.
enum Output<'a> {
    Json(&'a str),
    Text(&'a str),
}

impl<'a> Output<'a> {
    /// Reads an answer, and compares its first choice with the true label.
    fn read(output: &'a [u8], truth: Option<&str>) -> Result<(Self, Option<bool>), RowError> {
        let text = std::str::from_utf8(output);
        if let (Ok(text), Some(truth)) = (text, truth)
            && json_text::is_plain(text, LEVELS_MAX - 1)
            && let Ok(answer) = Answer::read(text)
        {
            // It was parsed to its end, so it is JSON.
            return Ok((Self::Json(text), Some(answer.is(truth))));
        }
        match (json_text::check(output), text) {
            (Ok(()), Ok(text)) => {
                let is = |truth| Answer::read(text).is_ok_and(|answer| answer.is(truth));
                Ok((Self::Json(text), truth.map(is)))
            }
            (Err(NotStrict::Broken(why)), _) => Err(RowError::Broken(why)),
            (Err(NotStrict::Other), Ok(text)) => {
                Ok((Self::Text(text), truth.map(|truth| text.trim() == truth)))
            }
            (_, Err(_)) => Err(RowError::Binary),
        }
    }

    fn write(&self, rows: &mut Vec<u8>) {
        match self {
            // In JSON a raw line break can only be white space between tokens.
            Self::Json(json) if memchr2(b'\n', b'\r', json.as_bytes()).is_some() => {
                rows.extend(json.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
            }
            Self::Json(json) => rows.extend_from_slice(json.as_bytes()),
            Self::Text(text) => write_json(rows, *text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(output: &[u8]) -> Result<String, RowError> {
        labelled_row(output, "cat").map(|(row, _)| row)
    }

    fn labelled_row(output: &[u8], label: &str) -> Result<(String, Option<bool>), RowError> {
        let mut rows = b"before\n".to_vec();
        let (model, worker) = ("squeezenet1.1".parse().unwrap(), "m3".parse().unwrap());
        let context = RowContext::new(&model, &Digest::of(b"x"), &worker, 1);
        let name = "test-data/a \"b\".jpg".parse().unwrap();
        let (id, label) = (JsonText::of_text("x"), JsonText::of_text(label));
        let fields = JsonText::object([("a b", JsonText::of_text("c"))].into_iter());
        let identity = RowIdentity {
            query: 12,
            name: RowName::File(&name),
            id: Some(&id),
            label: Some(&label),
            fields: Some(&fields),
            digest: None,
            reused_from: None,
        };
        let written = write_row(&mut rows, &context, &identity, output);
        let row = String::from_utf8(rows).unwrap().strip_prefix("before\n").unwrap().to_owned();
        assert_eq!(written.is_ok(), !row.is_empty());
        written.map(|is_correct| (row, is_correct))
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
    fn a_record_is_named_by_its_file_and_its_number_from_1() {
        let mut rows = Vec::new();
        let context = RowContext::new(&"m".parse().unwrap(), &Digest::of(b"x"), &"m3".parse().unwrap(), 1);
        let file = QuotedName::from(&"a \"b\".jsonl".parse().unwrap());
        let name = RowName::Record(&file, 41);
        let identity = RowIdentity {
            query: 0,
            name,
            id: None,
            label: None,
            fields: None,
            digest: None,
            reused_from: None,
        };
        assert_eq!(write_row(&mut rows, &context, &identity, b"1"), Ok(None));
        let row: serde_json::Value = serde_json::from_slice(&rows).unwrap();
        assert_eq!(row["name"], "a \"b\".jsonl:42");
    }

    #[test]
    fn correct_answers_are_recognised() {
        let is_correct = |output: &[u8], label: &str| labelled_row(output, label).unwrap().1.unwrap();
        assert!(is_correct(br#"{"top5":[{"index":7,"label":"x"},{"index":8}]}"#, "7"));
        assert!(is_correct(br#"{"label":"good"}"#, "good") && is_correct(b"good\n", "good"));
        assert!(is_correct(br#"{"label":"g\u00f6"}"#, "g\u{f6}"), "an answer that needs a closer look");
        assert!(!is_correct(br#"{"top5":[]}"#, "7") && !is_correct(b"[1]", "1") && !is_correct(b"x y", "x"));
    }
}
