//! `model.toml`, and what a package is without it.

use std::path::Path;

use idunno_shared::names::FileName;
use idunno_shared::package::SETTINGS_FILE;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Files, LocalFile, LocalPackageError, require};

/// What runs a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// One Python class.
    Python,
    /// A text encoder in a folder that sentence-transformers saved.
    #[serde(rename = "sentence-transformers")]
    SentenceTransformers,
    /// A network in a folder that transformers saved.
    Transformers,
    /// A fitted pipeline of scikit-learn in a file of skops.
    Sklearn,
    /// A network in an ONNX file.
    Onnx,
    /// A program that reads rows and writes answers.
    Command,
    /// A server that speaks OpenAI's API.
    Openai,
}

impl Runtime {
    /// By what runtimes are recognised, for messages.
    pub const SIGNS: &str = "model.py, a single .py file, modules.json, a single .skops or .onnx file, config.json with tokenizer.json and .safetensors, a program called 'run' nor a table [openai] in model.toml";

    /// Its name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::SentenceTransformers => "sentence-transformers",
            Self::Transformers => "transformers",
            Self::Sklearn => "sklearn",
            Self::Onnx => "onnx",
            Self::Command => "command",
            Self::Openai => "openai",
        }
    }
}

/// The devices that a model may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Device {
    Cpu,
    Cuda,
    Auto,
}

/// What a program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Stdin {
    /// A batch, one row a line.
    Lines,
    /// The bytes of one row.
    Row,
}

/// The keys of `model.toml`. All are optional.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    #[serde(skip_serializing)]
    name: Option<String>,
    #[serde(skip_serializing)]
    runtime: Option<Runtime>,
    #[serde(skip_serializing)]
    entry: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// `python`: the class, if the file has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    /// `python`: what a trained class loads.
    #[serde(skip_serializing_if = "Option::is_none")]
    artefact: Option<String>,
    /// `command`: arguments of the program.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    arguments: Vec<String>,
    /// `command`: what the program reads on its standard input.
    #[serde(skip_serializing_if = "Option::is_none")]
    stdin: Option<Stdin>,
    /// `onnx`: the output that is the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    /// `sklearn`: types beyond those of scikit-learn and numpy that the file may have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trusted: Vec<String>,
    /// `transformers`: what the network does, if config.json does not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<String>,
    /// An input that the model must answer before it gets work.
    #[serde(skip_serializing_if = "Option::is_none")]
    canary: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_mib: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    row_timeout_s: Option<f64>,
    /// Whether its process may use the network, on members whose kernel can refuse that.
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<bool>,
    /// `openai`: the server, and what it is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    openai: Option<OpenAi>,
}

/// What a server that speaks OpenAI's API is asked. All keys but the first two are optional.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenAi {
    /// Such as `http://127.0.0.1:8000/v1`.
    url: String,
    /// The model's name there.
    model: String,
    /// `chat` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    /// With places in braces for a row's fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    /// A file of the package: the JSON schema of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<String>,
    /// Merged into each request.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    extra: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    headers: Map<String, Value>,
    /// A file of each member, not of the package: it holds the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_file: Option<String>,
    /// A file of each member: the certificates that are trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<String>,
    /// Most requests at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight: Option<u16>,
    /// A row that the server must answer before it gets work.
    #[serde(skip_serializing_if = "Option::is_none")]
    canary: Option<String>,
}

