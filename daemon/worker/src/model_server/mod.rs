//! Calls to a model server: the Open Inference Protocol, its repository extension, and ours for training.
//!
//! Decides whose fault a failure is, and whether smaller calls may succeed ([`ServerError`]). Source: the protocol's REST
//! specification.
//!
//! Bounds: each call has a deadline; a response has at most [`RESPONSE_BYTES_MAX`]. An artefact is fetched in parts. It never
//! retries: its callers do.
//! Calls that are not encrypted stay on this machine ([`Endpoint::check`]), and a redirect is a fault.

mod endpoint;
mod error;
mod resources;
mod third_party;
mod training;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use idunno_shared::ids::Digest;
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{Grant, Parameters};
use reqwest::header::HeaderMap;
use reqwest::{Client, RequestBuilder, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::warn;

pub use self::endpoint::{Endpoint, EndpointError, Header, ValueSource};
pub use self::error::ServerError;
use self::error::{classify, status_error};
use self::third_party::Signatures;
pub use self::training::{TaskOutput, TaskState, TrainingTask};

use super::models::MODELS_MAX;
use super::protocol::{HEADER_LENGTH, InferAnswers, decode_response, encode_request};

/// Largest response to an infer call.
pub const RESPONSE_BYTES_MAX: usize = 32 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(120);
/// What a slow disk writes; a long transfer may take longer accordingly.
const TRANSFER_BYTES_S_MIN: u64 = 4 << 20;
/// Large weights take long to read, and compilers longer.
const LOAD_TIMEOUT: Duration = Duration::from_secs(1800);
/// A server of ours gives up by itself on a load that makes no progress.
const OWN_LOAD_TIMEOUT: Duration = Duration::from_secs(3 * 3600);
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// The protocol extensions that a server announces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Ours: it trains, accepts artefacts, and names versions by their digest.
    pub idunno: bool,
    /// It loads models on request.
    pub repository: bool,
    /// It takes and gives tensors as binary data.
    pub binary: bool,
}

/// A model server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ModelServerClient {
    client: Client,
    base: String,
    signatures: Arc<Signatures>,
    /// Keeps the path of a socket valid.
    _folder: Option<Arc<File>>,
}

impl ModelServerClient {
    /// A client of a server. It reads the values of the headers and the certificates.
    pub fn new(endpoint: &Endpoint) -> Result<Self, EndpointError> {
        Self::with_headers(endpoint, endpoint.read_headers()?)
    }

    /// The same with headers that were read before.
    pub fn with_headers(endpoint: &Endpoint, headers: HeaderMap) -> Result<Self, EndpointError> {
        let (client, folder) = endpoint.client(headers)?;
        let base = endpoint.url.trim_end_matches('/').to_owned();
        Ok(Self { client, base, signatures: Arc::default(), _folder: folder.map(Arc::new) })
    }

    /// Succeeds if the process answers.
    pub async fn live(&self) -> Result<(), ServerError> {
        self.send(self.get("/v2/health/live"), HEALTH_TIMEOUT).await.map(drop)
    }

    /// Succeeds if the server accepts infer calls.
    pub async fn ready(&self) -> Result<(), ServerError> {
        self.send(self.get("/v2/health/ready"), HEALTH_TIMEOUT).await.map(drop)
    }

    pub async fn extensions(&self) -> Result<Extensions, ServerError> {
        #[derive(Deserialize)]
        struct Metadata {
            #[serde(default)]
            extensions: Vec<String>,
        }
        let metadata: Metadata = self.object(self.get("/v2"), CALL_TIMEOUT).await?;
        let has = |name: &str| metadata.extensions.iter().any(|extension| extension == name);
        Ok(Extensions {
            idunno: has("idunno"),
            repository: has("model_repository"),
            binary: has("binary_tensor_data"),
        })
    }

    /// The models in the server's repository, loaded or not: at most [`MODELS_MAX`], in its order. Invalid names and what
    /// goes beyond are left out, and the log says so.
    pub async fn repository_models(&self) -> Result<Vec<ModelName>, ServerError> {
        #[derive(Deserialize)]
        struct RepositoryEntry {
            name: String,
        }
        let index: Vec<RepositoryEntry> =
            self.object(self.post("/v2/repository/index").json(&json!({})), CALL_TIMEOUT).await?;
        let (mut models, mut invalid) = (Vec::new(), Vec::new());
        for RepositoryEntry { name } in &index {
            match name.parse() {
                Ok(model) if models.len() < MODELS_MAX => models.push(model),
                Ok(_) => {}
                Err(_) => invalid.push(name.as_str()),
            }
        }
        if let Some(name) = invalid.first() {
            warn!(name, models = invalid.len(), "the model server has models whose names no job can give");
        }
        if index.len() - invalid.len() > models.len() {
            warn!(models = index.len(), used = MODELS_MAX, "the model server has more models than are used");
        }
        Ok(models)
    }

