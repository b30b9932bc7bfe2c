//! Commands that were given: pending, done, failed, or unknown where the coordinator went away before it answered.

use super::state::{Effect, Mode, OPERATIONS_MAX, Operation, Outcome, Pane, RESULT_LINES_MAX, Shown, State};
use super::theme::Role;
use crate::answer::{Answer, Exit, Failure};
use crate::command::{Output, Verb};

/// Begins a command and shows its pane.
pub fn begin(state: &mut State, title: String, verb: Box<Verb>, output: Output, now_ms: u64) -> Effect {
    if verb.changes() {
        note_command(state, None, &title, now_ms);
    }
    Effect::Run(remember(state, title, verb.changes(), output, now_ms), verb)
}

/// Shows text as a command's result.
pub fn show_text(state: &mut State, title: String, text: &str, now_ms: u64) {
    let id = remember(state, title, false, Output::Table, now_ms);
    finished(state, id, Ok(Answer::text(text)), now_ms);
}

fn remember(state: &mut State, title: String, changes: bool, output: Output, now_ms: u64) -> u64 {
    let id = state.next_operation;
    state.next_operation += 1;
    let operation =
        Operation { id, title, changes, output, started_ms: now_ms, progress: (0, 0), result: None };
    state.operations.push_back(operation);
    while state.operations.len() > OPERATIONS_MAX {
        // The oldest that is done goes; those that run are kept.
        let Some(oldest) = state.operations.iter().position(|operation| operation.result.is_some()) else {
            break;
        };
        state.operations.remove(oldest);
    }
    state.mode = Mode::Pane(Pane { operation: id, ..Pane::default() });
    id
}

/// The operation of this number.
pub fn operation(state: &mut State, id: u64) -> Option<&mut Operation> {
    state.operations.iter_mut().find(|operation| operation.id == id)
}

/// A command has ended.
pub fn finished(state: &mut State, id: u64, result: Result<Answer, Failure>, now_ms: u64) {
    let open = matches!(state.mode, Mode::Pane(pane) if pane.operation == id);
    let Some(operation) = operation(state, id) else { return };
    let shown = shown(result, operation.output, operation.changes);
    let (outcome, title, changes) = (shown.outcome, operation.title.clone(), operation.changes);
    operation.result = Some(shown);
    if changes {
        note_command(state, Some(outcome), &title, now_ms);
    }
    if !open {
        let hint = state.keymap.hint("last-result").map(|key| format!(" ({key} shows it)"));
        let text = format!("{}: {title}{}", outcome.word(), hint.unwrap_or_default());
        state.tell(text, outcome.role(), now_ms);
    }
    state.dirty = true;
}

/// Notes what the operator did.
fn note_command(state: &mut State, outcome: Option<Outcome>, title: &str, now_ms: u64) {
    let wall_ms = state.wall_ms(now_ms);
    let (role, word) = outcome.map_or((Role::Plain, "pending"), |outcome| (outcome.role(), outcome.word()));
    state.events.note(wall_ms, role, "command", format!("{word}: {title}"));
}

fn shown(result: Result<Answer, Failure>, output: Output, changes: bool) -> Shown {
    let (outcome, text) = match result {
        Ok(answer) => {
            let mut text = answer.rendered(output);
            let outcome = if answer.incomplete.is_some() { Outcome::Partial } else { Outcome::Done };
            text.extend(answer.note.map(|note| format!("note: {note}\n")));
            text.extend(answer.incomplete.map(|why| format!("note: {why}")));
            (outcome, text)
        }
        // A change is sent under one id as long as it takes. That nobody answered leaves open whether it was made.
        Err(failure) if changes && matches!(failure.exit, Exit::Unreachable | Exit::Timeout) => {
            let hint = "whether it was done is not known: look before giving it again";
            (Outcome::Unknown, format!("{}: {failure}\n{hint}", failure.exit.word()))
        }
        Err(failure) => (Outcome::Failed, format!("{}: {failure}", failure.exit.word())),
    };
    let mut lines: Vec<String> = text.lines().take(RESULT_LINES_MAX).map(crate::tail::printable).collect();
    let rest = text.lines().count() - lines.len();
    if rest > 0 {
        lines.push(format!("... {rest} more lines: write them to a file instead"));
    }
    if lines.is_empty() {
        lines.push(String::from("done"));
    }
    Shown { outcome, lines }
}
