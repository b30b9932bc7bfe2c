//! Records that are JSON lines.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use idunno_shared::names::ColumnName;
use idunno_shared::wire::records::{ColumnNames, Keep};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::de::Read;
use serde_json::value::RawValue;

use super::{Line, LineCounter, Record, RecordError, Span};
use crate::json_text::{self, JsonText};

/// Reads the records of a span.
pub(super) fn read(columns: &ColumnNames, keep: &Keep, bytes: &Bytes, span: Span) -> Vec<Record> {
    let mut counter = LineCounter::new(bytes, span.line);
    let mut line_of = |line: &[u8]| counter.line_of(line.as_ptr().addr() - bytes.as_ptr().addr());
    let lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let lines = lines.filter(|line| !line.is_empty()).skip(span.skip).take(span.count);
    let parser = Parser::new(columns, keep);
    lines.map(|line| parser.record(bytes, line, || line_of(line))).collect()
}

/// Why a line has no input.
enum Fault {
    Json(serde_json::Error),
    NoField(String),
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

impl Fault {
    fn at(self, line: Line) -> RecordError {
        match self {
            // It names the only line that it saw as the first.
            Self::Json(error) => {
                let why = error.to_string().replace(" at line 1 column ", " at column ");
                RecordError::Json { line, why }
            }
            Self::NoField(field) => RecordError::NoField { line, field },
        }
    }
}

/// What is wanted of each line.
pub(super) struct Parser<'a> {
    columns: &'a ColumnNames,
    keep: &'a Keep,
    /// Deepest level of a line: kept fields are one level deeper in the row.
    levels: u8,
}

impl<'a> Parser<'a> {
    pub(super) fn new(columns: &'a ColumnNames, keep: &'a Keep) -> Self {
        let deeper = u8::from(*keep != Keep::Nothing);
        Self { columns, keep, levels: json_text::LEVELS_MAX - deeper }
    }

    /// Reads a line, which lies in `bytes`.
    pub(super) fn record(&self, bytes: &Bytes, line: &[u8], number: impl FnOnce() -> Line) -> Record {
        self.read(bytes, line).unwrap_or_else(|fault| {
            let (label, id) = self.identity(line);
            Record { input: Err(fault.at(number())), label, id, fields: None }
        })
    }

    fn read(&self, bytes: &Bytes, line: &[u8]) -> Result<Record, Fault> {
        let Entry { input, label, id, fields } = match self.plain(line) {
            Some(entry) => entry,
            None => {
                json_text::strict(line, self.levels)?;
                // Strict JSON is UTF-8. Each string of it would be checked again if it were read as bytes.
                self.fields(std::str::from_utf8(line).map_err(serde_json::Error::custom)?)?
            }
        };
        if let Some(name) = &self.columns.input
            && (input.is_none() || line.first() != Some(&b'{'))
        {
            return Err(Fault::NoField(name.to_string()));
        }
        let input = match input.map(RawValue::get) {
            Some(text) if text.starts_with('"') => string(bytes, text)?,
            Some(json) => bytes.slice_ref(json.as_bytes()),
            None => bytes.slice_ref(line),
        };
        let fields = (*self.keep != Keep::Nothing).then(|| object(&fields));
        Ok(Record { input: Ok(input), label: given(label), id: given(id), fields })
    }

    /// The fields of a line that needs no closer look, and is JSON.
    fn plain<'line>(&self, line: &'line [u8]) -> Option<Entry<'line>> {
        let text = std::str::from_utf8(line).ok()?;
        if json_text::is_plain(text, self.levels) { self.fields(text).ok() } else { None }
    }

    fn fields<'line>(&self, text: &'line str) -> Result<Entry<'line>, serde_json::Error> {
        if !text.starts_with('{') {
            // A string, or its own input.
            return Ok(Entry { input: Some(serde_json::from_str(text)?), ..Entry::default() });
        }
        let mut line = serde_json::Deserializer::from_str(text);
        let entry = self.deserialize(&mut line)?;
        line.end().map(|()| entry)
    }

    fn entry<'line, R: Read<'line>>(
        &self,
        mut line: serde_json::Deserializer<R>,
    ) -> Result<Entry<'line>, serde_json::Error> {
        self.deserialize(&mut line)
    }

    /// Label and id of a line that has no input, as far as they are strict JSON themselves.
    fn identity(&self, line: &[u8]) -> (Option<JsonText>, Option<JsonText>) {
        let Ok(Entry { label, id, .. }) = self.entry(serde_json::Deserializer::from_slice(line)) else {
            return (None, None);
        };
        let strict =
            |raw: &&RawValue| json_text::strict(raw.get().as_bytes(), json_text::LEVELS_MAX - 1).is_ok();
        (given(label.filter(strict)), given(id.filter(strict)))
    }

    fn is_kept(&self, name: &str) -> bool {
        match self.keep {
            Keep::Nothing => false,
            Keep::All => true,
            Keep::Columns(names) => names.iter().any(|kept| kept.as_str() == name),
        }
    }
}

/// The text of a JSON string that lies in `bytes`.
fn string(bytes: &Bytes, json: &str) -> Result<Bytes, serde_json::Error> {
    match json.get(1..json.len().saturating_sub(1)) {
        Some(text) if !text.contains('\\') => Ok(bytes.slice_ref(text.as_bytes())),
        _ => Ok(Bytes::from(serde_json::from_str::<String>(json)?)),
    }
}

