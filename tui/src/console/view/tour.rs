//! The tour: three screens for somebody who has never seen the console. The keys are those in force.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::overlay::framed;
use crate::console::layout::centred;
use crate::console::state::State;
use crate::console::theme::Tone;
use crate::console::wrap::wrapped_words;

/// A screen: its title, and for each paragraph the names of the items whose keys it explains, and the explanation.
struct Screen {
    title: &'static str,
    paragraphs: &'static [(&'static [&'static str], &'static str)],
}

/// Screens of the tour.
pub const TOUR_SCREENS: usize = SCREENS.len();

const SCREENS: [Screen; 3] = [
    Screen {
        title: "what you see",
        paragraphs: &[
            (
                &[],
                "The two lines on top show the cluster: who is up, who coordinates, and how old the picture is. Below is one \
                 page of several:",
            ),
            (&["next-page", "previous-page"], "go through the pages"),
            (&["down", "up"], "select a row; the mouse does it, too"),
            (&["open"], "opens the selection: a job's rows, a member's files"),
            (&["back"], "closes what is open"),
        ],
    },
    Screen {
        title: "find and do",
        paragraphs: &[
            (&["filter"], "keeps the rows that contain a text"),
            (&["palette"], "searches all commands by name and by what they do"),
            (&["line"], "types a command, as in a shell; Tab completes"),
            (&["start-job"], "an example of a command's own keys: starts a job"),
            (&[], "Whatever interrupts work or destroys data asks first."),
        ],
    },
    Screen {
        title: "when something is wrong",
        paragraphs: &[
            (&["explain"], "says why a job does not run, with the next step"),
            (&["describe"], "shows everything about the selection"),
            (&["logs-of"], "shows the log lines of the selection"),
            (&["help"], "lists all keys; type to search"),
            (&["tour"], "shows this again"),
            (&["quit"], "leaves; the cluster keeps running"),
        ],
    },
];

/// With its frame.
const WIDTH: u16 = 74;
/// Columns of the keys.
const KEYS_WIDTH: usize = 16;

pub(super) fn draw(state: &State, screen: usize, frame: &mut Frame<'_>, area: Rect) {
    let theme = state.theme;
    let number = screen.min(TOUR_SCREENS - 1);
    let Screen { title, paragraphs } = &SCREENS[number];
    let inside = usize::from(WIDTH.min(area.width).saturating_sub(2));
    let mut shown: Vec<Line<'_>> = vec![Line::default()];
    for (items, text) in *paragraphs {
        let keys: Vec<String> = items.iter().filter_map(|item| state.keymap.hint(item)).collect();
        let (indent, begin) = if items.is_empty() {
            (1, String::from(" "))
        } else {
            (KEYS_WIDTH, format!(" {:<14} ", keys.join(", ")))
        };
        let wrapped = wrapped_words(text, inside.saturating_sub(indent));
        shown.extend(wrapped.into_iter().enumerate().map(|(number, text)| {
            let begin = if number == 0 { begin.clone() } else { " ".repeat(indent) };
            Line::from(vec![Span::styled(begin, theme.style(Tone::Key)), Span::raw(text)])
        }));
    }
    // Whatever has no room, the way out has.
    let room = usize::from(area.height.saturating_sub(2));
    if shown.len() + 2 <= room {
        shown.push(Line::default());
    } else {
        shown.truncate(room.saturating_sub(1));
    }
    let next = if number + 1 < TOUR_SCREENS { "Enter: next" } else { "Enter: begin" };
    let back = if number > 0 { ", Left: back" } else { "" };
    shown.push(Line::styled(format!(" {next}{back}, Esc: close for good"), theme.style(Tone::Dim)));
    let height = u16::try_from(shown.len()).unwrap_or(u16::MAX).saturating_add(2);
    let title = format!(" tour {} of {TOUR_SCREENS}: {title} ", number + 1);
    framed(title, shown, 0, theme, frame, centred(area, WIDTH, height));
}
