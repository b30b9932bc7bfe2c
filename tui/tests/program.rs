//! The program as people and scripts meet it: exit codes, what goes where, and a local cluster's processes.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

mod fake;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use fake::{cluster, code, err, idunno, out};
use idunno_shared::ids::{Digest, NodeId, Term};
use idunno_shared::wire::blobs::Holder;
use idunno_shared::wire::control::{Change, Changed, ControlReply, ControlRequest, FileSummary, MemberView};
use idunno_shared::wire::frame::Reply;
use idunno_shared::wire::refusal::Refusal;

/// A member that coordinates and knows a little.
fn answer(request: ControlRequest, member: &MemberView) -> Reply {
    let file = FileSummary {
        name: "docs/report.pdf".parse().unwrap(),
        version: 3,
        versions: 3,
        size: 12345,
        digest: Digest::default(),
        created_ms: 0,
        holders: vec![member.id, NodeId(99)],
        etag: None,
    };
    let reply = match request {
        ControlRequest::Members => ControlReply::Members(vec![member.clone()]),
        ControlRequest::Coordinator => {
            let coordinator = Holder { node: member.id, address: member.address };
            ControlReply::Coordinator { coordinator, term: Term(1) }
        }
        ControlRequest::List { prefix, .. } => {
            let files = if file.name.as_str().starts_with(&prefix) { vec![file] } else { vec![] };
            ControlReply::Files { files, more: false }
        }
        ControlRequest::JobPage { .. } => ControlReply::JobPage { jobs: vec![], more: false },
        ControlRequest::Leave => ControlReply::Done,
        ControlRequest::Change { change: Change::Delete { name }, .. } if name == file.name => {
            ControlReply::Changed(Changed::Deleted { versions: 3 })
        }
        ControlRequest::Change { change: Change::AddJob { .. }, .. } => {
            return Reply::Refused(Refusal::conflict("the dataset is empty"));
        }
        _ => return Reply::Refused(Refusal::not_found("there is no such thing")),
    };
    Reply::Control(Box::new(reply))
}

#[test]
fn answers_go_to_stdout_and_errors_to_stderr_with_their_codes() {
    let address = cluster(answer).to_string();
    let with = |arguments: &[&str]| idunno(&[&["--cluster", address.as_str()], arguments].concat());

    let listed = with(&["ls", "docs/report.pdf"]);
    assert_eq!(code(&listed), 0, "{}", err(&listed));
    assert!(out(&listed).contains("docs/report.pdf") && out(&listed).contains(" m1"), "{}", out(&listed));
    assert!(out(&listed).contains("0000000000000063"), "an unknown holder keeps its id");
    let json: serde_json::Value = serde_json::from_str(&out(&with(&["--output", "json", "ls"]))).unwrap();
    assert_eq!(json["items"][0]["size_bytes"], 12345);
    assert!(out(&with(&["list_mem"])).contains("coordinator"));
    assert_eq!(out(&with(&["delete", "docs/report.pdf"])), "docs/report.pdf deleted, 3 versions\n");
    assert_eq!(
        out(&with(&["get-job-stats", "--output", "json"])),
        "{\"apiVersion\":\"idunno/v1\",\"kind\":\"JobStatsList\",\"items\":[]}\n"
    );
    assert_eq!(out(&with(&["get-job-stats", "--output", "jsonl"])), "");

    let missing = with(&["delete", "nothing"]);
    assert_eq!((code(&missing), out(&missing).as_str()), (3, ""));
    // The logs know no more of it.
    assert_eq!(err(&missing), "error: there is no such thing\n");
    assert_eq!(code(&with(&["ls", "nothing"])), 3);
    assert_eq!(code(&with(&["list_self", "--member", "m9"])), 3);
    let refused = with(&["--output", "json", "add-job", "mnist-mlp"]);
    assert_eq!(code(&refused), 6);
    let json: serde_json::Value = serde_json::from_str(&err(&refused)).unwrap();
    assert_eq!(json["error"]["kind"], "refused");
    assert_eq!(json["error"]["message"], "the dataset is empty");
    assert_eq!(code(&with(&["put", "/", "a"])), 1);
    assert_eq!(code(&with(&["put", "/no/such/file", "a"])), 1);
}

