//! The bodies of calls to a third-party server, and of its answers.
//!
//! Invariant: an answer has exactly one row for each query of its call. No allocation trusts a size that the server names.

use bytes::Bytes;
use idunno_shared::wire::jobs::Parameters;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::query::{Elements, Query, text_of};
use super::signature::{Datatype, Signature};
use super::{AnswerError, numbers};

/// The body of a call.
#[derive(Clone, Debug)]
pub struct CallBody {
    /// Length of the JSON part, if binary data follow.
    pub header_length: Option<usize>,
    pub body: Bytes,
}

/// The body of a call with queries of one shape.
pub(super) fn encode(signature: &Signature, queries: &[Query], parameters: &Parameters) -> CallBody {
    let input = &signature.input;
    let mut shape: Vec<usize> = queries.first().map(|query| query.shape.clone()).unwrap_or_default();
    if signature.is_batched {
        shape.insert(0, queries.len());
    }
    let mut named: Map<String, Value> =
        parameters.iter().map(|(name, value)| (name.to_string(), value.as_str().into())).collect();
    let mut tensor = json!({ "name": input.name, "datatype": input.datatype.to_string(), "shape": shape });
    let binary = signature.takes_binary.then(|| binary_of(input.datatype, queries));
    if let Some(binary) = &binary {
        tensor["parameters"] = json!({ "binary_data_size": binary.len() });
        named.insert(String::from("binary_data_output"), true.into());
    } else {
        tensor["data"] = queries.iter().flat_map(json_of).collect();
        if input.datatype == Datatype::Bytes {
            // MLServer takes bytes to be base64 unless it is told otherwise; others ignore it.
            tensor["parameters"] = json!({ "content_type": "str" });
        }
    }
    let mut header = json!({ "inputs": [tensor] });
    if !named.is_empty() {
        header["parameters"] = named.into();
    }
    let mut body = header.to_string().into_bytes();
    let header_length = binary.as_ref().map(|_| body.len());
    body.extend(binary.unwrap_or_default());
    CallBody { header_length, body: body.into() }
}

fn binary_of(datatype: Datatype, queries: &[Query]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for query in queries {
        match &query.elements {
            Elements::Bytes(text) => append_text(&mut bytes, text),
            Elements::Values(values) => {
                for value in values {
                    match value.as_str() {
                        Some(text) => append_text(&mut bytes, text.as_bytes()),
                        // All were checked when they were read.
                        None => _ = numbers::encode(datatype, value, &mut bytes),
                    }
                }
            }
        }
    }
    bytes
}

fn append_text(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(text);
}

