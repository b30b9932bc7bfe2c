//! What every command prints, in each format, and the help of each: golden files in `golden` and `help`.
//!
//! `UPDATE_SCHEMAS=1 cargo test -p idunno-console --test outputs` rewrites them. A new command needs a line in `scenes.rs`.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

mod jobs;
#[path = "../fake/listen.rs"]
mod listen;
mod member;
mod run;
mod scenes;
mod world;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use idunno_console::command::registry::entries;

use run::{FORMATS, Place};
use scenes::{CLUSTER, FILES, JOBS, LOCAL, PROGRAM, Scene};

/// Commands that have commands, and nouns, whose help is kept, too.
const GROUPS: [&str; 11] =
    ["dead-letters", "model", "cluster", "identity", "key", "local", "job", "data", "file", "member", ""];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/outputs").join(name)
}

fn file_name(command: &str) -> String {
    if command.is_empty() { String::from("idunno.txt") } else { command.replace(' ', "-") + ".txt" }
}

/// Compares a committed file with what the program prints, or rewrites it.
fn check(path: &Path, printed: &str) {
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, printed).unwrap();
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    let hint = "UPDATE_SCHEMAS=1 cargo test -p idunno-console --test outputs rewrites it";
    assert!(committed == printed, "{} is not what the program prints: {hint}\n{printed}", path.display());
}

/// Runs commands in each format, and checks their files.
fn run_and_check(scenes: &[Scene]) {
    let address = member::start();
    for scene in scenes {
        let outputs = FORMATS.iter().map(|format| Place::new(address).run(scene, format));
        check(&folder("golden").join(file_name(scene.command)), &outputs.collect::<String>());
    }
}

#[test]
fn jobs_print_as_they_did() {
    run_and_check(JOBS);
}

#[test]
fn files_print_as_they_did() {
    run_and_check(FILES);
}

#[test]
fn the_cluster_prints_as_it_did() {
    run_and_check(CLUSTER);
}

#[test]
fn the_program_prints_as_it_did() {
    run_and_check(PROGRAM);
}

/// One place for all of them: each depends on what those before it have done.
#[test]
fn a_local_cluster_prints_as_it_did() {
    let address = member::start();
    let mut printed = vec![String::new(); LOCAL.len()];
    for format in &FORMATS {
        let place = Place::new(address);
        for (scene, printed) in LOCAL.iter().zip(&mut printed) {
            printed.push_str(&place.run_locally(scene, format));
        }
    }
    for (scene, printed) in LOCAL.iter().zip(printed) {
        check(&folder("golden").join(file_name(scene.command)), &printed);
    }
}

#[test]
fn help_is_as_it_was() {
    let place = Place::new(([127, 0, 0, 1], 1).into());
    let commands: Vec<String> =
        entries().into_iter().map(|entry| entry.name).chain(GROUPS.map(String::from)).collect();
    for command in &commands {
        check(&folder("help").join(file_name(command)), &place.help(command));
    }
    no_other_files("help", commands.iter().map(String::as_str));
}

#[test]
fn every_command_has_its_file_and_no_other_has() {
    let all = [JOBS, FILES, CLUSTER, PROGRAM, LOCAL].into_iter().flatten();
    let kept: BTreeSet<&str> = all.map(|scene| scene.command).collect();
    let missing: Vec<String> =
        entries().into_iter().map(|entry| entry.name).filter(|name| !kept.contains(name.as_str())).collect();
    assert_eq!(missing, [""; 0], "give them a line in scenes.rs");
    no_other_files("golden", kept.into_iter());
}

fn no_other_files<'a>(name: &str, commands: impl Iterator<Item = &'a str>) {
    let expected: BTreeSet<String> = commands.map(file_name).collect();
    let files = fs::read_dir(folder(name)).unwrap();
    let names = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.collect::<BTreeSet<_>>(), expected, "{name}");
}