    /// Runs `inputs` through the grant's version of its model, with its parameters. A third-party server has one version.
    pub async fn infer(
        &self,
        grant: &Grant,
        inputs: &[Bytes],
        extensions: Extensions,
        deadline: Duration,
    ) -> Result<InferAnswers, ServerError> {
        if !extensions.idunno {
            return self.infer_there(grant, inputs, extensions.binary, deadline).await;
        }
        let Grant { model, version, parameters, .. } = grant;
        let request = encode_request(inputs, parameters);
        let call = self
            .post(&format!("/v2/models/{model}/versions/{version}/infer"))
            .header(HEADER_LENGTH, request.header_length)
            .header("content-type", "application/octet-stream")
            .body(request.body);
        let response = self.send(call, deadline).await?;
        let header_length = header_length(&response)?;
        let body = self.body(response, RESPONSE_BYTES_MAX, deadline).await?;
        decode_response(header_length, &body, inputs.len())
            .map_err(|error| ServerError::Malformed(error.to_string()))
    }

    /// Asks a server of ours whether a model, in the given version if any, accepts these parameters. An error status carries the reason.
    pub async fn check_parameters(
        &self,
        model: &ModelName,
        version: Option<&Digest>,
        parameters: &Parameters,
    ) -> Result<(), ServerError> {
        let version = version.map(|version| format!("/versions/{version}")).unwrap_or_default();
        let call = self.post(&format!("/idunno/models/{model}{version}/parameters"));
        self.send(call.json(&json!({ "parameters": parameters })), CALL_TIMEOUT).await.map(drop)
    }

