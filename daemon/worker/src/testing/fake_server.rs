//! A minimal model server over HTTP/1.1: one call at a time per connection, no streaming.
//!
//! It answers an input with `{"top5":[{"index":LENGTH}]}`. An input that begins with "bad" gets a row error; a call with
//! an input that begins with "poison" is refused with 400. One with an input that begins with "crash" ends the process of the
//! model, which does not run again before the next load.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub(in super::super) struct FakeServerState {
    pub(in super::super) live_status: u16,
    pub(in super::super) infer_status: u16,
    /// Calls with more inputs run out of memory.
    pub(in super::super) inputs_max: usize,
    /// The inputs of each infer call that was answered.
    pub(in super::super) call_sizes: Vec<usize>,
    /// What the reply to a load declares.
    pub(in super::super) row_timeout_s: Option<f64>,
    /// Bytes that each answer has beyond its content.
    pub(in super::super) padding: usize,
    /// Whether it has the binary, repository and training extensions.
    pub(in super::super) ours: bool,
    /// The loaded versions of each model, in the order of loading.
    pub(in super::super) loaded: BTreeMap<String, Vec<String>>,
    pub(in super::super) artefacts: BTreeMap<String, Vec<u8>>,
    pub(in super::super) trained: Vec<u8>,
    /// Closes the connection once in place of a part of it.
    pub(in super::super) cuts_a_part: bool,
    /// The dataset of each ordered training.
    pub(in super::super) trained_on: Vec<Option<PathBuf>>,
    /// The package of each ordered training.
    pub(in super::super) trained_packages: Vec<Option<String>>,
    pub(in super::super) training_failure: Option<&'static str>,
    /// Progress of a training that never ends: the step, and the number of steps.
    pub(in super::super) training_steps: Option<(u32, u32)>,
    /// The parameters of the last infer call.
    pub(in super::super) parameters: Value,
    /// Whether answers say how many tokens they took: one for each byte that is read, and one that is written.
    pub(in super::super) counts_tokens: bool,
    /// What it says of its devices and runners.
    pub(in super::super) resources: Value,
    /// The only value of the header `authorization` with which calls are answered.
    pub(in super::super) token: Option<String>,
    /// Paths of the received calls.
    pub(in super::super) calls: Vec<String>,
    pub(in super::super) uploads: BTreeSet<String>,
    /// Whether each model has a process of its own.
    pub(in super::super) has_runners: bool,
    /// The models whose process ended.
    pub(in super::super) ended: BTreeSet<String>,
}

impl FakeServerState {
    fn is_loaded(&self, model: &str, version: &str) -> bool {
        self.loaded.get(model).is_some_and(|loaded| loaded.iter().any(|other| other == version))
    }
}

