//! Every page at four sizes, with glyphs and without, as it is drawn.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::busy::{busy, inside};
use super::{enter, press, screen};
use crate::console::state::{Msg, Page, State};
use crate::console::theme::Theme;
use crate::console::update::update;

const SIZES: [(u16, u16); 4] = [(60, 20), (80, 24), (120, 40), (200, 60)];

fn pictures(name: &str, state: &State) {
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
        pictures(page.title(), &busy(page));
    }
}

#[test]
fn what_is_looked_into() {
    for (name, page, turns) in [
        ("job_vms", Page::Jobs, 0),
        ("job_batches", Page::Jobs, 1),
        ("job_dead_letters", Page::Jobs, 2),
        ("job_results", Page::Jobs, 3),
        ("member_files", Page::Members, 0),
        ("member_models", Page::Members, 1),
        ("member_batches", Page::Members, 2),
    ] {
        pictures(name, &inside(page, turns));
    }
    // Behind the folders stand files.
    let mut file = busy(Page::Files);
    press(&mut file, KeyCode::Down);
    for (name, turns) in [("file_extents", 0), ("file_versions", 1), ("file_preview", 2)] {
        let mut state = file.clone();
        state.page = Page::Files;
        let mut effects = press(&mut state, KeyCode::Enter);
        for _ in 0..turns {
            effects = press(&mut state, KeyCode::Right);
        }
        super::busy::answer(&mut state, effects);
        pictures(name, &state);
    }
}

#[test]
fn what_lies_over_a_page() {
    let mut help = busy(Page::Jobs);
    press(&mut help, KeyCode::Char('?'));
    pictures("help", &help);
    let mut palette = busy(Page::Jobs);
    update(&mut palette, Msg::Key(KeyEvent::new(KeyCode::Char('p'), KeyModifiers::CONTROL)), 60_000);
    enter_text(&mut palette, "job");
    pictures("palette", &palette);
    let mut menu = busy(Page::Jobs);
    press(&mut menu, KeyCode::Char('a'));
    pictures("menu", &menu);
    let mut form = menu;
    press(&mut form, KeyCode::Char('n'));
    pictures("form", &form);
    let mut asks = busy(Page::Jobs);
    press(&mut asks, KeyCode::Char(':'));
    enter(&mut asks, "delete docs/report.pdf");
    pictures("question", &asks);
}

fn enter_text(state: &mut State, text: &str) {
    text.chars().for_each(|c| _ = press(state, KeyCode::Char(c)));
}
