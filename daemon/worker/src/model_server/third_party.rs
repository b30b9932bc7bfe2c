//! Calls to a server that others wrote: it brings its models, and declares what they take.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::Grant;

use super::{
    CALL_TIMEOUT, HEADER_LENGTH, MESSAGE_BYTES_MAX, ModelServerClient, RESPONSE_BYTES_MAX, ServerError,
};
use crate::open_inference::{self, Signature, batch_max_of};
use crate::protocol::{InferAnswers, RowAnswer};

/// What is known of a server's models.
#[derive(Debug, Default)]
pub(super) struct Signatures(Mutex<BTreeMap<ModelName, Arc<Signature>>>);

impl Signatures {
    fn get(&self, model: &ModelName) -> Option<Arc<Signature>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(model).cloned()
    }

    fn set(&self, model: &ModelName, signature: Signature) -> Arc<Signature> {
        let signature = Arc::new(signature);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(model.clone(), Arc::clone(&signature));
        signature
    }
}

impl ModelServerClient {
    /// Asks what a model takes and gives. `takes_binary` if the server says that it takes binary data.
    pub async fn learn_signature(
        &self,
        model: &ModelName,
        takes_binary: bool,
    ) -> Result<Arc<Signature>, ServerError> {
        let metadata = self.model_metadata(model).await?;
        // Only Triton has it.
        let config = match self.send(self.get(&format!("/v2/models/{model}/config")), CALL_TIMEOUT).await {
            Ok(response) => Some(self.body(response, MESSAGE_BYTES_MAX, CALL_TIMEOUT).await?),
            Err(ServerError::Status { .. }) => None,
            Err(error) => return Err(error),
        };
        let batch_max = config.as_deref().and_then(batch_max_of);
        let signature = Signature::new(&metadata, batch_max, takes_binary)
            .map_err(|error| ServerError::Malformed(error.to_string()))?;
        Ok(self.signatures.set(model, signature))
    }

    /// Runs `inputs` through a model of the server's.
    pub(super) async fn infer_there(
        &self,
        grant: &Grant,
        inputs: &[Bytes],
        takes_binary: bool,
        deadline: Duration,
    ) -> Result<InferAnswers, ServerError> {
        let Grant { model, parameters, .. } = grant;
        let signature = match self.signatures.get(model) {
            Some(signature) => signature,
            None => self.learn_signature(model, takes_binary).await?,
        };
        let open_inference::Calls { calls, refused } = open_inference::calls(&signature, inputs, parameters);
        let mut rows = vec![None; inputs.len()];
        for (place, reason) in refused {
            rows[place] = Some(RowAnswer::Failed(reason));
        }
        for call in calls {
            let answers = self.call_there(model, &signature, &call, deadline).await?;
            for (place, answer) in call.places.into_iter().zip(answers) {
                rows[place] = Some(RowAnswer::Output(answer));
            }
        }
        // Each input was refused or is part of a call, and each call has as many answers as inputs.
        Ok(InferAnswers { version: None, rows: rows.into_iter().flatten().collect() })
    }

    async fn call_there(
        &self,
        model: &ModelName,
        signature: &Signature,
        call: &open_inference::Call,
        deadline: Duration,
    ) -> Result<Vec<Bytes>, ServerError> {
        let mut request = self.post(&format!("/v2/models/{model}/infer")).body(call.body.body.clone());
        request = match call.body.header_length {
            Some(length) => {
                request.header(HEADER_LENGTH, length).header("content-type", "application/octet-stream")
            }
            None => request.header("content-type", "application/json"),
        };
        let response = match self.send(request, deadline).await {
            Ok(response) => response,
            Err(error) => return Err(self.blame(model, error).await),
        };
        let header_length = super::header_length(&response)?;
        let body = self.body(response, RESPONSE_BYTES_MAX, deadline).await?;
        open_inference::decode(signature, header_length, &body, call.places.len())
            .map_err(|error| ServerError::Malformed(error.to_string()))
    }

    /// Some servers answer 400 or 404 for a model that they have unloaded: no input is to blame for that.
    async fn blame(&self, model: &ModelName, error: ServerError) -> ServerError {
        match error {
            ServerError::Status { status: 400 | 404 | 422, message }
                if matches!(self.serves(model, None).await, Ok(false)) =>
            {
                ServerError::Status { status: 503, message }
            }
            error => error,
        }
    }
}
