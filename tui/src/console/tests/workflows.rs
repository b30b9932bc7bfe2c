//! Everyday tasks: sort, freeze, fill in forms, copy, save, open details.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use idunno_shared::access::{Grant, Prefix, Role};
use idunno_shared::ids::{JobId, Term};
use idunno_shared::wire::control::{ClusterView, FolderEntry, Liveness, LogRole, MemberDoubts, StoreView};

use super::fixtures::{busy_cluster, busy_details, fixture, member};
use super::{enter, live, press, push, screen, shows};
use crate::answer::jobs::CancelledJob;
use crate::answer::{Answer, Exit, Failure};
use crate::command::registry::entries;
use crate::command::{JobRef, Verb};
use crate::console::detail::DetailTarget;
use crate::console::keymap::Keymap;
use crate::console::operation::OperationOutcome;
use crate::console::registry::{ItemKind, items};
use crate::console::state::{Effect, FilesPage, Mode, Msg, NetEvent, Page, State};
use crate::console::table::SortOrder;
use crate::console::update::update;

fn keys(state: &State) -> Vec<&str> {
    state.table().unwrap().rows.iter().map(|row| row.key.as_str()).collect()
}

#[test]
fn any_column_sorts_and_the_selection_stays_on_its_row() {
    let mut state = live();
    assert_eq!(keys(&state), ["m1", "m2", "m3", "m10"]);
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
fn a_frozen_screen_holds_still_and_catches_up() {
    let mut state = live();
    press(&mut state, KeyCode::Char(' '));
    let mut next = ClusterView { revision: 11, ..fixture() };
    next.members.truncate(1);
    push(&mut state, next, 3000);
    shows(&screen(&state, 140, 20, 9000), &["FROZEN 7 s", "m2", "m3"]);
    press(&mut state, KeyCode::Char(' '));
    assert_eq!(keys(&state), ["m10"]);
    assert_eq!(state.events.list.len(), 0, "a member that drops out of the list is no event");
}

#[test]
fn a_form_is_prefilled_from_the_selection_and_runs_the_command_it_shows() {
    let mut state = busy_cluster(Page::Jobs);
    press(&mut state, KeyCode::Char('a'));
    shows(&screen(&state, 200, 60, 60_000), &["a then", "set-batch-size", "stop-job", "asks first"]);
    press(&mut state, KeyCode::Char('b'));
    shows(&screen(&state, 120, 40, 60_000), &["set-batch-size", "job-2", "required"]);
    press(&mut state, KeyCode::Enter);
    assert!(matches!(state.mode, Mode::Form(_)), "a number is required");
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
fn every_command_has_a_key_and_is_in_the_palette() {
    let keymap = Keymap::default();
    // Those that are pages of the console, and those for a shell before there is a cluster.
    let without_key = [
        "events",
        "logs",
        "shell",
        "cat",
        "completions",
        "man",
        "deploy",
        "cluster init",
        "cluster rotate",
        "identity create",
        "key create",
        "key webhook",
        "wait-job",
    ];
    for entry in entries().iter().filter(|entry| !without_key.contains(&entry.name.as_str())) {
        assert!(keymap.hint(&entry.name).is_some(), "{} has no key", entry.name);
        assert!(
            items().iter().any(|item| item.name == entry.name && matches!(item.kind, ItemKind::Command(_)))
        );
    }
}

#[test]
fn read_only_mode_refuses_changes_by_key_and_by_line() {
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
fn the_header_shows_who_one_is_and_what_one_may() {
    let mut state = live();
    let name = "anna".parse().unwrap();
    let prefixes = vec![Prefix::of_home(&name)];
    state.grant = Some(Grant { name, role: Role::Submitter, prefixes });
    shows(&screen(&state, 160, 20, 2000), &["submitter anna, below users/anna/"]);
    state.grant = Some(Grant { name: "vera".parse().unwrap(), role: Role::Viewer, prefixes: vec![] });
    state.read_only = true;
    shows(&screen(&state, 160, 20, 2000), &["READ-ONLY  viewer vera"]);
}

#[test]
fn copy_takes_the_selection_and_save_takes_the_page() {
    let mut state = live();
    assert_eq!(press(&mut state, KeyCode::Char('Y')), [Effect::Copy("m1".into())]);
    let key = KeyEvent::new(KeyCode::Char('y'), KeyModifiers::CONTROL);
    let [Effect::Copy(row)] = &update(&mut state, Msg::Key(key), 2000)[..] else { panic!("no copy") };
    assert!(row.starts_with("m1\tup\tcoordinator"), "{row}");
    press(&mut state, KeyCode::Char('S'));
    let [Effect::Save(path, text)] = &press(&mut state, KeyCode::Enter)[..] else {
        panic!("{:?}", state.mode)
    };
    assert_eq!(path.to_str(), Some("idunno-members.txt"));
    assert!(text.starts_with("NAME") && text.lines().count() == 5, "{text}");
}

#[test]
fn a_change_without_an_answer_is_unknown_and_is_not_repeated() {
    let mut state = live();
    press(&mut state, KeyCode::Char(':'));
    enter(&mut state, "add-job squeezenet1.1");
    let failure = Failure::new(Exit::Unreachable, "nobody coordinates");
    let effects = update(&mut state, Msg::Finished(1, Err(failure)), 40_000);
    assert_eq!(effects, []);
    assert_eq!(state.operations[0].result.as_ref().unwrap().outcome, OperationOutcome::Unknown);
    shows(&screen(&state, 120, 20, 40_000), &["unknown: add-job", "check before repeating the command"]);
    let events: Vec<&str> = state.events.list.iter().map(|event| event.text.as_str()).collect();
    assert_eq!(events, ["pending: add-job squeezenet1.1", "unknown: add-job squeezenet1.1"]);
}

#[test]
fn events_record_the_failover_and_the_charts_show_a_gap() {
    let state = busy_cluster(Page::Events);
    let text = screen(&state, 120, 40, 60_000);
    shows(
        &text,
        &[
            "m3 became coordinator in term 4",
            "m1 is dead",
            "120 blobs under-replicated",
            "reconnected after 3 s",
        ],
    );
    let series = state.rates.jobs[&JobId(1)].last(30);
    assert_eq!(series.iter().filter(|value| value.is_nan()).count(), 1, "{series:?}");
}

#[test]
fn enter_opens_details_and_escape_closes_them_in_reverse() {
    let mut state = busy_details(Page::Jobs, 2);
    shows(&screen(&state, 120, 40, 60_000), &["jobs > job-2", "the image is cut off", "photo-0001.jpg"]);
    press(&mut state, KeyCode::Enter);
    assert!(
        matches!(&state.details[1].target, DetailTarget::File(name) if name.as_str().ends_with("photo-0000.jpg"))
    );
    press(&mut state, KeyCode::Esc);
    assert_eq!(state.details.len(), 1);
    press(&mut state, KeyCode::Esc);
    assert_eq!((state.details.len(), state.selected().as_deref()), (0, Some("job-2")));
}

#[test]
fn folders_are_entered_and_left() {
    let mut state = busy_cluster(Page::Files);
    assert_eq!(state.selected().as_deref(), Some("test-data/"));
    let [Effect::FetchFiles(query)] = &press(&mut state, KeyCode::Enter)[..] else { panic!("no query") };
    assert_eq!(query.prefix, "test-data/");
    let [Effect::FetchFiles(query)] = &press(&mut state, KeyCode::Esc)[..] else { panic!("no query") };
    assert_eq!(query.prefix, "");
    assert_eq!(state.selected(), None, "its row has not arrived yet");
    let rows = vec![FolderEntry::Folder("docs/".into()), FolderEntry::Folder("test-data/".into())];
    update(
        &mut state,
        Msg::Files(query.clone(), Ok(FilesPage { entries: rows, first: 0, total: 2 })),
        60_000,
    );
    assert_eq!(state.selected().as_deref(), Some("test-data/"));
    let [Effect::FetchFiles(query)] = &press(&mut state, KeyCode::Char('t'))[..] else { panic!("no query") };
    assert!(query.flat);
}

#[test]
fn the_mouse_selects_sorts_and_switches_pages() {
    let mut state = live();
    update(&mut state, Msg::Resized(140, 20), 2000);
    let click = |state: &mut State, column, row| {
        let kind = MouseEventKind::Down(MouseButton::Left);
        update(state, Msg::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }), 2000);
    };
    click(&mut state, 3, 5);
    assert_eq!(state.selected().as_deref(), Some("m2"));
    click(&mut state, 8, 3);
    assert_eq!(state.table().unwrap().sort, Some(SortOrder { column: 1, descending: false }));
    click(&mut state, 26, 2);
    assert_eq!(state.page, Page::Jobs);
    assert_eq!(press(&mut state, KeyCode::Char('m')), [Effect::CaptureMouse(true)]);
}

#[test]
fn typing_searches_help_and_the_palette() {
    let mut state = live();
    press(&mut state, KeyCode::Char('?'));
    "freeze".chars().for_each(|c| _ = press(&mut state, KeyCode::Char(c)));
    let text = screen(&state, 100, 20, 2000);
    shows(&text, &["space", "freeze the screen"]);
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
    many.members = (1..=1000).map(|number| member(number, Liveness::Alive, LogRole::Spare)).collect();
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
fn what_is_wrong_with_members_that_are_up_is_no_health() {
    let mut state = live();
    state.page = Page::Overview;
    let mut members: Vec<_> = (1..=3).map(|number| member(number, Liveness::Alive, LogRole::Voter)).collect();
    let quiet = ClusterView { members: members.clone(), workers: vec![], jobs: vec![], ..fixture() };
    let quiet = ClusterView { store: StoreView::default(), ..quiet };
    push(&mut state, quiet.clone(), 2000);
    shows(&screen(&state, 160, 40, 2000), &["● healthy"]);
    members[1].name = members[0].name.clone();
    members[2].doubts = Some(MemberDoubts { clock_ahead_s: 0, disk_hung: true });
    push(&mut state, ClusterView { members, ..quiet.clone() }, 3000);
    let named = format!("2 members are named {}", state.view.as_ref().unwrap().members[0].name);
    shows(&screen(&state, 160, 40, 3000), &["degraded: 1 disk without an answer", &named]);
    let full = |full_disks| StoreView { full_disks, ..StoreView::default() };
    push(&mut state, ClusterView { store: full(1), ..quiet.clone() }, 4000);
    shows(&screen(&state, 160, 40, 4000), &["degraded: 1 disk full"]);
    push(&mut state, ClusterView { store: full(3), ..quiet }, 5000);
    shows(&screen(&state, 160, 40, 5000), &["critical: all disks full"]);
}

#[test]
fn without_a_connection_the_cluster_is_not_shown_as_healthy() {
    let mut state = live();
    state.page = Page::Overview;
    let healthy = ClusterView {
        members: fixture().members.into_iter().filter(|it| it.liveness == Liveness::Alive).collect(),
        workers: vec![],
        jobs: vec![],
        store: StoreView::default(),
        ..fixture()
    };
    push(&mut state, healthy, 2000);
    let text = screen(&state, 120, 40, 2000);
    shows(&text, &["● healthy", "FIRST STEPS", ":populate-test-data"]);
    let reason = String::from("the coordinator went away");
    update(
        &mut state,
        Msg::Net(NetEvent::Waiting {
            wait_ms: 100,
            attempt: 1,
            reason,
            member_reachable: true,
            members: None,
        }),
        3000,
    );
    let text = screen(&state, 120, 40, 3000);
    shows(&text, &["◐ not connected, was healthy", "ELECTING"]);
}

#[test]
fn a_cluster_without_a_majority_looks_like_one() {
    let mut state = State::new("prod".into());
    let role = |number| if number == 1 { LogRole::Coordinator } else { LogRole::Voter };
    let mut members: Vec<_> = (1..=5).map(|number| member(number, Liveness::Alive, role(number))).collect();
    push(&mut state, ClusterView { members: members.clone(), ..fixture() }, 2000);
    shows(&screen(&state, 120, 40, 2000), &["5 up", "(5 of 5 voters up)"]);
    // Two are left; the one that answers still takes the first for the coordinator.
    for member in &mut members[..3] {
        member.liveness = Liveness::Dead;
    }
    let reason = String::from("no coordinator");
    let waiting = NetEvent::Waiting {
        wait_ms: 100,
        attempt: 2,
        reason,
        member_reachable: true,
        members: Some(members),
    };
    update(&mut state, Msg::Net(waiting), 5000);
    let text = screen(&state, 160, 40, 5000);
    shows(
        &text,
        &["✖ no coordinator, critical: ", "no majority: 2 of 5 vo", "2 up", "3 dead", "last coordinator"],
    );
    assert!(!text.contains("5 up") && text.contains("is dead"), "{text}");
    press(&mut state, KeyCode::Char('2'));
    let text = screen(&state, 160, 40, 5000);
    assert_eq!((text.matches("✖ dead").count(), text.matches("● up").count()), (3, 2), "{text}");
    // The next coordinator vouches for all again.
    push(&mut state, ClusterView { term: Term(9), ..fixture() }, 9000);
    assert_eq!(state.members_ms, None);
    assert!(!screen(&state, 160, 40, 9000).contains("last coordinator"));
}

#[test]
fn the_line_shows_its_arguments_and_a_short_result_leaves_the_page_visible() {
    let mut state = live();
    state.aliases = [(String::from("st"), String::from("get-job-stats"))].into();
    press(&mut state, KeyCode::Char(':'));
    "get".chars().for_each(|c| _ = press(&mut state, KeyCode::Char(c)));
    shows(&screen(&state, 100, 24, 2000), &["get-dataset", "get-job-stats", "Fetch and verify a file"]);
    "-job-stats ".chars().for_each(|c| _ = press(&mut state, KeyCode::Char(c)));
    shows(&screen(&state, 100, 24, 2000), &["get-job-stats [JOB]", "Show statistics of one job"]);
    press(&mut state, KeyCode::Esc);
    press(&mut state, KeyCode::Char(':'));
    let effects = enter(&mut state, "st job-1");
    let verb = Verb::GetJobStats { job: Some(JobRef::Id(JobId(1))) };
    assert_eq!(effects, [Effect::Run(1, Box::new(verb))]);
    update(&mut state, Msg::Finished(1, Ok(Answer::text("two\nlines"))), 2000);
    shows(&screen(&state, 100, 24, 2000), &["done: get-job-stats job-1", "two", "MODEL SERVER", "✖ dead"]);
}

#[test]
fn a_page_opens_with_its_first_row_selected() {
    let mut state = live();
    assert_eq!(state.selected().as_deref(), Some("m1"));
    press(&mut state, KeyCode::Enter);
    assert_eq!(state.details.len(), 1, "the first Enter does something");
    // Events that come move a selection down, and the screen with it: the newest would be out of sight.
    let mut state = busy_cluster(Page::Members);
    press(&mut state, KeyCode::Char('8'));
    assert_eq!((state.selected(), state.events.list.is_empty()), (None, false));
}

#[test]
fn results_show_answers_and_a_row_opens_with_all_that_it_has() {
    let mut state = busy_details(Page::Jobs, 3);
    let text = screen(&state, 80, 24, 60_000);
    shows(&text, &["QUERY", "ANSWER", "PROBABILITY", "LABEL", "tiger cat", "0.185", "3+"]);
    assert!(!text.contains("7a7a") && !text.contains("top5"), "{text}");
    press(&mut state, KeyCode::Down);
    assert_eq!(press(&mut state, KeyCode::Enter), []);
    let text = screen(&state, 80, 40, 60_000);
    shows(&text, &["jobs > job-2 > query 18", "\"probability\": 0.185", "\"worker\": \"m3\""]);
    // Its version is longer than the screen is wide: it is wrapped, and on request cut.
    update(&mut state, Msg::Resized(50, 40), 60_000);
    let lines =
        |state: &State| screen(state, 50, 40, 60_000).lines().filter(|line| line.contains("7a7a7a")).count();
    assert_eq!(lines(&state), 2);
    press(&mut state, KeyCode::Char('w'));
    assert_eq!(lines(&state), 1);
    press(&mut state, KeyCode::Esc);
    assert_eq!((state.details.len(), state.selected().as_deref()), (1, Some("18")));
}

#[test]
fn the_selection_is_described_shown_as_json_and_its_logs_are_a_key_away() {
    let mut state = busy_cluster(Page::Jobs);
    let stats = || Box::new(Verb::GetJobStats { job: Some(JobRef::Id(JobId(2))) });
    assert_eq!(press(&mut state, KeyCode::Char('d')), [Effect::Run(1, stats())]);
    press(&mut state, KeyCode::Esc);
    assert_eq!(press(&mut state, KeyCode::Char('y')), [Effect::Run(2, stats())]);
    let job = CancelledJob { job: "job-2".into() };
    update(&mut state, Msg::Finished(2, Ok(Answer::new(&job, "job-2"))), 60_000);
    shows(&screen(&state, 100, 24, 60_000), &["\"kind\": \"CancelledJob\",", "  \"job\": \"job-2\""]);
    press(&mut state, KeyCode::Esc);
    press(&mut state, KeyCode::Char('l'));
    assert_eq!((state.page, state.log.filter()), (Page::Logs, "job-2"));

    let mut state = busy_cluster(Page::Members);
    press(&mut state, KeyCode::Char('l'));
    let text = screen(&state, 100, 40, 60_000);
    shows(&text, &["of m2 alone: Esc shows all", "m2 01:50:01.000"]);
    assert!(!text.contains("m3 01:50:02.000"), "{text}");
    assert_eq!(state.log_sources.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["m2"]);
    press(&mut state, KeyCode::Esc);
    shows(&screen(&state, 100, 40, 60_000), &["m3 01:50:02.000"]);

    let mut state = busy_cluster(Page::Events);
    assert_eq!(press(&mut state, KeyCode::Char('d')), []);
    shows(&screen(&state, 100, 40, 2000), &["select a member, a job, a file or a model first"]);
}

#[test]
fn an_empty_page_says_what_to_press() {
    let mut state = live();
    press(&mut state, KeyCode::Char('8'));
    shows(
        &screen(&state, 120, 24, 2000),
        &["nothing has happened since the console was opened: '7' shows the logs"],
    );
    push(&mut state, ClusterView { jobs: vec![], models: vec![], assignments: vec![], ..fixture() }, 2000);
    for (page, texts) in [
        ('3', &["no jobs yet: 'a n' adds one"][..]),
        ('6', &["'a t' trains the predefined ones", "'a Y' adds one of your own"]),
    ] {
        press(&mut state, KeyCode::Char(page));
        shows(&screen(&state, 120, 24, 2000), texts);
    }
    let [Effect::FetchFiles(query)] = &press(&mut state, KeyCode::Char('5'))[..] else { panic!("no query") };
    update(&mut state, Msg::Files(query.clone(), Ok(FilesPage::default())), 2000);
    shows(&screen(&state, 120, 24, 2000), &["no files: 'a u' stores one, 'a p' stores a folder"]);
    state.read_only = true;
    let text = screen(&state, 120, 24, 2000);
    assert!(text.contains("no files") && !text.contains("stores one"), "{text}");
}
