//! Styles by meaning. A state is always shown by a glyph and a word; colour only adds to them.
//!
//! The colours are those of the 256 whose values are the same on every terminal, chosen for a contrast of at least 4.5
//! against their background. `colour-blind` shows good and bad in blue and orange. `mono` sets modifiers only.

use ratatui::style::{Color, Modifier, Style};
use serde::{Deserialize, Serialize};

use crate::command::Palette;

/// What a piece of text means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tone {
    #[default]
    Plain,
    Good,
    Warn,
    Bad,
    Dim,
    Title,
    /// A key to press.
    Key,
    /// The selected row.
    Selected,
    /// A chart's series, by its number.
    Series(usize),
}

impl Tone {
    /// The same tone, or `Warn` in place of `Good`.
    #[must_use]
    pub const fn at_least_warn(self) -> Self {
        match self {
            Self::Good => Self::Warn,
            other => other,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    pub palette: Palette,
    /// Whether glyphs beyond ASCII are used.
    pub unicode: bool,
}

struct Colours {
    good: u8,
    warn: u8,
    bad: u8,
    dim: u8,
    key: u8,
    selected_text: u8,
    selected_background: u8,
    series: [u8; 5],
}

const DARK: Colours = Colours {
    good: 114,
    warn: 221,
    bad: 210,
    dim: 246,
    key: 117,
    selected_text: 231,
    selected_background: 24,
    series: [117, 221, 183, 114, 216],
};
const LIGHT: Colours = Colours {
    good: 22,
    warn: 94,
    bad: 124,
    dim: 240,
    key: 25,
    selected_text: 16,
    selected_background: 153,
    series: [25, 94, 90, 22, 124],
};
const COLOUR_BLIND: Colours = Colours {
    good: 75,
    warn: 229,
    bad: 208,
    dim: 246,
    key: 153,
    selected_text: 231,
    selected_background: 24,
    series: [75, 229, 208, 183, 252],
};

impl Theme {
    /// The chosen palette, unless `NO_COLOR` or `TERM` ask for none; glyphs as the locale's character set allows.
    pub fn of_environment(chosen: Palette, variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        let coloured = set("NO_COLOR").is_none() && !dumb;
        Self {
            palette: if coloured { chosen } else { Palette::Mono },
            unicode: locale.contains("utf-8") || locale.contains("utf8") || cfg!(windows),
        }
    }

    /// The next palette, wrapping around.
    #[must_use]
    pub fn next(self) -> Self {
        let palette = match self.palette {
            Palette::Dark => Palette::Light,
            Palette::Light => Palette::ColourBlind,
            Palette::ColourBlind => Palette::Mono,
            Palette::Mono => Palette::Dark,
        };
        Self { palette, ..self }
    }

    fn colours(self) -> Option<&'static Colours> {
        match self.palette {
            Palette::Dark => Some(&DARK),
            Palette::Light => Some(&LIGHT),
            Palette::ColourBlind => Some(&COLOUR_BLIND),
            Palette::Mono => None,
        }
    }

    /// Without colours only modifiers are set: crossterm 0.29.0 resets all attributes when a colour is set under `NO_COLOR`
    /// (its pull request 1069).
    pub fn style(self, tone: Tone) -> Style {
        let plain = Style::new();
        let Some(colours) = self.colours() else {
            return match tone {
                Tone::Bad | Tone::Title | Tone::Key => plain.add_modifier(Modifier::BOLD),
                Tone::Dim => plain.add_modifier(Modifier::DIM),
                Tone::Selected => plain.add_modifier(Modifier::REVERSED),
                _ => plain,
            };
        };
        let of = |colour: u8| plain.fg(Color::Indexed(colour));
        match tone {
            Tone::Plain => plain,
            Tone::Good => of(colours.good),
            Tone::Warn => of(colours.warn),
            Tone::Bad => of(colours.bad).add_modifier(Modifier::BOLD),
            Tone::Dim => of(colours.dim),
            Tone::Title => plain.add_modifier(Modifier::BOLD),
            Tone::Key => of(colours.key).add_modifier(Modifier::BOLD),
            Tone::Selected => of(colours.selected_text).bg(Color::Indexed(colours.selected_background)),
            Tone::Series(number) => of(colours.series[number % colours.series.len()]),
        }
    }

    pub const fn glyph(self, tone: Tone) -> &'static str {
        match (tone, self.unicode) {
            (Tone::Good, true) => "●",
            (Tone::Good, false) => "*",
            (Tone::Warn, true) => "◐",
            (Tone::Warn, false) => "~",
            (Tone::Bad, true) => "✖",
            (Tone::Bad, false) => "x",
            (_, true) => "○",
            (_, false) => "o",
        }
    }

    /// A bar of `width` cells, filled by `share` of 0 to 1, to an eighth of a cell.
    pub fn bar(self, share: f64, width: usize) -> String {
        const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        let (full, empty, steps) = if self.unicode { ("█", "░", 8) } else { ("#", ".", 1) };
        // A share out of range fills all or nothing.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
        let filled = ((share * (width * steps) as f64).round() as usize).min(width * steps);
        let part = if self.unicode { PARTS[filled % steps] } else { "" };
        let cells = filled / steps;
        full.repeat(cells) + part + &empty.repeat(width - cells - usize::from(!part.is_empty()))
    }

    /// A chart of the last `width` values in `height` lines, scaled to `top`. Unknown values stay blank.
    pub fn chart(self, values: &[f64], width: usize, height: usize, top: f64) -> Vec<String> {
        const UNICODE: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        const ASCII: [char; 9] = [' ', '_', '_', '.', '-', '=', '+', '*', '#'];
        let steps = if self.unicode { UNICODE } else { ASCII };
        let shown = &values[values.len().saturating_sub(width)..];
        let line = |line: usize| -> String {
            let below = (height - 1 - line) as f64 * 8.0;
            let cell = |value: &f64| {
                if !value.is_finite() || top <= 0.0 {
                    return ' ';
                }
                let eighths = (value / top * height as f64 * 8.0).ceil() - below;
                // Rounded up, so that any value above zero is visible.
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is 0 to 8")]
                let step = eighths.clamp(0.0, 8.0) as usize;
                steps[step]
            };
            " ".repeat(width - shown.len()) + &shown.iter().map(cell).collect::<String>()
        };
        (0..height).map(line).collect()
    }

    /// How much there is, in one cell: `share` is 0 to 1.
    pub fn level(self, share: f64) -> String {
        self.chart(&[share], 1, 1, 1.0).remove(0)
    }

    /// The lines of a chart's axes: beside the values, at a label, at the corner, below, and below a label.
    pub const fn axes(self) -> [&'static str; 5] {
        if self.unicode { ["│", "┤", "└", "─", "┴"] } else { ["|", "+", "+", "-", "+"] }
    }

    /// What stands for a part of a chart that was not seen.
    pub const fn shade(self) -> &'static str {
        if self.unicode { "░" } else { ":" }
    }

    /// The mark of a member that works.
    pub const fn work(self) -> &'static str {
        if self.unicode { "▶" } else { ">" }
    }

    /// The mark after the title of the sorted column.
    pub const fn sort_arrow(self, descending: bool) -> &'static str {
        match (self.unicode, descending) {
            (true, false) => "▲",
            (true, true) => "▼",
            (false, false) => "^",
            (false, true) => "v",
        }
    }
}
