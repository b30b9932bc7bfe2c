//! Lines of a batch's output and error files, made of the rows of its job. They are the same each time a file is read.

use idunno_shared::wire::control::DeadLetter;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ids::BatchId;
use super::validation::Shape;

/// What the reason of a row begins with whose request the model's server refused: its status follows.
const REFUSED: &str = "the server answered ";

/// What turns rows of a batch into lines.
#[derive(Clone, Debug)]
pub struct RowWriter {
    batch: String,
    model: String,
    shape: Shape,
}

#[derive(Deserialize)]
struct Row<'a> {
    query: u64,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    /// None for null, too.
    #[serde(borrow)]
    output: Option<&'a RawValue>,
    /// Merged results have the failed rows, too.
    error: Option<IgnoredAny>,
}

#[derive(Serialize)]
struct Line<'a> {
    id: String,
    custom_id: Option<&'a RawValue>,
    response: Option<Response<'a>>,
    error: Option<Error<'a>>,
}

#[derive(Serialize)]
struct Response<'a> {
    status_code: u16,
    request_id: String,
    body: Body<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Reply(&'a RawValue),
    Embeddings(Embeddings<'a>),
    Refused { error: Refused<'a> },
}

#[derive(Serialize)]
struct Embeddings<'a> {
    object: &'static str,
    data: [Embedding<'a>; 1],
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding<'a> {
    object: &'static str,
    index: u8,
    #[serde(rename = "embedding")]
    numbers: &'a RawValue,
}

/// Tokens, which models of ours do not count.
#[derive(Default, Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

#[derive(Serialize)]
struct Refused<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<()>,
    code: Option<()>,
}

#[derive(Serialize)]
struct Error<'a> {
    code: &'static str,
    message: &'a str,
}

impl RowWriter {
    /// For the rows of a batch that were answered by this model.
    pub fn new(id: &BatchId, model: &str, shape: Shape) -> Self {
        Self { batch: id.to_string(), model: model.to_owned(), shape }
    }

    fn response<'a>(&self, query: u64, status_code: u16, body: Body<'a>) -> Response<'a> {
        Response { status_code, request_id: format!("req_{}_{query}", self.batch), body }
    }

    fn write(&self, lines: &mut Vec<u8>, query: u64, line: &Line<'_>) {
        tracing::trace!(query, batch = self.batch, "writes a line");
        // Memory takes all that is written to it.
        let _ = serde_json::to_writer(&mut *lines, line);
        lines.push(b'\n');
    }

    /// Appends the line of an answered row, unless its query is left out. Rows that failed are left out: dead letters have them.
    pub fn answer(
        &self,
        lines: &mut Vec<u8>,
        row: &[u8],
        mut wanted: impl FnMut(u64) -> bool,
    ) -> Result<(), serde_json::Error> {
        let Row { query, id, output, error } = serde_json::from_slice(row)?;
        if error.is_some() || !wanted(query) {
            return Ok(());
        }
        let output = output.unwrap_or(RawValue::NULL);
        let body = match self.shape {
            Shape::Reply => Some(Body::Reply(output)),
            Shape::Vector => vector(output).map(|numbers| {
                let data = [Embedding { object: "embedding", index: 0, numbers }];
                Body::Embeddings(Embeddings {
                    object: "list",
                    data,
                    model: &self.model,
                    usage: Usage::default(),
                })
            }),
        };
        let error = body.is_none().then_some(Error {
            code: "not_an_embedding",
            message: "the model's answer is no list of numbers",
        });
        let response = body.map(|body| self.response(query, 200, body));
        let id_of_line = self.id(query);
        self.write(lines, query, &Line { id: id_of_line, custom_id: id, response, error });
        Ok(())
    }

    /// Appends the line of a row that failed.
    pub fn failure(&self, lines: &mut Vec<u8>, dead: &DeadLetter) {
        // A worker wrote the id: what is no JSON must not break the lines of others.
        let id = dead.identity.id.as_deref().and_then(|json| serde_json::from_str::<&RawValue>(json).ok());
        let refused = refused(&dead.reason);
        let error = refused.is_none().then_some(Error { code: "request_failed", message: &dead.reason });
        let response = refused.map(|(status, message)| {
            let error = Refused { message, kind: "invalid_request_error", param: None, code: None };
            self.response(dead.index, status, Body::Refused { error })
        });
        let id_of_line = self.id(dead.index);
        self.write(lines, dead.index, &Line { id: id_of_line, custom_id: id, response, error });
    }

    fn id(&self, query: u64) -> String {
        format!("batch_req_{}_{query}", self.batch.trim_start_matches("batch_"))
    }
}