impl Settings {
    pub(super) fn read(path: &Path) -> Result<Self, LocalPackageError> {
        let unreadable = |source| LocalPackageError::Read { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        toml::from_str(&text).map_err(|error| LocalPackageError::Settings {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(super) fn artefact(&self) -> Option<&str> {
        self.artefact.as_deref()
    }

    /// The settings for the runtime.
    pub(super) fn into_map(self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        }
    }

    /// What runs the package, and with which file it begins. `shown` is the folder as the user named it.
    pub(super) fn recognise(
        &self,
        shown: &Path,
        files: &Files,
    ) -> Result<(Runtime, FileName), LocalPackageError> {
        if let Some(entry) = &self.entry {
            let entry = require(files, "the entry", entry)?;
            let runtime = self.runtime.or_else(|| by_suffix(&entry));
            let unrecognised = || LocalPackageError::Unrecognised { path: shown.to_owned() };
            return Ok((runtime.ok_or_else(unrecognised)?, entry));
        }
        let has_table = self.openai.is_some() && self.runtime.is_none();
        if has_table || self.runtime == Some(Runtime::Openai) {
            return Ok((Runtime::Openai, require(files, "the settings", SETTINGS_FILE)?));
        }
        // Code comes before weights, which it may load itself.
        let may_be = |runtime| self.runtime.is_none_or(|wanted| wanted == runtime);
        if may_be(Runtime::Python)
            && let Some(entry) = find_python(shown, files)?
        {
            return Ok((Runtime::Python, entry));
        }
        if may_be(Runtime::SentenceTransformers)
            && let Some(entry) = at_top(files, "modules.json")
        {
            return Ok((Runtime::SentenceTransformers, entry));
        }
        if may_be(Runtime::Sklearn)
            && let Some(entry) = only_one(shown, files, ".skops", "files of skops")?
        {
            return Ok((Runtime::Sklearn, entry));
        }
        if may_be(Runtime::Onnx)
            && let Some(entry) = only_one(shown, files, ".onnx", "ONNX files")?
        {
            return Ok((Runtime::Onnx, entry));
        }
        if may_be(Runtime::Transformers)
            && let Some(entry) = find_network(files)
        {
            return Ok((Runtime::Transformers, entry));
        }
        if may_be(Runtime::Command)
            && let Some(entry) = find_program(files)
        {
            return Ok((Runtime::Command, entry));
        }
        Err(LocalPackageError::Unrecognised { path: shown.to_owned() })
    }
}

fn by_suffix(entry: &FileName) -> Option<Runtime> {
    match entry.as_str().rsplit_once('.') {
        Some((_, "py")) => Some(Runtime::Python),
        Some((_, "onnx")) => Some(Runtime::Onnx),
        Some((_, "skops")) => Some(Runtime::Sklearn),
        _ => None,
    }
}

fn find_python(shown: &Path, files: &Files) -> Result<Option<FileName>, LocalPackageError> {
    match ["model.py", "__init__.py"].into_iter().find_map(|usual| at_top(files, usual)) {
        Some(usual) => Ok(Some(usual)),
        None => only_one(shown, files, ".py", "Python files"),
    }
}

/// The file of this name at the top of the package.
fn at_top(files: &Files, wanted: &str) -> Option<FileName> {
    files.keys().find(|name| name.as_str() == wanted).cloned()
}

/// What describes a network that transformers saved, if the folder has all that such a network needs.
fn find_network(files: &Files) -> Option<FileName> {
    at_top(files, "tokenizer.json")?;
    files.keys().find(|name| !name.as_str().contains('/') && name.as_str().ends_with(".safetensors"))?;
    at_top(files, "config.json")
}

/// A program called `run`, or one that is alone.
fn find_program(files: &Files) -> Option<FileName> {
    let is_program = |(name, file): &(&FileName, &LocalFile)| {
        file.executable && (name.as_str() == "run" || files.len() == 1)
    };
    files.iter().find(is_program).map(|(name, _)| name.clone())
}

/// The only file at the top of the package that ends like this.
fn only_one(
    shown: &Path,
    files: &Files,
    suffix: &str,
    what: &'static str,
) -> Result<Option<FileName>, LocalPackageError> {
    let at_top = files.keys().filter(|name| !name.as_str().contains('/') && name.as_str().ends_with(suffix));
    let found: Vec<&FileName> = at_top.collect();
    match found[..] {
        [] => Ok(None),
        [only] => Ok(Some(only.clone())),
        _ => {
            let names = found.iter().map(ToString::to_string).collect();
            Err(LocalPackageError::Ambiguous { path: shown.to_owned(), what, names })
        }
    }
}
