//! Calls to a model server: the Open Inference Protocol, its repository extension, and ours for training.
//!
//! Decides what kind of failure an error is (whose fault, whether smaller calls may do better). Source: the
//! protocol's REST specification; the error classes are the design's, section 8.
//!
//! Bounds: each call has a deadline; a response is at most [`RESPONSE_BYTES_MAX`], an artefact
//! [`ARTEFACT_BYTES_MAX`]. It never repeats a call: its callers do.

use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use idunno_shared::ids::Digest;
use idunno_shared::names::ModelName;
use idunno_shared::wire::blobs::EXTENT_BYTES_MAX;
use idunno_shared::wire::jobs::{FaultKind, METRIC_BYTES_MAX, METRICS_MAX, Parameters, TrainingProgress};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::models::MODELS_MAX;
use super::protocol::{Answers, HEADER_LENGTH, decode_response, encode_request};

/// Largest response to an infer call, in bytes.
pub const RESPONSE_BYTES_MAX: usize = 32 << 20;
/// Largest artefact that is taken from training, in bytes; it is held in memory while it is stored.
pub const ARTEFACT_BYTES_MAX: usize = 256 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(120);
const MESSAGE_BYTES_MAX: usize = 64 << 10;
const REASON_CHARACTERS_MAX: usize = 300;

/// Why a call to the model server has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ServerError {
    /// Nobody listens there.
    #[error("cannot connect to the model server at {url}: {reason}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// No answer in time.
    #[error("the model server did not answer within {} s", after.as_secs())]
    TimedOut {
        /// The deadline.
        after: Duration,
    },
    /// The connection broke during the call.
    #[error("the connection to the model server broke: {0}")]
    Broken(String),
    /// The answer is not one.
    #[error("the model server's answer cannot be read: {0}")]
    Garbage(String),
    /// The server said no.
    #[error("the model server answered {status}: {message}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
}

impl ServerError {
    /// Whose fault a failed infer call is.
    pub fn fault(&self) -> FaultKind {
        match self {
            Self::Unreachable { .. } | Self::Status { status: 404 | 429 | 503, .. } => FaultKind::Worker,
            Self::Status { status, .. } if *status < 500 && *status != 408 => FaultKind::BadInput,
            _ => FaultKind::Inference,
        }
    }

    /// Whether the call had too many or too large inputs for one: the server has no memory for it, or no such bodies.
    pub fn is_too_much(&self) -> bool {
        matches!(self, Self::Status { status: 413 | 507, .. })
    }

    /// Whether a call with fewer inputs may do better: one of them is bad, or they are too many at once.
    pub fn splits(&self) -> bool {
        match self {
            Self::Status { .. } => self.is_too_much() || self.fault() == FaultKind::BadInput,
            _ => false,
        }
    }

    /// Whether the server itself, rather than what it was asked, is the likely cause.
    pub fn interrupted(&self) -> bool {
        !matches!(self, Self::Status { .. })
    }
}

/// What a server announces that it can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// It trains, takes artefacts, and names versions by their digest: it is one of ours.
    pub idunno: bool,
    /// Models are loaded on request.
    pub repository: bool,
}

/// How far a training is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// Not over; so far it has come.
    Running(TrainingProgress),
    /// The artefact can be fetched; it measured this.
    Done(Vec<(String, String)>),
    /// Over: why.
    Failed(String),
}

/// A trained artefact, cut into extents.
#[derive(Clone, Debug)]
pub struct Artefact {
    /// The digest of all its bytes.
    pub version: Digest,
    /// Its extents in order.
    pub extents: Vec<Bytes>,
}

/// A model server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ModelServer {
    client: Client,
    base: String,
}

/// A URL that cannot be that of a model server, or a system that cannot make HTTP calls.
#[derive(Debug, Error)]
#[error("cannot use the model server URL '{url}': {reason}; give one such as http://127.0.0.1:8080")]
pub struct ServerUrlError {
    url: String,
    reason: String,
}

