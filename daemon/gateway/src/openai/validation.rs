//! Checks the lines of a batch's file before its job starts.
//!
//! Each line is `{custom_id, method, url, body}`: JSON, an id that no other line has, POST, the batch's endpoint, one model for all.
//! Bounds: [`LINES_MAX`] lines, of whose ids 16 bytes of a digest are kept; the first [`ERRORS_SHOWN_MAX`] errors.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::lines::{Line, TooLong};

/// Most lines of a batch.
pub const LINES_MAX: u64 = 50_000;
/// Most inputs of a batch of embeddings, over all its lines.
const INPUTS_MAX: u64 = 50_000;
/// Errors that are shown.
pub const ERRORS_SHOWN_MAX: usize = 100;
/// Longest id of a line, in bytes as its JSON writes it.
const ID_BYTES_MAX: usize = 512;
/// Longest part of a text of others that an error repeats, in characters.
const QUOTED_MAX: usize = 80;

/// What the requests of a batch are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completions,
    /// `/v1/responses`.
    Responses,
    /// `/v1/embeddings`.
    Embeddings,
}

impl Endpoint {
    /// All.
    pub const ALL: [Self; 4] = [Self::Chat, Self::Completions, Self::Responses, Self::Embeddings];

    /// Its path.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::Embeddings => "/v1/embeddings",
        }
    }

    /// The endpoint of a path.
    pub fn of(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }
}

/// How a model answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// A server that speaks OpenAI's API: it gets the body, and its reply is the answer.
    Reply,
    /// It gets the text of an embeddings request, and answers a list of numbers.
    Vector,
}

/// An error of a line, or of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineError {
    /// What programs branch on.
    pub code: String,
    /// The line, from 1.
    pub line: Option<u64>,
    /// What is wrong.
    pub message: String,
    /// The parameter that is wrong.
    pub param: Option<String>,
}

impl LineError {
    /// An error of the whole file.
    pub fn of_file(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), line: None, message: message.into(), param: None }
    }
}

/// What is wrong with a line.
struct Wrong {
    code: &'static str,
    param: Option<&'static str>,
    message: String,
}

fn wrong(code: &'static str, param: &'static str, message: impl Into<String>) -> Wrong {
    Wrong { code, param: Some(param), message: message.into() }
}

fn missing(param: &'static str) -> Wrong {
    wrong("missing_required_parameter", param, format!("the line has no '{param}'"))
}

/// The rest of the file is not read.
#[derive(Debug, PartialEq, Eq)]
pub struct Stopped;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    custom_id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    url: Option<Cow<'a, str>>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    /// In the cluster's records it has a meaning.
    #[serde(default)]
    input: Present,
}

/// Whether a field is there, whatever its value.
#[derive(Default)]
struct Present(bool);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|IgnoredAny| Self(true))
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    stream: Option<bool>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    encoding_format: Option<Cow<'a, str>>,
}

/// What all lines are together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many.
    pub lines: u64,
    /// Their model.
    pub model: String,
    /// How it answers.
    pub shape: Shape,
}

/// Checks lines one after another.
pub struct Validator {
    endpoint: Endpoint,
    /// The cluster's models.
    models: BTreeMap<String, Shape>,
    model: Option<(String, Shape)>,
    ids: HashSet<[u8; 16]>,
    lines: u64,
    inputs: u64,
    errors: Vec<LineError>,
}

impl Validator {
    /// For a batch to this endpoint, on a cluster of these models.
    pub fn new(endpoint: Endpoint, models: BTreeMap<String, Shape>) -> Self {
        Self { endpoint, models, model: None, ids: HashSet::new(), lines: 0, inputs: 0, errors: Vec::new() }
    }

