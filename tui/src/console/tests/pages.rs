//! What the pages show, how they react to keys, and how they stay up to date.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use idunno_shared::ids::{JobId, NodeId, Term};
use idunno_shared::wire::control::{
    ClusterView, FileKey, FileOrder, FolderEntry, JobState, Liveness, LogRole,
};
use idunno_shared::wire::jobs::ServerState;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};

use super::fixtures::{entry, fixture, job, member};
use super::{enter, live, press, push, screen, shows};
use crate::answer::{Answer, Exit, Failure};
use crate::command::{JobRef, Palette, Verb};
use crate::console::state::{
    ConnectionState, DetailQuery, Effect, FilesPage, FilesQuery, Mode, Msg, NetEvent, Page, State,
};
use crate::console::theme::Theme;
use crate::console::update::update;
use crate::console::view::view;
use crate::tail::LogLine;

const MONO: Theme = Theme { palette: Palette::Mono, unicode: false };

/// The first page of so many files.
fn files_page(entries: Vec<FolderEntry>, total: u64) -> FilesPage {
    FilesPage { entries, first: 0, total }
}

#[test]
fn every_page_shows_its_contents() {
    let mut state = live();
    let header = [
        "● LIVE",
        "coordinator m1@127.0.0.1:7401 term 3",
        "local dir",
        "2 up",
        "1 suspect",
        "1 dead",
        "143.2 q/s",
    ];
    shows(&screen(&state, 140, 20, 1000), &header);
    shows(&screen(&state, 140, 20, 1000), &["7 under-replicated", "files 1234"]);
    let members =
        ["● up", "◐ suspect", "✖ dead", "coordinator", "127.0.0.1:7410", "● ready", "✖ down: no port"];
    shows(&screen(&state, 140, 20, 1000), &members);
    press(&mut state, KeyCode::Char('3'));
    let jobs = ["job-1", "● running", "███", "40 %", "398", "1000", "143.2", "5.5", "1 min 12 s", "87.0 %"];
    shows(&screen(&state, 200, 20, 1000), &jobs);
    shows(&screen(&state, 200, 20, 1000), &["✖ paused: all failed"]);
    press(&mut state, KeyCode::Char('4'));
    shows(&screen(&state, 140, 20, 1000), &["● job-1", "JOB-1", "60 %", "40 %", "● ready"]);
    press(&mut state, KeyCode::Char('6'));
    shows(&screen(&state, 140, 20, 1000), &["squeezenet1.1", "◐ training", "M1", "M2"]);
    let query = FilesQuery::default();
    assert_eq!(press(&mut state, KeyCode::Char('5')), [Effect::FetchFiles(query.clone())]);
    update(
        &mut state,
        Msg::Files(
            query,
            Ok(files_page(vec![entry("docs/report.pdf"), FolderEntry::Folder("img/".into())], 2)),
        ),
        1000,
    );
    shows(
        &screen(&state, 140, 20, 1000),
        &["docs/report.pdf", "img/", "12.3 kB", "1970-01-01 00:00:00", "m1 m2 m10"],
    );
    press(&mut state, KeyCode::Char('7'));
    let lines = vec![LogLine { source: "m1".into(), text: "2026 WARN slow".into() }];
    update(&mut state, Msg::Log(lines), 1000);
    shows(&screen(&state, 140, 20, 1000), &["following the end", "m1 2026 WARN slow"]);
}

#[test]
fn members_are_in_natural_order_and_narrow_screens_drop_columns() {
    let state = live();
    let text = screen(&state, 140, 20, 1000);
    let at = |name: &str| text.find(name).unwrap();
    assert!(at("m1 ") < at("m2 ") && at("m2 ") < at("m10 "));
    let narrow = screen(&state, 40, 12, 1000);
    shows(&narrow, &["NAME", "STATE", "● up", "m10"]);
    assert!(!narrow.contains("ADDRESS"), "{narrow}");
}