/// The list of numbers in an answer: it, or its field `embedding`.
fn vector(output: &RawValue) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Fields<'a> {
        #[serde(borrow)]
        embedding: &'a RawValue,
    }
    let found = match output.get().as_bytes().first() {
        Some(b'{') => serde_json::from_str::<Fields<'_>>(output.get()).ok()?.embedding,
        _ => output,
    };
    serde_json::from_str::<Vec<f64>>(found.get()).is_ok().then_some(found)
}

/// Status and words of a server that refused a request.
fn refused(reason: &str) -> Option<(u16, &str)> {
    let (status, words) = reason.strip_prefix(REFUSED)?.split_once(": ")?;
    status.parse().ok().filter(|status| (400..600).contains(status)).map(|status| (status, words))
}

#[cfg(test)]
mod tests {
    use idunno_shared::ids::NodeId;
    use idunno_shared::wire::records::RecordIdentity;
    use serde_json::{Value, json};

    use super::super::ids::Token;
    use super::*;

    fn line(shape: Shape, row: &str) -> Value {
        let writer = RowWriter::new(&BatchId(Token::new().unwrap()), "vec", shape);
        let mut lines = Vec::new();
        writer.answer(&mut lines, row.as_bytes(), |query| query != 9).unwrap();
        assert_eq!(lines.split_inclusive(|byte| *byte == b'\n').count(), usize::from(!lines.is_empty()));
        serde_json::from_slice(&lines).unwrap_or_default()
    }

    #[test]
    fn an_answer_is_the_servers_reply_byte_for_byte() {
        let row = r#"{"query":3,"name":"f:4","id":"a\u00e9","model":"m","version":"v","output":{"choices":[{"x":1.10}]},"worker":"m1","attempt":1}"#;
        let found = line(Shape::Reply, row);
        assert_eq!(found["custom_id"], "aé");
        assert_eq!(found["response"]["status_code"], 200);
        assert_eq!(found["response"]["body"], json!({"choices": [{"x": 1.10}]}));
        assert!(found["error"].is_null() && found["id"].as_str().unwrap().starts_with("batch_req_"));
        assert_eq!(line(Shape::Reply, r#"{"query":9,"output":1}"#), Value::Null, "left out");
        assert_eq!(
            line(Shape::Reply, r#"{"query":1,"id":"a","error":"x"}"#),
            Value::Null,
            "of merged results"
        );
        assert_eq!(line(Shape::Reply, r#"{"query":1,"output":null}"#)["response"]["body"], Value::Null);
    }

    #[test]
    fn a_list_of_numbers_is_an_embedding() {
        for output in ["[0.5,-1]", r#"{"embedding":[0.5,-1]}"#] {
            let found = line(Shape::Vector, &format!(r#"{{"query":0,"id":"a","output":{output}}}"#));
            let body = &found["response"]["body"];
            assert_eq!(body["data"][0], json!({"object": "embedding", "index": 0, "embedding": [0.5, -1]}));
            assert_eq!((&body["object"], &body["model"]), (&json!("list"), &json!("vec")));
        }
        let found = line(Shape::Vector, r#"{"query":0,"id":"a","output":{"label":"x"}}"#);
        assert_eq!((&found["response"], &found["error"]["code"]), (&Value::Null, &json!("not_an_embedding")));
    }

    #[test]
    fn a_failure_tells_a_refusal_of_the_server_from_all_else() {
        let writer = RowWriter::new(&BatchId(Token::new().unwrap()), "m", Shape::Reply);
        let failure = |reason: &str, id: &str| -> Value {
            let mut lines = Vec::new();
            writer.failure(
                &mut lines,
                &DeadLetter {
                    index: 4,
                    name: "f:5".parse().unwrap(),
                    reason: reason.into(),
                    worker: NodeId(1),
                    attempts: 1,
                    dropped: false,
                    identity: RecordIdentity { id: Some(id.into()), label: None },
                },
            );
            serde_json::from_slice(&lines).unwrap()
        };
        let refused = failure("the server answered 400: too long: 9", "\"a\"");
        assert_eq!((&refused["custom_id"], &refused["response"]["status_code"]), (&json!("a"), &json!(400)));
        assert_eq!(refused["response"]["body"]["error"]["message"], "too long: 9");
        let failed = failure("line 5 is not JSON", "{");
        assert_eq!((&failed["custom_id"], &failed["response"]), (&Value::Null, &Value::Null));
        assert_eq!(failed["error"], json!({"code": "request_failed", "message": "line 5 is not JSON"}));
    }
}
