//! What things look like, by what they mean. A state is told by glyph and word; colour only adds to them.

use ratatui::style::{Color, Modifier, Style};

/// What a piece of text means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Plain.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Broken.
    Bad,
    /// Of less interest.
    Dim,
    /// A title.
    Title,
    /// A key to press.
    Key,
    /// The selected row.
    Selected,
}

/// A theme: with colours or without, with glyphs beyond ASCII or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Whether colours are used.
    pub colour: bool,
    /// Whether glyphs beyond ASCII are used.
    pub unicode: bool,
}

impl Theme {
    /// As the environment asks: `NO_COLOR`, `TERM`, and the locale's character set.
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        Self {
            colour: set("NO_COLOR").is_none() && !dumb,
            unicode: locale.contains("utf-8") || locale.contains("utf8") || cfg!(windows),
        }
    }

    /// The style of a role. Without colours only modifiers are set: crossterm 0.29.0 resets all attributes when it is
    /// asked for a colour under `NO_COLOR` (its pull request 1069).
    pub fn style(self, role: Role) -> Style {
        let plain = Style::new();
        let coloured = |colour: Color, modifier: Modifier| {
            if self.colour { plain.fg(colour).add_modifier(modifier) } else { plain.add_modifier(modifier) }
        };
        match role {
            Role::Plain => plain,
            Role::Good => coloured(Color::Green, Modifier::empty()),
            Role::Warn => coloured(Color::Yellow, Modifier::empty()),
            Role::Bad => coloured(Color::Red, Modifier::BOLD),
            Role::Dim => plain.add_modifier(Modifier::DIM),
            Role::Title => plain.add_modifier(Modifier::BOLD),
            Role::Key => coloured(Color::Cyan, Modifier::BOLD),
            Role::Selected => plain.add_modifier(Modifier::REVERSED),
        }
    }

    /// The glyph of a role.
    pub const fn glyph(self, role: Role) -> &'static str {
        match (role, self.unicode) {
            (Role::Good, true) => "●",
            (Role::Good, false) => "*",
            (Role::Warn, true) => "◐",
            (Role::Warn, false) => "~",
            (Role::Bad, true) => "✖",
            (Role::Bad, false) => "x",
            (_, true) => "○",
            (_, false) => "o",
        }
    }

    /// A bar of `width` cells, filled by `share` of 0 to 1.
    pub fn bar(self, share: f64, width: usize) -> String {
        // Saturates: a share out of range fills all or nothing.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
        let filled = ((share * width as f64).round() as usize).min(width);
        let (full, empty) = if self.unicode { ("█", "░") } else { ("#", ".") };
        full.repeat(filled) + &empty.repeat(width - filled)
    }
}