#[test]
fn every_page_and_overlay_is_drawn_at_every_size_without_a_panic() {
    let mut states = Vec::new();
    for page in Page::ALL {
        let mut state = live();
        state.page = page;
        state.files.entries = vec![entry("a"), entry("naïve/漢字漢字漢字.jpg")];
        state.files.generation = 1;
        state.log.append((0..50).map(|n| LogLine { source: format!("m{n}"), text: "x漢".repeat(60) }));
        press(&mut state, KeyCode::Down);
        states.push(state);
    }
    let mut help = live();
    press(&mut help, KeyCode::Char('?'));
    press(&mut help, KeyCode::End);
    let mut line = live();
    press(&mut line, KeyCode::Char(':'));
    press(&mut line, KeyCode::Tab);
    let mut asks = live();
    press(&mut asks, KeyCode::Char(':'));
    enter(&mut asks, "delete docs/report.pdf");
    let mut pane = live();
    press(&mut pane, KeyCode::Char(':'));
    enter(&mut pane, "status");
    let mut result = pane.clone();
    update(&mut result, Msg::Finished(1, Ok(Answer::text("a\nb\n".repeat(500)))), 3000);
    press(&mut result, KeyCode::End);
    let mut waiting = State::new("x".into());
    let event = NetEvent::Waiting {
        wait_ms: 900,
        attempt: 3,
        reason: "nobody".into(),
        member_reachable: false,
        members: None,
    };
    update(&mut waiting, Msg::Net(event), 0);
    states.extend([help, line, asks, pane, result, waiting, State::new(String::new())]);
    for width in 1..=130 {
        // Every height at some widths, some heights at every width: all edges of both, in a second.
        let step = if width % 13 == 1 { 1 } else { 7 };
        for height in (1..=40).step_by(step) {
            for state in &states {
                let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
                terminal.draw(|frame| view(state, frame, 9000)).unwrap();
            }
        }
    }
    shows(&screen(&live(), 29, 8, 0), &["too small: 29x8"]);
}

#[test]
fn without_colours_only_modifiers_are_set_and_the_selection_stays_visible() {
    let mut state = live();
    press(&mut state, KeyCode::Down);
    let mut terminal = Terminal::new(TestBackend::new(100, 20)).unwrap();
    state.theme = MONO;
    terminal.draw(|frame| view(&state, frame, 60_000)).unwrap();
    let cells = &terminal.backend().buffer().content;
    assert!(cells.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    let text = terminal.backend().to_string();
    shows(&text, &["~ suspect", "x dead", "* up"]);
    assert!(cells.iter().any(|cell| cell.symbol() == "m" && cell.modifier.contains(Modifier::REVERSED)));
}

#[test]
fn the_environment_chooses_the_theme() {
    let with = |pairs: &'static [(&str, &str)]| {
        Theme::of_environment(Palette::Light, |name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    };
    assert_eq!(with(&[("NO_COLOR", "1")]).palette, Palette::Mono);
    assert_eq!(with(&[("TERM", "dumb")]).palette, Palette::Mono);
    assert_eq!(with(&[("NO_COLOR", "")]).palette, Palette::Light);
    assert!(with(&[("LANG", "de_DE.UTF-8")]).unicode);
    assert!(!with(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]).unicode);
}

#[test]
fn a_long_reason_leaves_its_own_column_and_the_others_on_screen() {
    let mut state = live();
    let mut view = fixture();
    let reason = format!("cannot load: {}", "the file has no such tensor; ".repeat(20));
    view.workers[0].server = ServerState::Down(reason);
    push(&mut state, view, 3000);
    press(&mut state, KeyCode::Char('2'));
    for width in [80, 120, 160, 200] {
        shows(
            &screen(&state, width, 20, 3000),
            &["NAME", "STATE", "ROLE", "Q/S", "MODEL SERVER", "down: cannot load"],
        );
    }
    let wide = screen(&state, 400, 20, 3000);
    assert!(wide.matches("no such tensor").count() > 3, "the room that is left is used: {wide}");
}

#[test]
fn after_the_coordinator_is_lost_the_last_data_stays_on_screen_with_its_age() {
    let mut state = live();
    let event = NetEvent::Waiting {
        wait_ms: 2000,
        attempt: 4,
        reason: "the coordinator went away".into(),
        member_reachable: false,
        members: None,
    };
    update(&mut state, Msg::Net(event), 9000);
    let text = screen(&state, 140, 20, 13_000);
    shows(&text, &["◐ ELECTING", "attempt 4", "as of 12 s ago", "m10", "127.0.0.1:7410"]);
    update(&mut state, Msg::Net(NetEvent::Connecting), 13_000);
    shows(&screen(&state, 140, 20, 13_000), &["◐ ELECTING"]);
    shows(&screen(&state, 140, 20, 19_000), &["✖ RECONNECTING", "as of 18 s ago", "m10"]);
    let next = ClusterView { term: Term(4), coordinator: NodeId(2), ..fixture() };
    push(&mut state, next, 14_000);
    shows(&screen(&state, 140, 20, 14_000), &["● LIVE", "coordinator m2@127.0.0.1:7402 term 4"]);
    shows(&screen(&state, 140, 20, 14_000 + 5000), &["◐ STALE, as of 5 s ago"]);
}

