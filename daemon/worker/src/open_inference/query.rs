//! Queries as elements of a tensor.
//!
//! Decides which queries fit the tensor, and which go into one call: those of one shape.

use std::ops::Range;

use bytes::Bytes;
use serde_json::Value;
use thiserror::Error;

use super::numbers;
use super::signature::{Datatype, Signature};

/// The elements of one query.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Query {
    /// Without the dimension of the batch.
    pub(super) shape: Vec<usize>,
    pub(super) elements: Elements,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Elements {
    /// One text, or other bytes.
    Bytes(Bytes),
    /// In the order of the tensor.
    Values(Vec<Value>),
}

/// A query does not fit the model's tensor.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum QueryError {
    #[error("the input is not JSON, and the model takes {datatype} of shape {shape}")]
    NotJson { datatype: &'static str, shape: String },
    #[error("the input is {found}, and the model takes {datatype} of shape {shape}")]
    Shape { found: String, datatype: &'static str, shape: String },
    #[error("the input has the element {element}, which is no {datatype}")]
    Element { element: String, datatype: &'static str },
    #[error("the input is not UTF-8, and the model server takes no binary data")]
    NotText,
}

/// Reads a query: a text as it is, numbers as JSON.
pub(super) fn read(signature: &Signature, input: &Bytes) -> Result<Query, QueryError> {
    let datatype = signature.input.datatype;
    let wanted = signature.query_shape();
    if datatype == Datatype::Bytes && wanted.iter().all(|&size| size < 0 || size == 1) {
        if !signature.takes_binary && std::str::from_utf8(input).is_err() {
            return Err(QueryError::NotText);
        }
        return Ok(Query { shape: vec![1; wanted.len()], elements: Elements::Bytes(input.clone()) });
    }
    let not_json = |_| QueryError::NotJson { datatype: datatype.name(), shape: text_of(wanted) };
    let json: Value = serde_json::from_slice(input).map_err(not_json)?;
    let (mut shape, mut values) = (shape_of(&json), Vec::new());
    let is_regular = flatten(&json, &shape, &mut values);
    if is_regular && !fits(&shape, wanted) && has_all_sizes(wanted, values.len()) {
        // A flat list of all elements.
        shape = wanted.iter().map(|&size| usize::try_from(size).unwrap_or(1)).collect();
    }
    if !is_regular || !fits(&shape, wanted) {
        let found = if is_regular {
            format!("of shape {}", text_of(&shape))
        } else {
            String::from("a list of unequal parts")
        };
        return Err(QueryError::Shape { found, datatype: datatype.name(), shape: text_of(wanted) });
    }
    match values.iter().find(|value| !numbers::is_of(datatype, value)) {
        Some(element) => Err(QueryError::Element { element: element.to_string(), datatype: datatype.name() }),
        None => Ok(Query { shape, elements: Elements::Values(values) }),
    }
}

/// The sizes of nested lists, as their first elements have them.
fn shape_of(mut json: &Value) -> Vec<usize> {
    let mut shape = Vec::new();
    while let Value::Array(items) = json {
        shape.push(items.len());
        let Some(first) = items.first() else { break };
        json = first;
    }
    shape
}

/// Appends all elements. False if the lists are not of this shape everywhere.
fn flatten(json: &Value, shape: &[usize], values: &mut Vec<Value>) -> bool {
    match (json, shape.split_first()) {
        (Value::Array(items), Some((&size, inner))) => {
            items.len() == size && items.iter().all(|item| flatten(item, inner, values))
        }
        (Value::Array(_), None) | (_, Some(_)) => false,
        (value, None) => {
            values.push(value.clone());
            true
        }
    }
}

fn fits(shape: &[usize], wanted: &[i64]) -> bool {
    let fits_one = |(&size, &wanted): (&usize, &i64)| wanted < 0 || i64::try_from(size) == Ok(wanted);
    shape.len() == wanted.len() && shape.iter().zip(wanted).all(fits_one)
}

/// Whether every size is given, and so many elements fill them.
fn has_all_sizes(wanted: &[i64], elements: usize) -> bool {
    let product =
        wanted.iter().try_fold(1_usize, |product, &size| product.checked_mul(usize::try_from(size).ok()?));
    product == Some(elements)
}

pub(super) fn text_of<T: ToString>(shape: &[T]) -> String {
    format!("[{}]", shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

/// Cuts queries into calls: of one shape, and no more than the server takes.
pub(super) fn calls(queries: &[Query], queries_max: usize) -> Vec<Range<usize>> {
    let mut calls: Vec<Range<usize>> = Vec::new();
    for (number, query) in queries.iter().enumerate() {
        match calls.last_mut() {
            Some(call) if call.len() < queries_max && queries[call.start].shape == query.shape => {
                call.end = number + 1;
            }
            _ => calls.push(number..number + 1),
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn signature(datatype: &str, shape: &[i64]) -> Signature {
        let metadata = json!({"inputs": [{"name": "x", "datatype": datatype, "shape": shape}]});
        Signature::new(metadata.to_string().as_bytes(), None, false).unwrap()
    }

    fn query(datatype: &str, shape: &[i64], input: &str) -> Result<Query, String> {
        let input = Bytes::copy_from_slice(input.as_bytes());
        read(&signature(datatype, shape), &input).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_are_lists_of_the_models_shape() {
        let shape = |shape: &[i64], input: &str| query("FP32", shape, input).map(|query| query.shape);
        assert_eq!(shape(&[-1, 2, 2], "[[1,2],[3,4]]"), Ok(vec![2, 2]));
        assert_eq!(shape(&[-1, 2, 2], "[1,2,3,4]"), Ok(vec![2, 2]), "all elements in one list");
        assert_eq!(shape(&[-1, -1], "[1,2,3]"), Ok(vec![3]));
        assert_eq!(shape(&[-1], "1.5"), Ok(Vec::new()));
        assert_eq!(shape(&[-1, 1], "1.5"), Ok(vec![1]));
        assert_eq!(
            shape(&[-1, 2], "[1,2,3]").unwrap_err(),
            "the input is of shape [3], and the model takes FP32 of shape [2]"
        );
        assert_eq!(
            shape(&[-1, -1, 2], "[[1,2],[3]]").unwrap_err(),
            "the input is a list of unequal parts, and the model takes FP32 of shape [-1, 2]"
        );
        assert_eq!(
            shape(&[-1, 2], "one two").unwrap_err(),
            "the input is not JSON, and the model takes FP32 of shape [2]"
        );
        assert_eq!(
            query("INT32", &[-1, 2], "[1,2.5]").unwrap_err(),
            "the input has the element 2.5, which is no INT32"
        );
    }

    #[test]
    fn a_text_is_one_element_of_any_rank() {
        for shape in [&[-1][..], &[-1, 1], &[-1, -1]] {
            let query = query("BYTES", shape, "[not, json").unwrap();
            assert_eq!(query.shape, vec![1; shape.len() - 1]);
            assert_eq!(query.elements, Elements::Bytes(Bytes::from_static(b"[not, json")));
        }
        let binary = Bytes::from_static(b"\xff\xd8");
        assert_eq!(read(&signature("BYTES", &[-1]), &binary), Err(QueryError::NotText));
        let takes_binary = Signature { takes_binary: true, ..signature("BYTES", &[-1]) };
        assert!(read(&takes_binary, &binary).is_ok());
    }

    #[test]
    fn a_call_has_queries_of_one_shape() {
        let queries: Vec<Query> =
            ["[1]", "[2]", "[3,4]", "[5]"].map(|input| query("FP32", &[-1, -1], input).unwrap()).into();
        assert_eq!(calls(&queries, usize::MAX), [0..2, 2..3, 3..4]);
        assert_eq!(calls(&queries, 1), [0..1, 1..2, 2..3, 3..4]);
    }
}