    /// Whether a model is loaded, in the given version if any.
    pub async fn serves(&self, model: &ModelName, version: Option<&Digest>) -> Result<bool, ServerError> {
        let version = version.map(|version| format!("/versions/{version}")).unwrap_or_default();
        match self.send(self.get(&format!("/v2/models/{model}{version}/ready")), CALL_TIMEOUT).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_turned_away() => Err(error),
            Err(ServerError::Status { .. } | ServerError::RunnerNotReady { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has a server of ours end the process that runs a version, and start it again. False if there is no such process: the
    /// server itself runs the version.
    pub async fn restart_version(
        &self,
        model: &ModelName,
        version: &Digest,
        reason: &str,
    ) -> Result<bool, ServerError> {
        let call = self.post(&format!("/idunno/models/{model}/versions/{version}/restart"));
        match self.send(call.json(&json!({ "reason": reason })), CALL_TIMEOUT).await {
            Ok(_) => Ok(true),
            Err(ServerError::Status { status: 404 | 405 | 409 | 503, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The server's metadata of a model, verbatim.
    pub async fn model_metadata(&self, model: &ModelName) -> Result<Bytes, ServerError> {
        let response = self.send(self.get(&format!("/v2/models/{model}")), CALL_TIMEOUT).await?;
        self.body(response, MESSAGE_BYTES_MAX, CALL_TIMEOUT).await
    }

    /// Uploads an artefact of `size` bytes.
    pub async fn upload(
        &self,
        model: &ModelName,
        version: &Digest,
        size: u64,
        body: reqwest::Body,
    ) -> Result<(), ServerError> {
        let path = format!("{}/idunno/models/{model}/artefacts/{version}", self.base);
        let call = self.client.put(path).header("content-length", size).body(body);
        let deadline = TRANSFER_TIMEOUT + Duration::from_secs(size / TRANSFER_BYTES_S_MIN);
        self.send(call, deadline).await.map(drop)
    }

    /// Has a server of ours load a version of a model beside those that it has loaded: an uploaded artefact, or a package
    /// that it finds in the member's folder. Returns how long one row may take, as the model declares it; zero if it does not.
    pub async fn load_version(
        &self,
        model: &ModelName,
        version: &Digest,
        is_package: bool,
    ) -> Result<Duration, ServerError> {
        let mut parameters = json!({ "version": version.to_string(), "beside": true });
        if is_package {
            parameters["package"] = true.into();
        }
        self.load(model, &parameters, OWN_LOAD_TIMEOUT).await
    }

    /// Has a third-party server load a model.
    pub async fn load_model(&self, model: &ModelName) -> Result<(), ServerError> {
        self.load(model, &json!({}), LOAD_TIMEOUT).await.map(drop)
    }

    /// Has a server of ours forget a loaded version.
    pub async fn unload_version(&self, model: &ModelName, version: &Digest) -> Result<(), ServerError> {
        let parameters = json!({ "version": version.to_string() });
        let call = self.post(&format!("/v2/repository/models/{model}/unload"));
        self.send(call.json(&json!({ "parameters": parameters })), CALL_TIMEOUT).await.map(drop)
    }

    /// Asks a server of ours whether a package, which it finds in the member's folder, is a model, or can be trained with or
    /// without a dataset. An error status carries the reason.
    pub async fn check_package(
        &self,
        model: &ModelName,
        version: &Digest,
        trained_on_dataset: Option<bool>,
    ) -> Result<(), ServerError> {
        let mut call = self.post(&format!("/idunno/models/{model}/packages/{version}/check"));
        if let Some(has_dataset) = trained_on_dataset {
            call = call.json(&json!({ "train": { "dataset": has_dataset } }));
        }
        self.send(call, LOAD_TIMEOUT).await.map(drop)
    }

    async fn load(
        &self,
        model: &ModelName,
        parameters: &Value,
        deadline: Duration,
    ) -> Result<Duration, ServerError> {
        #[derive(Default, Deserialize)]
        struct Limits {
            row_timeout_s: Option<f64>,
        }
        let call = self.post(&format!("/v2/repository/models/{model}/load"));
        let response = self.send(call.json(&json!({ "parameters": parameters })), deadline).await?;
        let body = self.body(response, MESSAGE_BYTES_MAX, deadline).await?;
        // The body of a third-party server says nothing.
        let limits: Limits = serde_json::from_slice(&body).unwrap_or_default();
        let row_timeout = limits.row_timeout_s.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Ok(row_timeout.unwrap_or_default())
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
        serde_json::from_slice(&body).map_err(|error| ServerError::Malformed(error.to_string()))
    }

    /// Sends a call. An error status becomes an error with the server's message.
    async fn send(&self, call: RequestBuilder, deadline: Duration) -> Result<Response, ServerError> {
        let response =
            call.timeout(deadline).send().await.map_err(|error| classify(&error, &self.base, deadline))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(match self.body(response, MESSAGE_BYTES_MAX, deadline).await {
            Ok(body) => status_error(status.as_u16(), &body),
            Err(error) => ServerError::Status { status: status.as_u16(), message: error.to_string() },
        })
    }

    async fn next_chunk(
        &self,
        response: &mut Response,
        deadline: Duration,
    ) -> Result<Option<Bytes>, ServerError> {
        response.chunk().await.map_err(|error| classify(&error, &self.base, deadline))
    }

    async fn body(
        &self,
        mut response: Response,
        limit: usize,
        deadline: Duration,
    ) -> Result<Bytes, ServerError> {
        let length = response.content_length().and_then(|length| usize::try_from(length).ok());
        let mut body = BytesMut::with_capacity(length.unwrap_or_default().min(limit));
        while let Some(chunk) = self.next_chunk(&mut response, deadline).await? {
            if body.len() + chunk.len() > limit {
                return Err(ServerError::AnswerTooLong { limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

/// The length of the JSON part of a body that continues with binary data.
fn header_length(response: &Response) -> Result<Option<usize>, ServerError> {
    let Some(value) = response.headers().get(HEADER_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or_else(|| ServerError::Malformed(format!("{HEADER_LENGTH} is not a length")))
}

#[cfg(test)]
mod tests {
    use idunno_shared::wire::jobs::FaultKind;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn client_of(server: &TcpListener) -> ModelServerClient {
        let url = format!("http://{}", server.local_addr().unwrap());
        ModelServerClient::new(&Endpoint::open(url)).unwrap()
    }

    #[tokio::test]
    async fn a_model_that_is_not_loaded_is_told_from_a_server_that_turns_calls_away() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client_of(&server);
        let model = "mnist-mlp".parse().unwrap();
        for (status, serves) in [
            (200, Some(true)),
            // A server that has restarted answers so until the model is loaded again.
            (503, Some(false)),
            (404, Some(false)),
            (400, Some(false)),
            (401, None),
            (429, None),
        ] {
            let answers = async {
                let (mut stream, _) = server.accept().await.unwrap();
                stream.read_exact(&mut [0; 16]).await.unwrap();
                let head = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                stream
            };
            let (answer, _open) = tokio::join!(client.serves(&model, None), answers);
            assert_eq!(answer.ok(), serves, "{status}");
        }
    }

    #[tokio::test]
    async fn a_redirect_is_a_fault_of_the_server_and_is_not_followed() {
        let (server, elsewhere) = (
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let target = elsewhere.local_addr().unwrap();
        for status in [301, 302, 307, 308] {
            let client = client_of(&server);
            let redirects = async {
                let (mut stream, _) = server.accept().await.unwrap();
                stream.read_exact(&mut [0; 16]).await.unwrap();
                let head = format!(
                    "HTTP/1.1 {status} x\r\nlocation: http://{target}/v2/health/live\r\ncontent-length: 0\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                stream
            };
            let error = tokio::select! {
                (answer, _open) = async { tokio::join!(client.live(), redirects) } => answer.unwrap_err(),
                _ = elsewhere.accept() => panic!("{status}: the redirect was followed"),
            };
            assert_eq!(error.fault(), FaultKind::Worker, "{status}: a query is not to blame");
            assert!(error.is_turned_away() && error.to_string().contains(&status.to_string()), "{error}");
        }
    }
}