    /// Checks a line. After too many errors, or lines, no more are wanted.
    pub fn take(&mut self, line: &Line) -> Result<(), Stopped> {
        self.lines += 1;
        if self.lines > LINES_MAX {
            let message = format!("the file has more than {LINES_MAX} lines: split it");
            self.errors.push(LineError::of_file("too_many_requests", message));
            return Err(Stopped);
        }
        if let Err(Wrong { code, param, message }) = self.check(&line.bytes) {
            let (code, param) = (code.to_owned(), param.map(str::to_owned));
            self.errors.push(LineError { code, line: Some(line.number), message, param });
        }
        if self.errors.len() < ERRORS_SHOWN_MAX { Ok(()) } else { Err(Stopped) }
    }

    /// A line is too long, so that what follows cannot be read.
    pub fn too_long(&mut self, TooLong(number): TooLong) {
        let error = LineError::of_file("line_too_long", "the line has more than 16 MiB");
        self.errors.push(LineError { line: Some(number), ..error });
    }

    /// What the lines are together, or the errors.
    pub fn finish(self) -> Result<Summary, Vec<LineError>> {
        match self.model {
            _ if !self.errors.is_empty() => Err(self.errors),
            Some((model, shape)) => Ok(Summary { lines: self.lines, model, shape }),
            None => Err(vec![LineError::of_file("empty_file", "the file has no lines")]),
        }
    }

    fn check(&mut self, line: &[u8]) -> Result<(), Wrong> {
        let parsed: Request<'_> = serde_json::from_slice(line).map_err(|why| {
            let message = format!("the line is no request: {why}");
            Wrong { code: "invalid_json_line", param: None, message }
        })?;
        self.check_id(parsed.custom_id.ok_or_else(|| missing("custom_id"))?.get())?;
        match parsed.method.as_deref().ok_or_else(|| missing("method"))? {
            "POST" => {}
            other => {
                let message = format!("the method is '{}', and must be POST", quoted(other));
                return Err(wrong("invalid_method", "method", message));
            }
        }
        let url = parsed.url.ok_or_else(|| missing("url"))?;
        if url != self.endpoint.path() {
            let message =
                format!("the url '{}' is not the batch's endpoint, {}", quoted(&url), self.endpoint.path());
            return Err(wrong("invalid_url", "url", message));
        }
        if parsed.input.0 {
            return Err(wrong("unknown_parameter", "input", "'input' belongs into the body"));
        }
        self.check_body(parsed.body.ok_or_else(|| missing("body"))?.get())
    }

    fn check_id(&mut self, json: &str) -> Result<(), Wrong> {
        if !json.starts_with('"') || json.len() > ID_BYTES_MAX || json == "\"\"" {
            let message = format!("custom_id is no text of 1 to {ID_BYTES_MAX} bytes");
            return Err(wrong("invalid_custom_id", "custom_id", message));
        }
        // Two ways to write one text are one id.
        let text: String = serde_json::from_str(json)
            .map_err(|why| wrong("invalid_custom_id", "custom_id", why.to_string()))?;
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
        if self.ids.insert(digest) {
            return Ok(());
        }
        let message = format!("another line has the custom_id '{}', too", quoted(&text));
        Err(wrong("duplicate_custom_id", "custom_id", message))
    }

    fn check_body(&mut self, json: &str) -> Result<(), Wrong> {
        let body: Body<'_> = serde_json::from_str(json)
            .map_err(|why| wrong("invalid_body", "body", format!("the body is no request: {why}")))?;
        let model = body.model.as_deref().ok_or_else(|| missing("body.model"))?;
        let shape = self.check_model(model)?;
        if body.stream == Some(true) {
            return Err(wrong(
                "unsupported_parameter",
                "body.stream",
                "a batch has no streams: leave 'stream' out",
            ));
        }
        if self.endpoint != Endpoint::Embeddings {
            return Ok(());
        }
        let input = body.input.ok_or_else(|| missing("body.input"))?.get();
        self.inputs += inputs(input);
        if self.inputs > INPUTS_MAX {
            let message = format!("the lines have more than {INPUTS_MAX} inputs together: split the file");
            return Err(wrong("too_many_inputs", "body.input", message));
        }
        let is_float = body.encoding_format.as_deref().is_none_or(|format| format == "float");
        match shape {
            Shape::Vector if !input.starts_with('"') => Err(wrong(
                "unsupported_parameter",
                "body.input",
                format!("'{model}' takes one text a line, and 'input' is none: write a line for each"),
            )),
            Shape::Vector if !is_float => Err(wrong(
                "unsupported_parameter",
                "body.encoding_format",
                format!("'{model}' answers numbers: leave 'encoding_format' out"),
            )),
            _ => Ok(()),
        }
    }

    fn check_model(&mut self, model: &str) -> Result<Shape, Wrong> {
        match &self.model {
            Some((first, shape)) if first == model => return Ok(*shape),
            Some((first, _)) => {
                let message = format!(
                    "the model is '{}', that of the first line '{first}': a batch has one",
                    quoted(model)
                );
                return Err(wrong("mismatched_model", "body.model", message));
            }
            None => {}
        }
        let Some(&shape) = self.models.get(model) else {
            let message = format!("the cluster has no model '{}': see 'idunno models'", quoted(model));
            return Err(wrong("model_not_found", "body.model", message));
        };
        if shape == Shape::Vector && self.endpoint != Endpoint::Embeddings {
            let message = format!(
                "'{model}' does not speak OpenAI's API: {} needs a model with the runtime 'openai'",
                self.endpoint.path()
            );
            return Err(wrong("model_not_supported", "body.model", message));
        }
        self.model = Some((model.to_owned(), shape));
        Ok(shape)
    }
}

