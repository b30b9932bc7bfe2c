//! Texts from elsewhere, made safe to show.
//!
//! A name, an error or a line of a log may have come from another person or another machine. What a terminal would obey,
//! reorder or not show at all is written as an escape instead, so that two texts that differ look different.

use std::borrow::Cow;

/// Whether a terminal would not show this character as itself: controls and escapes, line separators, and what Unicode
/// calls `Default_Ignorable_Code_Point`, which has the zero-width characters and those that reverse the direction.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}'
            | '\u{feff}' | '\u{ffa0}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
        )
}

/// A text in one line, with escapes such as `\n` and `\u{202e}` for what would not be seen.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden, |c, out| out.extend(c.escape_default()))
}

/// A text of several lines, with escapes as in [`visible`]. Line ends and tabs stay.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    let is_escaped = |c| is_hidden(c) && !matches!(c, '\n' | '\t');
    escaped(text, is_escaped, |c, out| out.extend(c.escape_default()))
}

/// Lines of JSON that mean the same, with JSON's escapes for what would not be seen.
pub fn visible_json(json: &str) -> Cow<'_, str> {
    // JSON has controls below the blank between values only, and this program writes none but line ends.
    escaped(
        json,
        |c| is_hidden(c) && c != '\n',
        |c, out| {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        },
    )
}

fn escaped(
    text: &str,
    is_escaped: impl Fn(char) -> bool,
    escape: impl Fn(char, &mut String),
) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_escaped(c) { escape(c, &mut out) } else { out.push(c) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_or_hide_is_escaped() {
        assert_eq!(visible("\u{1b}[2Jgone\r\n"), "\\u{1b}[2Jgone\\r\\n");
        assert_eq!(visible("\u{9b}31m\u{7f}"), "\\u{9b}31m\\u{7f}");
        assert_eq!(visible("gpj.\u{202e}exe"), "gpj.\\u{202e}exe");
        assert_eq!(visible("m\u{200b}1 \u{feff}\u{2066}\u{2029}"), "m\\u{200b}1 \\u{feff}\\u{2066}\\u{2029}");
        assert_eq!(visible("\u{e0041}"), "\\u{e0041}");
        assert_eq!(visible_lines("a\tb\nc\u{7}"), "a\tb\nc\\u{7}");
    }

    #[test]
    fn ordinary_text_of_any_language_stays() {
        for text in ["", "naïve café", "文件 файл ملف", "a 🦀 b", "50 % | ~"] {
            assert!(matches!(visible(text), Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn escaped_json_means_the_same() {
        let value = serde_json::json!({"name": "a\u{202e}b\u{e0041}\u{9b}", "other": "é\n"});
        let shown = visible_json(&value.to_string()).into_owned();
        assert!(shown.contains("\\u202e") && !shown.contains(is_hidden), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
