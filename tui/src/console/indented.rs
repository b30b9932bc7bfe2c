//! JSON for people: on several lines, indented.

/// Blanks per level.
const INDENT: usize = 2;

/// The lines. All that is written stays as it was: numbers may have more digits than any number here.
pub fn indented(json: &str) -> Vec<String> {
    let (mut lines, mut line, mut depth) = (Vec::new(), String::new(), 0_usize);
    let (mut in_text, mut is_escaped) = (false, false);
    let mut chars = json.chars().peekable();
    while let Some(c) = chars.next() {
        if in_text {
            line.push(c);
            in_text = c != '"' || is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            continue;
        }
        match c {
            _ if c.is_whitespace() => {}
            '{' | '[' => {
                line.push(c);
                while chars.next_if(|next| next.is_whitespace()).is_some() {}
                if let Some(end) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    line.push(end);
                } else {
                    depth += 1;
                    lines.push(std::mem::replace(&mut line, " ".repeat(INDENT * depth)));
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                lines.push(std::mem::replace(&mut line, " ".repeat(INDENT * depth)));
                line.push(c);
            }
            ',' => {
                line.push(c);
                lines.push(std::mem::replace(&mut line, " ".repeat(INDENT * depth)));
            }
            ':' => line.push_str(": "),
            _ => {
                in_text = c == '"';
                line.push(c);
            }
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_and_nothing_in_it_changes() {
        let json = r#"{"a": 123456789012345678901,"b":[1.10,{}, [ ]],"c":"x, {\"y\": \\","d":{"e":null}}"#;
        let lines = indented(json);
        assert_eq!(
            lines,
            [
                "{",
                "  \"a\": 123456789012345678901,",
                "  \"b\": [",
                "    1.10,",
                "    {},",
                "    []",
                "  ],",
                r#"  "c": "x, {\"y\": \\","#,
                "  \"d\": {",
                "    \"e\": null",
                "  }",
                "}"
            ]
        );
        assert_eq!(indented("7"), ["7"]);
    }
}