pub(in super::super) struct FakeServer {
    state: Arc<Mutex<FakeServerState>>,
    held: watch::Sender<bool>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

impl FakeServer {
    pub(in super::super) async fn start() -> Self {
        let state = FakeServerState {
            live_status: 200,
            infer_status: 200,
            inputs_max: usize::MAX,
            call_sizes: Vec::new(),
            row_timeout_s: None,
            padding: 0,
            ours: true,
            loaded: BTreeMap::new(),
            artefacts: BTreeMap::new(),
            trained: b"weights".to_vec(),
            cuts_a_part: false,
            trained_on: Vec::new(),
            trained_packages: Vec::new(),
            training_failure: None,
            training_steps: None,
            parameters: Value::Null,
            counts_tokens: false,
            resources: json!({}),
            token: None,
            calls: Vec::new(),
            uploads: BTreeSet::new(),
            has_runners: false,
            ended: BTreeSet::new(),
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let (state, held) = (Arc::new(Mutex::new(state)), watch::Sender::new(false));
        let mut server = Self { state, held, address, accepting: None };
        server.listen().await;
        server
    }

    pub(in super::super) async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (state, held) = (Arc::clone(&self.state), self.held.subscribe());
        self.accepting = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&state), held.clone()));
            }
        }));
    }

    /// Listens on a Unix socket, too, for as long as the test runs.
    pub(in super::super) fn listen_at(&self, socket: &Path) {
        let listener = UnixListener::bind(socket).unwrap();
        let (state, held) = (Arc::clone(&self.state), self.held.subscribe());
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&state), held.clone()));
            }
        });
    }

    /// Simulates a crash: connections close, and loaded models are lost.
    pub(in super::super) async fn crash(&mut self) {
        let accepting = self.accepting.take().unwrap();
        accepting.abort();
        let _aborted = accepting.await;
        self.set(|state| state.loaded.clear());
    }

    /// Blocks infer calls until it is set to false.
    pub(in super::super) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    pub(in super::super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(in super::super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(in super::super) fn set<T>(&self, change: impl FnOnce(&mut FakeServerState) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// Number of calls whose path contains `part`.
    pub(in super::super) fn calls(&self, part: &str) -> usize {
        self.set(|state| state.calls.iter().filter(|call| call.contains(part)).count())
    }
}

struct Reply {
    status: u16,
    header_length: Option<usize>,
    body: Vec<u8>,
}

impl Reply {
    fn json(status: u16, value: &Value) -> Self {
        Self { status, header_length: None, body: value.to_string().into_bytes() }
    }

    fn error(status: u16, message: &str) -> Self {
        Self::json(status, &json!({ "error": message }))
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    state: Arc<Mutex<FakeServerState>>,
    mut held: watch::Receiver<bool>,
) {
    let mut stream = BufReader::new(stream);
    while let Some(Request { path, header_length, token, range, body }) = read_request(&mut stream).await {
        state.lock().unwrap().calls.push(path.clone());
        if path.ends_with("/infer") && held.wait_for(|held| !held).await.is_err() {
            return;
        }
        let mut reply = {
            let state = &mut state.lock().unwrap();
            let is_known = state.token.is_none() || state.token == token;
            if is_known {
                answer(state, &path, header_length, &body)
            } else {
                Reply::error(401, "who are you?")
            }
        };
        if let Some((first, last)) = range {
            if std::mem::take(&mut state.lock().unwrap().cuts_a_part) {
                return;
            }
            reply.body = reply.body[first..=last].to_vec();
        }
        let header =
            reply.header_length.map(|length| format!("inference-header-content-length: {length}\r\n"));
        let (status, length) = (reply.status, reply.body.len());
        let head =
            format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n{}", header.unwrap_or_default());
        let bytes = [head.as_bytes(), b"\r\n", &reply.body].concat();
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

struct Request {
    path: String,
    header_length: Option<usize>,
    token: Option<String>,
    /// The first and the last byte asked for.
    range: Option<(usize, usize)>,
    body: Vec<u8>,
}

async fn read_request(stream: &mut (impl AsyncBufRead + Unpin)) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut header_length, mut token, mut range) = (0, None, None, None);
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "inference-header-content-length" => header_length = value.trim().parse().ok(),
            "range" => {
                let (first, last) = value.trim().strip_prefix("bytes=")?.split_once('-')?;
                range = Some((first.parse().ok()?, last.parse().ok()?));
            }
            "authorization" => token = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    // DELETE is appended to the path, so that such calls can be told apart.
    let path = if method == "DELETE" { format!("{path}/DELETE") } else { path };
    Some(Request { path, header_length, token, range, body })
}

fn answer(state: &mut FakeServerState, path: &str, header_length: Option<usize>, body: &[u8]) -> Reply {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts[..] {
        ["v2", "health", _] if state.live_status == 200 => Reply::json(200, &json!({})),
        ["v2", "health", _] => Reply::error(state.live_status, "not well"),
        ["v2"] if state.ours => {
            Reply::json(200, &json!({"extensions": ["binary_tensor_data", "model_repository", "idunno"]}))
        }
        ["v2"] => Reply::json(200, &json!({"name": "another"})),
        ["v2", "models", model, "infer"] => infer(state, model, None, header_length, body),
        ["v2", "models", model, "versions", version, "infer"] => {
            infer(state, model, Some(version), header_length, body)
        }
        ["v2", "models", _, "ready"] if !state.ours => Reply::json(200, &json!({})),
        ["v2", "models", model, "versions", version, "ready"] => {
            let loaded = state.is_loaded(model, version);
            Reply::json(if loaded { 200 } else { 404 }, &json!({}))
        }
        ["v2", "models", model] => Reply::json(200, &json!({"name": model})),
        ["v2", "repository", "index"] => Reply::json(200, &json!([{"name": "mine"}, {"name": "no name!"}])),
        ["v2", "repository", "models", model, "load"] => {
            let request: Value = serde_json::from_slice(body).unwrap();
            let version = request["parameters"]["version"].as_str().unwrap().to_owned();
            let is_package = request["parameters"]["package"].as_bool() == Some(true);
            if !is_package && !state.artefacts.contains_key(&version) {
                return Reply::error(404, "PUT it first");
            }
            state.ended.remove(model);
            let loaded = state.loaded.entry(model.to_owned()).or_default();
            loaded.retain(|other| *other != version);
            loaded.push(version);
            Reply::json(200, &json!({"row_timeout_s": state.row_timeout_s}))
        }
        ["v2", "repository", "models", model, "unload"] => {
            let request: Value = serde_json::from_slice(body).unwrap();
            let version = request["parameters"]["version"].as_str().unwrap();
            state.loaded.entry(model.to_owned()).or_default().retain(|other| other != version);
            Reply::json(200, &json!({}))
        }
        ["idunno", "models", model, "versions", _, "restart"] if state.has_runners => {
            state.ended.insert(model.to_owned());
            Reply::json(200, &json!({}))
        }
        ["idunno", "runners"] if state.ours => Reply::json(200, &state.resources),
        ["idunno", "models", _, "versions", _, "restart"] => Reply::error(409, "no process of its own"),
        ["idunno", "models", _, "artefacts", version] => {
            state.artefacts.insert(version.to_owned(), body.to_vec());
            state.uploads.insert(version.to_owned());
            Reply::json(201, &json!({}))
        }
        ["idunno", "models", model, "train"] => {
            let order: Value = serde_json::from_slice(body).unwrap();
            state.trained_on.push(order["dataset"].as_str().map(PathBuf::from));
            state.trained_packages.push(order["package"].as_str().map(str::to_owned));
            Reply::json(202, &json!({"task": format!("task-{model}")}))
        }
        ["idunno", "tasks", _] => match (state.training_failure, state.training_steps) {
            (Some(reason), _) => Reply::json(200, &json!({"state": "failed", "reason": reason})),
            (None, Some((step, steps))) => {
                let fraction = f64::from(step) / f64::from(steps);
                let metrics = json!({"loss": 0.5});
                let progress =
                    json!({"fraction": fraction, "step": step, "steps": steps, "metrics": metrics});
                Reply::json(200, &json!({"state": "running", "progress": progress}))
            }
            (None, None) => {
                let metrics = json!({"accuracy": 0.9});
                let (file, bytes) = ("weights.npz", state.trained.len());
                let done = json!({
                    "state": "done", "metrics": metrics, "artefact": file, "artefact_bytes": bytes,
                });
                Reply::json(200, &done)
            }
        },
        ["idunno", "tasks", _, "DELETE"] => Reply::json(200, &json!({"state": "failed"})),
        ["idunno", "tasks", _, "artefact"] => {
            Reply { status: 200, header_length: None, body: state.trained.clone() }
        }
        _ => Reply::error(404, "no such path"),
    }
}

fn infer(
    state: &mut FakeServerState,
    model: &str,
    asked: Option<&str>,
    header_length: Option<usize>,
    body: &[u8],
) -> Reply {
    if state.infer_status != 200 {
        return Reply::error(state.infer_status, "as the test says");
    }
    let newest = state.loaded.get(model).and_then(|loaded| loaded.last().cloned());
    let version = match asked {
        Some(asked) => Some(asked.to_owned()).filter(|asked| state.is_loaded(model, asked)),
        None => newest,
    };
    if state.ours && version.is_none() {
        return Reply::error(503, "not loaded");
    }
    if state.ended.contains(model) {
        return Reply::json(503, &json!({"error": "starting again", "runner": "restarting"}));
    }
    let (header, mut tensor) = body.split_at(header_length.unwrap_or(body.len()));
    let request: Value = serde_json::from_slice(header).unwrap();
    state.parameters = request["parameters"].clone();
    let texts = request["inputs"][0]["data"].as_array().into_iter().flatten();
    let mut inputs: Vec<&[u8]> = texts.map(|text| text.as_str().unwrap().as_bytes()).collect();
    while let Some((length, rest)) = tensor.split_first_chunk::<4>() {
        let (input, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        tensor = rest;
        inputs.push(input);
    }
    let (mut outputs, mut errors) = (Vec::new(), Vec::new());
    for input in inputs {
        if input.starts_with(b"poison") {
            return Reply::error(400, "one of the inputs is poison");
        }
        if input.starts_with(b"crash") {
            state.ended.insert(model.to_owned());
            return Reply::json(500, &json!({"error": "it ended with SIGSEGV", "runner": "ended"}));
        }
        let bad = input.starts_with(b"bad");
        let padding = " ".repeat(state.padding);
        let mut answer = json!({"top5": [{"index": input.len()}]});
        if state.counts_tokens {
            answer["usage"] = json!({"prompt_tokens": input.len(), "completion_tokens": 1});
        }
        let good = format!("{answer}{padding}");
        outputs.push(if bad { String::new() } else { good });
        errors.push(if bad { "not an image".to_owned() } else { String::new() });
    }
    let shape = [outputs.len()];
    if outputs.len() > state.inputs_max {
        return Reply::error(507, "out of memory");
    }
    state.call_sizes.push(outputs.len());
    if !state.ours {
        let output = json!({"name": "predictions", "datatype": "BYTES", "shape": shape, "data": outputs});
        return Reply::json(200, &json!({"model_name": model, "outputs": [output]}));
    }
    let encode = |rows: &[String]| -> Vec<u8> {
        let length = |row: &String| u32::try_from(row.len()).unwrap().to_le_bytes();
        rows.iter().flat_map(|row| [&length(row)[..], row.as_bytes()].concat()).collect()
    };
    let (outputs, errors) = (encode(&outputs), encode(&errors));
    let tensor = |name: &str, bytes: &[u8]| {
        let parameters = json!({"binary_data_size": bytes.len()});
        json!({"name": name, "datatype": "BYTES", "shape": shape, "parameters": parameters})
    };
    let tensors = [tensor("output", &outputs), tensor("error", &errors)];
    let header = json!({"model_name": model, "model_version": version, "outputs": tensors}).to_string();
    let header_length = Some(header.len());
    Reply { status: 200, header_length, body: [header.into_bytes(), outputs, errors].concat() }
}
