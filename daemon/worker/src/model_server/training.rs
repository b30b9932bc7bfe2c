//! The training extension of our model server: tasks and their artefacts.

use std::path::Path;

use bytes::Bytes;
use idunno_shared::ids::Digest;
use idunno_shared::names::{FileName, ModelName};
use idunno_shared::wire::jobs::{METRIC_BYTES_MAX, METRICS_MAX, Training, TrainingProgress};
use idunno_shared::wire::records::{ColumnNames, Quote, ReadOptions};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::error::shorten;
use super::{CALL_TIMEOUT, LOAD_TIMEOUT, ModelServerClient, ServerError, TRANSFER_TIMEOUT};

/// The state of a training task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    Running(TrainingProgress),
    /// The artefact can be fetched.
    Done {
        /// What the training measured, by name.
        metrics: Vec<(String, String)>,
        /// The name of the artefact's file, if the server says so.
        file: Option<FileName>,
        artefact_bytes: u64,
    },
    Failed(String),
}

/// A training task at one moment.
#[derive(Clone, Debug)]
pub struct TrainingTask {
    pub state: TaskState,
    pub output: TaskOutput,
}

/// What the training's code has printed: how many lines, and the last of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TaskOutput {
    pub lines: u64,
    /// Printable, and of bounded length.
    pub last_lines: Vec<String>,
}

impl TaskOutput {
    /// The lines after the first `seen`, and how many of those are lost.
    pub fn after(&self, seen: u64) -> (u64, &[String]) {
        let new = self.lines.saturating_sub(seen);
        let kept = usize::try_from(new).unwrap_or(usize::MAX).min(self.last_lines.len());
        (new - kept as u64, &self.last_lines[self.last_lines.len() - kept..])
    }
}

/// How a file of records is read, as the server takes it.
fn reading(options: &ReadOptions) -> Value {
    let ColumnNames { input, label, id } = &options.columns;
    let mut given = Map::new();
    for (key, name) in [("input_column", input), ("label_column", label), ("id_column", id)] {
        if let Some(name) = name {
            given.insert(key.to_owned(), name.as_str().into());
        }
    }
    if let Some(delimiter) = options.delimiter {
        given.insert("delimiter".to_owned(), char::from(delimiter).to_string().into());
    }
    if let Some(quote) = options.quote {
        let name = match quote {
            Quote::Double => "double",
            Quote::Single => "single",
            Quote::None => "none",
        };
        given.insert("quote".to_owned(), name.into());
    }
    if options.no_header {
        given.insert("no_header".to_owned(), true.into());
    }
    given.into()
}

impl ModelServerClient {
    /// Starts training a model, or joins a running training. `dataset` is the training's dataset, as a folder or file that
    /// the server can read; `package` is the version of the package that the model is. Returns the task's id.
    pub async fn train(
        &self,
        model: &ModelName,
        training: &Training,
        dataset: Option<&Path>,
        package: Option<Digest>,
    ) -> Result<String, ServerError> {
        #[derive(Deserialize)]
        struct Started {
            task: String,
        }
        let mut order = json!({ "seed": training.seed });
        if let Some(path) = dataset {
            order["dataset"] = json!(path);
            if !training.reading.is_default() {
                order["reading"] = reading(&training.reading);
            }
        }
        if let Some(version) = package {
            order["package"] = version.to_string().into();
        }
        let call = self.post(&format!("/idunno/models/{model}/train")).json(&order);
        // A package is opened first, for which its environment may have to be made.
        let deadline = if package.is_some() { LOAD_TIMEOUT } else { CALL_TIMEOUT };
        let Started { task } = self.object(call, deadline).await?;
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if task.is_empty() || task.len() > 64 || !task.bytes().all(is_valid) {
            return Err(ServerError::Malformed("the training task has an invalid id".to_owned()));
        }
        Ok(task)
    }

