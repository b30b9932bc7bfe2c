//! The tour: three screens for somebody who has never seen the console. The keys are those in force.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::overlay::framed;
use crate::console::layout::centred;
use crate::console::state::State;
use crate::console::theme::Tone;

/// A screen: its title, and for each line the names of the items whose keys it explains, and the explanation.
struct Screen {
    title: &'static str,
    lines: &'static [(&'static [&'static str], &'static str)],
}

/// Screens of the tour.
pub const TOUR_SCREENS: usize = SCREENS.len();

const SCREENS: [Screen; 3] = [
    Screen {
        title: "what you see",
        lines: &[
            (&[], "The two lines on top show the cluster: who is up, who coordinates,"),
            (&[], "and how old the picture is. Below is one page of several:"),
            (&["next-page", "previous-page"], "go through the pages"),
            (&["down", "up"], "select a row; the mouse does it, too"),
            (&["open"], "opens the selection: a job's rows, a member's files"),
            (&["back"], "closes what is open"),
        ],
    },
    Screen {
        title: "find and do",
        lines: &[
            (&["filter"], "keeps the rows that contain a text"),
            (&["palette"], "searches all commands by name and by what they do"),
            (&["line"], "types a command, as in a shell; Tab completes"),
            (&["start-job"], "an example of a command's own keys: starts a job"),
            (&[], "Whatever interrupts work or destroys data asks first."),
        ],
    },
    Screen {
        title: "when something is wrong",
        lines: &[
            (&["explain"], "says why a job does not run, with the next step"),
            (&["describe"], "shows everything about the selection"),
            (&["logs-of"], "shows the log lines of the selection"),
            (&["help"], "lists all keys; type to search"),
            (&["tour"], "shows this again"),
            (&["quit"], "leaves; the cluster keeps running"),
        ],
    },
];

/// The widest line that the tour has.
const WIDTH: u16 = 74;

pub(super) fn draw(state: &State, screen: usize, frame: &mut Frame<'_>, area: Rect) {
    let theme = state.theme;
    let number = screen.min(TOUR_SCREENS - 1);
    let Screen { title, lines } = &SCREENS[number];
    let mut shown: Vec<Line<'_>> = vec![Line::default()];
    shown.extend(lines.iter().map(|(items, text)| {
        if items.is_empty() {
            return Line::raw(format!(" {text}"));
        }
        let keys: Vec<String> = items.iter().filter_map(|item| state.keymap.hint(item)).collect();
        let keys = Span::styled(format!(" {:<14} ", keys.join(", ")), theme.style(Tone::Key));
        Line::from(vec![keys, Span::raw(*text)])
    }));
    let next = if number + 1 < TOUR_SCREENS { "Enter: next" } else { "Enter: begin" };
    let back = if number > 0 { ", Left: back" } else { "" };
    shown.push(Line::default());
    shown.push(Line::styled(format!(" {next}{back}, Esc: close for good"), theme.style(Tone::Dim)));
    let height = u16::try_from(shown.len()).unwrap_or(u16::MAX).saturating_add(2);
    let title = format!(" tour {} of {TOUR_SCREENS}: {title} ", number + 1);
    framed(title, shown, 0, theme, frame, centred(area, WIDTH, height));
}