#[test]
fn what_is_not_understood_never_reaches_the_network() {
    let unreachable = ["--cluster", "127.0.0.1:1", "--timeout", "1"];
    for arguments in [&["put", "a", "../b"][..], &["no-such-command"], &["set-batch-size", "job-1", "0"]] {
        let output = idunno(&[&unreachable, arguments].concat());
        assert_eq!(code(&output), 2, "{}", err(&output));
    }
    let json = idunno(&["--output", "json", "put", "a", "/b"]);
    assert_eq!(code(&json), 2);
    let json: serde_json::Value = serde_json::from_str(&err(&json)).unwrap();
    assert!(json["error"]["message"].as_str().unwrap().contains("starts with a slash"));
    assert_eq!(code(&idunno(&[&unreachable, &["get-models"][..]].concat())), 4);
    assert_eq!(code(&idunno(&["--help"])), 0);
    assert!(out(&idunno(&["--help"])).contains("Exit codes:"));
    assert!(out(&idunno(&["get-job-assigned-VMs", "--help"])).contains("Example:"));
    let console = idunno(&[]);
    assert!(code(&console) == 1 && err(&console).contains("needs a terminal"), "{}", err(&console));
}

/// A daemon that says where it listens, and then only waits.
#[cfg(unix)]
const IDLE_DAEMON: &str = r#"#!/bin/sh
[ "$2" = --listen ] && [ "$4" = --data-dir ] || exit 9
printf '{"pid":%d,"address":"127.0.0.1:1","node":null}' $$ > "$5/runtime.json"
echo "idle $1"
exec sleep 600
"#;

#[cfg(unix)]
fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[cfg(unix)]
#[test]
fn a_local_clusters_processes_are_started_listed_killed_and_stopped() {
    let root = tempfile::tempdir().unwrap();
    let (dir, daemon) = (root.path().join("cluster"), root.path().join("idunnod"));
    script(&daemon, IDLE_DAEMON);
    let (dir_text, daemon) = (dir.display().to_string(), daemon.display().to_string());
    let local = |arguments: &[&str]| idunno(&[&["--dir", dir_text.as_str(), "local"], arguments].concat());

    assert_eq!(code(&local(&["status"])), 3);
    // They answer nothing: not ready, and it says what is missing and what they printed.
    let up = local(&["up", "--members", "2", "--idunnod", &daemon, "--timeout", "1"]);
    assert_eq!(code(&up), 5, "{}", err(&up));
    for text in ["m1 at 127.0.0.1:1 does not answer", "m2 at", "idle member"] {
        assert!(err(&up).contains(text), "{text}: {}", err(&up));
    }
    assert!(err(&up).ends_with("are still running: 'idunno local down' stops them\n"), "{}", err(&up));
    assert_eq!(out(&local(&["status"])).matches(" running").count(), 3);
    assert_eq!(code(&local(&["up", "--members", "2", "--idunnod", &daemon])), 6);

    let killed = local(&["kill", "m2", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&out(&killed)).unwrap();
    assert_eq!(json["killed"][0]["name"], "m2");
    assert!(out(&local(&["status"])).contains("not running"));
    assert_eq!(code(&local(&["kill", "m2"])), 6);
    assert_eq!(code(&local(&["kill", "m9"])), 3);
    assert_eq!(code(&local(&["kill", "--random", "2"])), 6);
    assert_eq!(code(&local(&["start", "m1"])), 6);

    // Without names: all that do not run.
    assert_eq!(out(&local(&["start", "--dry-run"])), "would: start m2\n");
    assert_eq!(code(&local(&["start", "--timeout", "1"])), 5);
    assert_eq!(out(&local(&["status"])).matches(" running").count(), 3);
    assert_eq!(out(&local(&["start"])), "all processes are already running\n");
    assert_eq!(out(&local(&["start", "--dry-run"])), "would: start nothing: all are running\n");

    let unconfirmed = local(&["down", "--purge"]);
    assert!(code(&unconfirmed) == 6 && err(&unconfirmed).contains("pass --yes"), "{}", err(&unconfirmed));
    assert_eq!(out(&local(&["status"])).matches(" running").count(), 3, "nothing was stopped");
    let down = local(&["down", "--purge", "--yes"]);
    assert_eq!(out(&down), "3 processes stopped; data deleted\n", "{}", err(&down));
    assert!(!dir.exists());
    assert_eq!(code(&local(&["down"])), 3);
}

#[cfg(unix)]
#[test]
fn a_daemon_that_fails_is_shown_with_its_last_words() {
    let root = tempfile::tempdir().unwrap();
    let (dir, daemon) = (root.path().join("cluster"), root.path().join("idunnod"));
    script(&daemon, "#!/bin/sh\necho 'the port is in use'\nexit 3\n");
    let (dir, daemon) = (dir.display().to_string(), daemon.display().to_string());
    let up = idunno(&["--dir", &dir, "local", "up", "--members", "1", "--idunnod", &daemon]);
    assert_eq!(code(&up), 1, "{}", err(&up));
    assert!(err(&up).contains("introducer ended") && err(&up).contains("the port is in use"), "{}", err(&up));
    assert!(!err(&up).contains("still running"), "nothing is: {}", err(&up));
}

#[cfg(unix)]
#[test]
fn settings_of_another_cluster_do_not_reach_the_local_one() {
    let root = tempfile::tempdir().unwrap();
    let (dir, daemon) = (root.path().join("cluster"), root.path().join("idunnod"));
    script(&daemon, "#!/bin/sh\nenv | grep IDUNNO_\necho \"home is $HOME\"\nexit 3\n");
    let up = Command::new(env!("CARGO_BIN_EXE_idunno"))
        .args([
            "--dir",
            &dir.display().to_string(),
            "local",
            "up",
            "--idunnod",
            &daemon.display().to_string(),
        ])
        .envs([("IDUNNO_CLUSTER", "127.0.0.1:1"), ("IDUNNO_NAME", "other"), ("HOME", "/here")])
        .output()
        .unwrap();
    assert!(err(&up).contains("home is /here") && !err(&up).contains("IDUNNO_"), "{}", err(&up));
}

#[test]
fn a_damaged_record_is_told_of_and_not_taken_for_none() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("cluster.json"), "{").unwrap();
    let dir = dir.path().display().to_string();
    let output = idunno(&["--dir", &dir, "--timeout", "1", "get-models"]);
    assert!(code(&output) == 1 && err(&output).contains("cluster.json"), "{}", err(&output));
    // A directory that is named outweighs the environment, wherever it is named; an address outweighs both.
    let elsewhere = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_idunno"));
        command.args(arguments).env("IDUNNO_CLUSTER", "127.0.0.1:1").output().unwrap()
    };
    assert!(err(&elsewhere(&["--timeout", "1", "get-models", "--dir", &dir])).contains("cluster.json"));
    for arguments in [&["get-models"][..], &["get-models", "--dir", &dir, "--cluster", "127.0.0.1:1"]] {
        let output = elsewhere(&[&["--timeout", "1"], arguments].concat());
        assert!(code(&output) == 4 && err(&output).contains("127.0.0.1:1"), "{}", err(&output));
    }
}

