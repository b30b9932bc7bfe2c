//! What is run of each command: its name, and the lines whose output is kept.

use std::path::Path;

/// A command as it is run.
pub(crate) struct Scene {
    /// The command's full name, which its golden file has.
    pub(crate) command: &'static str,
    /// What is run before, and not kept.
    pub(crate) before: &'static [&'static str],
    /// What is run and kept, one after the other.
    pub(crate) lines: &'static [&'static str],
    pub(crate) way: Way,
}

/// How a command is run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    /// Its output has what differs each time: keys, dates.
    Fresh,
    /// It never ends; so many rows are kept.
    Endless(usize),
    /// It reads this.
    Reads(&'static str),
}

const fn scene(command: &'static str, lines: &'static [&'static str]) -> Scene {
    Scene { command, before: &[], lines, way: Way::Plain }
}

const fn with_secret(command: &'static str, lines: &'static [&'static str]) -> Scene {
    Scene { before: &["cluster init --out secret.pem"], way: Way::Fresh, ..scene(command, lines) }
}

pub(crate) const JOBS: &[Scene] = &[
    scene("add-job", &["add-job squeezenet1.1 --dataset photos --name weekly --param top=5"]),
    scene("set-batch-size", &["set-batch-size job-2 64"]),
    scene("set-weight", &["set-weight job-2 3"]),
    scene("set-policy", &["set-policy rate"]),
    scene("start-job", &["start-job job-3 job-2", "start-job job-1 --wait", "start-job job-3 --dry-run"]),
    scene("stop-job", &["stop-job job-2"]),
    scene("wait-job", &["wait-job job-1"]),
    scene("cancel-job", &["cancel-job job-2 --yes"]),
    scene("delete-job", &["delete-job job-3 --yes"]),
    scene("get-job-stats", &["get-job-stats", "get-job-stats job-1"]),
    scene("get-job-history", &["get-job-history"]),
    scene("explain", &["explain job-2"]),
    scene("get-job-assigned-VMs", &["get-job-assigned-VMs", "get-job-assigned-VMs job-2"]),
    scene("get-job-leases", &["get-job-leases job-2"]),
    scene(
        "get-job-results",
        &["get-job-results job-1", "get-job-results job-1 --failed", "get-job-results job-1 rows --force"],
    ),
    scene("get-job-confusion", &["get-job-confusion job-1"]),
    scene("dead-letters list", &["dead-letters list job-1"]),
    scene("dead-letters show", &["dead-letters show job-1 2"]),
    scene("dead-letters retry", &["dead-letters retry job-1"]),
    scene("dead-letters drop", &["dead-letters drop job-1 2 --yes"]),
];

pub(crate) const FILES: &[Scene] = &[
    scene("populate-test-data", &["populate-test-data images --dataset pictures"]),
    // What it lists is outside the cluster: here the refusal is kept.
    scene("reference-data", &["reference-data s3://bucket/photos/ photos"]),
    scene("get-dataset", &["get-dataset photos copy --force"]),
    scene("put", &["put report.txt docs/new.txt"]),
    scene("get", &["get docs/report.txt copy.txt --force"]),
    scene("cat", &["cat docs/report.txt photos/"]),
    scene("delete", &["delete docs/report.txt"]),
    scene("rm", &["rm docs/ --yes", "rm docs/ --dry-run"]),
    scene("cp", &["cp docs/report.txt docs/copy.txt"]),
    scene("mv", &["mv docs/ archive/"]),
    scene("ls", &["ls", "ls docs/report.txt"]),
    scene("store", &["store m1"]),
    scene("get-versions", &["get-versions docs/report.txt 2 history.txt --force"]),
    Scene { way: Way::Fresh, ..scene("backup", &["backup saved --force", "backup saved --show"]) },
];

pub(crate) const CLUSTER: &[Scene] = &[
    scene("train-start", &["train-start squeezenet1.1"]),
    scene("train-stop", &["train-stop squeezenet1.1"]),
    scene("get-models", &["get-models"]),
    scene("model add", &["model add model --name backwards --no-environment"]),
    scene("model ls", &["model ls"]),
    scene("model show", &["model show squeezenet1.1"]),
    scene("model test", &["model test model --python ./python --no-environment"]),
    scene("model rm", &["model rm backwards --yes"]),
    scene("join", &["join --member m1"]),
    scene("leave", &["leave --member m1"]),
    scene("list_mem", &["list_mem"]),
    scene("list_self", &["list_self"]),
    scene("status", &["status"]),
    Scene { way: Way::Endless(2), ..scene("events", &["events"]) },
    scene("logs", &["logs m1", "logs m1 --grep answer --level warn"]),
    // With machines: tests/vms.
    scene("deploy", &["deploy vm1 --package no.deb --introducer 10.0.0.1"]),
];

pub(crate) const PROGRAM: &[Scene] = &[
    Scene {
        way: Way::Reads("delete docs/report.txt\nget-job-stats job-3\nquit\n"),
        ..scene("shell", &["shell"])
    },
    scene("info", &["info"]),
    scene("keys", &["keys"]),
    scene("gen-config", &["gen-config", "gen-config --keymap"]),
    scene("completions", &["completions bash"]),
    scene("man", &["man manual"]),
    Scene { way: Way::Fresh, ..scene("cluster init", &["cluster init --out secret.pem"]) },
    with_secret("cluster rotate", &["cluster rotate add --secret secret.pem"]),
    with_secret(
        "identity create",
        &["identity create anna --role submitter --prefix photos --secret secret.pem --out anna.pem"],
    ),
    scene("identity ls", &["identity ls"]),
    scene("identity revoke", &["identity revoke anna --yes"]),
    with_secret("key create", &["key create --name etl --role viewer --secret secret.pem"]),
    with_secret("key webhook", &["key webhook --secret secret.pem"]),
];

/// The commands of a cluster on this machine, in the order in which they are run.
pub(crate) const LOCAL: &[Scene] = &[
    scene("local up", &["local up --members 2 --insecure --idunnod ./idunnod"]),
    scene("local status", &["local status"]),
    scene("local kill", &["local kill m2"]),
    scene("local start", &["local start m2"]),
    scene("local down", &["local down --purge --yes"]),
];

/// The local files that the commands read.
pub(crate) fn prepare(dir: &Path, daemon: &str) {
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    for folder in ["images", "model"] {
        std::fs::create_dir(dir.join(folder)).unwrap();
    }
    write("report.txt", "a new report\n");
    write("images/a.txt", "one\n");
    write("images/b.txt", "two\n");
    write("model/model.py", "def predict(inputs):\n    return inputs\n");
    script(&dir.join("python"), TRIED);
    script(&dir.join("idunnod"), daemon);
}

/// Stands for a Python that has the model server.
const TRIED: &str = r#"#!/bin/sh
echo '{"environment":null,"start_s":0.1,"load_s":0.2,"canary_s":0.3,"answers":[{"input":"canary","answer":{"label":"a"},"error":null,"ms":1.5,"decode_ms":0.25,"predict_ms":1.0,"encode_ms":0.25}]}'
"#;

fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
