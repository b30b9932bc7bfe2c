//! The Open Inference Protocol v2 as bytes: one BYTES tensor out, any answer tensors in.
//!
//! Decides how a batch becomes a request body and how a response body becomes one answer a query. Source: the
//! protocol's REST specification and Triton's binary tensor extension (little-endian, BYTES elements preceded by a
//! 32-bit length, tensors in the order of the JSON).
//!
//! Invariants: a decoded answer has exactly as many rows as were asked for; nothing is allocated by a length that the
//! body does not have.
//! Bounds: the caller caps the body; JSON nests at most 128 deep.
//! What it does not do: numeric tensors as binary data; servers are asked for JSON where they are not ours.

use bytes::Bytes;
use idunno_shared::wire::jobs::Parameters;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

/// Header that carries the length of the JSON part of a body with binary data behind it.
pub const HEADER_LENGTH: &str = "inference-header-content-length";
const INPUT: &str = "input";
const OUTPUT: &str = "output";
const ERROR: &str = "error";

/// Why a response is not an answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// The JSON part is announced longer than the body.
    #[error("the response announces {announced} bytes of JSON and has {bytes} in all")]
    HeaderLength {
        /// As announced.
        announced: usize,
        /// The body's length.
        bytes: usize,
    },
    /// The JSON part is not a response.
    #[error("the response is not an inference response: {0}")]
    Json(String),
    /// A tensor contradicts itself or the request.
    #[error("tensor '{tensor}' of the response {what}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        what: String,
    },
    /// No tensor holds the answers.
    #[error("the response has no output tensor")]
    NoOutput,
}

/// A body to post.
#[derive(Clone, Debug)]
pub struct RequestBody {
    /// The length of the JSON part, for [`HEADER_LENGTH`].
    pub header_length: usize,
    /// JSON, then the tensor.
    pub body: Bytes,
}

/// One query's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowAnswer {
    /// The model's answer: JSON or other text, as the server sent it.
    Output(Bytes),
    /// The server could not answer this query, for good: why.
    Failed(String),
}

/// The answers to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// The version of the model that answered, where the server says it.
    pub version: Option<String>,
    /// One a query, in the order asked.
    pub rows: Vec<RowAnswer>,
}

/// The body that asks for answers to `inputs`; with answers as binary data if `binary_output`. `parameters` are the
/// model's.
pub fn encode_request(inputs: &[Bytes], parameters: &Parameters, binary_output: bool) -> RequestBody {
    let tensor_bytes: usize = inputs.iter().map(|input| 4 + input.len()).sum();
    let mut named: Map<String, Value> =
        parameters.iter().map(|(name, value)| (name.to_string(), value.as_str().into())).collect();
    named.insert(String::from("binary_data_output"), binary_output.into());
    let header = json!({
        "parameters": named,
        "inputs": [{
            "name": INPUT,
            "datatype": "BYTES",
            "shape": [inputs.len()],
            "parameters": { "binary_data_size": tensor_bytes },
        }],
    })
    .to_string();
    let mut body = Vec::with_capacity(header.len() + tensor_bytes);
    body.extend_from_slice(header.as_bytes());
    for input in inputs {
        let length = u32::try_from(input.len()).unwrap_or(u32::MAX);
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(input);
    }
    RequestBody { header_length: header.len(), body: body.into() }
}

#[derive(Deserialize)]
struct ResponseHeader {
    model_version: Option<String>,
    outputs: Vec<TensorHeader>,
}

#[derive(Deserialize)]
struct TensorHeader {
    name: String,
    #[serde(default)]
    datatype: String,
    shape: Vec<u64>,
    #[serde(default)]
    parameters: TensorParameters,
    data: Option<Vec<Value>>,
}

#[derive(Default, Deserialize)]
struct TensorParameters {
    binary_data_size: Option<usize>,
}

