//! The rows of a job's results, as both worker and console read and write them: one JSON object per line.
//!
//! An answered query's row has `query`, `name`, the record's `id` and the true `label` where there are such, `model`,
//! `version`, `output`, `worker` and `attempt`, and the `fields` that a person asked for; a dead one's has `query`, `name`,
//! `id` and `label` where there are such, and `error`.

mod dead_letters;
mod row_stream;
pub mod segment;

pub use dead_letters::dead_letters;
pub use row_stream::{RowStream, RowsError, SegmentList, segments_at_once};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::wire::control::DeadLetter;

/// The text of a string, or a number or truth value as JSON writes it; `None` for anything else.
pub fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A model's answer, reduced to the class that it ranks first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The number of the class that it ranks first.
    pub index: Option<u64>,
    /// The label that it ranks first.
    pub label: Option<String>,
}

impl Answer {
    /// Reads an output: `{"top5":[{"index","label"},...]}`, `{"index","label"}` with either left out, or a plain text or
    /// number. Any other output gives an empty answer.
    pub fn of(output: &Value) -> Self {
        Self::of_choice(output.get("top5").and_then(|top| top.get(0)).unwrap_or(output))
    }

    /// Reads an output's text as [`Self::of`] reads its value, and skips what that ignores.
    pub fn read(output: &str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow)]
            top5: Option<&'a RawValue>,
            #[serde(borrow)]
            index: Option<&'a RawValue>,
            #[serde(borrow)]
            label: Option<&'a RawValue>,
        }
        let Ok(Fields { top5, index, label }) = serde_json::from_str(output) else {
            // No object, or one with a name twice.
            return serde_json::from_str(output).map(|output| Self::of(&output));
        };
        let choices = top5.and_then(|top5| top5.get().strip_prefix('['));
        Ok(choices.and_then(Self::first_of).unwrap_or_else(|| Self {
            index: index.and_then(|index| index.get().parse().ok()),
            label: label.and_then(|label| scalar(&serde_json::from_str(label.get()).ok()?)),
        }))
    }

    /// The first of the choices in a list's text, without what opens the list.
    fn first_of(choices: &str) -> Option<Self> {
        /// A choice of the usual shape.
        #[derive(Deserialize)]
        struct Usual {
            index: Option<u64>,
            label: Option<String>,
        }
        if let Some(Ok(Usual { index, label })) = first(choices) {
            return Some(Self { index, label });
        }
        first(choices)?.ok().as_ref().map(Self::of_choice)
    }

    fn of_choice(choice: &Value) -> Self {
        let (index, label) = match choice {
            Value::Object(entry) => (entry.get("index"), entry.get("label").and_then(scalar)),
            other => (Some(other), scalar(other)),
        };
        Self { index: index.and_then(Value::as_u64), label }
    }

    /// Whether it is the true label: its name, or its number.
    pub fn is(&self, truth: &str) -> bool {
        self.label.as_deref() == Some(truth) || (self.index.is_some() && self.index == truth.parse().ok())
    }

    /// As people read it: the label, else the number.
    pub fn shown(&self) -> Option<String> {
        self.label.clone().or_else(|| self.index.map(|index| index.to_string()))
    }
}

/// The first value of a text.
fn first<'a, T: Deserialize<'a>>(text: &'a str) -> Option<serde_json::Result<T>> {
    serde_json::Deserializer::from_str(text).into_iter().next()
}

/// The number of the query that a row answers.
pub fn query_of(row: &[u8]) -> Result<u64, serde_json::Error> {
    #[derive(Deserialize)]
    struct Head {
        query: u64,
    }
    serde_json::from_slice::<Head>(row).map(|head| head.query)
}

/// The row of a query that failed permanently, without its line end.
pub fn dead_row(dead_letter: &DeadLetter) -> String {
    let DeadLetter { index, name, reason, identity, .. } = dead_letter;
    let given = |key: &str, json: &Option<String>| {
        // A worker made it: what is no JSON must not break the rows of the others.
        let json = json.as_deref().filter(|json| serde_json::from_str::<Value>(json).is_ok());
        json.map(|json| format!(r#","{key}":{}"#, json.replace(['\n', '\r'], " "))).unwrap_or_default()
    };
    let (id, label) = (given("id", &identity.id), given("label", &identity.label));
    let (name, reason) = (Value::from(name.as_str()), Value::from(reason.as_str()));
    format!(r#"{{"query":{index},"name":{name}{id}{label},"error":{reason}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use crate::wire::records::RecordIdentity;

    #[test]
    fn a_dead_row_keeps_id_and_label_byte_for_byte_and_is_always_json() {
        let row = |id: &str, label: &str| {
            dead_row(&DeadLetter {
                index: 3,
                name: "d.jsonl:4".parse().unwrap(),
                reason: "bad \"image\"".into(),
                worker: NodeId(1),
                attempts: 2,
                dropped: false,
                identity: RecordIdentity { id: Some(id.into()), label: Some(label.into()) },
            })
        };
        assert_eq!(
            row("123456789012345678901", "1.10"),
            r#"{"query":3,"name":"d.jsonl:4","id":123456789012345678901,"label":1.10,"error":"bad \"image\""}"#
        );
        assert_eq!(row("{", "\"\\ud83d\""), r#"{"query":3,"name":"d.jsonl:4","error":"bad \"image\""}"#);
        assert_eq!(row("[1,\n2]", "\"x\"").matches('\n').count(), 0);
    }

    fn of(output: &str) -> Answer {
        let answer = Answer::of(&serde_json::from_str(output).unwrap());
        assert_eq!(Answer::read(output).unwrap(), answer, "{output}");
        answer
    }

    #[test]
    fn the_first_label_is_found_in_the_usual_shapes() {
        let cat = of(r#"{"top5":[{"index":7,"label":"cat"},{"index":8,"label":"dog"}]}"#);
        assert!(cat.is("cat") && cat.is("7") && !cat.is("dog") && !cat.is("8") && !cat.is(""));
        assert_eq!(cat.shown().unwrap(), "cat");
        assert!(of(r#"{"label":"good","votes":3}"#).is("good"));
        assert!(of(r#"{"top5":[{"index":207}]}"#).is("207"));
        assert!(of("\"good\"").is("good") && of("7").is("7") && of("true").is("true"));
        for nothing in [r#"{"top5":[]}"#, "[1]", "{}", "null", r#"{"label":["x"]}"#] {
            assert_eq!(of(nothing), Answer::default(), "{nothing}");
        }
    }

    #[test]
    fn an_output_of_an_unusual_shape_is_read_alike_as_text_and_as_value() {
        for (output, index, label) in [
            (r#"{"index":7,"top5":[]}"#, Some(7), None),
            (r#"{"index":7,"top5":{"0":{"label":"x"}},"label":"y"}"#, Some(7), Some("y")),
            (r#" {"top5" : [ "x" , {"label":"y"} ] } "#, None, Some("x")),
            (r#"{"top5":null,"index":null,"label":null}"#, None, None),
            (r#"{"index":7.0,"label":1.50}"#, None, Some("1.5")),
            (r#"{"label":"x","label":"y\u00e9"}"#, None, Some("y\u{e9}")),
            (r#"{"label":"x\ny","index":18446744073709551616}"#, None, Some("x\ny")),
        ] {
            let expected = Answer { index, label: label.map(str::to_owned) };
            assert_eq!(of(output), expected, "{output}");
        }
    }
}