fn json_of(query: &Query) -> Vec<Value> {
    match &query.elements {
        // It was checked to be text when it was read.
        Elements::Bytes(text) => vec![String::from_utf8_lossy(text).into()],
        Elements::Values(values) => values.clone(),
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    datatype: Datatype,
    shape: Vec<usize>,
    #[serde(default)]
    parameters: OutputParameters,
    data: Option<Value>,
}

#[derive(Default, Deserialize)]
struct OutputParameters {
    binary_data_size: Option<usize>,
}

/// The rows of an answer to a call with `queries` queries: text as it is, numbers as JSON.
pub fn decode(
    signature: &Signature,
    header_length: Option<usize>,
    body: &Bytes,
    queries: usize,
) -> Result<Vec<Bytes>, AnswerError> {
    let header_bytes = header_length.unwrap_or(body.len());
    let header = body.get(..header_bytes).ok_or(AnswerError::Truncated)?;
    let Answer { outputs } =
        serde_json::from_slice(header).map_err(|error| AnswerError::Json(error.to_string()))?;
    let mut binary = body.slice(header_bytes..);
    let mut found = None;
    for output in outputs {
        let bytes = match output.parameters.binary_data_size {
            Some(size) if size > binary.len() => return Err(AnswerError::Truncated),
            Some(size) => Some(binary.split_to(size)),
            None => None,
        };
        let is_wanted = signature.output.as_ref().is_none_or(|wanted| *wanted == output.name);
        if is_wanted && found.is_none() {
            found = Some((output, bytes));
        }
    }
    let (output, bytes) = found.ok_or_else(|| match &signature.output {
        Some(name) => AnswerError::NoTensor(name.clone()),
        None => AnswerError::NoOutput,
    })?;
    let name = output.name.clone();
    rows_of(output, bytes, signature.is_batched, queries).map_err(|why| AnswerError::Tensor { name, why })
}

/// Cuts a tensor into one row for each query. The reason of a failure follows the tensor's name.
fn rows_of(
    output: Output,
    binary: Option<Bytes>,
    is_batched: bool,
    queries: usize,
) -> Result<Vec<Bytes>, String> {
    let Output { datatype, shape, data, .. } = output;
    let values = match (binary, data) {
        (Some(bytes), _) if datatype == Datatype::Bytes => texts(bytes).ok_or("ends inside a text")?,
        (Some(bytes), _) => {
            let numbers = numbers::decode(datatype, &bytes).ok_or("ends inside a number")?;
            numbers.into_iter().map(Element::Value).collect()
        }
        (None, Some(data)) => {
            let mut elements = Vec::new();
            flatten(data, &mut elements);
            elements
        }
        (None, None) => return Err(String::from("has no data")),
    };
    let product = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
    if product != Some(values.len()) {
        return Err(format!("has the shape {} and {} elements", text_of(&shape), values.len()));
    }
    let has_rows = shape.first() == Some(&queries);
    if !has_rows && (is_batched || queries != 1) {
        return Err(format!("has the shape {} for {queries} queries", text_of(&shape)));
    }
    let row_shape = if has_rows { &shape[1..] } else { &shape[..] };
    if values.is_empty() {
        return Ok(vec![Bytes::from_static(b"[]"); queries]);
    }
    let mut rows = Vec::with_capacity(queries);
    let mut values = values.into_iter();
    for _ in 0..queries {
        rows.push(row(row_shape, &mut values));
    }
    Ok(rows)
}

/// An element of a tensor of answers. A text may be bytes that are no UTF-8.
enum Element {
    Text(Bytes),
    Value(Value),
}

impl Element {
    fn into_json(self) -> Value {
        match self {
            Self::Text(text) => String::from_utf8_lossy(&text).into(),
            Self::Value(value) => value,
        }
    }
}

/// One query's answer: a single text as it is, anything else as JSON.
fn row(shape: &[usize], elements: &mut impl Iterator<Item = Element>) -> Bytes {
    if shape.iter().all(|&size| size == 1) {
        return match elements.next() {
            Some(Element::Text(text)) => text,
            Some(Element::Value(Value::String(text))) => text.into(),
            Some(Element::Value(value)) => value.to_string().into(),
            None => Bytes::new(),
        };
    }
    nested(shape, elements).to_string().into()
}

fn nested(shape: &[usize], elements: &mut impl Iterator<Item = Element>) -> Value {
    match shape.split_first() {
        None => elements.next().map_or(Value::Null, Element::into_json),
        Some((&size, inner)) => (0..size).map(|_| nested(inner, elements)).collect(),
    }
}

fn texts(mut tensor: Bytes) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    while !tensor.is_empty() {
        let (length, _) = tensor.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > tensor.len() - 4 {
            return None;
        }
        elements.push(Element::Text(tensor.split_to(4 + length).slice(4..)));
    }
    Some(elements)
}

