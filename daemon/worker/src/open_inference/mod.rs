//! Models of third-party servers that speak the Open Inference Protocol: Triton, MLServer, KServe, OpenVINO Model Server.
//!
//! Decides how queries become calls by what the server declares of a model, and how its answers become rows. Source: the
//! protocol's REST specification, and Triton's extensions for binary data and for the model's configuration.
//!
//! Invariant: a row is the answer to its own query, or its reason.

mod message;
mod numbers;
mod query;
mod signature;

use std::ops::Range;

use bytes::Bytes;
use idunno_shared::wire::jobs::Parameters;
use thiserror::Error;

pub use self::message::{CallBody, decode};
use self::query::Query;
pub use self::signature::{Signature, SignatureError, batch_max_of};

/// An answer cannot be cut into rows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AnswerError {
    #[error("the answer is shorter than it says")]
    Truncated,
    #[error("the answer is not one to an inference call: {0}")]
    Json(String),
    #[error("the answer has no tensor '{0}', which the model declares")]
    NoTensor(String),
    #[error("the answer has no tensor")]
    NoOutput,
    #[error("tensor '{name}' of the answer {why}")]
    Tensor { name: String, why: String },
}

/// A call, and the queries that it answers.
#[derive(Clone, Debug)]
pub struct Call {
    /// The places of its queries among the inputs.
    pub places: Vec<usize>,
    pub body: CallBody,
}

/// Inputs as calls, and why the others cannot be sent, by place.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    pub calls: Vec<Call>,
    pub refused: Vec<(usize, String)>,
}

/// Turns inputs into calls.
pub fn calls(signature: &Signature, inputs: &[Bytes], parameters: &Parameters) -> Calls {
    let (mut places, mut queries, mut refused) = (Vec::new(), Vec::<Query>::new(), Vec::new());
    for (place, input) in inputs.iter().enumerate() {
        match query::read(signature, input) {
            Ok(query) => {
                places.push(place);
                queries.push(query);
            }
            Err(error) => refused.push((place, error.to_string())),
        }
    }
    let call = |range: Range<usize>| Call {
        places: places[range.clone()].to_vec(),
        body: message::encode(signature, &queries[range], parameters),
    };
    let calls = query::calls(&queries, signature.queries_max).into_iter().map(call).collect();
    Calls { calls, refused }
}