/// How many inputs a request of embeddings has: a list of numbers is one.
fn inputs(json: &str) -> u64 {
    let is_of_many = json.strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with(['"', '[']));
    if !is_of_many {
        return 1;
    }
    serde_json::from_str::<Vec<IgnoredAny>>(json).map_or(1, |inputs| inputs.len() as u64)
}

/// The record of the cluster for a line that was checked, for a model that takes the text alone.
pub fn record_of(line: &[u8]) -> Option<Vec<u8>> {
    let Request { custom_id, body, .. } = serde_json::from_slice(line).ok()?;
    let body: Body<'_> = serde_json::from_str(body?.get()).ok()?;
    Some(format!("{{\"custom_id\":{},\"input\":{}}}\n", custom_id?.get(), body.input?.get()).into_bytes())
}

fn quoted(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(QUOTED_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validate(endpoint: Endpoint, lines: &[&str]) -> Result<Summary, Vec<(Option<u64>, String)>> {
        let models = [("llm".to_owned(), Shape::Reply), ("vec".to_owned(), Shape::Vector)].into();
        let mut validator = Validator::new(endpoint, models);
        for (number, line) in (1..).zip(lines) {
            let line = Line { number, bytes: line.as_bytes().to_vec().into() };
            if validator.take(&line).is_err() {
                break;
            }
        }
        let codes =
            |errors: Vec<LineError>| errors.into_iter().map(|error| (error.line, error.code)).collect();
        validator.finish().map_err(codes)
    }

    fn line(id: &str, url: &str, body: &str) -> String {
        format!(r#"{{"custom_id":"{id}","method":"POST","url":"{url}","body":{body}}}"#)
    }

    fn chat(id: &str, body: &str) -> String {
        line(id, "/v1/chat/completions", body)
    }

    #[test]
    fn good_lines_have_one_model() {
        let lines = [chat("a", r#"{"model":"llm"}"#), chat("b", r#"{"stream":false,"model":"llm","n":2}"#)];
        let found = validate(Endpoint::Chat, &[&lines[0], &lines[1]]);
        assert_eq!(found, Ok(Summary { lines: 2, model: "llm".into(), shape: Shape::Reply }));
        assert_eq!(validate(Endpoint::Chat, &[]), Err(vec![(None, "empty_file".into())]));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_told_with_its_number() {
        let good = chat("good", r#"{"model":"llm"}"#);
        for (bad, code) in [
            ("{", "invalid_json_line"),
            ("[]", "invalid_json_line"),
            (r#"{"custom_id":"x","custom_id":"y"}"#, "invalid_json_line"),
            (r#"{"method":"POST"}"#, "missing_required_parameter"),
            (r#"{"custom_id":7}"#, "invalid_custom_id"),
            (r#"{"custom_id":""}"#, "invalid_custom_id"),
            (r#"{"custom_id":"x","method":"GET"}"#, "invalid_method"),
            (r#"{"custom_id":"x","method":"POST"}"#, "missing_required_parameter"),
            (&line("x", "/v1/embeddings", "{}"), "invalid_url"),
            (&chat("x", "[]"), "invalid_body"),
            (&chat("x", "{}"), "missing_required_parameter"),
            (&chat("x", r#"{"model":7}"#), "invalid_body"),
            (&chat("x", r#"{"model":"other"}"#), "mismatched_model"),
            (&chat("x", r#"{"model":"llm","stream":true}"#), "unsupported_parameter"),
            (&chat("g\\u006fod", r#"{"model":"llm"}"#), "duplicate_custom_id"),
            (
                r#"{"custom_id":"x","method":"POST","url":"/v1/chat/completions","input":null,"body":{}}"#,
                "unknown_parameter",
            ),
        ] {
            assert_eq!(
                validate(Endpoint::Chat, &[&good, bad]),
                Err(vec![(Some(2), code.to_owned())]),
                "{bad}"
            );
        }
        let unknown = chat("x", r#"{"model":"nobody"}"#);
        assert_eq!(validate(Endpoint::Chat, &[&unknown]), Err(vec![(Some(1), "model_not_found".into())]));
        let other = chat("x", r#"{"model":"vec"}"#);
        assert_eq!(validate(Endpoint::Chat, &[&other]), Err(vec![(Some(1), "model_not_supported".into())]));
    }

    #[test]
    fn errors_and_lines_are_bounded() {
        let bad = vec!["{"; 250];
        let errors = validate(Endpoint::Chat, &bad).unwrap_err();
        assert_eq!((errors.len(), errors[99].0), (ERRORS_SHOWN_MAX, Some(100)));
        let many: Vec<String> = (0..=LINES_MAX).map(|n| chat(&n.to_string(), r#"{"model":"llm"}"#)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(validate(Endpoint::Chat, &many), Err(vec![(None, "too_many_requests".into())]));
        assert_eq!(validate(Endpoint::Chat, &many[1..]).unwrap().lines, LINES_MAX);
    }

    #[test]
    fn a_model_without_the_api_takes_one_text_a_line() {
        let embed = |body: &str| line("a", "/v1/embeddings", body);
        let check = |body: &str| validate(Endpoint::Embeddings, &[&embed(body)]).map(|found| found.shape);
        let refused = |code: &str| Err(vec![(Some(1), code.to_owned())]);
        assert_eq!(check(r#"{"model":"vec","input":"é"}"#), Ok(Shape::Vector));
        assert_eq!(
            check(r#"{"model":"llm","input":["a","b"],"encoding_format":"base64"}"#),
            Ok(Shape::Reply)
        );
        assert_eq!(check(r#"{"model":"vec","input":["a"]}"#), refused("unsupported_parameter"));
        assert_eq!(
            check(r#"{"model":"vec","input":"a","encoding_format":"base64"}"#),
            refused("unsupported_parameter")
        );
        assert_eq!(check(r#"{"model":"vec"}"#), refused("missing_required_parameter"));
        let record = record_of(embed(r#"{"model":"vec","input":"a\n\u00e9"}"#).as_bytes()).unwrap();
        assert_eq!(String::from_utf8(record).unwrap(), "{\"custom_id\":\"a\",\"input\":\"a\\n\\u00e9\"}\n");
        assert_eq!(
            [inputs("\"a\""), inputs("[1,2]"), inputs(r#"[ "a","b"]"#), inputs("[[1],[2]]")],
            [1, 1, 2, 2]
        );
    }
}
