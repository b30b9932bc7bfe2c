//! `model test`: a package on this machine, with a Python that has the model server, without a cluster.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use idunno_shared::names::ModelName;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::task::spawn_blocking;

use super::local_package;
use crate::answer::models::{TestedEnvironment, TestedInput, TestedModel};
use crate::answer::table::Table;
use crate::answer::{Answer, Exit, Failure, text};
use crate::execute::temporary_folder;
use crate::package::{Links, LocalPackage};

/// The name of the model while it is tried.
const NAME: &str = "tested";
/// Lines that are shown of what the model's code prints.
const LINES_SHOWN: usize = 20;

/// What `idunno_model_server.try_package` writes.
#[derive(Deserialize)]
struct Tried {
    environment: Option<TestedEnvironment>,
    start_s: f64,
    load_s: f64,
    canary_s: f64,
    answers: Vec<TriedInput>,
}

/// What it writes if the model fails.
#[derive(Deserialize)]
struct Failed {
    failed: String,
    traceback: String,
}

#[derive(Deserialize)]
struct TriedInput {
    input: String,
    answer: Option<Box<RawValue>>,
    error: Option<String>,
    ms: f64,
    decode_ms: f64,
    predict_ms: f64,
    encode_ms: f64,
}

pub async fn run(
    path: PathBuf,
    inputs: Vec<PathBuf>,
    python: PathBuf,
    in_environment: bool,
) -> Result<Answer, Failure> {
    let name: ModelName = NAME.parse().map_err(|_| Failure::unexpected())?;
    let package = local_package::open(path.clone(), Some(name), Links::All).await?;
    let runtime = package.runtime.name();
    let output = spawn_blocking(move || tried(&path, &package, &inputs, &python, in_environment)).await;
    let output = output.map_err(|error| Failure::error(error.to_string()))??;
    let printed = String::from_utf8_lossy(&output.stderr);
    let printed: Vec<&str> = printed.lines().collect();
    let printed = printed[printed.len().saturating_sub(LINES_SHOWN)..].join("\n");
    let Ok(tried) = serde_json::from_slice::<Tried>(&output.stdout) else {
        return Err(failure(&output, printed));
    };
    let mut lines = vec![times(runtime, &tried), table(&tried.answers)];
    if !printed.is_empty() {
        lines.push(format!("printed:\n{printed}"));
    }
    let Tried { environment, start_s, load_s, canary_s, answers } = tried;
    let answers = answers.into_iter().map(tested_input).collect();
    let runtime = runtime.to_owned();
    let tested = TestedModel { runtime, environment, start_s, load_s, canary_s, answers };
    Ok(Answer::new(&tested, lines.join("\n")))
}

fn failure(output: &Output, printed: String) -> Failure {
    match serde_json::from_slice(&output.stdout) {
        Ok(Failed { failed, traceback }) => {
            let lines = [printed, traceback, failed].into_iter().filter(|lines| !lines.is_empty());
            Failure::error(lines.collect::<Vec<_>>().join("\n"))
        }
        Err(_) => Failure::error(format!("the model could not be tried ({}): {printed}", output.status)),
    }
}

/// Where the time went before the first input.
fn times(runtime: &str, tried: &Tried) -> String {
    let Tried { environment, start_s, load_s, canary_s, .. } = tried;
    let environment = match environment {
        Some(TestedEnvironment { packages, bytes, lock_s, build_s }) => {
            let (packages, bytes) = (text::count(*packages, "package"), text::bytes(*bytes));
            format!("environment: {packages} ({bytes}), locked in {lock_s} s, built in {build_s} s")
        }
        None => String::from("environment: that of the model server"),
    };
    format!(
        "runtime {runtime}\n{environment}\nstarted in {start_s} s, loaded in {load_s} s, canary in {canary_s} s"
    )
}

fn table(answers: &[TriedInput]) -> String {
    let mut table = Table::new("INPUT ANSWER MS DECODE PREDICT ENCODE");
    for TriedInput { input, answer, error, ms, decode_ms, predict_ms, encode_ms } in answers {
        let answer = answer.as_ref().map(|answer| answer.get().to_owned());
        let error = error.as_ref().map(|error| format!("error: {error}"));
        let [ms, decode, predict, encode] = [ms, decode_ms, predict_ms, encode_ms].map(ToString::to_string);
        table.row([input.clone(), answer.or(error).unwrap_or_default(), ms, decode, predict, encode]);
    }
    table.render()
}

fn tested_input(input: TriedInput) -> TestedInput {
    let TriedInput { input, answer, error, ms, decode_ms, predict_ms, encode_ms } = input;
    TestedInput { input, answer, error, time_ms: ms, decode_ms, predict_ms, encode_ms }
}

/// Puts the package down as a member would, with a link to its files, and runs the model server's own code on it.
fn tried(
    path: &Path,
    package: &LocalPackage,
    inputs: &[PathBuf],
    python: &Path,
    in_environment: bool,
) -> Result<Output, Failure> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| Failure::error(format!("cannot write {}: {error}", path.display()))
    };
    let scratch = temporary_folder("idunno-model-test-")?;
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
    if !in_environment {
        command.arg("--no-environment");
    }
    command.stdin(Stdio::null()).output().map_err(|error| {
        let text = format!(
            "cannot run {}: {error}; name the Python that has the model server with --python",
            python.display()
        );
        Failure::new(Exit::NotFound, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_shown_as_the_model_wrote_it() {
        let written = r#"{"environment":null,"start_s":0.1,"load_s":0.2,"canary_s":0.3,"answers":[{"input":"canary",
            "answer":{"n":123456789012345678901234567890,"x":1.0e2},"error":null,"ms":1.0,"decode_ms":0.0,
            "predict_ms":0.5,"encode_ms":0.25}]}"#;
        let tried: Tried = serde_json::from_str(written).expect("what the model server writes");
        let shown = table(&tried.answers);
        assert!(shown.contains(r#"{"n":123456789012345678901234567890,"x":1.0e2}"#), "{shown}");
        let words = times("python", &tried);
        assert!(words.ends_with("started in 0.1 s, loaded in 0.2 s, canary in 0.3 s"), "{words}");
    }
}
