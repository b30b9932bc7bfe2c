//! A command that runs or has run, and its result.

use std::borrow::Cow;

use super::indented::indented;
use super::mode::Form;
use super::msg::TransferProgress;
use super::theme::Tone;
use super::wrap::wrapped_words;
use crate::answer::{Answer, Exit, Failure};
use crate::command::Output;

/// Lines of a result that are kept.
const RESULT_LINES_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationOutcome {
    Done,
    Partial,
    Failed,
    /// The coordinator went away before it answered: the change may or may not have been made.
    Unknown,
}

impl OperationOutcome {
    pub const fn tone(self) -> Tone {
        match self {
            Self::Done => Tone::Good,
            Self::Partial | Self::Unknown => Tone::Warn,
            Self::Failed => Tone::Bad,
        }
    }

    pub const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Partial => "partially done",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Operation {
    pub id: u64,
    /// The command as typed.
    pub title: String,
    /// Whether it changes the cluster.
    pub changes: bool,
    pub output: Output,
    pub started_ms: u64,
    pub progress: TransferProgress,
    pub result: Option<OperationResult>,
    /// The form that it was run from, which comes back if it fails.
    pub form: Option<Box<Form>>,
}

/// An operation's result as lines on screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationResult {
    pub outcome: OperationOutcome,
    pub lines: Vec<String>,
}

impl OperationResult {
    /// The result of a command whose output was asked for in this form, in a pane of `width` columns.
    pub fn of(result: Result<Answer, Failure>, output: Output, changes: bool, width: usize) -> Self {
        let (outcome, text) = match result {
            Ok(answer) => {
                let mut text = answer.rendered_within(output, Some(width));
                if output == Output::Json {
                    text = indented(&text).join("\n") + "\n";
                }
                let outcome = if answer.incomplete.is_some() {
                    OperationOutcome::Partial
                } else {
                    OperationOutcome::Done
                };
                text.extend(answer.note.map(|note| format!("note: {note}\n")));
                text.extend(answer.incomplete.map(|reason| format!("note: {reason}")));
                (outcome, text)
            }
            // The client repeats a change under one operation id until its deadline. If nobody answered, it may have been
            // made all the same.
            Err(failure) if changes && matches!(failure.exit, Exit::Unreachable | Exit::Timeout) => {
                let hint = "the change may have been made: check before repeating the command";
                (OperationOutcome::Unknown, format!("{}: {failure}\n{hint}", failure.exit.word()))
            }
            Err(failure) => (OperationOutcome::Failed, format!("{}: {failure}", failure.exit.word())),
        };
        let mut lines: Vec<String> =
            text.lines().take(RESULT_LINES_MAX).map(crate::tail::printable).collect();
        let omitted = text.lines().count() - lines.len();
        if omitted > 0 {
            lines.push(format!("... {omitted} more lines: write the result to a file to see them"));
        }
        if lines.is_empty() {
            lines.push(String::from("done"));
        }
        Self { outcome, lines }
    }

    /// The lines on a screen of this width: those of a failure are whole, those of a result are as they are.
    pub fn shown(&self, width: usize) -> Cow<'_, [String]> {
        match self.outcome {
            OperationOutcome::Failed | OperationOutcome::Unknown => {
                self.lines.iter().flat_map(|line| wrapped_words(line, width)).collect()
            }
            OperationOutcome::Done | OperationOutcome::Partial => Cow::Borrowed(&self.lines),
        }
    }
}