/// The answers in a response's body. `rows` is the number of queries asked.
pub fn decode_response(
    header_length: Option<usize>,
    body: &Bytes,
    rows: usize,
) -> Result<Answers, ProtocolError> {
    let announced = header_length.unwrap_or(body.len());
    if announced > body.len() {
        return Err(ProtocolError::HeaderLength { announced, bytes: body.len() });
    }
    let header: ResponseHeader =
        serde_json::from_slice(&body[..announced]).map_err(|error| ProtocolError::Json(error.to_string()))?;
    let mut binary = body.slice(announced..);
    let mut tensors = Vec::with_capacity(header.outputs.len().min(16));
    for mut output in header.outputs {
        let bytes = match output.parameters.binary_data_size {
            Some(size) if size > binary.len() => {
                let what = format!("announces {size} bytes where {} follow", binary.len());
                return Err(ProtocolError::Tensor { tensor: output.name, what });
            }
            Some(size) => Some(binary.split_to(size)),
            None => None,
        };
        let data = output.data.take();
        tensors.push((output, bytes, data));
    }
    let place = |wanted: &dyn Fn(&str) -> bool| tensors.iter().position(|(output, ..)| wanted(&output.name));
    let errors = place(&|name| name == ERROR);
    let outputs = place(&|name| name == OUTPUT).or_else(|| place(&|name| name != ERROR));
    let outputs = read_tensor(&tensors[outputs.ok_or(ProtocolError::NoOutput)?], rows)?;
    let errors = errors.map(|place| read_tensor(&tensors[place], rows)).transpose()?;
    let answer = |(place, output): (usize, Bytes)| match errors.as_ref().map(|errors| &errors[place]) {
        Some(error) if !error.is_empty() => RowAnswer::Failed(String::from_utf8_lossy(error).into_owned()),
        _ => RowAnswer::Output(output),
    };
    let rows = outputs.into_iter().enumerate().map(answer).collect();
    Ok(Answers { version: header.model_version, rows })
}

type Tensor = (TensorHeader, Option<Bytes>, Option<Vec<Value>>);

fn read_tensor((header, binary, data): &Tensor, rows: usize) -> Result<Vec<Bytes>, ProtocolError> {
    let wrong = |what: String| ProtocolError::Tensor { tensor: header.name.clone(), what };
    if header.shape.first() != Some(&(rows as u64)) {
        return Err(wrong(format!("has the shape {:?} for {rows} queries", header.shape)));
    }
    match (binary, data) {
        (Some(bytes), _) if header.datatype == "BYTES" && header.shape.iter().skip(1).all(|&d| d == 1) => {
            read_bytes(bytes.clone(), rows).map_err(wrong)
        }
        (Some(_), _) => {
            Err(wrong(format!("is binary {} of shape {:?}: not read", header.datatype, header.shape)))
        }
        (None, Some(data)) => read_json(data, rows).map_err(wrong),
        (None, None) => Err(wrong("has no data".to_owned())),
    }
}

