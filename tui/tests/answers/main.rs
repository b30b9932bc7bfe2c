//! The JSON of every command: its schema in `tui/schemas`, an example in `tui/tests/golden`.
//!
//! `UPDATE_SCHEMAS=1 cargo test -p idunno-console --test answers` rewrites both.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

mod cluster;
mod examples;
mod files;
mod jobs;
mod models;
mod program;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use idunno_console::answer::cluster::Membership;
use idunno_console::answer::schemas::{CommandSchema, commands};
use idunno_console::answer::text;
use idunno_console::answer::words::{JobState, LogRole, MemberState, ModelState, Policy, ServerState};
use idunno_console::command::registry::entries;
use idunno_shared::wire::control::{JobState as Job, Liveness, LogRole as Role};
use idunno_shared::wire::jobs::{ModelState as AtWorker, Policy as Sharing, ServerState as Server};
use serde::Serialize;
use serde_json::Value;

/// Commands that answer with nothing in JSON: a shell gives its commands' answers.
const WITHOUT_JSON: [&str; 2] = ["shell", "cat"];

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn updates() -> bool {
    std::env::var_os("UPDATE_SCHEMAS").is_some()
}

/// Compares a committed file with what the code makes, or rewrites it.
fn check(path: &Path, made: &str) {
    if updates() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, made).unwrap();
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    let hint = "UPDATE_SCHEMAS=1 cargo test -p idunno-console --test answers rewrites it";
    assert!(committed == made, "{} is not what the code makes: {hint}\n{made}", path.display());
}

/// Files of commands that do not exist any more are to be deleted.
fn no_other_files(directory: &Path) {
    let names: BTreeSet<String> = commands().iter().map(CommandSchema::file_name).collect();
    let files =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(files.collect::<BTreeSet<_>>(), names, "{}", directory.display());
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

#[test]
fn every_command_has_a_schema() {
    let with_schema: BTreeSet<&str> = commands().iter().map(|command| command.command).collect();
    let missing: Vec<String> = entries()
        .into_iter()
        .map(|entry| entry.name)
        .filter(|name| !with_schema.contains(name.as_str()) && !WITHOUT_JSON.contains(&name.as_str()))
        .collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn committed_schemas_are_those_of_the_code() {
    for command in commands() {
        check(&directory("schemas").join(command.file_name()), &pretty(&command.schema));
    }
    no_other_files(&directory("schemas"));
}

#[test]
fn examples_obey_their_schema_and_are_the_committed_ones() {
    for command in commands() {
        let CommandSchema { command: name, kind, schema } = &command;
        let validator = jsonschema::validator_for(schema.as_value()).unwrap();
        let mut golden = String::new();
        for example in examples::of_command(name).0 {
            let document: Value = serde_json::from_str(&example).unwrap();
            let errors: Vec<String> = validator.iter_errors(&document).map(|it| it.to_string()).collect();
            assert_eq!(errors, [""; 0], "{name}: {example}");
            assert_eq!((&document["apiVersion"], &document["kind"]), (&"idunno/v1".into(), &(*kind).into()));
            golden.push_str(&pretty(&document));
        }
        assert!(!golden.is_empty(), "{name} has no example");
        check(&directory("tests/golden").join(command.file_name()), &golden);
    }
    no_other_files(&directory("tests/golden"));
}

#[test]
fn a_document_without_a_required_field_is_refused() {
    for command in commands() {
        let validator = jsonschema::validator_for(command.schema.as_value()).unwrap();
        let Some(example) = examples::of_command(command.command).0.into_iter().next() else { continue };
        let document: Value = serde_json::from_str(&example).unwrap();
        for field in document.as_object().unwrap().keys() {
            let mut lacking = document.clone();
            lacking.as_object_mut().unwrap().remove(field);
            assert!(!validator.is_valid(&lacking), "{}: {field} is not required", command.command);
        }
    }
}

#[test]
fn json_and_tables_name_states_with_the_same_words() {
    fn same(word: impl Serialize, shown: &str) {
        assert_eq!(serde_json::to_value(word).unwrap(), shown);
    }
    for state in [Job::Added, Job::Running, Job::Stopped, Job::Paused("x".into()), Job::Done, Job::Cancelled]
    {
        same(JobState::from(&state), text::job_state(&state).0);
    }
    for state in [Liveness::Alive, Liveness::Suspect, Liveness::Dead, Liveness::Left] {
        same(MemberState::from(state), text::liveness(state));
    }
    for role in [Role::Coordinator, Role::Voter, Role::Learner, Role::Spare] {
        same(LogRole::from(role), text::role(role));
    }
    let version = idunno_shared::ids::Digest::default();
    for state in
        [AtWorker::Training, AtWorker::Loading, AtWorker::Ready(version), AtWorker::Failed("x".into())]
    {
        same(ModelState::from(&state), text::model_state(&state).0);
    }
    for state in [Server::Starting, Server::Ready, Server::Down("x".into())] {
        same(ServerState::from(&state), text::server_state(&state).0);
    }
    for policy in [Sharing::Rate, Sharing::Time, Sharing::Fifo] {
        same(Policy::from(policy), text::policy(policy).0);
    }
    for change in [Membership::Joined, Membership::Left] {
        same(change, change.word());
    }
}