#[test]
fn an_older_term_is_ignored_until_the_newer_one_is_long_gone() {
    let mut state = live();
    let old = ClusterView { term: Term(2), coordinator: NodeId(3), ..fixture() };
    push(&mut state, old.clone(), 2000);
    assert_eq!(state.view.as_ref().unwrap().term, Term(3));
    push(&mut state, old, 60_000);
    assert_eq!(state.view.as_ref().unwrap().term, Term(2));
}

#[test]
fn nothing_is_drawn_without_a_change() {
    let mut state = live();
    state.dirty = false;
    push(&mut state, ClusterView { at_ms: 99, ..fixture() }, 2000);
    update(&mut state, Msg::Net(NetEvent::Confirmed), 3000);
    update(&mut state, Msg::Tick, 3500);
    update(&mut state, Msg::Log(vec![LogLine { source: "m1".into(), text: "x".into() }]), 3500);
    assert!(!state.dirty);
    push(&mut state, ClusterView { revision: 11, ..fixture() }, 4000);
    assert!(state.dirty);
    state.dirty = false;
    update(&mut state, Msg::Tick, 20_000);
    assert!(state.dirty, "a growing age is a change");
}

#[test]
fn the_selection_follows_the_row_not_the_line() {
    let mut state = live();
    press(&mut state, KeyCode::Down);
    assert_eq!(state.selected().as_deref(), Some("m2"));
    let mut next = fixture();
    next.members.retain(|member| member.name.as_str() != "m1");
    push(&mut state, next.clone(), 3000);
    assert_eq!(state.selected().as_deref(), Some("m2"));
    assert_eq!(state.table().unwrap().cursor.line, 0);
    next.members.retain(|member| member.name.as_str() != "m2");
    push(&mut state, next, 4000);
    assert_eq!(state.selected(), None, "the selection never moves to another row by itself");
    assert_eq!(press(&mut state, KeyCode::Enter), []);
    assert_eq!(
        (state.selected().as_deref(), state.details.len()),
        (Some("m3"), 0),
        "only what is selected opens"
    );
}

#[test]
fn enter_opens_details_and_the_line_runs_commands() {
    let mut state = live();
    assert_eq!(press(&mut state, KeyCode::Enter), [Effect::FetchDetail(DetailQuery::Stored(NodeId(1)))]);
    shows(
        &screen(&state, 100, 20, 2000),
        &["members > m1", "stores 321 blobs", "64 queries leased in 2 batches"],
    );
    press(&mut state, KeyCode::Esc);
    press(&mut state, KeyCode::Char(':'));
    let effects = enter(&mut state, "set-batch-size job-1 64");
    assert_eq!(
        effects,
        [Effect::Run(1, Box::new(Verb::SetBatchSize { job: JobRef::Id(JobId(1)), batch_size: 64.into() }))]
    );
    shows(
        &screen(&state, 100, 20, 4000),
        &["set-batch-size job-1 64", "pending for 2 s", "1 command running"],
    );
    press(&mut state, KeyCode::Esc);
    let failure = Failure::new(Exit::NotFound, "there is no job-1");
    update(&mut state, Msg::Finished(1, Err(failure)), 5000);
    shows(&screen(&state, 100, 20, 5000), &["✖ failed: set-batch-size job-1 64"]);
    press(&mut state, KeyCode::Char('o'));
    shows(&screen(&state, 100, 20, 5000), &["not-found: there is no job-1"]);
}

#[test]
fn an_invalid_line_stays_to_be_corrected() {
    let mut state = live();
    press(&mut state, KeyCode::Char(':'));
    assert_eq!(enter(&mut state, "set-batch-size job-1 0"), []);
    let Mode::Line(line) = &state.mode else { panic!("{:?}", state.mode) };
    assert_eq!(line.input.text(), "set-batch-size job-1 0");
    shows(&screen(&state, 120, 20, 2000), &["invalid value '0'"]);
    press(&mut state, KeyCode::Esc);
    press(&mut state, KeyCode::Char(':'));
    press(&mut state, KeyCode::Up);
    let Mode::Line(line) = &state.mode else { panic!("{:?}", state.mode) };
    assert_eq!(line.input.text(), "set-batch-size job-1 0");
}

