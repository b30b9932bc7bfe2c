//! JSON of commands on a job's results. The rows themselves are data and no documents.

use std::path::Path;

use idunno_shared::wire::control::{DeadLetter as WireDeadLetter, JobView};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::document::documents;
use super::jobs::pending;

documents!(ResultsFile, JobConfusion, RetriedDeadLetters, DroppedDeadLetters);
documents!(listed DeadLetter);

/// `get-job-results` into a local file.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ResultsFile {
    /// The job's number.
    pub job: String,
    /// The local file that was written.
    pub path: String,
    /// Rows in the file.
    pub rows: u64,
    /// Queries of the job that failed for good.
    pub dead_letters: u64,
    /// Queries of the job without an outcome.
    pub pending: u64,
}

impl ResultsFile {
    /// So many rows of a job in a local file.
    pub fn new(view: &JobView, rows: u64, path: &Path) -> Self {
        Self {
            job: view.id.to_string(),
            path: path.display().to_string(),
            rows,
            dead_letters: view.dead,
            pending: pending(view),
        }
    }
}

/// `get-job-confusion`: how often each label was answered with which.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct JobConfusion {
    /// The job's number.
    pub job: String,
    /// Answered queries whose input has a label.
    pub labelled: u64,
    /// Answers that equal the label.
    pub correct: u64,
    /// Counts by label and answer.
    pub pairs: Vec<ConfusionPair>,
}

/// How often one label was answered with one answer.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ConfusionPair {
    /// The input's label.
    pub label: String,
    /// The answer; `-` where the output names none.
    pub answer: String,
    /// How often.
    pub count: u64,
}

/// `dead-letters list`, `dead-letters show`: a query that failed for good.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct DeadLetter {
    /// The query's number.
    pub query: u64,
    /// The query's input.
    pub name: String,
    /// Why the last attempt failed.
    pub error: String,
    /// The member on which the last attempt failed.
    pub member: String,
    /// Attempts.
    pub attempts: u32,
    /// Whether it was given up: it cannot be run again.
    pub dropped: bool,
    /// The record's own id, as JSON; null if it has none.
    pub id: Option<Value>,
    /// The record's true label, as JSON; null if it has none.
    pub label: Option<Value>,
}

impl DeadLetter {
    /// A dead letter whose last attempt failed on `member`.
    pub fn new(dead_letter: &WireDeadLetter, member: String) -> Self {
        Self {
            query: dead_letter.index,
            name: dead_letter.name.to_string(),
            error: dead_letter.reason.clone(),
            member,
            attempts: dead_letter.attempts,
            dropped: dead_letter.dropped,
            id: json(dead_letter.identity.id.as_deref()),
            label: json(dead_letter.identity.label.as_deref()),
        }
    }
}

/// A JSON text. One that has more digits than a number here stays a text.
fn json(text: Option<&str>) -> Option<Value> {
    let text = text?;
    let value: Value = serde_json::from_str(text).ok()?;
    let shown = value.to_string();
    Some(if value.is_f64() && shown != text { Value::from(text) } else { value })
}

/// `dead-letters retry`: how many queries run again.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct RetriedDeadLetters {
    /// The job's number.
    pub job: String,
    /// Queries that run again.
    pub queries: u64,
}

/// `dead-letters drop`: how many queries were given up.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct DroppedDeadLetters {
    /// The job's number.
    pub job: String,
    /// Queries that were given up.
    pub queries: u64,
}