fn given(raw: Option<&RawValue>) -> Option<JsonText> {
    raw.filter(|raw| raw.get() != "null").map(JsonText::verbatim)
}

/// Fields as an object, each value as it stands in the line.
fn object(fields: &[(Cow<'_, str>, &RawValue)]) -> JsonText {
    JsonText::object(fields.iter().map(|(name, raw)| (&**name, JsonText::verbatim(raw))))
}

/// The fields of a line that are wanted. Of two fields with one name the last counts.
#[derive(Default)]
pub(super) struct Entry<'a> {
    input: Option<&'a RawValue>,
    label: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
}

/// The name of a field, as it stands in the line unless it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for &Parser<'_> {
    type Value = Entry<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Entry<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &Parser<'_> {
    type Value = Entry<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Entry<'de>, A::Error> {
        let ColumnNames { input, label, id } = self.columns;
        let [input, label, id] = [(input, "input"), (label, "label"), (id, "id")]
            .map(|(asked, usual)| asked.as_ref().map_or(usual, ColumnName::as_str));
        let mut entry = Entry::default();
        while let Some(Name(name)) = pairs.next_key()? {
            let value = pairs.next_value::<&'de RawValue>()?;
            let mut has_meaning = false;
            for (wanted, place) in [(input, &mut entry.input), (label, &mut entry.label), (id, &mut entry.id)]
            {
                if name == wanted {
                    *place = Some(value);
                    has_meaning = true;
                }
            }
            if !self.is_kept(&name) || (has_meaning && *self.keep == Keep::All) {
                continue;
            }
            match entry.fields.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => entry.fields.push((name, value)),
            }
        }
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(input: Option<&str>, id: Option<&str>) -> ColumnNames {
        let name = |name: Option<&str>| name.map(|name| name.parse().unwrap());
        ColumnNames { input: name(input), label: None, id: name(id) }
    }

    fn read_all(columns: &ColumnNames, keep: &Keep, text: &str) -> Vec<Record> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        read(columns, keep, &bytes, Span { line: 1, skip: 0, count: usize::MAX })
    }

    fn shown(json: Option<&JsonText>) -> &str {
        json.map_or("-", JsonText::as_str)
    }

    #[test]
    fn fields_of_any_name_have_a_meaning_and_others_come_back_byte_for_byte() {
        let columns = columns(Some("text"), Some("key"));
        let line = "{\"key\":12345678901234567890123,\"price\":1.10,\"text\":\"a\",\"b\":{\"z\":1,\"a\":[ ]},\"label\":true,\
                    \"price\":1e2,\"\\u00e9\\n\":null}\n";
        let record = &read_all(&columns, &Keep::All, line)[0];
        assert_eq!(record.input.as_deref(), Ok(&b"a"[..]));
        assert_eq!(
            (shown(record.id.as_ref()), shown(record.label.as_ref())),
            ("12345678901234567890123", "true")
        );
        assert_eq!(shown(record.fields.as_ref()), "{\"price\":1e2,\"b\":{\"z\":1,\"a\":[ ]},\"é\\n\":null}");
        let some = Keep::Columns(["b", "none", "text"].map(|name| name.parse().unwrap()).to_vec());
        assert_eq!(
            shown(read_all(&columns, &some, line)[0].fields.as_ref()),
            "{\"text\":\"a\",\"b\":{\"z\":1,\"a\":[ ]}}"
        );
        assert_eq!(read_all(&columns, &Keep::Nothing, line)[0].fields, None);
    }

    #[test]
    fn a_record_without_the_field_says_so_with_its_line_and_keeps_its_id() {
        let text = "{\"text\":\"a\"}\n\n{\"id\":\"k7\",\"input\":\"b\",\"label\":0}\n7\n";
        let records = read_all(&columns(Some("text"), None), &Keep::Nothing, text);
        let error = |at: usize| records[at].input.as_ref().unwrap_err().to_string();
        assert_eq!(
            (error(1), error(2)),
            ("line 3 has no field 'text'".into(), "line 4 has no field 'text'".into())
        );
        assert_eq!((shown(records[1].id.as_ref()), shown(records[1].label.as_ref())), ("\"k7\"", "0"));
    }

    #[test]
    fn a_broken_record_keeps_the_id_and_label_that_can_be_read() {
        let text = "{\"id\":17,\"label\":\"x\",\"input\":\"\\ud83d\"}\n{\"id\":\"\\ud83d\",\"label\":1,\"input\":1e999}\n{\"id\":3\n";
        let records = read_all(&ColumnNames::default(), &Keep::Nothing, text);
        let identity = |at: usize| (shown(records[at].id.as_ref()), shown(records[at].label.as_ref()));
        assert!(records.iter().all(|record| record.input.is_err()));
        assert_eq!([identity(0), identity(1), identity(2)], [("17", "\"x\""), ("-", "1"), ("-", "-")]);
        let error = records[2].input.as_ref().unwrap_err().to_string();
        assert!(error.starts_with("line 3 is not JSON: EOF") && error.ends_with("at column 7"), "{error}");
    }

    #[test]
    fn kept_fields_leave_room_for_the_levels_of_the_row() {
        let nested =
            |levels: usize| format!("{{\"input\":1,\"deep\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        let is_read =
            |levels, keep| read_all(&ColumnNames::default(), &keep, &nested(levels))[0].input.is_ok();
        assert!(is_read(126, Keep::Nothing) && !is_read(127, Keep::Nothing));
        assert!(is_read(125, Keep::All) && !is_read(126, Keep::All));
    }
}
