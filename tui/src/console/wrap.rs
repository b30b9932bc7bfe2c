//! Long lines on several lines of the screen.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A text cut into lines of at most `width` columns, wherever they are full.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut taken = 0;
    for c in text.chars() {
        let cells = c.width().unwrap_or(0);
        if taken + cells > width && taken > 0 {
            lines.push(String::new());
            taken = 0;
        }
        taken += cells;
        if let Some(last) = lines.last_mut() {
            last.push(c);
        }
    }
    lines
}

/// A text in lines of at most `width` columns, broken at blanks where there are any. Its own line breaks stay.
pub fn wrapped_words(text: &str, width: usize) -> Vec<String> {
    text.lines().flat_map(|line| wrapped_line(line, width.max(1))).collect()
}

fn wrapped_line(line: &str, width: usize) -> Vec<String> {
    if line.width() <= width {
        return vec![line.to_owned()];
    }
    let mut lines: Vec<String> = Vec::new();
    for word in line.split(' ') {
        match lines.last_mut() {
            Some(last) if last.width() + 1 + word.width() <= width => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.extend(wrapped(word, width)),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_full_and_lose_nothing() {
        assert_eq!(wrapped("abcdefg", 3), ["abc", "def", "g"]);
        assert_eq!(wrapped("a漢字b", 3), ["a漢", "字b"]);
        assert_eq!(wrapped("漢", 1), ["漢"], "a character that is too wide has a line of its own");
        assert_eq!(wrapped("", 3), [""]);
    }

    #[test]
    fn words_stay_whole_where_they_fit() {
        assert_eq!(wrapped_words("to be or not", 5), ["to be", "or", "not"]);
        assert_eq!(wrapped_words("a unbelievable b", 6), ["a", "unbeli", "evable", "b"]);
        assert_eq!(wrapped_words("one\n\ntwo  words", 20), ["one", "", "two  words"]);
    }
}