impl ModelServer {
    /// The server at `url`, such as `http://127.0.0.1:8080`.
    pub fn new(url: &str) -> Result<Self, ServerUrlError> {
        let wrong = |reason: String| ServerUrlError { url: url.to_owned(), reason };
        let parsed = reqwest::Url::parse(url).map_err(|error| wrong(error.to_string()))?;
        if parsed.scheme() != "http" || !parsed.has_host() {
            return Err(wrong("it must be http:// and a host".to_owned()));
        }
        let client = Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true).build();
        let client = client.map_err(|error| wrong(error.to_string()))?;
        Ok(Self { client, base: url.trim_end_matches('/').to_owned() })
    }

    /// Whether the process answers at all.
    pub async fn live(&self) -> Result<(), ServerError> {
        self.send(self.get("/v2/health/live"), HEALTH_TIMEOUT).await.map(drop)
    }

    /// Whether it takes calls.
    pub async fn ready(&self) -> Result<(), ServerError> {
        self.send(self.get("/v2/health/ready"), HEALTH_TIMEOUT).await.map(drop)
    }

    /// What it can do.
    pub async fn extensions(&self) -> Result<Extensions, ServerError> {
        #[derive(Deserialize)]
        struct Metadata {
            #[serde(default)]
            extensions: Vec<String>,
        }
        let metadata: Metadata = self.object(self.get("/v2"), CALL_TIMEOUT).await?;
        let has = |name: &str| metadata.extensions.iter().any(|extension| extension == name);
        Ok(Extensions { idunno: has("idunno"), repository: has("model_repository") })
    }

    /// The models in its repository, loaded or not; at most [`MODELS_MAX`], in its own order. Names that cannot be
    /// those of models here are left out.
    pub async fn offers(&self) -> Result<Vec<ModelName>, ServerError> {
        #[derive(Deserialize)]
        struct Entry {
            name: String,
        }
        let index: Vec<Entry> =
            self.object(self.post("/v2/repository/index").json(&json!({})), CALL_TIMEOUT).await?;
        Ok(index.iter().filter_map(|entry| entry.name.parse().ok()).take(MODELS_MAX).collect())
    }

    /// Asks for the answers to `inputs`, as binary data where the server is ours.
    pub async fn infer(
        &self,
        model: &ModelName,
        parameters: &Parameters,
        inputs: &[Bytes],
        extensions: Extensions,
        deadline: Duration,
    ) -> Result<Answers, ServerError> {
        let request = encode_request(inputs, parameters, extensions.idunno);
        let call = self
            .post(&format!("/v2/models/{model}/infer"))
            .header(HEADER_LENGTH, request.header_length)
            .header("content-type", "application/octet-stream")
            .body(request.body);
        let response = self.send(call, deadline).await?;
        let header_length = match response.headers().get(HEADER_LENGTH) {
            None => None,
            Some(value) => match value.to_str().ok().and_then(|text| text.parse().ok()) {
                Some(length) => Some(length),
                None => return Err(ServerError::Garbage(format!("{HEADER_LENGTH} is not a length"))),
            },
        };
        let body = self.body(response, RESPONSE_BYTES_MAX, deadline).await?;
        decode_response(header_length, &body, inputs.len())
            .map_err(|error| ServerError::Garbage(error.to_string()))
    }

    /// Asks a server of ours whether a model takes these parameters. A status that is no success says why not.
    pub async fn check_parameters(
        &self,
        model: &ModelName,
        parameters: &Parameters,
    ) -> Result<(), ServerError> {
        let call = self.post(&format!("/idunno/models/{model}/parameters"));
        self.send(call.json(&json!({ "parameters": parameters })), CALL_TIMEOUT).await.map(drop)
    }

    /// Whether a model is loaded, in this version where one is given.
    pub async fn serves(&self, model: &ModelName, version: Option<&Digest>) -> Result<bool, ServerError> {
        let version = version.map(|version| format!("/versions/{version}")).unwrap_or_default();
        match self.send(self.get(&format!("/v2/models/{model}{version}/ready")), CALL_TIMEOUT).await {
            Ok(_) => Ok(true),
            Err(ServerError::Status { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the server says of a model, as it says it.
    pub async fn model_metadata(&self, model: &ModelName) -> Result<Bytes, ServerError> {
        let response = self.send(self.get(&format!("/v2/models/{model}")), CALL_TIMEOUT).await?;
        self.body(response, MESSAGE_BYTES_MAX, CALL_TIMEOUT).await
    }

    /// Gives the server an artefact of `size` bytes.
    pub async fn upload(
        &self,
        model: &ModelName,
        version: &Digest,
        size: u64,
        body: reqwest::Body,
    ) -> Result<(), ServerError> {
        let path = format!("{}/idunno/models/{model}/artefacts/{version}", self.base);
        let call = self.client.put(path).header("content-length", size).body(body);
        self.send(call, TRANSFER_TIMEOUT).await.map(drop)
    }

    /// Loads a model, in this version where one is given. May take as long as an upload.
    pub async fn load(&self, model: &ModelName, version: Option<&Digest>) -> Result<(), ServerError> {
        let parameters = version.map_or_else(|| json!({}), |v| json!({ "version": v.to_string() }));
        let call = self.post(&format!("/v2/repository/models/{model}/load"));
        self.send(call.json(&json!({ "parameters": parameters })), TRANSFER_TIMEOUT).await.map(drop)
    }

    /// Starts training a model, or joins the training that runs. `dataset` is a folder or file that the server can
    /// read. Returns the task's id.
    pub async fn train(
        &self,
        model: &ModelName,
        seed: u64,
        dataset: Option<&Path>,
    ) -> Result<String, ServerError> {
        #[derive(Deserialize)]
        struct Started {
            task: String,
        }
        let order = match dataset {
            Some(path) => json!({ "seed": seed, "dataset": path }),
            None => json!({ "seed": seed }),
        };
        let call = self.post(&format!("/idunno/models/{model}/train")).json(&order);
        let Started { task } = self.object(call, CALL_TIMEOUT).await?;
        if task.is_empty() || task.len() > 64 || !task.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        {
            return Err(ServerError::Garbage("the training task's id is not one".to_owned()));
        }
        Ok(task)
    }

    /// How far a training is.
    pub async fn task(&self, task: &str) -> Result<TaskState, ServerError> {
        #[derive(Deserialize)]
        struct Task {
            state: String,
            #[serde(default)]
            reason: String,
            #[serde(default)]
            progress: Progress,
            #[serde(default)]
            metrics: Option<Map<String, Value>>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Progress {
            fraction: f64,
            step: u64,
            steps: u64,
            metrics: Map<String, Value>,
        }
        let Task { state, reason, progress, metrics: measured } =
            self.object(self.get(&format!("/idunno/tasks/{task}")), CALL_TIMEOUT).await?;
        match state.as_str() {
            "running" => {
                let Progress { fraction, step, steps, metrics: newest } = progress;
                let metrics = metrics(&newest);
                Ok(TaskState::Running(TrainingProgress {
                    permille: permille(fraction),
                    step,
                    steps,
                    metrics,
                }))
            }
            "done" => Ok(TaskState::Done(metrics(&measured.unwrap_or_default()))),
            "failed" => Ok(TaskState::Failed(reason)),
            _ => Err(ServerError::Garbage(format!("unknown state '{}' of a training", shorten(&state)))),
        }
    }

    /// Ends a training; one that is over already stays as it is.
    pub async fn cancel(&self, task: &str) -> Result<(), ServerError> {
        let call = self.client.delete(format!("{}/idunno/tasks/{task}", self.base));
        self.send(call, CALL_TIMEOUT).await.map(drop)
    }

    /// Fetches what a training made.
    pub async fn artefact(&self, task: &str) -> Result<Artefact, ServerError> {
        let mut response =
            self.send(self.get(&format!("/idunno/tasks/{task}/artefact")), TRANSFER_TIMEOUT).await?;
        let extent_bytes = usize::try_from(EXTENT_BYTES_MAX).unwrap_or(usize::MAX);
        let (mut extents, mut extent, mut total) = (Vec::new(), BytesMut::new(), 0);
        let mut hasher = blake3::Hasher::new();
        while let Some(mut chunk) = response.chunk().await.map_err(|e| self.classify(&e, TRANSFER_TIMEOUT))? {
            hasher.update(&chunk);
            total += chunk.len();
            if total > ARTEFACT_BYTES_MAX {
                return Err(ServerError::Status {
                    status: StatusCode::PAYLOAD_TOO_LARGE.as_u16(),
                    message: format!("the artefact is larger than {ARTEFACT_BYTES_MAX} bytes"),
                });
            }
            while extent.len() + chunk.len() >= extent_bytes {
                extent.extend_from_slice(&chunk.split_to(extent_bytes - extent.len()));
                extents.push(std::mem::take(&mut extent).freeze());
            }
            extent.extend_from_slice(&chunk);
        }
        if !extent.is_empty() {
            extents.push(extent.freeze());
        }
        if extents.is_empty() {
            return Err(ServerError::Garbage("the trained artefact is empty".to_owned()));
        }
        Ok(Artefact { version: Digest(*hasher.finalize().as_bytes()), extents })
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.base))
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.base))
    }

    async fn object<T: DeserializeOwned>(
        &self,
        call: RequestBuilder,
        deadline: Duration,
    ) -> Result<T, ServerError> {
        let response = self.send(call, deadline).await?;
        let body = self.body(response, MESSAGE_BYTES_MAX, deadline).await?;
        serde_json::from_slice(&body).map_err(|error| ServerError::Garbage(error.to_string()))
    }

    /// Sends a call. A status that is no success is an error, with the server's words.
    async fn send(&self, call: RequestBuilder, deadline: Duration) -> Result<Response, ServerError> {
        let response =
            call.timeout(deadline).send().await.map_err(|error| self.classify(&error, deadline))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let message = match self.body(response, MESSAGE_BYTES_MAX, deadline).await {
            Ok(body) => error_message(&body),
            Err(error) => error.to_string(),
        };
        Err(ServerError::Status { status: status.as_u16(), message })
    }

    async fn body(
        &self,
        mut response: Response,
        limit: usize,
        deadline: Duration,
    ) -> Result<Bytes, ServerError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.classify(&error, deadline))? {
            if body.len() + chunk.len() > limit {
                return Err(ServerError::Garbage(format!("it is larger than {limit} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    fn classify(&self, error: &reqwest::Error, after: Duration) -> ServerError {
        let reason = innermost(error);
        match () {
            () if error.is_connect() => ServerError::Unreachable { url: self.base.clone(), reason },
            () if error.is_timeout() => ServerError::TimedOut { after },
            () => ServerError::Broken(reason),
        }
    }
}

/// A training's figures as text, no more and no longer than are kept.
fn metrics(named: &Map<String, Value>) -> Vec<(String, String)> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let fits = |pair: &(String, String)| pair.0.len().max(pair.1.len()) <= METRIC_BYTES_MAX;
    named.iter().map(|(name, value)| (name.clone(), text(value))).filter(fits).take(METRICS_MAX).collect()
}

/// A share in thousandths.
fn permille(fraction: f64) -> u16 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped")]
    let permille = (fraction.clamp(0.0, 1.0) * 1000.0) as u16;
    permille
}

/// The cause at the bottom: what lies above repeats the URL.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The server's words in the body of an error.
fn error_message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Message {
        error: String,
    }
    match serde_json::from_slice::<Message>(body) {
        Ok(message) => shorten(&message.error),
        Err(_) => shorten(&String::from_utf8_lossy(body)),
    }
}

fn shorten(text: &str) -> String {
    text.trim().chars().take(REASON_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> ServerError {
        ServerError::Status { status, message: String::new() }
    }

    #[test]
    fn errors_are_blamed_on_the_input_the_model_or_the_worker() {
        for (code, kind, splits) in [
            (400, FaultKind::BadInput, true),
            (413, FaultKind::BadInput, true),
            (422, FaultKind::BadInput, true),
            (404, FaultKind::Worker, false),
            (408, FaultKind::Inference, false),
            (429, FaultKind::Worker, false),
            (500, FaultKind::Inference, false),
            (503, FaultKind::Worker, false),
            (507, FaultKind::Inference, true),
        ] {
            assert_eq!((status(code).fault(), status(code).splits()), (kind, splits), "{code}");
        }
    }

    #[test]
    fn urls_are_checked() {
        for url in ["", "127.0.0.1:8080", "https://127.0.0.1", "ftp://host", "http://"] {
            assert!(ModelServer::new(url).is_err(), "{url}");
        }
        assert_eq!(ModelServer::new("http://127.0.0.1:8080/").unwrap().base, "http://127.0.0.1:8080");
    }
}
