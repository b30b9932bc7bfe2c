//! JSON that people and models gave us, kept byte for byte.
//!
//! Invariant: what is kept is strict JSON, so that no reader of a row fails on it: UTF-8 without lone surrogates, numbers
//! that a double can hold, at most [`LEVELS_MAX`] levels deep, the row included.

use std::borrow::Cow;
use std::fmt;

use idunno_shared::client::results::scalar;
use memchr::memchr_iter;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::de::Read;
use serde_json::value::RawValue;

/// What many readers of JSON take at most.
pub const LEVELS_MAX: u8 = 127;

/// One value, as it was written, without line breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText(String);

impl JsonText {
    /// A text as a JSON string.
    pub fn of_text(text: &str) -> Self {
        Self(Value::from(text).to_string())
    }

    /// A value as it stands in a line. The line is strict JSON.
    pub fn verbatim(raw: &RawValue) -> Self {
        // Outside of strings, a carriage return is white space; inside, it is escaped.
        Self(raw.get().replace('\r', " "))
    }

    /// JSON of a column of a file, which is strict and has no line breaks.
    pub fn of_json(json: String) -> Self {
        Self(json)
    }

    /// An object of such values.
    pub fn object<'a>(fields: impl Iterator<Item = (&'a str, Self)>) -> Self {
        let fields: Vec<String> =
            fields.map(|(name, Self(value))| format!("{}:{value}", Value::from(name))).collect();
        Self(format!("{{{}}}", fields.join(",")))
    }

    /// The JSON.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What people read: the text of a string, or a number or truth value as JSON writes it. `None` for anything else.
    pub fn scalar(&self) -> Option<Cow<'_, str>> {
        let text = self.0.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        if let Some(text) = text.filter(|text| !text.contains('\\')) {
            return Some(Cow::Borrowed(text));
        }
        serde_json::from_str(&self.0).ok().as_ref().and_then(scalar).map(Cow::Owned)
    }
}

/// Why bytes are no strict JSON.
#[derive(Debug)]
pub enum NotStrict {
    /// They are JSON, or what many programs write as JSON, that other programs cannot read.
    Broken(String),
    /// They are something else.
    Other,
}

/// Whether text that is JSON is strict without a closer look. Much faster than [`strict`], and true for nearly all that people
/// and models write. Says nothing of text that is no JSON.
pub fn is_plain(text: &str, levels: u8) -> bool {
    let bytes = text.as_bytes();
    let too_deep = brackets(bytes) > usize::from(levels);
    let is_escaped = |at: usize| bytes.get(at + 1) == Some(&b'u');
    !too_deep && !memchr_iter(b'\\', bytes).any(is_escaped) && numbers_are_small(bytes)
}

/// Whether a double can hold each number of this JSON, told by a look at few of its bytes: one that it cannot hold has a positive
/// exponent, or more than [`DIGITS_MAX`] digits, of which one lies at a multiple of that.
fn numbers_are_small(bytes: &[u8]) -> bool {
    const DIGITS_MAX: usize = 300;
    let has_many_digits = |at: usize| {
        let before =
            bytes[..at].iter().rev().take(DIGITS_MAX).take_while(|byte| byte.is_ascii_digit()).count();
        let after = bytes[at..].iter().take(DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
        after > 0 && before + after > DIGITS_MAX
    };
    !has_positive_exponent(bytes) && !(0..bytes.len()).step_by(DIGITS_MAX).any(has_many_digits)
}

/// How many levels begin in this JSON, or in its strings. Without a branch for each byte, so that many are looked at at once.
fn brackets(bytes: &[u8]) -> usize {
    const COUNTED_AT_ONCE: usize = u8::MAX as usize;
    let in_chunk = |chunk: &[u8]| chunk.iter().map(|byte| u8::from(matches!(byte, b'[' | b'{'))).sum::<u8>();
    bytes.chunks(COUNTED_AT_ONCE).map(|chunk| usize::from(in_chunk(chunk))).sum()
}

/// Whether a number of this JSON, or what looks like one in a string, has a positive exponent. Without branches, too.
fn has_positive_exponent(bytes: &[u8]) -> bool {
    let (Some(exponents), Some(signs)) = (bytes.get(1..), bytes.get(2..)) else { return false };
    let found = bytes.iter().zip(exponents).zip(signs).fold(0, |found, ((digit, exponent), sign)| {
        let is_number = u8::from(digit.is_ascii_digit()) & u8::from(exponent.eq_ignore_ascii_case(&b'e'));
        found | (is_number & u8::from(*sign != b'-'))
    });
    found != 0
}

/// Checks that the bytes are one value of strict JSON with at most so many levels, and says where they are not.
pub fn strict(bytes: &[u8], levels: u8) -> Result<(), serde_json::Error> {
    fn read<'de, R: Read<'de>>(
        mut reader: serde_json::Deserializer<R>,
        levels: u8,
    ) -> Result<(), serde_json::Error> {
        Strict { levels }.deserialize(&mut reader)?;
        reader.end()
    }
    // Checked at once, which is faster than each string alone. The place of wrong bytes is found by the other way.
    match std::str::from_utf8(bytes) {
        Ok(text) => read(serde_json::Deserializer::from_str(text), levels),
        Err(_) => read(serde_json::Deserializer::from_slice(bytes), levels),
    }
}

/// Checks that the bytes are one value of strict JSON that a row can hold, and tells broken JSON from what is none.
pub fn check(bytes: &[u8]) -> Result<(), NotStrict> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && is_plain(text, LEVELS_MAX - 1)
        && serde_json::from_str::<IgnoredAny>(text).is_ok()
    {
        return Ok(());
    }
    let Err(error) = strict(bytes, LEVELS_MAX - 1) else { return Ok(()) };
    // This reader skips surrogates, sizes of numbers, and any depth.
    let is_lenient = |bytes: &[u8]| serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
    let is_broken = is_lenient(bytes) || without_constants(bytes).is_some_and(|bytes| is_lenient(&bytes));
    Err(if is_broken { NotStrict::Broken(error.to_string()) } else { NotStrict::Other })
}

