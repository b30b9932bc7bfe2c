//! The environment of a package with requirements: they are locked, and their wheels fetched, on this machine, by a Python
//! that has the model server. Members then make the environment without a network.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde::Deserialize;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::answer::{Exit, Failure};
use crate::execute::temporary_folder;
use crate::package::LocalPackage;

/// Characters that are shown of what a tool says.
const SAID_MAX: usize = 1000;
const HINT: &str =
    "name the Python that has the model server with --python, or add the model with --no-environment";

/// What `idunno_model_server.lock_environment` writes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Locked {
    Failed { failed: String },
    Done { packages: u64, bytes: u64 },
}

/// The files of an environment, which are deleted with this.
pub struct Environment {
    /// How many wheels it has.
    pub packages: u64,
    /// Their bytes.
    pub bytes: u64,
    _folder: TempDir,
}

/// Adds an environment to a package that has requirements.
pub async fn lock(package: &mut LocalPackage, python: PathBuf) -> Result<Option<Environment>, Failure> {
    let Some(requirements) = package.requirements().map(|file| file.path.clone()) else { return Ok(None) };
    let folder = temporary_folder("idunno-environment-")?;
    let out = folder.path().to_owned();
    let run_in = out.clone();
    let output = spawn_blocking(move || run(&python, &requirements, &run_in)).await;
    let output = output.map_err(|error| Failure::error(error.to_string()))??;
    let refused =
        |why: &str| Failure::new(Exit::Refused, format!("requirements.txt cannot be locked: {why}"));
    match serde_json::from_slice(&output.stdout) {
        // Only comments: nothing is missing from the members' own environment.
        Ok(Locked::Done { packages: 0, .. }) => Ok(None),
        Ok(Locked::Done { packages, bytes }) => {
            package.add_environment(&out).map_err(|error| refused(&error.to_string()))?;
            Ok(Some(Environment { packages, bytes, _folder: folder }))
        }
        Ok(Locked::Failed { failed }) => Err(refused(&failed)),
        Err(_) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said: String = said.trim().chars().rev().take(SAID_MAX).collect();
            let said: String = said.chars().rev().collect();
            Err(refused(&format!("{said} ({}); {HINT}", output.status)))
        }
    }
}

fn run(python: &Path, requirements: &Path, out: &Path) -> Result<Output, Failure> {
    let mut command = Command::new(python);
    command.args(["-m", "idunno_model_server.lock_environment"]).arg(requirements).arg(out);
    command.stdin(Stdio::null()).output().map_err(|error| {
        Failure::new(Exit::NotFound, format!("cannot run {}: {error}; {HINT}", python.display()))
    })
}
