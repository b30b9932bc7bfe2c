//! What people do all day: sort, freeze, fill in forms, copy, save, look into things.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{ClusterView, FolderEntry, Liveness, StoreView};

use super::busy::{busy, inside};
use super::{enter, fixture, live, press, push, screen, shows};
use crate::answer::{Answer, Exit, Failure};
use crate::command::registry::entries;
use crate::command::{JobRef, Verb};
use crate::console::detail::Target;
use crate::console::keymap::Keymap;
use crate::console::registry::{Does, items};
use crate::console::state::{Effect, Mode, Msg, NetEvent, Outcome, Page, State};
use crate::console::update::update;

fn keys(state: &State) -> Vec<&str> {
    state.table().unwrap().rows.iter().map(|row| row.key.as_str()).collect()
}

#[test]
fn any_column_sorts_and_the_selection_stays_on_its_thing() {
    let mut state = live();
    assert_eq!(keys(&state), ["m1", "m2", "m3", "m10"]);
    press(&mut state, KeyCode::Down);
    press(&mut state, KeyCode::Down);
    press(&mut state, KeyCode::Char(':'));
    enter(&mut state, "sort state");
    assert_eq!(keys(&state)[0], "m3", "dead comes before suspect and up");
    press(&mut state, KeyCode::Char('!'));
    assert_eq!(keys(&state).last(), Some(&"m3"));
    assert_eq!(state.selected().as_deref(), Some("m2"));
    shows(&screen(&state, 140, 20, 2000), &["STATE ▼"]);
    for _ in 0..state.table().unwrap().columns.len() {
        press(&mut state, KeyCode::Char('>'));
    }
    press(&mut state, KeyCode::Char('<'));
    assert_eq!(state.selected().as_deref(), Some("m2"));
}

#[test]
fn a_frozen_screen_stays_and_catches_up() {
    let mut state = live();
    press(&mut state, KeyCode::Char(' '));
    let mut next = ClusterView { revision: 11, ..fixture() };
    next.members.truncate(1);
    push(&mut state, next, 3000);
    shows(&screen(&state, 140, 20, 9000), &["FROZEN 7 s", "m2", "m3"]);
    press(&mut state, KeyCode::Char(' '));
    assert_eq!(keys(&state), ["m10"]);
    assert_eq!(state.events.list.len(), 0, "members that are no longer told of are no event");
}

#[test]
fn a_form_takes_what_is_selected_and_gives_the_command_that_it_shows() {
    let mut state = busy(Page::Jobs);
    press(&mut state, KeyCode::Char('a'));
    shows(&screen(&state, 200, 60, 60_000), &["a and then", "set-batch-size", "stop-job", "asks first"]);
    press(&mut state, KeyCode::Char('b'));
    shows(&screen(&state, 120, 40, 60_000), &["set-batch-size", "job-2", "needed"]);
    press(&mut state, KeyCode::Enter);
    assert!(matches!(state.mode, Mode::Form(_)), "a number is needed");
    for c in "64".chars() {
        press(&mut state, KeyCode::Char(c));
    }
    shows(&screen(&state, 120, 40, 60_000), &[":set-batch-size job-2 64"]);
    let effects = press(&mut state, KeyCode::Enter);
    assert_eq!(
        effects,
        [Effect::Run(1, Box::new(Verb::SetBatchSize { job: JobRef::Id(JobId(2)), batch_size: 64.into() }))]
    );
}

#[test]
fn every_command_is_reachable_by_a_key_and_the_palette_and_does_what_its_form_says() {
    let keymap = Keymap::default();
    // What has a page of the console's, and what is done once, at a shell, before there is a cluster to look at.
    let own =
        ["events", "logs", "shell", "completions", "man", "cluster init", "cluster issue", "cluster rotate"];
    for entry in entries().iter().filter(|entry| !own.contains(&entry.name.as_str())) {
        assert!(keymap.hint(&entry.name).is_some(), "{} has no key", entry.name);
        assert!(items().iter().any(|item| item.name == entry.name && matches!(item.does, Does::Command(_))));
    }
}

#[test]
fn read_only_refuses_by_key_by_line_and_by_palette() {
    let mut state = live();
    state.read_only = true;
    press(&mut state, KeyCode::Char('a'));
    press(&mut state, KeyCode::Char('n'));
    assert!(matches!(state.mode, Mode::Page));
    press(&mut state, KeyCode::Char(':'));
    assert_eq!(enter(&mut state, "add-job squeezenet1.1"), []);
    shows(&screen(&state, 120, 20, 2000), &["READ-ONLY", "refused"]);
}