#[test]
fn quitting_asks_only_while_commands_run() {
    let mut state = live();
    assert_eq!(press(&mut state, KeyCode::Char('q')), [Effect::Quit]);
    press(&mut state, KeyCode::Char(':'));
    enter(&mut state, "status");
    press(&mut state, KeyCode::Esc);
    assert_eq!(press(&mut state, KeyCode::Char('q')), []);
    shows(&screen(&state, 100, 20, 2000), &["Quit?"]);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(update(&mut state, Msg::Key(interrupt), 2001), [Effect::Quit]);
}

#[test]
fn visible_files_are_fetched_again_when_the_metadata_changes() {
    let mut state = live();
    let query = FilesQuery::default();
    assert_eq!(press(&mut state, KeyCode::Char('5')), [Effect::FetchFiles(query.clone())]);
    assert_eq!(update(&mut state, Msg::Files(query.clone(), Ok(files_page(vec![entry("a")], 5))), 2100), []);
    assert_eq!(push(&mut state, ClusterView { revision: 11, ..fixture() }, 2200), [], "not at once");
    assert_eq!(update(&mut state, Msg::Tick, 3300), [Effect::FetchFiles(query.clone())]);
    assert_eq!(push(&mut state, ClusterView { revision: 12, ..fixture() }, 9000), [], "one at a time");
    update(&mut state, Msg::Files(query.clone(), Ok(files_page(vec![entry("a")], 5))), 9100);
    update(&mut state, Msg::Files(query.clone(), Ok(files_page(vec![entry("a")], 5))), 9100);
    let next = FilesQuery { first: 1, ..query.clone() };
    assert_eq!(press(&mut state, KeyCode::Char('n')), [Effect::FetchFiles(next)]);
    update(&mut state, Msg::Files(query.clone(), Ok(files_page(vec![], 0))), 9200);
    assert_eq!(state.files.entries.len(), 1, "the answer to an abandoned query is dropped");
    assert_eq!(press(&mut state, KeyCode::Char('p')), [Effect::FetchFiles(query)]);
    press(&mut state, KeyCode::Char('/'));
    let effects = press(&mut state, KeyCode::Char('d'));
    assert_eq!(effects, [Effect::FetchFiles(FilesQuery { prefix: "d".into(), ..FilesQuery::default() })]);
}

#[test]
fn the_filter_hides_rows_and_escape_shows_them_again() {
    let mut state = live();
    press(&mut state, KeyCode::Char('/'));
    enter(&mut state, "M10");
    let text = screen(&state, 100, 20, 2000);
    // The map below the table has all members.
    assert!(text.contains("\n\"m10 ") && !text.contains("\n\"m2 "), "{text}");
    assert!(matches!(state.mode, Mode::Page));
    press(&mut state, KeyCode::Esc);
    shows(&screen(&state, 100, 20, 2000), &["\n\"m2 "]);
}

#[test]
fn help_lists_every_command() {
    let mut state = live();
    press(&mut state, KeyCode::Char('?'));
    let text = screen(&state, 140, 200, 2000);
    for entry in crate::command::registry::entries() {
        // Two of them are pages of the console.
        let shown = format!(":{} ", entry.name);
        assert!(text.contains(&shown) || ["events", "logs"].contains(&entry.name.as_str()), "{shown}");
    }
    shows(&text, &["asks first, cannot be undone"]);
}

#[test]
fn tab_completes_commands_and_names() {
    let mut state = live();
    press(&mut state, KeyCode::Char(':'));
    for c in "set-b".chars() {
        press(&mut state, KeyCode::Char(c));
    }
    press(&mut state, KeyCode::Tab);
    for c in "job".chars() {
        press(&mut state, KeyCode::Char(c));
    }
    press(&mut state, KeyCode::Tab);
    let Mode::Line(line) = &state.mode else { panic!("{:?}", state.mode) };
    assert_eq!(line.input.text(), "set-batch-size job-");
    assert_eq!(line.completions, ["job-1", "job-2"]);
}

#[test]
fn the_console_starts_connecting() {
    let state = State::new("x".into());
    assert_eq!(state.connection, ConnectionState::Connecting);
    shows(&screen(&state, 100, 10, 0), &["◐ CONNECTING", "looking for the coordinator"]);
}

