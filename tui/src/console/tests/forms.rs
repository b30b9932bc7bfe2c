//! Forms: what they offer, how they are filled in, and what they say.

use crossterm::event::KeyCode;

use super::fixtures::{busy_cluster, fixture};
use super::{enter, live, press, push, screen, shows};
use crate::answer::{Exit, Failure};
use crate::console::form;
use crate::console::registry::{ItemKind, find};
use crate::console::state::{Effect, Form, Mode, Msg, Page, State};
use crate::console::update::update;

/// Opens the form of a command.
fn open(state: &mut State, name: &str) {
    let ItemKind::Command(entry) = &find(name).unwrap().kind else { panic!("{name}") };
    form::open(state, entry, 2000);
}

fn shown(state: &State) -> &Form {
    let Mode::Form(form) = &state.mode else { panic!("{:?}", state.mode) };
    form
}

/// Moves to a field.
fn focus(state: &mut State, label: &str) {
    let is_label = |form: &Form| {
        let field = &form.entry.fields[form.focus];
        field.flag.as_deref().unwrap_or(&field.value) == label
    };
    for _ in 0..shown(state).inputs.len() {
        if is_label(shown(state)) {
            return;
        }
        press(state, KeyCode::Tab);
    }
    panic!("no field {label}");
}

/// What the form says at 80 columns, whatever lines it stands on.
fn words(state: &State) -> String {
    let text = screen(state, 80, 24, 3000);
    let inside = text.lines().filter_map(|line| line.split('│').nth(1)).flat_map(str::split_whitespace);
    inside.collect::<Vec<_>>().join(" ")
}

fn type_text(state: &mut State, text: &str) {
    text.chars().for_each(|c| _ = press(state, KeyCode::Char(c)));
}

#[test]
fn a_data_set_is_offered_data_sets_and_no_members() {
    let mut state = busy_cluster(Page::Files);
    open(&mut state, "add-job");
    focus(&mut state, "--dataset");
    let text = screen(&state, 120, 40, 2000);
    shows(&text, &["suggestions: docs  labels.csv"]);
    assert!(!text.contains("m1  m2"), "{text}");
    focus(&mut state, "--name");
    assert!(!screen(&state, 120, 40, 2000).contains("suggestions"), "a new name is nobody's");
    let mut state = live();
    open(&mut state, "local start");
    // The selected one is filled in.
    shows(&screen(&state, 120, 40, 2000), &[":local start m1", "suggestions: m10  m2  m3"]);
    let mut state = live();
    open(&mut state, "set-policy");
    shows(&screen(&state, 120, 40, 2000), &["suggestions: rate  time  fifo"]);
}

#[test]
fn local_paths_complete() {
    let mut state = live();
    open(&mut state, "put");
    let [Effect::ListDirectory(directory)] = &press(&mut state, KeyCode::Char('p'))[..] else {
        panic!("not listed")
    };
    assert_eq!(directory, "");
    let listed = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    update(&mut state, Msg::LocalPaths(String::new(), listed(&["notes.txt", "photos/", "plan.md"])), 2000);
    shows(&screen(&state, 120, 40, 2000), &["suggestions: photos/  plan.md"]);
    let [Effect::ListDirectory(directory)] = &press(&mut state, KeyCode::Right)[..] else {
        panic!("not listed")
    };
    assert_eq!((directory.as_str(), shown(&state).inputs[0].text()), ("photos/", "photos/"));
    update(&mut state, Msg::LocalPaths("other/".into(), listed(&["other/a"])), 2000);
    assert!(!screen(&state, 120, 40, 2000).contains("other/a"), "another directory's entries are dropped");
    update(&mut state, Msg::LocalPaths("photos/".into(), listed(&["photos/a.jpg"])), 2000);
    press(&mut state, KeyCode::Right);
    assert_eq!(shown(&state).inputs[0].text(), "photos/a.jpg");
    // The same on the line.
    press(&mut state, KeyCode::Esc);
    press(&mut state, KeyCode::Char(':'));
    type_text(&mut state, "put ph");
    update(&mut state, Msg::LocalPaths(String::new(), listed(&["photos/"])), 2000);
    press(&mut state, KeyCode::Tab);
    let Mode::Line(line) = &state.mode else { panic!("{:?}", state.mode) };
    assert_eq!(line.input.text(), "put photos/");
}