/// Data come flat, or nested as the shape says.
fn flatten(data: Value, elements: &mut Vec<Element>) {
    match data {
        Value::Array(items) => items.into_iter().for_each(|item| flatten(item, elements)),
        value => elements.push(Element::Value(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::query;
    use super::*;

    fn signature(datatype: &str, shape: &[i64], takes_binary: bool) -> Signature {
        let metadata = json!({
            "inputs": [{"name": "x", "datatype": datatype, "shape": shape}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
        });
        Signature::new(metadata.to_string().as_bytes(), None, takes_binary).unwrap()
    }

    fn encoded(signature: &Signature, inputs: &[&'static [u8]]) -> (Value, Vec<u8>) {
        let read = |input: &&'static [u8]| query::read(signature, &Bytes::from_static(input)).unwrap();
        let queries: Vec<Query> = inputs.iter().map(read).collect();
        let CallBody { header_length, body } = encode(signature, &queries, &Parameters::default());
        let (header, binary) = body.split_at(header_length.unwrap_or(body.len()));
        (serde_json::from_slice(header).unwrap(), binary.to_vec())
    }

    fn rows(signature: &Signature, answer: &Value, queries: usize) -> Result<Vec<String>, String> {
        let rows = decode(signature, None, &answer.to_string().into(), queries);
        let text = |row: &Bytes| String::from_utf8(row.to_vec()).unwrap();
        rows.map(|rows| rows.iter().map(text).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_call_has_the_tensor_that_the_model_declares() {
        let (header, binary) = encoded(&signature("FP32", &[-1, 2], false), &[b"[1,2]", b"[3,4.5]"]);
        let tensor = json!({"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4.5]});
        assert_eq!((header, binary.len()), (json!({"inputs": [tensor]}), 0));
        let (header, binary) = encoded(&signature("INT16", &[-1], true), &[b"1", b"-2"]);
        assert_eq!(header["inputs"][0]["parameters"]["binary_data_size"], 4);
        assert_eq!(
            (header["parameters"]["binary_data_output"].clone(), binary),
            (true.into(), vec![1, 0, 254, 255])
        );
        let (header, _) = encoded(&signature("BYTES", &[-1, 1], false), &[b"a \"b\""]);
        assert_eq!(
            (&header["inputs"][0]["shape"], &header["inputs"][0]["data"]),
            (&json!([1, 1]), &json!(["a \"b\""]))
        );
        let (header, binary) = encoded(&signature("BYTES", &[-1], true), &[b"ab", b"\xff"]);
        assert_eq!(
            (header["inputs"][0]["shape"].clone(), binary),
            (json!([2]), b"\x02\0\0\0ab\x01\0\0\0\xff".to_vec())
        );
    }

    #[test]
    fn an_answer_is_cut_into_rows_of_its_shape() {
        let model = signature("FP32", &[-1, 2], false);
        let tensor = |shape: Value, data: Value| {
            json!({"outputs": [
                {"name": "other", "datatype": "INT8", "shape": [1], "data": [1]},
                {"name": "y", "datatype": "FP32", "shape": shape, "data": data},
            ]})
        };
        let of = |shape, data, queries| rows(&model, &tensor(shape, data), queries);
        assert_eq!(of(json!([2, 2]), json!([1, 2, 3, 4]), 2).unwrap(), ["[1,2]", "[3,4]"]);
        assert_eq!(of(json!([2, 2]), json!([[1, 2], [3, 4]]), 2).unwrap(), ["[1,2]", "[3,4]"]);
        assert_eq!(of(json!([2]), json!([0.5, 1]), 2).unwrap(), ["0.5", "1"]);
        assert_eq!(of(json!([1, 1, 2]), json!([1, 2]), 1).unwrap(), ["[[1,2]]"]);
        // Three values of the shape [1, 1] would otherwise all be the answer to one query.
        assert_eq!(
            of(json!([1, 1]), json!([1, 2, 3]), 1).unwrap_err(),
            "tensor 'y' of the answer has the shape [1, 1] and 3 elements"
        );
        assert_eq!(
            of(json!([1, 2]), json!([1, 2]), 2).unwrap_err(),
            "tensor 'y' of the answer has the shape [1, 2] for 2 queries"
        );
        assert_eq!(
            rows(&model, &json!({"outputs": []}), 1).unwrap_err(),
            "the answer has no tensor 'y', which the model declares"
        );
    }

    #[test]
    fn binary_answers_are_numbers_and_texts() {
        let model = signature("FP32", &[-1, 2], true);
        let decode = |datatype: &str, shape: Value, binary: &[u8], queries| {
            let size = binary.len();
            let output = json!({"name": "y", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}});
            let header = json!({"outputs": [output]}).to_string();
            let body: Bytes = [header.as_bytes(), binary].concat().into();
            decode(&model, Some(header.len()), &body, queries).map_err(|error| error.to_string())
        };
        let singles: Vec<u8> = [0.1_f32, 2.0].iter().flat_map(|number| number.to_le_bytes()).collect();
        assert_eq!(decode("FP32", json!([1, 2]), &singles, 1).unwrap(), ["[0.1,2.0]"]);
        assert_eq!(decode("BYTES", json!([2, 1]), b"\x01\0\0\0a\0\0\0\0", 2).unwrap(), ["a", ""]);
        assert!(decode("BYTES", json!([1]), b"\x09\0\0\0a", 1).unwrap_err().contains("ends inside a text"));
        assert!(decode("FP32", json!([1]), b"abc", 1).unwrap_err().contains("ends inside a number"));
    }
}