#[test]
fn files_are_sorted_by_the_coordinator_and_the_position_is_visible() {
    let mut state = live();
    let query = FilesQuery::default();
    assert_eq!(press(&mut state, KeyCode::Char('5')), [Effect::FetchFiles(query.clone())]);
    let names: Vec<FolderEntry> = (0..200).map(|number| entry(&format!("f{number:03}"))).collect();
    update(&mut state, Msg::Files(query, Ok(files_page(names, 1005))), 2000);
    shows(&screen(&state, 80, 24, 2000), &["1-200 of 1,005"]);
    press(&mut state, KeyCode::Down);
    press(&mut state, KeyCode::Char('>'));
    // Names that ascend are the list's own order; sizes begin with the largest, of the whole list.
    let [Effect::FetchFiles(query)] = &press(&mut state, KeyCode::Char('>'))[..] else { panic!("no query") };
    let size = FileOrder { key: FileKey::Size, descending: true };
    assert_eq!(*query, FilesQuery { order: size, ..FilesQuery::default() });
    let mut largest = [entry("huge"), entry("small")];
    for (entry, size) in largest.iter_mut().zip([9_000_000, 1]) {
        let FolderEntry::File(file) = entry else { panic!("{entry:?}") };
        file.size = size;
    }
    update(&mut state, Msg::Files(query.clone(), Ok(files_page(largest.to_vec(), 1005))), 2000);
    let text = screen(&state, 100, 24, 2000);
    shows(&text, &["SIZE ▼", "9.0 MB", "1-2 of 1,005"]);
    assert!(text.find("huge") < text.find("small"), "{text}");
    assert_eq!(state.selected().as_deref(), Some("huge"), "another order opens at its top");
    // The next page is one of the same order.
    let [Effect::FetchFiles(next)] = &press(&mut state, KeyCode::Char('n'))[..] else { panic!("no query") };
    assert_eq!(*next, FilesQuery { first: 2, ..query.clone() });
    let [Effect::FetchFiles(reversed)] = &press(&mut state, KeyCode::Char('!'))[..] else {
        panic!("no query")
    };
    assert_eq!(
        *reversed,
        FilesQuery { order: FileOrder { descending: false, ..size }, ..FilesQuery::default() }
    );
}

#[test]
fn a_list_that_does_not_fit_says_where_it_is() {
    let mut state = live();
    assert!(!screen(&state, 80, 24, 2000).contains("1-4 of 4"), "all four members are visible");
    let mut many = ClusterView { revision: 12, ..fixture() };
    many.members = (1..=1234).map(|number| member(number, Liveness::Alive, LogRole::Spare)).collect();
    push(&mut state, many, 3000);
    shows(&screen(&state, 80, 24, 3000), &["1-19 of 1,234"]);
    press(&mut state, KeyCode::Char('G'));
    shows(&screen(&state, 80, 24, 3000), &["1,216-1,234 of 1,234"]);
    press(&mut state, KeyCode::Char('3'));
    push(&mut state, ClusterView { revision: 13, jobs_left_out: 8976, ..fixture() }, 4000);
    shows(&screen(&state, 120, 24, 4000), &["1-2 of 2, 8,976 older ones"]);
}

#[test]
fn jobs_that_the_view_leaves_out_are_sorted_with_the_others() {
    let mut state = live();
    state.page = Page::Jobs;
    let jobs = vec![job(2001, JobState::Running, 5), job(2002, JobState::Added, 0)];
    let view = ClusterView { revision: 14, jobs, jobs_left_out: 2000, ..fixture() };
    assert_eq!(push(&mut state, view.clone(), 4000), [Effect::FetchOldJobs(2000)]);
    assert_eq!(push(&mut state, view, 30_000), [], "once is enough while there are no more");
    // The coordinator's page may overlap with the view.
    let old = (1..=2001).map(|id| job(id, JobState::Done, id));
    update(&mut state, Msg::OldJobs(Ok(old.collect())), 31_000);
    assert_eq!(state.table().unwrap().rows.len(), 2002);
    assert!(!screen(&state, 120, 24, 31_000).contains("older ones"));
    // By DONE: of the old job-2000; of job-2001 the view's number counts.
    let done = state.table().unwrap().columns.iter().position(|column| column.title == "DONE").unwrap();
    (0..=done).for_each(|_| _ = press(&mut state, KeyCode::Char('>')));
    assert_eq!(state.table().unwrap().rows[0].key, "job-2000");
    // Its details have its figures, too.
    press(&mut state, KeyCode::Char('g'));
    press(&mut state, KeyCode::Enter);
    shows(&screen(&state, 120, 24, 31_000), &["jobs > job-2000", "2000 done"]);
}
