//! Every page and overlay as it is drawn, at four sizes, in Unicode and ASCII.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::fixtures::{answer, busy_cluster, busy_details};
use super::{enter, press, screen};
use crate::console::state::{Mode, Msg, Page, State};
use crate::console::theme::Theme;
use crate::console::update::update;
use crate::console::view::TOUR_SCREENS;

const SIZES: [(u16, u16); 4] = [(60, 20), (80, 24), (120, 40), (200, 60)];

fn assert_snapshots(name: &str, state: &State) {
    for unicode in [true, false] {
        let theme = Theme { unicode, ..state.theme };
        let mut state = State { theme, ..state.clone() };
        let mut all = String::new();
        for (width, height) in SIZES {
            update(&mut state, Msg::Resized(width, height), 60_000);
            all.push_str(&[format!("{width}x{height}"), screen(&state, width, height, 60_100)].join("\n"));
        }
        if !unicode {
            assert!(all.is_ascii(), "{all}");
        }
        insta::assert_snapshot!(format!("{name}_{}", if unicode { "unicode" } else { "ascii" }), all);
    }
}

#[test]
fn pages() {
    for page in Page::ALL {
        assert_snapshots(page.title(), &busy_cluster(page));
    }
}

#[test]
fn details() {
    for (name, page, switches) in [
        ("job_members", Page::Jobs, 0),
        ("job_batches", Page::Jobs, 1),
        ("job_dead_letters", Page::Jobs, 2),
        ("job_results", Page::Jobs, 3),
        ("member_files", Page::Members, 0),
        ("member_models", Page::Members, 1),
        ("member_batches", Page::Members, 2),
    ] {
        assert_snapshots(name, &busy_details(page, switches));
    }
    // The files follow the folders.
    let mut file = busy_cluster(Page::Files);
    press(&mut file, KeyCode::Down);
    for (name, switches) in [("file_extents", 0), ("file_versions", 1), ("file_preview", 2)] {
        let mut state = file.clone();
        state.page = Page::Files;
        let mut effects = press(&mut state, KeyCode::Enter);
        for _ in 0..switches {
            effects = press(&mut state, KeyCode::Right);
        }
        answer(&mut state, effects);
        assert_snapshots(name, &state);
    }
}

#[test]
fn overlays() {
    let mut help = busy_cluster(Page::Jobs);
    press(&mut help, KeyCode::Char('?'));
    assert_snapshots("help", &help);
    let mut palette = busy_cluster(Page::Jobs);
    update(&mut palette, Msg::Key(KeyEvent::new(KeyCode::Char('p'), KeyModifiers::CONTROL)), 60_000);
    enter_text(&mut palette, "job");
    assert_snapshots("palette", &palette);
    let mut menu = busy_cluster(Page::Jobs);
    press(&mut menu, KeyCode::Char('a'));
    assert_snapshots("menu", &menu);
    let mut form = menu;
    press(&mut form, KeyCode::Char('n'));
    assert_snapshots("form", &form);
    let mut dialog = busy_cluster(Page::Jobs);
    press(&mut dialog, KeyCode::Char(':'));
    enter(&mut dialog, "delete docs/report.pdf");
    assert_snapshots("confirm", &dialog);
}

fn enter_text(state: &mut State, text: &str) {
    text.chars().for_each(|c| _ = press(state, KeyCode::Char(c)));
}

#[test]
fn tour() {
    let mut state = busy_cluster(Page::Overview);
    update(&mut state, Msg::Key(KeyEvent::new(KeyCode::Char('t'), KeyModifiers::CONTROL)), 2_000);
    for number in 1..=TOUR_SCREENS {
        assert_snapshots(&format!("tour_{number}"), &state);
        let effects = press(&mut state, KeyCode::Enter);
        assert_eq!(effects.is_empty(), number < TOUR_SCREENS, "{effects:?}");
    }
    assert!(matches!(state.mode, Mode::Page));
}

#[test]
fn the_tour_says_how_it_is_left_in_any_window() {
    let mut state = busy_cluster(Page::Overview);
    update(&mut state, Msg::Key(KeyEvent::new(KeyCode::Char('t'), KeyModifiers::CONTROL)), 2_000);
    for (width, height) in [(44, 12), (60, 16), (200, 60)] {
        update(&mut state, Msg::Resized(width, height), 60_000);
        let screen = screen(&state, width, height, 60_100);
        assert!(screen.contains("Esc: close for good"), "{width}x{height}:\n{screen}");
    }
}
