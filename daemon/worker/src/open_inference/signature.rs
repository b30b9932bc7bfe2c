//! What a model takes and gives, as its server's metadata say.
//!
//! Decides which tensor has the queries, which has the answers, and how queries become a batch. Source: the Open Inference
//! Protocol's model metadata, and Triton's model configuration for the size of a batch.

use std::fmt;

use serde::Deserialize;
use thiserror::Error;

/// The tensor that has the errors of single queries: ours alone.
pub(super) const ERROR_TENSOR: &str = "error";
/// The tensors of a server that declares none.
const INPUT_TENSOR: &str = "input";

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

impl Datatype {
    /// Bytes of an element in binary data; `None` for elements of various lengths.
    pub(super) const fn element_bytes(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A tensor of the metadata.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct TensorSpec {
    pub(super) name: String,
    pub(super) datatype: Datatype,
    /// Negative where any size will do.
    pub(super) shape: Vec<i64>,
}

/// The answer to a request for a model's metadata.
#[derive(Debug, Deserialize)]
struct Metadata {
    #[serde(default)]
    inputs: Vec<TensorSpec>,
    #[serde(default)]
    outputs: Vec<TensorSpec>,
}

/// Queries cannot be given to a model.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    #[error("the model server's metadata of the model cannot be read: {0}")]
    Metadata(String),
    #[error("the model takes several tensors ({0}), and a query has one input")]
    SeveralInputs(String),
}

/// How queries are given to a model of a third-party server, and where its answers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The tensor that takes the queries.
    pub(super) input: TensorSpec,
    /// The tensor with the answers; `None` for the first that comes.
    pub(super) output: Option<String>,
    /// Whether the tensors' first dimension is the query's place in a batch.
    pub(super) is_batched: bool,
    /// Most queries in a call.
    pub(super) queries_max: usize,
    /// Whether the server takes and gives binary data.
    pub(super) takes_binary: bool,
}

impl Signature {
    /// Reads metadata. `batch_max` is the size of a batch that the server allows, if it says so: 0 for no batches.
    pub fn new(
        metadata: &[u8],
        batch_max: Option<usize>,
        takes_binary: bool,
    ) -> Result<Self, SignatureError> {
        let Metadata { mut inputs, outputs } =
            serde_json::from_slice(metadata).map_err(|error| SignatureError::Metadata(error.to_string()))?;
        if inputs.len() > 1 {
            let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
            return Err(SignatureError::SeveralInputs(names.join(", ")));
        }
        // A server that declares nothing is given text, and its answer shows whether it can take it.
        let undeclared =
            || TensorSpec { name: INPUT_TENSOR.to_owned(), datatype: Datatype::Bytes, shape: vec![-1] };
        let input = inputs.pop().unwrap_or_else(undeclared);
        let is_batched = input.shape.first().is_some_and(|first| *first < 0) && batch_max != Some(0);
        let queries_max = match batch_max {
            Some(max) if max > 0 => max,
            _ if is_batched => usize::MAX,
            _ => 1,
        };
        let output = outputs.into_iter().map(|output| output.name).find(|name| name != ERROR_TENSOR);
        Ok(Self { input, output, is_batched, queries_max, takes_binary })
    }

    /// The dimensions of one query; negative where any size will do.
    pub(super) fn query_shape(&self) -> &[i64] {
        if self.is_batched { &self.input.shape[1..] } else { &self.input.shape }
    }
}

/// The size of a batch that Triton's configuration of a model allows; `None` if there is none.
pub fn batch_max_of(config: &[u8]) -> Option<usize> {
    #[derive(Deserialize)]
    struct Config {
        max_batch_size: Option<usize>,
    }
    serde_json::from_slice::<Config>(config).ok()?.max_batch_size
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(metadata: &str, batch_max: Option<usize>) -> Signature {
        Signature::new(metadata.as_bytes(), batch_max, false).unwrap()
    }

    #[test]
    fn the_first_dimension_is_the_batch_where_any_size_will_do() {
        let image = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,3,4]}],
            "outputs":[{"name":"error","datatype":"BYTES","shape":[-1]},{"name":"y","datatype":"FP32","shape":[-1,2]}]}"#;
        let found = signature(image, Some(8));
        assert_eq!((found.is_batched, found.queries_max, found.query_shape()), (true, 8, &[3, 4][..]));
        assert_eq!(found.output.as_deref(), Some("y"));
        let unlimited = signature(image, None);
        assert_eq!((unlimited.is_batched, unlimited.queries_max), (true, usize::MAX));
        // Triton without batches: the dimension belongs to the query.
        let whole = signature(image, Some(0));
        assert_eq!((whole.is_batched, whole.queries_max, whole.query_shape()), (false, 1, &[-1, 3, 4][..]));
        let fixed = signature(r#"{"inputs":[{"name":"x","datatype":"INT64","shape":[1,3]}]}"#, None);
        assert_eq!((fixed.is_batched, fixed.queries_max, fixed.query_shape()), (false, 1, &[1, 3][..]));
    }

    #[test]
    fn a_server_that_declares_nothing_is_given_text() {
        let found = signature(r#"{"name":"m","inputs":[],"outputs":[]}"#, None);
        assert_eq!((found.input.name.as_str(), found.input.datatype), ("input", Datatype::Bytes));
        assert!(found.is_batched && found.output.is_none());
    }

    #[test]
    fn several_inputs_are_refused_by_name() {
        let two = r#"{"inputs":[{"name":"a","datatype":"FP32","shape":[-1]},{"name":"b","datatype":"FP32","shape":[-1]}]}"#;
        let error = Signature::new(two.as_bytes(), None, false).unwrap_err();
        assert_eq!(error.to_string(), "the model takes several tensors (a, b), and a query has one input");
        assert!(matches!(Signature::new(b"<html>", None, false), Err(SignatureError::Metadata(_))));
        assert_eq!((batch_max_of(br#"{"max_batch_size":8}"#), batch_max_of(b"404")), (Some(8), None));
    }
}