#[test]
fn copy_and_save_give_what_is_selected_and_what_is_shown() {
    let mut state = live();
    assert_eq!(press(&mut state, KeyCode::Char('y')), [], "nothing is selected");
    press(&mut state, KeyCode::Down);
    assert_eq!(press(&mut state, KeyCode::Char('y')), [Effect::Copy("m1".into())]);
    let [Effect::Copy(row)] = &press(&mut state, KeyCode::Char('Y'))[..] else { panic!("no copy") };
    assert!(row.starts_with("m1\tup\tcoordinator"), "{row}");
    press(&mut state, KeyCode::Char('S'));
    let [Effect::Save(path, text)] = &press(&mut state, KeyCode::Enter)[..] else {
        panic!("{:?}", state.mode)
    };
    assert_eq!(path.to_str(), Some("idunno-members.txt"));
    assert!(text.starts_with("NAME") && text.lines().count() == 5, "{text}");
}

#[test]
fn a_change_without_an_answer_is_unknown_and_is_not_given_again() {
    let mut state = live();
    press(&mut state, KeyCode::Char(':'));
    enter(&mut state, "add-job squeezenet1.1");
    let failure = Failure::new(Exit::Unreachable, "nobody coordinates");
    let effects = update(&mut state, Msg::Finished(1, Err(failure)), 40_000);
    assert_eq!(effects, []);
    assert_eq!(state.operations[0].result.as_ref().unwrap().outcome, Outcome::Unknown);
    shows(&screen(&state, 120, 20, 40_000), &["unknown: add-job", "look before giving it again"]);
    let told: Vec<&str> = state.events.list.iter().map(|event| event.text.as_str()).collect();
    assert_eq!(told, ["pending: add-job squeezenet1.1", "unknown: add-job squeezenet1.1"]);
}

#[test]
fn events_tell_the_failover_and_the_charts_show_its_gap() {
    let state = busy(Page::Events);
    let text = screen(&state, 120, 40, 60_000);
    shows(
        &text,
        &["m3 coordinates in term 4", "m1 is dead", "120 blobs lack copies", "in sight again after 3 s"],
    );
    let curve = state.history.jobs[&JobId(1)].last(30);
    assert_eq!(curve.iter().filter(|value| value.is_nan()).count(), 1, "{curve:?}");
}

#[test]
fn enter_goes_deeper_and_escape_comes_back_the_same_way() {
    let mut state = inside(Page::Jobs, 2);
    shows(&screen(&state, 120, 40, 60_000), &["jobs > job-2", "the image is cut off", "photo-0001.jpg"]);
    press(&mut state, KeyCode::Down);
    press(&mut state, KeyCode::Enter);
    assert!(
        matches!(&state.details[1].target, Target::File(name) if name.as_str().ends_with("photo-0000.jpg"))
    );
    press(&mut state, KeyCode::Esc);
    assert_eq!(state.details.len(), 1);
    press(&mut state, KeyCode::Esc);
    assert_eq!((state.details.len(), state.selected().as_deref()), (0, Some("job-2")));
}

#[test]
fn folders_are_entered_and_left() {
    let mut state = busy(Page::Files);
    assert_eq!(state.selected().as_deref(), Some("test-data/"));
    let [Effect::FetchFiles(query)] = &press(&mut state, KeyCode::Enter)[..] else { panic!("not asked") };
    assert_eq!(query.prefix, "test-data/");
    let [Effect::FetchFiles(query)] = &press(&mut state, KeyCode::Esc)[..] else { panic!("not asked") };
    assert_eq!(query.prefix, "");
    assert_eq!(state.selected(), None, "its row is yet to come");
    let rows = vec![FolderEntry::Folder("docs/".into()), FolderEntry::Folder("test-data/".into())];
    update(&mut state, Msg::Files(query.clone(), Ok((rows, false))), 60_000);
    assert_eq!(state.selected().as_deref(), Some("test-data/"));
    let [Effect::FetchFiles(query)] = &press(&mut state, KeyCode::Char('t'))[..] else { panic!("not asked") };
    assert!(query.flat);
}

#[test]
fn the_mouse_selects_sorts_and_turns_pages() {
    let mut state = live();
    update(&mut state, Msg::Resized(140, 20), 2000);
    let click = |state: &mut State, column, row| {
        let kind = MouseEventKind::Down(MouseButton::Left);
        update(state, Msg::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }), 2000);
    };
    click(&mut state, 3, 5);
    assert_eq!(state.selected().as_deref(), Some("m2"));
    click(&mut state, 8, 3);
    assert_eq!(state.table().unwrap().sort, Some((1, false)));
    click(&mut state, 26, 2);
    assert_eq!(state.page, Page::Jobs);
    assert_eq!(press(&mut state, KeyCode::Char('m')), [Effect::Mouse(true)]);
}