/// Replaces `NaN`, `Infinity` and `-Infinity` outside of strings, which JSON does not have. `None` if there are none, and
/// for a bare one, which is a text.
fn without_constants(bytes: &[u8]) -> Option<Vec<u8>> {
    if !matches!(bytes.trim_ascii_start().first(), Some(b'[' | b'{')) {
        return None;
    }
    let (mut out, mut at, mut in_string) = (Vec::with_capacity(bytes.len()), 0, false);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let constant =
            [&b"NaN"[..], b"Infinity", b"-Infinity"].into_iter().find(|name| rest.starts_with(name));
        let length = if let Some(name) = constant.filter(|_| !in_string) {
            out.push(b'0');
            name.len()
        } else {
            let length = if in_string && rest[0] == b'\\' { rest.len().min(2) } else { 1 };
            in_string ^= rest[0] == b'"';
            out.extend_from_slice(&rest[..length]);
            length
        };
        at += length;
    }
    (out.len() < bytes.len()).then_some(out)
}

/// Any value that serde_json can represent. Keeps nothing of it.
#[derive(Clone, Copy)]
struct Strict {
    levels: u8,
}

impl Strict {
    fn inner<E: Error>(self) -> Result<Self, E> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(Self { levels }),
            None => Err(E::custom("it has too many levels")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while entries.next_entry_seed(inner, inner)?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_for_plain_is_strict() {
        let digits = |count: usize| "9".repeat(count);
        let fractions =
            [digits(300) + "." + &digits(300), digits(301), digits(300) + "e-9", String::from("1.5E-3")];
        let texts = [
            "[1e308,2]",
            "[1e999]",
            "1E+400",
            "{\"a\":[1,-0.0,null]}",
            "\"\\ud83d\"",
            "\"\\\\u\"",
            "\"3e5 a\"",
            "\"\\n\"",
        ];
        let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let all = texts.map(String::from).into_iter().chain(fractions).chain([deep(20), deep(21)]);
        let mut plain = 0;
        for text in all {
            // Nothing that is no strict JSON passes; what is strict may need the closer look.
            if is_plain(&text, 20) && serde_json::from_str::<IgnoredAny>(&text).is_ok() {
                assert!(strict(text.as_bytes(), 20).is_ok(), "{text}");
                plain += 1;
            }
        }
        assert_eq!(plain, 6);
    }

    #[test]
    fn strict_json_is_told_from_broken_json_and_from_text() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        for strict in
            ["{\"a\":[1,-0.0,1e308,null,true]}", "123456789012345678901", "\"\\ud83d\\ude00\"", &deep(126)]
        {
            assert!(check(strict.as_bytes()).is_ok(), "{strict}");
        }
        let broken = [
            "{\"a\":NaN}",
            "[Infinity, -Infinity]",
            "{\"NaN\":\"\\\"\",\"a\":NaN}",
            "1e999",
            "\"\\ud83d\"",
            "{\"\\ud83d\":1}",
            &deep(127),
        ];
        for broken in broken {
            let found = check(broken.as_bytes());
            assert!(
                matches!(&found, Err(NotStrict::Broken(why)) if why.contains("column")),
                "{broken}: {found:?}"
            );
        }
        for other in ["a text", "NaN", "[see below] NaN", "{\"a\":", "\u{feff}{}", ""] {
            assert!(matches!(check(other.as_bytes()), Err(NotStrict::Other)), "{other}");
        }
        assert!(matches!(check(b"{\"a\":\"\xff\"}"), Err(NotStrict::Broken(_))));
    }
}
