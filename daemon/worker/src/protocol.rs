//! The Open Inference Protocol v2 as our own model server speaks it: binary BYTES tensors. Others: [`crate::open_inference`].
//!
//! Decides how a batch becomes a request body, and how a response body becomes one answer per query. Source: the
//! protocol's REST specification and Triton's binary tensor extension (little-endian, BYTES elements preceded by a 32-bit
//! length, tensors in the order of the JSON).
//!
//! Invariants: a decoded response has exactly one row per query; no allocation trusts a length that exceeds the body.
//! Bounds: the caller caps the body; serde_json limits the nesting to 128.

use bytes::Bytes;
use idunno_shared::wire::jobs::Parameters;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

/// Header with the length of the JSON part of a body that continues with binary data.
pub const HEADER_LENGTH: &str = "inference-header-content-length";
const INPUT: &str = "input";
const OUTPUT: &str = "output";
const ERROR: &str = "error";

/// A response cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    #[error("the response announces {announced} bytes of JSON but has {bytes} bytes in all")]
    HeaderLength { announced: usize, bytes: usize },
    #[error("the response is not an inference response: {0}")]
    Json(String),
    /// A tensor is inconsistent or does not match the request.
    #[error("tensor '{tensor}' of the response {reason}")]
    Tensor { tensor: String, reason: TensorError },
    #[error("the response has no output tensor")]
    NoOutput,
}

/// What is wrong with a tensor. The texts follow its name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TensorError {
    #[error("announces {announced} bytes, but {remaining} follow")]
    Truncated { announced: usize, remaining: usize },
    #[error("has the shape {shape:?} for {rows} queries")]
    Shape { shape: Vec<u64>, rows: usize },
    #[error("is binary {datatype} of shape {shape:?}, which is not supported")]
    Unsupported { datatype: String, shape: Vec<u64> },
    #[error("has no binary data")]
    NoData,
    #[error("ends inside element {0}")]
    TruncatedElement(usize),
    #[error("does not hold {0} elements")]
    WrongCount(usize),
}

#[derive(Clone, Debug)]
pub struct RequestBody {
    /// Length of the JSON part, for [`HEADER_LENGTH`].
    pub header_length: usize,
    /// The JSON part, then the tensor.
    pub body: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowAnswer {
    /// JSON or other text, verbatim.
    Output(Bytes),
    /// The server cannot answer this query, and repeating it would not help.
    Failed(String),
}

impl RowAnswer {
    /// Length of the answer, or of the reason.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Output(output) => output.len(),
            Self::Failed(reason) => reason.len(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InferAnswers {
    /// The version of the model that answered, if the server says.
    pub version: Option<String>,
    /// One per query, in the order of the request.
    pub rows: Vec<RowAnswer>,
}

/// The body of an infer request. `parameters` are the model's.
pub fn encode_request(inputs: &[Bytes], parameters: &Parameters) -> RequestBody {
    let tensor_bytes: usize = inputs.iter().map(|input| 4 + input.len()).sum();
    let mut named: Map<String, Value> =
        parameters.iter().map(|(name, value)| (name.to_string(), value.as_str().into())).collect();
    named.insert(String::from("binary_data_output"), true.into());
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
}

#[derive(Default, Deserialize)]
struct TensorParameters {
    binary_data_size: Option<usize>,
}

/// Decodes a response to a request with `rows` queries.
pub fn decode_response(
    header_length: Option<usize>,
    body: &Bytes,
    rows: usize,
) -> Result<InferAnswers, ProtocolError> {
    let announced = header_length.unwrap_or(body.len());
    if announced > body.len() {
        return Err(ProtocolError::HeaderLength { announced, bytes: body.len() });
    }
    let header: ResponseHeader =
        serde_json::from_slice(&body[..announced]).map_err(|error| ProtocolError::Json(error.to_string()))?;
    let mut binary = body.slice(announced..);
    let mut tensors = Vec::with_capacity(header.outputs.len().min(16));
    for output in header.outputs {
        let bytes = match output.parameters.binary_data_size {
            Some(size) if size > binary.len() => {
                let reason = TensorError::Truncated { announced: size, remaining: binary.len() };
                return Err(ProtocolError::Tensor { tensor: output.name, reason });
            }
            Some(size) => Some(binary.split_to(size)),
            None => None,
        };
        tensors.push(Tensor { header: output, binary: bytes });
    }
    let output = tensors.iter().find(|tensor| tensor.header.name == OUTPUT);
    let output = output.or_else(|| tensors.iter().find(|tensor| tensor.header.name != ERROR));
    let outputs = read_tensor(output.ok_or(ProtocolError::NoOutput)?, rows)?;
    let error = tensors.iter().find(|tensor| tensor.header.name == ERROR);
    let errors = error.map(|tensor| read_tensor(tensor, rows)).transpose()?;
    let answer = |(row, output): (usize, Bytes)| match errors.as_ref().map(|errors| &errors[row]) {
        Some(error) if !error.is_empty() => RowAnswer::Failed(String::from_utf8_lossy(error).into_owned()),
        _ => RowAnswer::Output(output),
    };
    let rows = outputs.into_iter().enumerate().map(answer).collect();
    Ok(InferAnswers { version: header.model_version, rows })
}

struct Tensor {
    header: TensorHeader,
    binary: Option<Bytes>,
}

fn read_tensor(tensor: &Tensor, rows: usize) -> Result<Vec<Bytes>, ProtocolError> {
    let elements = read_elements(tensor, rows);
    elements.map_err(|reason| ProtocolError::Tensor { tensor: tensor.header.name.clone(), reason })
}

fn read_elements(tensor: &Tensor, rows: usize) -> Result<Vec<Bytes>, TensorError> {
    let Tensor { header: TensorHeader { datatype, shape, .. }, binary } = tensor;
    if shape.first() != Some(&(rows as u64)) {
        return Err(TensorError::Shape { shape: shape.clone(), rows });
    }
    match binary {
        Some(bytes) if datatype == "BYTES" && shape.iter().skip(1).all(|&size| size == 1) => {
            read_bytes(bytes, rows)
        }
        Some(_) => Err(TensorError::Unsupported { datatype: datatype.clone(), shape: shape.clone() }),
        None => Err(TensorError::NoData),
    }
}

fn read_bytes(tensor: &Bytes, rows: usize) -> Result<Vec<Bytes>, TensorError> {
    let mut elements = Vec::with_capacity(rows.min(tensor.len() / 4));
    let mut rest = &tensor[..];
    while !rest.is_empty() {
        let element = rest
            .split_first_chunk::<4>()
            .and_then(|(length, after)| after.split_at_checked(u32::from_le_bytes(*length) as usize));
        let Some((element, after)) = element else {
            return Err(TensorError::TruncatedElement(elements.len()));
        };
        elements.push(tensor.slice_ref(element));
        rest = after;
        if elements.len() > rows {
            break;
        }
    }
    if elements.len() == rows { Ok(elements) } else { Err(TensorError::WrongCount(rows)) }
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
    fn a_request_is_json_followed_by_the_inputs() {
        let request = encode_request(&[Bytes::from_static(b"ab"), Bytes::new()], &Parameters::default());
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
    fn no_truncated_response_is_accepted() {
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