#[test]
fn help_and_the_palette_are_searched_by_typing() {
    let mut state = live();
    press(&mut state, KeyCode::Char('?'));
    "freeze".chars().for_each(|c| _ = press(&mut state, KeyCode::Char(c)));
    let text = screen(&state, 100, 20, 2000);
    shows(&text, &["space", "hold the screen"]);
    assert!(!text.contains("stop-job"), "{text}");
    press(&mut state, KeyCode::Esc);
    update(&mut state, Msg::Key(KeyEvent::new(KeyCode::Char('p'), KeyModifiers::CONTROL)), 2000);
    "stopj".chars().for_each(|c| _ = press(&mut state, KeyCode::Char(c)));
    press(&mut state, KeyCode::Enter);
    assert!(matches!(&state.mode, Mode::Form(form) if form.entry.name == "stop-job"), "{:?}", state.mode);
}

#[test]
fn a_long_table_shows_and_saves_every_row_though_only_some_have_cells() {
    let mut state = live();
    let mut many = ClusterView { revision: 12, ..fixture() };
    many.members =
        (1..=1000).map(|number| super::member(number, Liveness::Alive, super::LogRole::Spare)).collect();
    push(&mut state, many, 3000);
    press(&mut state, KeyCode::Char('G'));
    shows(&screen(&state, 140, 20, 3000), &["m1000", "m990", "● up", "127.0.0.1:8390"]);
    press(&mut state, KeyCode::Char('g'));
    shows(&screen(&state, 140, 20, 3000), &["m1 ", "127.0.0.1:7401"]);
    press(&mut state, KeyCode::Char('S'));
    let [Effect::Save(_, text)] = &press(&mut state, KeyCode::Enter)[..] else { panic!("{:?}", state.mode) };
    assert_eq!(text.lines().filter(|line| line.contains("up")).count(), 1000);
}

#[test]
fn nothing_is_called_healthy_while_no_coordinator_is_in_sight() {
    let mut state = live();
    state.page = Page::Overview;
    let well = ClusterView {
        members: fixture().members.into_iter().filter(|it| it.liveness == Liveness::Alive).collect(),
        workers: vec![],
        jobs: vec![],
        store: StoreView::default(),
        ..fixture()
    };
    push(&mut state, well, 2000);
    let text = screen(&state, 120, 40, 2000);
    shows(&text, &["● healthy", "FIRST STEPS", ":populate-test-data"]);
    let reason = String::from("the coordinator went away");
    update(
        &mut state,
        Msg::Net(NetEvent::Waiting { wait_ms: 100, attempt: 1, reason, answered: true }),
        3000,
    );
    let text = screen(&state, 120, 40, 3000);
    shows(&text, &["◐ no coordinator in sight, was healthy", "ELECTING"]);
}

#[test]
fn the_line_says_what_it_takes_and_a_short_answer_leaves_the_page_in_sight() {
    let mut state = live();
    state.aliases = [(String::from("st"), String::from("get-job-stats"))].into();
    press(&mut state, KeyCode::Char(':'));
    "get".chars().for_each(|c| _ = press(&mut state, KeyCode::Char(c)));
    shows(&screen(&state, 100, 24, 2000), &["get-dataset", "get-job-stats", "Fetch and verify a file"]);
    "-job-stats ".chars().for_each(|c| _ = press(&mut state, KeyCode::Char(c)));
    shows(&screen(&state, 100, 24, 2000), &["get-job-stats [JOB]", "Figures of one job"]);
    press(&mut state, KeyCode::Esc);
    press(&mut state, KeyCode::Char(':'));
    let effects = enter(&mut state, "st job-1");
    let verb = Verb::GetJobStats { job: Some(JobRef::Id(JobId(1))) };
    assert_eq!(effects, [Effect::Run(1, Box::new(verb))]);
    update(&mut state, Msg::Finished(1, Ok(Answer::text("two\nlines"))), 2000);
    shows(&screen(&state, 100, 24, 2000), &["done: get-job-stats job-1", "two", "MODEL SERVER", "✖ dead"]);
}

#[test]
fn enter_selects_where_nothing_is_selected_and_looks_at_what_is_marked() {
    let mut state = live();
    press(&mut state, KeyCode::Enter);
    assert_eq!((state.selected().as_deref(), state.details.len()), (Some("m1"), 0));
    press(&mut state, KeyCode::Enter);
    assert_eq!(state.details.len(), 1);
}