fn read_bytes(mut tensor: Bytes, rows: usize) -> Result<Vec<Bytes>, String> {
    let mut elements = Vec::with_capacity(rows.min(tensor.len() / 4));
    while !tensor.is_empty() {
        let Some((length, _)) = tensor.split_first_chunk::<4>() else {
            return Err(format!("ends inside the length of element {}", elements.len()));
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > tensor.len() - 4 {
            return Err(format!("ends inside element {}", elements.len()));
        }
        let element = tensor.split_to(4 + length).slice(4..);
        elements.push(element);
        if elements.len() > rows {
            break;
        }
    }
    if elements.len() == rows { Ok(elements) } else { Err(format!("does not hold {rows} elements")) }
}

/// JSON data is flat or nested; either way it divides into as many equal parts as there are queries.
fn read_json(data: &[Value], rows: usize) -> Result<Vec<Bytes>, String> {
    if rows == 0 || data.is_empty() || !data.len().is_multiple_of(rows) {
        return Err(format!("holds {} elements for {rows} queries", data.len()));
    }
    let render = |part: &[Value]| match part {
        [Value::String(text)] => Bytes::from(text.clone()),
        [value] => Bytes::from(value.to_string()),
        values => Bytes::from(Value::Array(values.to_vec()).to_string()),
    };
    Ok(data.chunks(data.len() / rows).map(render).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_tensor(elements: &[&str]) -> Vec<u8> {
        let mut tensor = Vec::new();
        for element in elements {
            tensor.extend_from_slice(&u32::try_from(element.len()).unwrap().to_le_bytes());
            tensor.extend_from_slice(element.as_bytes());
        }
        tensor
    }

    fn binary_response(outputs: &[&str], errors: &[&str]) -> (usize, Bytes) {
        let (outputs, errors) = (bytes_tensor(outputs), bytes_tensor(errors));
        let header = json!({"model_name": "m", "model_version": "abc", "outputs": [
            {"name": "output", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": outputs.len()}},
            {"name": "error", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": errors.len()}},
        ]})
        .to_string();
        (header.len(), [header.into_bytes(), outputs, errors].concat().into())
    }

    #[test]
    fn a_request_is_json_and_then_the_files() {
        let request =
            encode_request(&[Bytes::from_static(b"ab"), Bytes::new()], &Parameters::default(), true);
        let (header, tensor) = request.body.split_at(request.header_length);
        let header: Value = serde_json::from_slice(header).unwrap();
        assert_eq!(header["inputs"][0]["shape"], json!([2]));
        assert_eq!(header["inputs"][0]["parameters"]["binary_data_size"], json!(10));
        assert_eq!(tensor, b"\x02\0\0\0ab\0\0\0\0");
    }

    #[test]
    fn binary_answers_are_read_row_by_row() {
        let (header_length, body) = binary_response(&["{\"a\":1}", ""], &["", "not an image"]);
        let answers = decode_response(Some(header_length), &body, 2).unwrap();
        assert_eq!(answers.version.as_deref(), Some("abc"));
        let expected = [RowAnswer::Output("{\"a\":1}".into()), RowAnswer::Failed("not an image".to_owned())];
        assert_eq!(answers.rows, expected);
    }

    #[test]
    fn json_answers_of_other_servers_are_read() {
        let read = |outputs: Value| {
            let body = json!({"model_name": "m", "outputs": outputs}).to_string();
            decode_response(None, &body.into(), 2).map(|answers| answers.rows)
        };
        let output = |text: &'static str| RowAnswer::Output(Bytes::from_static(text.as_bytes()));
        let flat = json!([{"name": "predict", "datatype": "INT64", "shape": [2], "data": [3, 4]}]);
        assert_eq!(read(flat).unwrap(), [output("3"), output("4")]);
        let wide = json!([{"name": "p", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}]);
        assert_eq!(read(wide).unwrap(), [output("[1,2]"), output("[3,4]")]);
        let nested = json!([{"name": "p", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4]]}]);
        assert_eq!(read(nested).unwrap(), [output("[1,2]"), output("[3,4]")]);
        let text = json!([{"name": "p", "datatype": "BYTES", "shape": [2], "data": ["x", "{}"]}]);
        assert_eq!(read(text).unwrap(), [output("x"), output("{}")]);
        assert_eq!(read(json!([])).unwrap_err(), ProtocolError::NoOutput);
        let short = json!([{"name": "p", "datatype": "INT64", "shape": [2], "data": [3]}]);
        assert!(read(short).is_err());
    }

    #[test]
    fn no_cut_of_a_response_is_taken_for_an_answer() {
        let (header_length, body) = binary_response(&["{\"a\":1}", "{}"], &["", ""]);
        assert!(decode_response(Some(header_length), &body, 2).is_ok());
        assert!(decode_response(Some(header_length), &body, 3).is_err());
        for end in 0..body.len() {
            assert!(decode_response(Some(header_length), &body.slice(..end), 2).is_err(), "cut at {end}");
        }
        let mut huge = body.to_vec();
        huge[header_length..header_length + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(decode_response(Some(header_length), &huge.into(), 2).is_err());
    }
}
