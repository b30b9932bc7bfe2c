//! Result rows: one JSON object a line, the server's answer in it as it came.
//!
//! Invariant: a row holds no line break but its last byte, and is valid JSON. Bounds: a row is as long as its answer
//! and a kilobyte or two of names.

use std::io::Write as _;

use idunno_shared::ids::Digest;
use idunno_shared::names::{FileName, MemberName, ModelName};
use serde::Deserialize;
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

/// Appends one row. False, and nothing appended: the answer is neither JSON nor text.
#[must_use]
pub fn write_row(
    rows: &mut Vec<u8>,
    frame: &RowFrame<'_>,
    query: u64,
    name: &FileName,
    output: &[u8],
) -> bool {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let RowFrame { model, version, worker, attempt } = frame;
    let start = rows.len();
    let (name, model, worker) = (quoted(name.as_str()), quoted(model.as_str()), quoted(worker.as_str()));
    let head =
        write!(rows, r#"{{"query":{query},"name":{name},"model":{model},"version":"{version}","output":"#);
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

/// The label that an answer puts first: `top5[0].index`.
pub fn first_label(output: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Output {
        top5: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        index: u64,
    }
    serde_json::from_slice::<Output>(output).ok()?.top5.first().map(|entry| entry.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(output: &[u8]) -> Option<String> {
        let mut rows = b"before\n".to_vec();
        let (model, worker) = ("squeezenet1.1".parse().unwrap(), "m3".parse().unwrap());
        let frame = RowFrame { model: &model, version: &Digest::of(b"x"), worker: &worker, attempt: 1 };
        let written = write_row(&mut rows, &frame, 12, &"test-data/a \"b\".jpg".parse().unwrap(), output);
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
                "{\"query\":12,\"name\":\"test-data/a \\\"b\\\".jpg\",\"model\":\"squeezenet1.1\""
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
    fn the_first_label_is_read() {
        assert_eq!(first_label(br#"{"top5":[{"index":7,"label":"x"},{"index":8}]}"#), Some(7));
        assert_eq!(first_label(br#"{"top5":[]}"#), None);
        assert_eq!(first_label(b"[1]"), None);
    }
}
