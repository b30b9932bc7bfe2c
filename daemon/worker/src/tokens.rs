//! The tokens that an answer says it took: `usage`, as servers with OpenAI's API report it.
//!
//! Every model may report them so, whatever runs it. An answer without `usage`, or with another meaning of the word,
//! counts nothing.

use std::sync::LazyLock;

use idunno_shared::wire::jobs::TokenCount;
use memchr::memmem;
use serde::Deserialize;
use serde_json::{Map, Value};

static FIELD: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"usage\""));

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    usage: Option<Map<String, Value>>,
}

/// The tokens of an answer, from its field `usage`: of chats and completions, responses, or embeddings.
pub fn tokens_of(output: &[u8]) -> TokenCount {
    // Most answers have none, and need not be parsed for that.
    if FIELD.find(output).is_none() {
        return TokenCount::default();
    }
    let Ok(Answer { usage: Some(usage) }) = serde_json::from_slice(output) else {
        return TokenCount::default();
    };
    let count = |names: [&str; 2]| names.iter().find_map(|name| usage.get(*name)?.as_u64()).unwrap_or(0);
    TokenCount {
        prompt: count(["prompt_tokens", "input_tokens"]),
        completion: count(["completion_tokens", "output_tokens"]),
        reused: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_as_each_endpoint_reports_them() {
        for (output, prompt, completion) in [
            (r#"{"text":"x","usage":{"prompt_tokens":42,"completion_tokens":8,"total_tokens":50}}"#, 42, 8),
            (r#"{"usage":{"input_tokens":42,"output_tokens":8,"total_tokens":50},"text":"x"}"#, 42, 8),
            (r#"{"data":[],"usage":{"prompt_tokens":42,"total_tokens":42}}"#, 42, 0),
            (r#"{"text":"x","usage":{"prompt_tokens":42,"completion_tokens":null}}"#, 42, 0),
        ] {
            assert_eq!(
                tokens_of(output.as_bytes()),
                TokenCount { prompt, completion, reused: 0 },
                "{output}"
            );
        }
    }

    #[test]
    fn other_answers_have_no_tokens() {
        for output in [
            r#"{"text":"x","usage":null}"#,
            r#"{"text":"their \"usage\" grew"}"#,
            r#"{"usage":"daily"}"#,
            r#"{"usage":{"prompt_tokens":-1,"completion_tokens":"8"}}"#,
            r#"["usage"]"#,
            r#"the "usage" of words"#,
            "[0.25,0.5]",
            "",
        ] {
            assert!(tokens_of(output.as_bytes()).is_zero(), "{output}");
        }
    }
}
