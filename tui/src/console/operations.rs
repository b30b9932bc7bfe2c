//! Commands that the operator gives: parsed, confirmed where they are disruptive, run as an operation, kept with their
//! result. An operation whose coordinator went away before it answered ends as unknown and is never repeated.

use crossterm::event::{KeyCode, KeyEvent};
use thiserror::Error;

use super::operation::{Operation, OperationOutcome, OperationResult};
use super::state::{ConfirmAction, ConfirmDialog, Effect, Form, Mode, ResultPane, State, TransferProgress};
use super::text_field::TextField;
use super::theme::Tone;
use crate::answer::{Answer, Failure};
use crate::command::line::{self, Line};
use crate::command::registry::Danger;
use crate::command::values::MemberRef;
use crate::command::{DeadLettersVerb, JobRef, LocalVerb, ModelVerb, OneMember, Output, Verb};
use crate::execute::job_ref::{self, JobRefError, Scope};
use crate::execute::members::NAME_THE_MEMBER;

/// Operations that are kept.
const OPERATIONS_MAX: usize = 20;
/// Keys pressed this soon after a dialog opened were meant for something else.
const GRACE_MS: u64 = 150;

/// The target of a command is not clear.
#[derive(Debug, Error)]
enum BindError {
    /// `join` and `leave` never act on an arbitrary member.
    #[error("{}", NAME_THE_MEMBER)]
    MemberNotNamed,
    #[error(transparent)]
    Job(#[from] JobRefError),
}

/// Runs a command as typed, after a confirmation if it is disruptive. A line that is not understood stays to be corrected.
pub fn submit(state: &mut State, text: &str, now_ms: u64) -> Vec<Effect> {
    run(state, text, None, now_ms)
}

/// Runs the command of a form, which comes back with its words if the command is refused or fails.
pub fn submit_form(state: &mut State, text: &str, form: Box<Form>, now_ms: u64) -> Vec<Effect> {
    run(state, text, Some(form), now_ms)
}

fn run(state: &mut State, text: &str, form: Option<Box<Form>>, now_ms: u64) -> Vec<Effect> {
    match line::parse(text) {
        Line::Verb { mut verb, output } => {
            if state.read_only && verb.changes() {
                reject(state, text, form, "refused: the console is read-only", now_ms);
                return Vec::new();
            }
            let target = match bind_target(state, &mut verb) {
                Ok(target) => target,
                Err(error) => {
                    reject(state, text, form, &error.to_string(), now_ms);
                    return Vec::new();
                }
            };
            let (danger, word) = verb.danger();
            if danger > Danger::None {
                // The console has a dialog of its own.
                verb.confirm();
            }
            let action = ConfirmAction::Command { title: text.to_owned(), verb, output, form };
            match danger {
                Danger::None => return carry_out(state, action, now_ms),
                Danger::Disruptive => confirm(state, action, target, None, now_ms),
                Danger::Irreversible => confirm(state, action, target, Some(word), now_ms),
            }
        }
        Line::Show(help) => show_text(state, text.to_owned(), &help, now_ms),
        Line::Invalid(reason) => reject(state, text, form, &reason, now_ms),
    }
    Vec::new()
}

/// Reopens the form, or else the line, to be corrected, and shows what is wrong with it.
fn reject(state: &mut State, text: &str, form: Option<Box<Form>>, reason: &str, now_ms: u64) {
    match form {
        Some(form) => reopen(state, form, reason),
        None => reject_line(state, text, reason, now_ms),
    }
}

/// Reopens the line with the text to be corrected, and shows what is wrong with it.
pub fn reject_line(state: &mut State, text: &str, reason: &str, now_ms: u64) {
    state.notify(in_one_line(reason), Tone::Bad, now_ms);
    state.mode = Mode::line(text);
}

fn reopen(state: &mut State, mut form: Box<Form>, reason: &str) {
    form.error = Some(crate::tail::printable(&in_one_line(reason)));
    state.mode = Mode::Form(form);
    state.dirty = true;
}

/// A refusal without the pointer to the command line's help.
fn in_one_line(reason: &str) -> String {
    let lines = reason.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    lines.collect::<Vec<_>>().join(" ")
}

/// Binds a command to its target when it is submitted, so that nothing that changes later redirects it: the member of
/// `join` and `leave`, and the job that a model's name stands for. Returns the target as a person knows it.
fn bind_target(state: &State, verb: &mut Verb) -> Result<Option<String>, BindError> {
    match verb {
        Verb::Leave(to) | Verb::Join(to) => bind_member(state, to).map(Some),
        Verb::DeleteJob { job, .. } | Verb::DeadLetters(DeadLettersVerb::Drop { job, .. }) => {
            bind_job(state, job, Scope::Any)
        }
        Verb::CancelJob { job, .. } => bind_job(state, job, Scope::Unfinished),
        Verb::StopJob { jobs } => {
            let mut bound = Vec::new();
            for job in jobs {
                bound.extend(bind_job(state, job, Scope::Unfinished)?);
            }
            Ok((!bound.is_empty()).then(|| bound.join(", ")))
        }
        _ => Ok(None),
    }
}

/// Puts a job's number in place of its model's name. Other references, and names that the view does not know, are left to
/// the cluster.
fn bind_job(state: &State, job: &mut JobRef, scope: Scope) -> Result<Option<String>, BindError> {
    let Some(view) = &state.view else { return Ok(None) };
    match job_ref::find(&view.jobs, job, scope) {
        Ok(found) => {
            if found.note.is_some() {
                *job = JobRef::Id(found.id);
            }
            Ok(found.note)
        }
        Err(JobRefError::Unknown { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Binds the named member, or the session's default member.
fn bind_member(state: &State, to: &mut OneMember) -> Result<String, BindError> {
    let member =
        to.member.take().or_else(|| state.default_member.clone()).ok_or(BindError::MemberNotNamed)?;
    let mut members = state.view.iter().flat_map(|view| &view.members);
    let found = members.find(|view| match &member {
        MemberRef::Address(address) => view.address == *address,
        MemberRef::Name(name) => view.name == *name,
    });
    let described = match found {
        Some(view) => format!("member {} at {}", view.name, view.address),
        None => format!("member {member}, not in the membership list"),
    };
    to.member = Some(member);
    Ok(described)
}

/// Asks to quit while commands are running.
pub fn confirm_quit(state: &mut State, now_ms: u64) {
    confirm(state, ConfirmAction::Quit, None, None, now_ms);
}

fn confirm(
    state: &mut State,
    action: ConfirmAction,
    member: Option<String>,
    word: Option<String>,
    now_ms: u64,
) {
    let typed = TextField::default();
    let dialog = ConfirmDialog { action, member, word, typed, yes: false, opened_ms: now_ms };
    state.mode = Mode::Confirm(Box::new(dialog));
}

/// What a disruptive or irreversible command does, one sentence a line.
pub fn consequences(verb: &Verb) -> Vec<String> {
    match verb {
        Verb::Delete { name } => vec![format!("This permanently deletes every version of {name}.")],
        Verb::Rm { files, .. } => {
            let files: Vec<String> = files.iter().map(ToString::to_string).collect();
            vec![format!("This permanently deletes every version of {}.", files.join(", "))]
        }
        Verb::DeleteJob { job, .. } => vec![format!("This permanently deletes {job} and its results.")],
        Verb::CancelJob { job, .. } => {
            vec![format!("This ends {job} permanently."), String::from("Its results so far are kept.")]
        }
        Verb::DeadLetters(DeadLettersVerb::Drop { job, .. }) => vec![
            format!("This permanently drops dead letters of {job}."),
            String::from("They stay in the results and cannot be retried."),
        ],
        Verb::Model(ModelVerb::Rm { model, .. }) => vec![
            format!("This removes {model} from the store and from all members."),
            String::from("Its versions are permanently deleted."),
        ],
        Verb::StopJob { jobs } => {
            let jobs: Vec<String> = jobs.iter().map(ToString::to_string).collect();
            vec![format!("This pauses {}.", jobs.join(", ")), String::from("start-job resumes it.")]
        }
        Verb::TrainStop { .. } => {
            vec![String::from("This ends the training."), String::from("Earlier trained versions are kept.")]
        }
        Verb::Leave(_) => vec![
            String::from("The member leaves the cluster."),
            String::from("Its process keeps running; join brings it back."),
        ],
        Verb::Local(LocalVerb::Down { purge: true, .. }) => {
            vec![
                String::from("This stops the local cluster."),
                String::from("Its data is permanently deleted."),
            ]
        }
        Verb::Local(LocalVerb::Down { .. }) => {
            vec![String::from("This stops the local cluster."), String::from("Its data is kept.")]
        }
        Verb::Local(LocalVerb::Kill { .. }) => {
            vec![String::from("This kills processes of the local cluster with SIGKILL.")]
        }
        _ => Vec::new(),
    }
}

pub fn press_in_dialog(
    state: &mut State,
    key: KeyEvent,
    mut dialog: Box<ConfirmDialog>,
    now_ms: u64,
) -> Vec<Effect> {
    if now_ms.saturating_sub(dialog.opened_ms) < GRACE_MS {
        state.mode = Mode::Confirm(dialog);
        return Vec::new();
    }
    match (&dialog.word, key.code) {
        (_, KeyCode::Esc) => return Vec::new(),
        (Some(word), KeyCode::Enter) => {
            if dialog.typed.text() == word {
                return carry_out(state, dialog.action, now_ms);
            }
        }
        (Some(_), _) => dialog.typed.press(key),
        (None, KeyCode::Enter) if dialog.yes => return carry_out(state, dialog.action, now_ms),
        (None, KeyCode::Enter | KeyCode::Char('n' | 'q')) => return Vec::new(),
        (None, KeyCode::Char('y')) => return carry_out(state, dialog.action, now_ms),
        (None, KeyCode::Tab | KeyCode::BackTab | KeyCode::Left | KeyCode::Right) => dialog.yes = !dialog.yes,
        (None, _) => {}
    }
    state.mode = Mode::Confirm(dialog);
    Vec::new()
}

fn carry_out(state: &mut State, action: ConfirmAction, now_ms: u64) -> Vec<Effect> {
    match action {
        ConfirmAction::Quit => vec![Effect::Quit],
        ConfirmAction::Command { title, verb, output, form } => {
            let changes = verb.changes();
            if changes {
                record_event(state, None, &title, now_ms);
            }
            let id = open(state, title, changes, output, now_ms);
            if let Some(operation) = find(state, id) {
                operation.form = form;
            }
            vec![Effect::Run(id, verb)]
        }
    }
}

/// Shows a text as the result of an operation.
fn show_text(state: &mut State, title: String, text: &str, now_ms: u64) {
    let id = open(state, title, false, Output::Table, now_ms);
    finish(state, id, Ok(Answer::text(text)), now_ms);
}

/// Adds an operation and shows its pane. Of the old ones, the finished go first.
fn open(state: &mut State, title: String, changes: bool, output: Output, now_ms: u64) -> u64 {
    let id = state.next_operation;
    state.next_operation += 1;
    let progress = TransferProgress::default();
    let (result, form) = (None, None);
    let operation = Operation { id, title, changes, output, started_ms: now_ms, progress, result, form };
    state.operations.push_back(operation);
    while state.operations.len() > OPERATIONS_MAX {
        let Some(oldest) = state.operations.iter().position(|operation| operation.result.is_some()) else {
            break;
        };
        state.operations.remove(oldest);
    }
    state.mode = Mode::Result(ResultPane { operation: id, ..ResultPane::default() });
    id
}

fn find(state: &mut State, id: u64) -> Option<&mut Operation> {
    state.operations.iter_mut().find(|operation| operation.id == id)
}

pub fn set_progress(state: &mut State, id: u64, progress: TransferProgress) {
    let Some(operation) = find(state, id).filter(|operation| operation.progress != progress) else { return };
    operation.progress = progress;
    state.dirty = true;
}

pub fn finish(state: &mut State, id: u64, result: Result<Answer, Failure>, now_ms: u64) {
    let is_open = matches!(state.mode, Mode::Result(pane) if pane.operation == id);
    let width = usize::from(state.size.width.saturating_sub(2));
    let Some(operation) = find(state, id) else { return };
    let result = OperationResult::of(result, operation.output, operation.changes, width);
    let outcome = result.outcome;
    let title = operation.title.clone();
    let changes = operation.changes;
    let reason = result.lines.join(" ");
    let form = operation.form.take().filter(|_| outcome == OperationOutcome::Failed);
    operation.result = Some(result);
    if changes {
        record_event(state, Some(outcome), &title, now_ms);
    }
    if let Some(form) = form.filter(|_| is_open) {
        reopen(state, form, &reason);
    } else if !is_open {
        let hint = state.keymap.hint("last-result").map(|key| format!(" ({key} shows the result)"));
        let text = format!("{}: {title}{}", outcome.word(), hint.unwrap_or_default());
        state.notify(text, outcome.tone(), now_ms);
    }
    state.dirty = true;
}

fn record_event(state: &mut State, outcome: Option<OperationOutcome>, title: &str, now_ms: u64) {
    let wall_ms = state.wall_ms(now_ms);
    let (tone, word) = outcome.map_or((Tone::Plain, "pending"), |outcome| (outcome.tone(), outcome.word()));
    state.events.record(wall_ms, tone, "command", format!("{word}: {title}"));
}
