//! A command given to the cluster: at once, or behind a question.

use super::state::{Asked, Effect, Mode, State};
use super::theme::Role;
use super::{dialog, operations, target};
use crate::command::line::{self, Line};
use crate::command::registry::Danger;

/// Gives a command as it is written; a wrong one is left on the line.
pub fn give(state: &mut State, text: &str, now_ms: u64) -> Vec<Effect> {
    match line::parse(text) {
        Line::Verb { mut verb, output } => {
            if state.read_only && verb.changes() {
                mend(state, text, "refused: the console is read-only", now_ms);
                return Vec::new();
            }
            let target = match target::bind(state, &mut verb) {
                Ok(target) => target,
                Err(reason) => {
                    mend(state, text, &reason, now_ms);
                    return Vec::new();
                }
            };
            let (danger, word) = verb.danger();
            let asked = Asked::Command { title: text.to_owned(), verb, output };
            match danger {
                Danger::None => return dialog::confirmed(state, asked, now_ms),
                Danger::Disruptive => dialog::ask(state, asked, target, None, now_ms),
                Danger::Irreversible => dialog::ask(state, asked, target, Some(word), now_ms),
            }
        }
        Line::Show(help) => operations::show_text(state, text.to_owned(), &help, now_ms),
        Line::Invalid(reason) => mend(state, text, &reason, now_ms),
    }
    Vec::new()
}

/// Leaves a wrong line to be mended, and says what is wrong.
pub fn mend(state: &mut State, text: &str, reason: &str, now_ms: u64) {
    let first = reason.lines().next().unwrap_or_default();
    state.tell(first, Role::Bad, now_ms);
    state.mode = Mode::line(text);
}