#[test]
fn a_shell_gives_each_line_to_its_member_and_ends_with_the_first_failure() {
    let address = cluster(answer).to_string();
    let shell_of = |member: &[&str], lines: &str| {
        let mut shell = Command::new(env!("CARGO_BIN_EXE_idunno"));
        shell.args(["--cluster", &address, "shell"]).args(member).env_remove("IDUNNO_MEMBER");
        if !member.is_empty() {
            shell.env("IDUNNO_MEMBER", "another");
        }
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        shell.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        shell.wait_with_output().unwrap()
    };
    let shell = |lines: &str| shell_of(&[], lines);
    let done = shell("\n# a comment\nidunno delete docs/report.pdf\n  leave  \nquit\nls\n");
    assert_eq!(
        (code(&done), out(&done), err(&done)),
        (0, format!("docs/report.pdf deleted, 3 versions\n{address} left\n"), String::new())
    );
    // A failure does not end it, and the last line needs no end.
    let failed = shell("ls nothing\nno-such\nput 'a\n--output json delete docs/report.pdf\nget-job-stats");
    assert_eq!(code(&failed), 3, "{}", err(&failed));
    assert!(out(&failed).ends_with("no jobs: add-job adds one\n"), "{}", out(&failed));
    let errors = err(&failed);
    assert!(errors.contains("no command 'no-such': 'help' lists the commands"), "{errors}");
    assert!(errors.contains("a quote is not closed"), "{errors}");
    assert!(out(&shell("help\n")).contains("populate-test-data"));
    // The member that the shell was given outweighs the environment's.
    let named = shell_of(&["--member", "m1"], "leave\n");
    assert_eq!((code(&named), out(&named)), (0, format!("{address} left\n")), "{}", err(&named));
}

#[test]
fn a_member_may_be_named_by_the_environment() {
    let address = cluster(answer).to_string();
    let both = format!("{address},127.0.0.1:1");
    let leave = |member: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_idunno"));
        command.args(["--cluster", &both, "leave"]).env_remove("IDUNNO_MEMBER");
        command.envs(member.map(|member| ("IDUNNO_MEMBER", member)));
        command.output().unwrap()
    };
    let unnamed = leave(None);
    assert_eq!(code(&unnamed), 2, "{}", out(&unnamed));
    assert!(err(&unnamed).contains("or set IDUNNO_MEMBER"), "{}", err(&unnamed));
    assert_eq!(out(&leave(Some("m1"))), format!("{address} left\n"));
    assert_eq!(code(&leave(Some("no member"))), 2);
}