    /// The state of a training task, and what it has printed.
    pub async fn task(&self, task: &str) -> Result<TrainingTask, ServerError> {
        #[derive(Deserialize)]
        struct Task {
            state: String,
            #[serde(default)]
            reason: String,
            #[serde(default)]
            progress: TaskProgress,
            #[serde(default)]
            metrics: Option<Map<String, Value>>,
            #[serde(default)]
            artefact: Option<String>,
            #[serde(default)]
            artefact_bytes: u64,
            #[serde(flatten)]
            output: TaskOutput,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct TaskProgress {
            fraction: f64,
            step: u64,
            steps: u64,
            metrics: Map<String, Value>,
        }
        let Task { state, reason, progress, metrics: measured, artefact, artefact_bytes, output } =
            self.object(self.get(&format!("/idunno/tasks/{task}")), CALL_TIMEOUT).await?;
        let state = match state.as_str() {
            "running" => {
                let TaskProgress { fraction, step, steps, metrics: newest } = progress;
                let metrics = metrics(&newest);
                TaskState::Running(TrainingProgress { permille: permille(fraction), step, steps, metrics })
            }
            "done" => TaskState::Done {
                metrics: metrics(&measured.unwrap_or_default()),
                file: artefact.and_then(|name| name.parse().ok()),
                artefact_bytes,
            },
            "failed" => TaskState::Failed(reason),
            _ => {
                let unknown = format!("a training has the unknown state '{}'", shorten(&state));
                return Err(ServerError::Malformed(unknown));
            }
        };
        Ok(TrainingTask { state, output })
    }

    /// Cancels a training. One that has ended is forgotten, and its artefact deleted.
    pub async fn end_task(&self, task: &str) -> Result<(), ServerError> {
        let call = self.client.delete(format!("{}/idunno/tasks/{task}", self.base));
        self.send(call, CALL_TIMEOUT).await.map(drop)
    }

    /// Fetches a part of the artefact of a finished training: `length` bytes from `offset` on.
    pub async fn artefact_part(&self, task: &str, offset: u64, length: usize) -> Result<Bytes, ServerError> {
        let last = offset + (length as u64).saturating_sub(1);
        let call = self
            .get(&format!("/idunno/tasks/{task}/artefact"))
            .header("range", format!("bytes={offset}-{last}"));
        let response = self.send(call, TRANSFER_TIMEOUT).await?;
        let part = self.body(response, length, TRANSFER_TIMEOUT).await?;
        if part.len() != length {
            let short = format!("of {length} bytes of the artefact from {offset} on, {} came", part.len());
            return Err(ServerError::Malformed(short));
        }
        Ok(part)
    }
}

/// A training's metrics as text; surplus and overlong ones are dropped.
fn metrics(named: &Map<String, Value>) -> Vec<(String, String)> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let fits = |(name, value): &(String, String)| name.len().max(value.len()) <= METRIC_BYTES_MAX;
    named.iter().map(|(name, value)| (name.clone(), text(value))).filter(fits).take(METRICS_MAX).collect()
}

fn permille(fraction: f64) -> u16 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped")]
    let permille = (fraction.clamp(0.0, 1.0) * 1000.0) as u16;
    permille
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_training_is_new_once_and_lost_ones_are_counted() {
        let output = |lines, last: &[&str]| TaskOutput {
            lines,
            last_lines: last.iter().copied().map(String::from).collect(),
        };
        assert_eq!(output(0, &[]).after(0), (0, &[][..]));
        assert_eq!(output(2, &["a", "b"]).after(0), (0, &[String::from("a"), String::from("b")][..]));
        assert_eq!(output(2, &["a", "b"]).after(2), (0, &[][..]));
        assert_eq!(output(9, &["h", "i"]).after(8), (0, &[String::from("i")][..]));
        assert_eq!(output(9, &["h", "i"]).after(4), (3, &[String::from("h"), String::from("i")][..]));
        assert_eq!(output(1, &["x"]).after(5), (0, &[][..]), "of a task that was started again");
    }
}
