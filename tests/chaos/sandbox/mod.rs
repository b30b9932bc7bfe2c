//! The isolated environment of a run: namespaces, the links between them, and a disk for each member.

pub(crate) mod disk;
pub(crate) mod links;
pub(crate) mod namespaces;
pub(crate) mod network;

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Runs a program with `input` until it exits; an error contains its standard error.
fn run(program: &str, arguments: &[&str], input: &str) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(|| format!("{program} does not read its input"))?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}", arguments.join(" "), errors.trim());
    }
    Ok(())
}
