//! JSON of commands on the program itself: settings, keys, secrets, manual pages, errors.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::document::documents;

documents!(Info, CompletionScript, ManualPages, SettingsFile, ClusterSecret, DryRun, Error);
documents!(listed KeyBinding);

/// `info`: the settings in force.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Info {
    /// The program's version.
    pub version: String,
    /// The cluster that commands go to.
    pub cluster: String,
    /// The directory of the local cluster.
    pub directory: String,
    /// Who one is to the cluster, and what one may do there; null without security.
    pub identity: Option<String>,
    /// When that ends, in milliseconds since the epoch; null for the secret itself.
    pub identity_ends_ms: Option<u64>,
    /// Whether commands that change the cluster are refused.
    pub read_only: bool,
    /// The time limit of `--timeout` in seconds; null for the commands' own limits.
    pub timeout_s: Option<f64>,
    /// The files that settings are read from.
    pub files: Vec<SettingsPath>,
    /// Environment variables that are set.
    pub environment: BTreeMap<String, String>,
    /// Clusters by name.
    pub contexts: BTreeMap<String, Context>,
    /// What is wrong with the settings.
    pub problems: Vec<String>,
}

/// A file that settings are read from.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct SettingsPath {
    /// What it holds.
    pub name: String,
    /// The path.
    pub path: String,
    /// Whether the file exists.
    pub exists: bool,
}

/// A named cluster.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Context {
    /// Addresses of members, separated by commas.
    pub cluster: String,
    /// Whether commands that change the cluster are refused.
    pub read_only: bool,
}

/// `keys`: an action of the console and its keys.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct KeyBinding {
    /// The action or command.
    pub action: String,
    /// The keys; none if it has none.
    pub keys: Vec<String>,
    /// The page on which they apply, or `all`.
    pub page: String,
    /// What the action does.
    pub meaning: String,
}

/// `completions`: a shell's completion script.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CompletionScript {
    /// The shell.
    pub shell: String,
    /// The script.
    pub script: String,
}

/// `man`: where manual pages were written.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ManualPages {
    /// The directory.
    pub directory: String,
    /// Pages in the directory.
    pub pages: u64,
}

/// `gen-config`: a settings file with every setting commented out.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct SettingsFile {
    /// The file that was written; only its name without `--write`.
    pub path: String,
    /// The content.
    pub text: String,
}

/// `cluster init`, `cluster rotate`: a cluster's secret.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ClusterSecret {
    /// The local file.
    pub path: String,
    /// Fingerprints of the keys: the first signs, all are trusted.
    pub keys: Vec<String>,
}

/// `--dry-run`: what a command would do.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct DryRun {
    /// The changes, in order.
    pub would: Vec<String>,
}

/// Why a command failed or its answer is incomplete; written to stderr.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Error {
    /// The error.
    pub error: ErrorDetail,
}

/// An error.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ErrorDetail {
    /// The exit code.
    pub code: u8,
    /// The exit code in a word.
    pub kind: String,
    /// What failed on what, and what to do.
    pub message: String,
}
