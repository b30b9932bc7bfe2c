//! Names and texts of strangers, before they reach a terminal: nothing in them acts on it.
#![no_main]

use idunno_shared::names::{FileName, ModelName};
use idunno_shared::text::{is_hidden, visible, visible_json, visible_lines};
use idunno_shared::wire::logs::{LogLevel, stamp_of};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    assert!(!visible(text).contains(is_hidden));
    assert!(!visible_lines(text).contains(|c| !matches!(c, '\n' | '\t') && is_hidden(c)));
    assert!(!visible_json(text).contains(|c| c != '\n' && is_hidden(c)));
    let _ = (LogLevel::of(text), stamp_of(text));
    if let Ok(name) = text.parse::<FileName>() {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(name) = text.parse::<ModelName>() {
        assert!(!name.as_str().contains(['/', '\\']) && name.as_str() != "..");
    }
});
