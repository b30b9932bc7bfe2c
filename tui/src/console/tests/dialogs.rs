//! Overlays: results, help and confirmation dialogs.

use crossterm::event::{KeyCode, KeyEvent};
use idunno_shared::ids::JobId;
use idunno_shared::wire::control::JobState;

use super::{enter, live, press, screen, shows};
use crate::answer::Answer;
use crate::command::values::{JobRef, MemberRef};
use crate::command::{OneMember, Verb};
use crate::console::state::{Effect, Mode, Msg, State};
use crate::console::update::update;

#[test]
fn disruptive_commands_ask_first_and_keys_typed_ahead_are_ignored() {
    let mut state = live();
    press(&mut state, KeyCode::Char(':'));
    assert_eq!(enter(&mut state, "stop-job job-1"), []);
    assert_eq!(press(&mut state, KeyCode::Char('y')), [], "typed ahead");
    let late = |state: &mut State, code| update(state, Msg::Key(KeyEvent::from(code)), 3000);
    let mut cancelled = state.clone();
    assert_eq!(late(&mut cancelled, KeyCode::Enter), [], "cancel is selected");
    assert!(matches!(cancelled.mode, Mode::Page));
    let effects = late(&mut state, KeyCode::Char('y'));
    assert_eq!(effects, [Effect::Run(1, Box::new(Verb::StopJob { jobs: vec![JobRef::Id(JobId(1))] }))]);

    let mut state = live();
    press(&mut state, KeyCode::Char(':'));
    enter(&mut state, "delete a.txt");
    shows(
        &screen(&state, 100, 20, 2000),
        &["confirm", "permanently deletes every version of a.txt", "Type a.txt"],
    );
    assert_eq!(late(&mut state, KeyCode::Enter), []);
    for c in "a.txt".chars() {
        late(&mut state, KeyCode::Char(c));
    }
    assert_eq!(late(&mut state, KeyCode::Enter).len(), 1);
}

#[test]
fn long_results_and_help_scroll_to_their_last_line_and_back() {
    for height in [8, 9, 20, 40] {
        let see = |state: &State| screen(state, 100, height, 3000);
        let mut state = live();
        update(&mut state, Msg::Resized(100, height), 2000);
        press(&mut state, KeyCode::Char(':'));
        enter(&mut state, "status");
        let lines: Vec<String> = (1..=500).map(|number| format!("line-{number}.")).collect();
        update(&mut state, Msg::Finished(1, Ok(Answer::text(lines.join("\n")))), 3000);
        press(&mut state, KeyCode::End);
        shows(&see(&state), &["line-500."]);
        press(&mut state, KeyCode::Up);
        assert!(!see(&state).contains("line-500."), "one line up from the end at height {height}");
        press(&mut state, KeyCode::Down);
        press(&mut state, KeyCode::Down);
        shows(&see(&state), &["line-500."]);
        // A larger screen shows more lines above, and nothing beyond the end.
        shows(&screen(&state, 100, 50, 3000), &["line-500.", "line-460."]);

        press(&mut state, KeyCode::Esc);
        press(&mut state, KeyCode::Char('?'));
        press(&mut state, KeyCode::End);
        let last = "close what is open";
        shows(&see(&state), &[last]);
        press(&mut state, KeyCode::Up);
        assert!(!see(&state).contains(last), "one line up from the end of help at height {height}");
    }
}

#[test]
fn a_command_to_a_member_names_the_member_and_goes_to_no_other() {
    let late = |state: &mut State, code| update(state, Msg::Key(KeyEvent::from(code)), 3000);
    let mut state = live();
    press(&mut state, KeyCode::Char(':'));
    assert_eq!(enter(&mut state, "leave"), []);
    assert!(matches!(state.mode, Mode::Line(_)), "{:?}", state.mode);
    shows(&screen(&state, 100, 20, 2000), &["name the member: --member NAME"]);

    for (text, target) in [
        ("leave --member m2", "member m2 at 127.0.0.1:7402"),
        ("leave --member 127.0.0.1:7401", "member m1 at 127.0.0.1:7401"),
        ("leave --member m77", "member m77, not in the membership list"),
    ] {
        let mut state = live();
        press(&mut state, KeyCode::Char(':'));
        assert_eq!(enter(&mut state, text), []);
        shows(&screen(&state, 100, 20, 2000), &["confirm", text, target]);
    }

    let mut state = live();
    let only = state.view.as_ref().unwrap().members[2].address;
    state.default_member = Some(MemberRef::Address(only));
    press(&mut state, KeyCode::Char(':'));
    enter(&mut state, "leave");
    shows(&screen(&state, 100, 20, 2000), &["member m2 at 127.0.0.1:7402"]);
    let to = OneMember { member: Some(MemberRef::Address(only)) };
    assert_eq!(late(&mut state, KeyCode::Char('y')), [Effect::Run(1, Box::new(Verb::Leave(to)))]);
}

#[test]
fn a_models_name_is_bound_to_its_job_before_the_question() {
    let late = |state: &mut State, code| update(state, Msg::Key(KeyEvent::from(code)), 3000);
    let mut state = live();
    state.view.as_mut().unwrap().jobs[1].state = JobState::Done;
    press(&mut state, KeyCode::Char(':'));
    enter(&mut state, "cancel-job squeezenet1.1");
    shows(
        &screen(&state, 100, 20, 2000),
        &["squeezenet1.1 stands for job-1 (over test-data, running)", "Type job-1"],
    );
    for c in "job-1".chars() {
        late(&mut state, KeyCode::Char(c));
    }
    let cancel = Verb::CancelJob { job: JobRef::Id(JobId(1)), yes: true };
    assert_eq!(late(&mut state, KeyCode::Enter), [Effect::Run(1, Box::new(cancel))]);

    let mut state = live();
    press(&mut state, KeyCode::Char(':'));
    assert_eq!(enter(&mut state, "stop-job squeezenet1.1"), []);
    shows(&screen(&state, 150, 20, 2000), &["squeezenet1.1 could mean job-1", "say job-1 or job-2"]);
}
