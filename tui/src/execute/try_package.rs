//! `model test`: a package on this machine, with a Python that has the model server, without a cluster.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use idunno_shared::names::ModelName;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::local_package;
use crate::answer::models::{TestedInput, TestedModel};
use crate::answer::table::Table;
use crate::answer::{Answer, Exit, Failure};
use crate::package::{Links, LocalPackage};

/// The name of the model while it is tried.
const NAME: &str = "tested";
/// Lines that are shown of what the model's code prints.
const LINES_SHOWN: usize = 20;

/// What `idunno_model_server.try_package` writes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Tried {
    Failed { failed: String, traceback: String },
    Answered { load_s: f64, answers: Vec<TriedInput> },
}

#[derive(Deserialize)]
struct TriedInput {
    input: String,
    answer: Option<Value>,
    error: Option<String>,
    ms: f64,
}

pub async fn run(path: PathBuf, inputs: Vec<PathBuf>, python: PathBuf) -> Result<Answer, Failure> {
    let name: ModelName = NAME.parse().map_err(|_| Failure::unexpected())?;
    let package = local_package::open(path.clone(), Some(name), Links::All).await?;
    let runtime = package.runtime.name();
    let output = spawn_blocking(move || tried(&path, &package, &inputs, &python)).await;
    let output = output.map_err(|error| Failure::error(error.to_string()))??;
    let printed = String::from_utf8_lossy(&output.stderr);
    let printed: Vec<&str> = printed.lines().collect();
    let printed = printed[printed.len().saturating_sub(LINES_SHOWN)..].join("\n");
    let (load_s, answers) = match serde_json::from_slice(&output.stdout) {
        Ok(Tried::Answered { load_s, answers }) => (load_s, answers),
        Ok(Tried::Failed { failed, traceback }) => {
            let lines = [printed, traceback, failed].into_iter().filter(|lines| !lines.is_empty());
            return Err(Failure::error(lines.collect::<Vec<_>>().join("\n")));
        }
        Err(_) => {
            return Err(Failure::error(format!(
                "the model could not be tried ({}): {printed}",
                output.status
            )));
        }
    };
    let mut table = Table::new("INPUT ANSWER MS");
    for TriedInput { input, answer, error, ms } in &answers {
        let answer = answer.as_ref().map(Value::to_string);
        let error = error.as_ref().map(|error| format!("error: {error}"));
        table.row([input.clone(), answer.or(error).unwrap_or_default(), format!("{ms}")]);
    }
    let mut lines = vec![format!("runtime {runtime}, loaded in {load_s} s"), table.render()];
    if !printed.is_empty() {
        lines.push(format!("printed:\n{printed}"));
    }
    let answers = answers.into_iter().map(|TriedInput { input, answer, error, ms }| TestedInput {
        input,
        answer,
        error,
        time_ms: ms,
    });
    let tested = TestedModel { runtime: runtime.to_owned(), load_s, answers: answers.collect() };
    Ok(Answer::new(&tested, lines.join("\n")))
}

/// Puts the package down as a member would, with a link to its files, and runs the model server's own code on it.
fn tried(path: &Path, package: &LocalPackage, inputs: &[PathBuf], python: &Path) -> Result<Output, Failure> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| Failure::error(format!("cannot write {}: {error}", path.display()))
    };
    let scratch = tempfile::Builder::new().prefix("idunno-model-test-").tempdir();
    let scratch = scratch.map_err(failed(&std::env::temp_dir()))?;
    let (files, manifest) = (scratch.path().join("files"), scratch.path().join("manifest.json"));
    let whole = path.canonicalize().map_err(failed(path))?;
    if whole.is_dir() {
        symlink(&whole, &files).map_err(failed(&files))?;
    } else {
        fs::create_dir(&files).map_err(failed(&files))?;
        symlink(&whole, files.join(package.entry.as_str())).map_err(failed(&files))?;
    }
    let described = json!({
        "format": idunno_shared::package::FORMAT,
        "runtime": package.runtime.name(),
        "entry": package.entry.to_string(),
        "settings": package.settings,
    });
    fs::write(&manifest, described.to_string()).map_err(failed(&manifest))?;
    let mut command = Command::new(python);
    command.args(["-m", "idunno_model_server.try_package"]).arg(scratch.path()).arg(NAME).args(inputs);
    command.stdin(Stdio::null()).output().map_err(|error| {
        let text = format!(
            "cannot run {}: {error}; name the Python that has the model server with --python",
            python.display()
        );
        Failure::new(Exit::NotFound, text)
    })
}
