//! A line of text being typed: `tui_input`'s buffer, bounded, with a shell's editing keys.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tui_input::{Input, InputRequest};

/// The longest line, in characters.
const CHARS_MAX: usize = 4096;

#[derive(Clone, Debug, Default)]
pub struct TextField(Input);

impl TextField {
    /// A line with the cursor at its end.
    pub fn new(text: &str) -> Self {
        Self(Input::new(text.chars().filter(|c| !c.is_control()).take(CHARS_MAX).collect()))
    }

    pub fn text(&self) -> &str {
        self.0.value()
    }

    /// The text to the left of the cursor.
    pub fn before_cursor(&self) -> &str {
        let text = self.text();
        let end = text.char_indices().nth(self.0.cursor()).map_or(text.len(), |(at, _)| at);
        &text[..end]
    }

    pub fn cursor_at_end(&self) -> bool {
        self.before_cursor().len() == self.text().len()
    }

    pub fn is_empty(&self) -> bool {
        self.text().is_empty()
    }

    /// Inserts text at the cursor, without control characters.
    pub fn insert(&mut self, text: &str) {
        let room = CHARS_MAX.saturating_sub(self.text().chars().count());
        for c in text.chars().filter(|c| !c.is_control()).take(room) {
            self.0.handle(InputRequest::InsertChar(c));
        }
    }

    /// Handles an editing key; any other is ignored.
    pub fn press(&mut self, key: KeyEvent) {
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
        self.0.handle(request);
    }

    /// Deletes back to the last blank, as a shell does: `tui_input`'s words also end at punctuation, and names are full
    /// of it.
    fn delete_word(&mut self) {
        let before = self.before_cursor();
        let kept = before.trim_end_matches(' ').rfind(' ').map_or("", |blank| &before[..=blank]);
        let cursor = kept.chars().count();
        let text = format!("{kept}{}", &self.text()[before.len()..]);
        self.0 = Input::new(text).with_cursor(cursor);
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
}
