//! The console's twin on the command line: formats, settings, read-only mode, completions, manual pages.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

mod fake;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use idunno_shared::wire::control::{ControlReply, ControlRequest, LogCursor, LogPage};
use idunno_shared::wire::frame::Reply;
use idunno_shared::wire::refusal::Refusal;

use fake::{cluster, code, err, out};

/// Runs the program with settings of its own.
fn idunno(config: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_idunno"));
    command.args(arguments).env("IDUNNO_CONFIG_DIR", config);
    for name in ["IDUNNO_CLUSTER", "IDUNNO_CONTEXT", "IDUNNO_READ_ONLY"] {
        command.env_remove(name);
    }
    command.output().unwrap()
}

/// A member that has a log and a list, and refuses everything else.
fn member() -> String {
    let address = cluster(|request, member| {
        let reply = match request {
            ControlRequest::Members => ControlReply::Members(vec![member.clone()]),
            ControlRequest::Log { after: None } => ControlReply::Log(LogPage {
                end: LogCursor { file: "idunnod.2026-01-01".into(), offset: 100 },
                cut: true,
                bytes: b"half a line\n2026-01-01 one\n2026-01-01 two\nnot yet".to_vec(),
            }),
            _ => return Reply::Refused(Refusal::invalid("not here")),
        };
        Reply::Control(Box::new(reply))
    });
    address.to_string()
}

#[test]
fn logs_are_streamed_from_members_a_line_a_row() {
    let config = tempfile::tempdir().unwrap();
    let address = member();
    let done = idunno(config.path(), &["--cluster", &address, "logs"]);
    assert_eq!((code(&done), out(&done)), (0, "m1 2026-01-01 one\nm1 2026-01-01 two\n".to_owned()));
    let done =
        idunno(config.path(), &["--cluster", &address, "--output", "jsonl", "logs", "m1", "--lines", "1"]);
    let line = r#"{"apiVersion":"idunno/v1","kind":"LogLine","member":"m1","line":"2026-01-01 two"}"#;
    assert_eq!(out(&done), format!("{line}\n"));
    let done = idunno(config.path(), &["--cluster", &address, "logs", "m9"]);
    assert_eq!((code(&done), out(&done)), (3, String::new()));
}

#[test]
fn read_only_refuses_changes_wherever_it_was_set() {
    let config = tempfile::tempdir().unwrap();
    let address = member();
    let refused = idunno(config.path(), &["--cluster", &address, "--read-only", "delete", "a"]);
    assert_eq!(code(&refused), 6, "{}", err(&refused));
    assert!(err(&refused).contains("read-only"), "{}", err(&refused));
    let text = format!("[contexts.prod]\ncluster = '{address}'\nread_only = true\n");
    fs::write(config.path().join("config.toml"), text).unwrap();
    let refused = idunno(config.path(), &["--context", "prod", "delete", "a"]);
    assert_eq!(code(&refused), 6, "{}", err(&refused));
    let looked = idunno(config.path(), &["--context", "prod", "list_mem"]);
    assert_eq!(code(&looked), 0, "{}", err(&looked));
    let unknown = idunno(config.path(), &["--context", "lab", "list_mem"]);
    assert_eq!(code(&unknown), 3, "{}", err(&unknown));
    assert!(err(&unknown).contains("known contexts: prod"), "{}", err(&unknown));
}

#[test]
fn keys_and_info_tell_what_holds_and_what_is_wrong() {
    let config = tempfile::tempdir().unwrap();
    let keys = idunno(config.path(), &["keys"]);
    assert!(code(&keys) == 0 && out(&keys).contains("stop-job"), "{}", out(&keys));
    fs::write(config.path().join("keymap.toml"), "freeze = 'f9'\nmouse = 'f9'\n").unwrap();
    let keys = idunno(config.path(), &["--output", "jsonl", "keys"]);
    assert_eq!(code(&keys), 7);
    assert!(out(&keys).contains(r#""kind":"KeyBinding","action":"freeze","keys":["f9"]"#), "{}", out(&keys));
    assert!(err(&keys).contains("keymap.toml: mouse = \\\"f9\\\" conflicts with freeze"), "{}", err(&keys));
    let info = idunno(config.path(), &["info"]);
    assert!(out(&info).contains("keymap.toml") && out(&info).contains("config.toml"), "{}", out(&info));
}

#[test]
fn completions_and_manual_pages_are_written() {
    let config = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = idunno(config.path(), &["completions", shell]);
        assert!(code(&script) == 0 && out(&script).contains("COMPLETE"), "{shell}: {}", err(&script));
    }
    let pages = config.path().join("man");
    let done = idunno(config.path(), &["man", pages.to_str().unwrap()]);
    assert_eq!(code(&done), 0, "{}", err(&done));
    let page = fs::read_to_string(pages.join("idunno-start-job.1")).unwrap();
    assert!(page.contains("Start or resume jobs"), "{page}");
}

#[test]
fn a_shell_is_offered_commands_and_live_names() {
    let config = tempfile::tempdir().unwrap();
    let offered = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_idunno"));
        let index = (words.len() - 1).to_string();
        command
            .env("COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", index)
            .env("_CLAP_COMPLETE_COMP_TYPE", "9");
        command.env("IDUNNO_CONFIG_DIR", config.path()).env("IDUNNO_CLUSTER", "127.0.0.1:1");
        out(&command.arg("--").args(words).output().unwrap())
    };
    assert!(offered(&["idunno", "set-b"]).contains("set-batch-size"));
    // Nobody answers: there are no names, and no error either.
    assert!(!offered(&["idunno", "stop-job", ""]).contains("error"));
}

#[test]
fn watching_is_for_what_looks() {
    let refused = fake::idunno(&["--cluster", &member(), "--watch", "delete", "a"]);
    assert_eq!(code(&refused), 2, "{}", err(&refused));
}
