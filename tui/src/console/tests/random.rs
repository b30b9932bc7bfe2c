//! The update function under random messages: its invariants hold for any order.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use idunno_shared::ids::{NodeId, Term};
use idunno_shared::wire::control::ClusterView;
use proptest::prelude::*;

use super::fixtures::{busy_cluster, entry, fixture};
use crate::answer::{Answer, Exit, Failure};
use crate::command::registry::Danger;
use crate::console::query::QueryError;
use crate::console::state::{DetailData, Effect, FilesPage, Mode, Msg, NetEvent, Page, State};
use crate::console::update::update;
use crate::tail::LogLine;

#[derive(Clone, Debug)]
enum Step {
    Key(KeyCode, bool),
    Type(&'static str),
    Mouse(u16, u16, bool),
    View(u64, usize),
    Lost(bool),
    Log,
    Answer(bool),
    Finish(u64, bool),
    Size(u16, u16),
    Tick(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let codes = vec![
        KeyCode::Enter,
        KeyCode::Esc,
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Backspace,
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::PageDown,
    ];
    let lines = vec![
        ":stop-job job-1\n",
        ":delete a\n",
        "/m1\n",
        ":sort state\n",
        "an\n",
        "aD",
        ":leave --member m2\n",
        "y",
        "ax\n",
        ":local down --purge\n",
        "purge\n",
    ];
    let step = prop_oneof![
        4 => prop::sample::select(codes).prop_map(|code| Step::Key(code, false)),
        4 => (0x20_u8..0x7f, prop::bool::weighted(0.1))
            .prop_map(|(c, control)| Step::Key(KeyCode::Char(char::from(c)), control)),
        2 => prop::sample::select(lines).prop_map(Step::Type),
        1 => (0..130_u16, 0..40_u16, any::<bool>()).prop_map(|(x, y, wheel)| Step::Mouse(x, y, wheel)),
        2 => (1..6_u64, 0..5_usize).prop_map(|(term, members)| Step::View(term, members)),
        1 => any::<bool>().prop_map(Step::Lost),
        1 => Just(Step::Log),
        2 => any::<bool>().prop_map(Step::Answer),
        1 => (1..5_u64, any::<bool>()).prop_map(|(id, succeeds)| Step::Finish(id, succeeds)),
        1 => (1..131_u16, 1..41_u16).prop_map(|(width, height)| Step::Size(width, height)),
        1 => (0..9000_u64).prop_map(Step::Tick),
    ];
    prop::collection::vec(step, 1..120)
}

fn messages(step: &Step, state: &State) -> Vec<Msg> {
    let key = |code, control| {
        let modifiers = if control { KeyModifiers::CONTROL } else { KeyModifiers::NONE };
        Msg::Key(KeyEvent::new(code, modifiers))
    };
    match step {
        Step::Key(code, control) => vec![key(*code, *control)],
        Step::Type(text) => text
            .chars()
            .map(|c| key(if c == '\n' { KeyCode::Enter } else { KeyCode::Char(c) }, false))
            .collect(),
        Step::Mouse(column, row, wheel) => {
            let press = MouseEventKind::Down(MouseButton::Left);
            let kind = if *wheel { MouseEventKind::ScrollUp } else { press };
            vec![Msg::Mouse(MouseEvent { kind, column: *column, row: *row, modifiers: KeyModifiers::NONE })]
        }
        Step::View(term, members) => {
            let mut view = ClusterView { term: Term(*term), coordinator: NodeId(*term), ..fixture() };
            view.members.truncate(*members);
            view.jobs.truncate(*members);
            view.at_ms = term * 1000;
            view.revision = *term;
            vec![Msg::Net(NetEvent::View(Box::new(view)))]
        }
        Step::Lost(member_reachable) => {
            let reason = String::from("gone");
            vec![Msg::Net(NetEvent::Waiting {
                wait_ms: 10,
                attempt: 1,
                reason,
                member_reachable: *member_reachable,
                members: member_reachable.then(|| fixture().members),
            })]
        }
        Step::Log => {
            vec![Msg::Log(vec![LogLine { source: "m1".into(), text: "2026 WARN 漢字".into() }; 3])]
        }
        Step::Answer(succeeds) => {
            let files = state.files.in_flight.clone().map(|query| {
                Msg::Files(
                    query,
                    if *succeeds {
                        Ok(FilesPage { entries: vec![entry("a"), entry("b")], first: 0, total: 5 })
                    } else {
                        Err(QueryError::TooLarge)
                    },
                )
            });
            let query = state.details.last().and_then(|detail| detail.in_flight.clone());
            let detail = query.map(|query| {
                let lines = || DetailData::Lines(vec!["x".into()]);
                Msg::Detail(query, if *succeeds { Ok(lines()) } else { Err(QueryError::TooLarge) })
            });
            files.into_iter().chain(detail).collect()
        }
        Step::Finish(id, succeeds) => {
            let failure = Failure::new(Exit::Unreachable, "nobody");
            vec![Msg::Finished(*id, if *succeeds { Ok(Answer::text("1\n2")) } else { Err(failure) })]
        }
        Step::Size(width, height) => vec![Msg::Resized(*width, *height)],
        Step::Tick(_) => vec![Msg::Tick],
    }
}

fn check(state: &State, effects: &[Effect], confirmed: bool) {
    if let Some(table) = state.table()
        && table.cursor.key.is_some()
    {
        assert!(table.cursor.line < table.rows.len().max(1), "{:?}", table.cursor);
    }
    assert!(
        state.operations.len() <= 1000
            && state.events.list.len() <= 1000
            && state.command_history.len() <= 100
    );
    for effect in effects {
        if let Effect::Run(_, verb) = effect {
            assert!(!(state.read_only && verb.changes()), "{verb:?} in read-only mode");
            assert!(confirmed || verb.danger().0 == Danger::None, "{verb:?} was not confirmed");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_under_random_messages(steps in steps(), read_only in any::<bool>(), page in 0..8_usize) {
        let mut state = busy_cluster(Page::ALL[page]);
        state.read_only = read_only;
        let mut now_ms = 60_000;
        for (number, step) in steps.iter().enumerate() {
            for msg in messages(step, &state) {
                now_ms += if let Step::Tick(ms) = step { *ms } else { 200 };
                let in_dialog = matches!(state.mode, Mode::Confirm(_));
                let effects = update(&mut state, msg, now_ms);
                check(&state, &effects, in_dialog);
            }
            if number % 8 == 0 {
                super::screen(&state, state.size.width, state.size.height, now_ms);
            }
        }
    }
}
