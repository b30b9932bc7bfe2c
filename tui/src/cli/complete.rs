//! Shell completion: the grammar's words and names from the live cluster.
//!
//! Bound: if the cluster does not answer within [`DEADLINE`], no names are offered; the prompt must not hang.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, Command, CommandFactory};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use idunno_shared::wire::control::{ControlReply, ControlRequest};

use super::progress::Bars;
use crate::command::line::{CompletionNames, candidates};
use crate::command::nouns::with_nouns;
use crate::command::{Arguments, Global};
use crate::execute::{job_ref, status};
use crate::session::Session;
use crate::settings::{Settings, directory};

/// Value names of arguments that take names of the cluster.
const NAMED: [&str; 8] = ["JOB", "MODEL", "MEMBER", "DATASET", "SDFS", "PREFIX", "FILES", "TARGET"];
const DEADLINE: Duration = Duration::from_millis(800);
/// The most file names offered.
const FILES_MAX: u32 = 200;

/// The grammar with live names for its arguments.
pub fn command() -> Command {
    let live = |argument: Arg| {
        let value = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
        let Some(value) = value.filter(|value| NAMED.contains(&value.as_str())) else {
            return argument;
        };
        argument.add(ArgValueCandidates::new(move || names(&value)))
    };
    let level = move |command: Command| command.mut_args(live);
    let grammar = Arguments::command().mut_subcommands(move |command| level(command).mut_subcommands(level));
    with_nouns(grammar)
}

fn names(value: &str) -> Vec<CompletionCandidate> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let known = runtime.block_on(async { tokio::time::timeout(DEADLINE, known(value)).await });
    let known = known.ok().flatten().unwrap_or_default();
    candidates(value, &known).into_iter().map(CompletionCandidate::new).collect()
}

async fn known(value: &str) -> Option<CompletionNames> {
    let words = [std::ffi::OsString::from("idunno")];
    let global = Arguments::read(&words).ok()?.global;
    let settings = Settings::load(&directory(|name| std::env::var_os(name)));
    settings.check().ok()?;
    let global: Global = settings.resolve(global).ok()?;
    let session = Session::new(&global, Arc::new(Bars)).ok()?;
    if matches!(value, "SDFS" | "PREFIX" | "FILES" | "TARGET") {
        let request = ControlRequest::List { prefix: String::new(), after: None, limit: FILES_MAX };
        let ControlReply::Files { files, .. } = session.cluster().control(request).await.ok()? else {
            return None;
        };
        let files = files.into_iter().map(|file| file.name.to_string()).collect();
        return Some(CompletionNames { files, ..CompletionNames::default() });
    }
    let view = status::first_view(&session).await.ok()?;
    Some(CompletionNames {
        jobs: job_ref::names(&view.jobs),
        models: view.models.iter().map(|model| model.model.to_string()).collect(),
        members: view.members.iter().map(|member| member.name.to_string()).collect(),
        datasets: view
            .jobs
            .iter()
            .map(|job| job.dataset.to_string())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        ..CompletionNames::default()
    })
}
