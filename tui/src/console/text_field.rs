//! A line of text being typed: `tui_input`'s buffer, bounded, with a shell's editing keys.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tui_input::{Input, InputRequest};

/// The longest line, in characters.
const CHARS_MAX: usize = 4096;

#[derive(Clone, Debug, Default)]
pub struct TextField {
    input: Input,
    /// Whether the text was put there beforehand: typing replaces it, as in a selected field of a browser.
    is_preset: bool,
}

impl TextField {
    /// A line with the cursor at its end.
    pub fn new(text: &str) -> Self {
        let input = Input::new(text.chars().filter(|c| !c.is_control()).take(CHARS_MAX).collect());
        Self { input, is_preset: false }
    }

    /// A text that typing replaces. A key that moves the cursor keeps it, to be changed.
    pub fn preset(text: &str) -> Self {
        let is_preset = !text.is_empty();
        Self { is_preset, ..Self::new(text) }
    }

    pub fn text(&self) -> &str {
        self.input.value()
    }

    /// The text to the left of the cursor.
    pub fn before_cursor(&self) -> &str {
        let text = self.text();
        let end = text.char_indices().nth(self.input.cursor()).map_or(text.len(), |(at, _)| at);
        &text[..end]
    }

    pub fn cursor_at_end(&self) -> bool {
        self.before_cursor().len() == self.text().len()
    }

    /// Whether typing replaces the text.
    pub const fn is_preset(&self) -> bool {
        self.is_preset
    }

    pub fn is_empty(&self) -> bool {
        self.text().is_empty()
    }

    /// Inserts text at the cursor, without control characters.
    pub fn insert(&mut self, text: &str) {
        if std::mem::take(&mut self.is_preset) {
            self.input.reset();
        }
        let room = CHARS_MAX.saturating_sub(self.text().chars().count());
        for c in text.chars().filter(|c| !c.is_control()).take(room) {
            self.input.handle(InputRequest::InsertChar(c));
        }
    }

    /// Handles an editing key; any other is ignored.
    pub fn press(&mut self, key: KeyEvent) {
        if self.is_preset && matches!(key.code, KeyCode::Backspace | KeyCode::Delete) {
            *self = Self::default();
            return;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let request = match key.code {
            KeyCode::Char('a') if control => InputRequest::GoToStart,
            KeyCode::Char('e') if control => InputRequest::GoToEnd,
            KeyCode::Char('u') if control => InputRequest::DeleteFromStart,
            KeyCode::Char('k') if control => InputRequest::DeleteTillEnd,
            KeyCode::Char('w') if control => return self.delete_word(),
            KeyCode::Char(c) if !control => return self.insert(c.encode_utf8(&mut [0; 4])),
            KeyCode::Backspace => InputRequest::DeletePrevChar,
            KeyCode::Delete => InputRequest::DeleteNextChar,
            KeyCode::Left => InputRequest::GoToPrevChar,
            KeyCode::Right => InputRequest::GoToNextChar,
            KeyCode::Home => InputRequest::GoToStart,
            KeyCode::End => InputRequest::GoToEnd,
            _ => return,
        };
        self.is_preset = false;
        self.input.handle(request);
    }

    /// Deletes back to the last blank, as a shell does: `tui_input`'s words also end at punctuation, and names are full
    /// of it.
    fn delete_word(&mut self) {
        let before = self.before_cursor();
        let kept = before.trim_end_matches(' ').rfind(' ').map_or("", |blank| &before[..=blank]);
        let cursor = kept.chars().count();
        let text = format!("{kept}{}", &self.text()[before.len()..]);
        *self = Self { input: Input::new(text).with_cursor(cursor), is_preset: false };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(c: char) -> KeyEvent {
        KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL)
    }

    #[test]
    fn a_line_is_edited_as_in_a_shell() {
        let mut field = TextField::new("put report-1.pdf docs/naïve.pdf\n");
        assert_eq!(field.text(), "put report-1.pdf docs/naïve.pdf");
        field.press(control('w'));
        assert_eq!(field.text(), "put report-1.pdf ");
        field.press(control('w'));
        field.insert("é\t漢");
        assert_eq!(field.text(), "put é漢");
        field.press(KeyEvent::from(KeyCode::Left));
        assert_eq!((field.before_cursor(), field.cursor_at_end()), ("put é", false));
        field.press(control('u'));
        assert_eq!((field.text(), field.before_cursor()), ("漢", ""));
        field.press(control('k'));
        assert!(field.is_empty() && field.cursor_at_end());
        field.insert(&"x".repeat(2 * CHARS_MAX));
        field.press(KeyEvent::from(KeyCode::Char('y')));
        assert_eq!(field.text().len(), CHARS_MAX);
    }

    #[test]
    fn typing_replaces_a_preset_text_and_moving_keeps_it() {
        let typed = |keys: &[KeyCode]| {
            let mut field = TextField::preset("test-data");
            keys.iter().for_each(|&code| field.press(KeyEvent::from(code)));
            field.text().to_owned()
        };
        assert_eq!(typed(&[KeyCode::Char('p'), KeyCode::Char('h')]), "ph");
        assert_eq!(typed(&[KeyCode::Backspace, KeyCode::Char('p')]), "p");
        assert_eq!(typed(&[KeyCode::End, KeyCode::Char('2')]), "test-data2");
        assert_eq!(typed(&[KeyCode::Left, KeyCode::Char('1')]), "test-dat1a");
        let mut pasted = TextField::preset("test-data");
        pasted.insert("photos");
        assert_eq!(pasted.text(), "photos");
    }
}