#[test]
fn typing_replaces_what_a_form_was_filled_in_with() {
    let mut state = busy_cluster(Page::Jobs);
    open(&mut state, "add-job");
    type_text(&mut state, "mine");
    focus(&mut state, "--dataset");
    type_text(&mut state, "photos");
    shows(&screen(&state, 120, 40, 2000), &[":add-job mine --dataset photos"]);
    assert!(!screen(&state, 120, 40, 2000).contains("test-dataphotos"));
    let mut state = busy_cluster(Page::Jobs);
    open(&mut state, "set-batch-size");
    focus(&mut state, "JOB");
    assert_eq!(shown(&state).inputs[0].text(), "job-2");
    type_text(&mut state, "quick");
    assert_eq!(shown(&state).inputs[0].text(), "quick");
}

#[test]
fn a_form_that_fails_comes_back_with_its_words_and_the_whole_reason() {
    let mut state = live();
    open(&mut state, "add-job");
    type_text(&mut state, "mine");
    let [Effect::Run(id, _)] = press(&mut state, KeyCode::Enter)[..] else { panic!("not run") };
    let reason = format!(
        "there is no model 'mine': {}; 'idunno model ls' lists them",
        "the models are many ".repeat(9)
    );
    update(&mut state, Msg::Finished(id, Err(Failure::new(Exit::NotFound, reason))), 3000);
    assert_eq!(shown(&state).inputs[0].text(), "mine");
    shows(
        &words(&state),
        &["not-found: there is no model 'mine'", "'idunno model ls' lists them", ":add-job mine"],
    );
    // A value that is not understood does not even run.
    focus(&mut state, "--weight");
    type_text(&mut state, "0");
    assert_eq!(press(&mut state, KeyCode::Enter), []);
    shows(&words(&state), &["invalid value '0'", "--weight 0"]);
    // Who closed the result has moved on: only a notice tells.
    let mut state = live();
    open(&mut state, "add-job");
    type_text(&mut state, "mine");
    let [Effect::Run(id, _)] = press(&mut state, KeyCode::Enter)[..] else { panic!("not run") };
    press(&mut state, KeyCode::Esc);
    update(&mut state, Msg::Finished(id, Err(Failure::new(Exit::NotFound, "no model"))), 3000);
    assert!(matches!(state.mode, Mode::Page));
    shows(&screen(&state, 100, 24, 3000), &["failed: add-job mine"]);
}

#[test]
fn a_command_whose_outcome_is_unknown_does_not_offer_to_be_run_again() {
    let mut state = live();
    open(&mut state, "add-job");
    type_text(&mut state, "mine");
    let [Effect::Run(id, _)] = press(&mut state, KeyCode::Enter)[..] else { panic!("not run") };
    update(&mut state, Msg::Finished(id, Err(Failure::new(Exit::Timeout, "no answer"))), 3000);
    assert!(matches!(state.mode, Mode::Result(_)), "{:?}", state.mode);
}

#[test]
fn a_refusal_of_the_line_is_whole() {
    let mut state = live();
    press(&mut state, KeyCode::Char(':'));
    enter(&mut state, "stop-job squeezenet1.1");
    // Two jobs match: the refusal lists them and is longer than the screen is wide.
    let text = screen(&state, 60, 20, 2000).replace('"', " ");
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    shows(&words, &["squeezenet1.1 could mean job-1", "say job-1 or job-2"]);
}

#[test]
fn the_help_of_the_focused_field_is_whole_at_80_columns() {
    for name in ["add-job", "start-job", "local up", "populate-test-data", "model add", "get-job-results"] {
        let mut state = live();
        push(&mut state, fixture(), 2000);
        open(&mut state, name);
        for _ in 0..shown(&state).inputs.len() {
            let field = shown(&state).entry.fields[shown(&state).focus].clone();
            let help = field.help.split_whitespace().collect::<Vec<_>>().join(" ");
            let words = words(&state);
            assert!(words.contains(&help), "{name}: {help:?} is not whole in {words}");
            press(&mut state, KeyCode::Tab);
        }
    }
}
