//! Models that break the process in which they run, and models that bring requirements of their own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use idunno_shared::names::ModelName;

use crate::backup::idunno;
use crate::harness::{LocalCluster, heavy, put_text, python};

const LIMIT: Duration = Duration::from_secs(90);
const ROWS: u64 = 600;
/// Its process ends without a word when it sees row 77.
const CRASHING: &str = r#"
import os, time
from idunno_model_server.api import BatchModel

class Crashing(BatchModel):
    def predict(self, inputs):
        if b"row 77" in inputs:
            os._exit(9)
        time.sleep(0.005 * len(inputs))
        return [str(row, "utf-8") for row in inputs]

    def canary(self):
        return b"hello"
"#;
/// What a row does to its process is its first word; it is declared to need 300 MiB. Rows with a number alone are answered.
const FAULTY: &str = r#"
import ctypes, os, subprocess, sys, time
from idunno_model_server.api import BatchModel

class Faulty(BatchModel):
    memory_mib = 300

    def predict(self, inputs):
        rows = [str(row, "utf-8") for row in inputs]
        if "exit" in rows:
            os._exit(9)
        if "segfault" in rows:
            ctypes.string_at(0)
        if "child" in rows:
            subprocess.Popen(["sleep", "611"], start_new_session=True)
            os._exit(0)
        if "leak" in rows:
            held = []
            while True:
                held.append(os.urandom(1) * 20_000_000)
                time.sleep(0.1)
        if "disk" in rows:
            with open("/dev/full", "wb", 0) as file:
                file.write(b"a result")
        if "print" in rows:
            sys.stdout.write("a line of the flood\n" * 100_000)
        answers = {"nan": float("nan"), "large": "x" * 40_000_000 if "large" in rows else ""}
        outputs = [answers.get(row, row) for row in rows]
        return outputs[:-1] if "few" in rows else outputs

    def canary(self):
        return b"hello"
"#;
/// The rows of which each fails alone, with a part of its reason.
const FAULTS: [(&str, &str); 8] = [
    ("exit", "its process exited with status 9"),
    ("segfault", "was ended by SIGSEGV"),
    ("child", "its process exited with status 0"),
    ("leak", "declares memory_mib = 300"),
    ("disk", "No space left on device"),
    ("nan", "NaN"),
    ("large", "more than 33554432 bytes"),
    ("few", "outputs for"),
];
const TOYS: &str = r#"
import toy
from idunno_model_server.api import BatchModel

class Toys(BatchModel):
    def predict(self, inputs):
        return [toy.WORD for _ in inputs]

    def canary(self):
        return b"hello"
"#;
/// Writes a wheel of the package `toy` in the version that is its argument.
const MAKE_WHEEL: &str = r#"
import sys, zipfile
version, folder = sys.argv[1:]
info = f"toy-{version}.dist-info"
files = {
    "toy.py": f"WORD = 'toy {version}'\n",
    f"{info}/METADATA": f"Metadata-Version: 2.1\nName: toy\nVersion: {version}\n",
    f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
with zipfile.ZipFile(f"{folder}/toy-{version}-py3-none-any.whl", "w") as archive:
    for path, text in (files | {f"{info}/RECORD": record}).items():
        archive.writestr(path, text)
"#;

fn package(cluster: &LocalCluster, name: &str, code: &str) -> PathBuf {
    let folder = cluster.scratch(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("model.py"), code).unwrap();
    folder
}

async fn put_rows(cluster: &LocalCluster) {
    let mut rows = String::new();
    (0..ROWS).for_each(|row| writeln!(rows, "{{\"input\":\"row {row}\"}}").unwrap());
    put_text(cluster, "rows.jsonl", &rows).await;
}

/// Adds models once a model server is ready to check them, and waits until every member has loaded them.
async fn add(cluster: &LocalCluster, folders: &[&Path]) {
    for folder in folders {
        let words = ["model", "add", folder.to_str().unwrap()];
        cluster.eventually("a model is added", LIMIT, async || idunno(cluster, &words)).await;
    }
    let name = |folder: &&Path| folder.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let names: Vec<ModelName> = folders.iter().map(name).collect();
    cluster.trained(&names).await;
}

/// How often the members have started the process of a model again.
async fn restarts(cluster: &LocalCluster, model: &str) -> u64 {
    let mut restarts = 0;
    for index in cluster.up() {
        let stats = cluster.ask_model_server(index, &format!("/v2/models/{model}/stats"), None).await;
        let stats = stats.unwrap_or_else(|error| cluster.fail(&error));
        restarts += stats["model_stats"][0]["runners"][0]["restarts"].as_u64().unwrap();
    }
    restarts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_ends_its_process_is_isolated_in_a_few_crashes_and_no_model_server_ends() {
    let _turn = heavy().await;
    let cluster = LocalCluster::start(3, true).await;
    put_rows(&cluster).await;
    let crashing = package(&cluster, "crashing", CRASHING);
    let steady = package(&cluster, "steady", &CRASHING.replace("row 77", "row none"));
    add(&cluster, &[&crashing, &steady]).await;
    let started = || (0..3).map(|index| cluster.model_server_started(index)).collect::<Vec<_>>();
    let before = started();

    let jobs = [
        cluster.add_job("steady", "rows.jsonl", 16).await,
        cluster.add_job("crashing", "rows.jsonl", 16).await,
    ];
    for job in jobs {
        assert_eq!(cluster.start_job(job).await, ROWS);
    }
    let view = cluster.finished(jobs[0], LIMIT).await;
    assert_eq!((view.done, view.dead), (ROWS, 0), "{view:?}");
    let view = cluster.finished(jobs[1], LIMIT).await;
    assert_eq!((view.done, view.dead), (ROWS - 1, 1), "{view:?}");
    let rows = cluster.results(jobs[1]).await;
    assert!(!rows.contains_key(&77) && rows.len() as u64 == ROWS - 1);
    let letters = idunno(&cluster, &["dead-letters", "list", &format!("job-{}", jobs[1].0)]).unwrap();
    assert!(letters.contains("its process exited with status 9"), "{letters}");

    let crashes = restarts(&cluster, "crashing").await;
    println!("{crashes} crashes for one row in batches of 16");
    assert!((3..=6).contains(&crashes), "two beside others, and three tries of the row alone: {crashes}");
    assert_eq!(restarts(&cluster, "steady").await, 0);
    assert_eq!(started(), before, "no model server was restarted");
}

/// A row that hangs is not among them, because it takes minutes: the worker's own tests have it.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_row_does_to_its_process_costs_that_row_alone() {
    const FAULTS_LIMIT: Duration = Duration::from_secs(300);
    const EVERY: usize = 20;
    let _turn = heavy().await;
    let cluster = LocalCluster::start(3, true).await;
    put_rows(&cluster).await;
    let mut rows: Vec<String> = (0..EVERY * (FAULTS.len() + 1)).map(|row| format!("row {row}")).collect();
    let faults = FAULTS.iter().map(|(fault, _)| *fault).chain(["print"]);
    faults.enumerate().for_each(|(number, fault)| rows[number * EVERY + 7] = fault.to_owned());
    let lines = rows.iter().fold(String::new(), |text, row| text + &format!("{{\"input\":\"{row}\"}}\n"));
    put_text(&cluster, "faults.jsonl", &lines).await;
    let faulty = package(&cluster, "faulty", FAULTY);
    let steady = package(&cluster, "steady", &CRASHING.replace("row 77", "row none"));
    add(&cluster, &[&faulty, &steady]).await;
    let started = || (0..3).map(|index| cluster.model_server_started(index)).collect::<Vec<_>>();
    let before = started();

    let faults = cluster.add_job("faulty", "faults.jsonl", 16).await;
    let beside = cluster.add_job("steady", "rows.jsonl", 16).await;
    for job in [faults, beside] {
        cluster.start_job(job).await;
    }
    let view = cluster.finished(beside, FAULTS_LIMIT).await;
    assert_eq!((view.done, view.dead), (ROWS, 0), "{view:?}");
    let view = cluster.finished(faults, FAULTS_LIMIT).await;
    assert_eq!((view.done, view.dead), ((rows.len() - FAULTS.len()) as u64, FAULTS.len() as u64), "{view:?}");
    let answered = cluster.results(faults).await;
    let letters = idunno(&cluster, &["dead-letters", "list", &format!("job-{}", faults.0)]).unwrap();
    for (number, (fault, reason)) in FAULTS.iter().enumerate() {
        let query = (number * EVERY + 7) as u64;
        assert!(!answered.contains_key(&query) && letters.contains(reason), "{fault}: {letters}");
    }
    assert_eq!(restarts(&cluster, "steady").await, 0);
    assert_eq!(started(), before, "no model server was restarted");
    let crashes = restarts(&cluster, "faulty").await;
    println!("{crashes} crashes for four rows in batches of 16");
    assert!(crashes <= 4 * 6, "{crashes} crashes");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_bring_requirements_that_contradict_each_other() {
    let _turn = heavy().await;
    let cluster = LocalCluster::start(3, true).await;
    put_rows(&cluster).await;
    let wheels = cluster.scratch("wheels");
    std::fs::create_dir_all(&wheels).unwrap();
    let mut folders = Vec::new();
    for version in ["1", "2"] {
        let made = Command::new(python()).args(["-c", MAKE_WHEEL, version]).arg(&wheels).status().unwrap();
        assert!(made.success());
        let folder = package(&cluster, &format!("toys-{version}"), TOYS);
        let requirements = format!("--no-index\n--find-links {}\ntoy=={version}\n", wheels.display());
        std::fs::write(folder.join("requirements.txt"), requirements).unwrap();
        folders.push(folder);
    }
    let python = python();
    for folder in &folders {
        let words = ["model", "add", folder.to_str().unwrap(), "--python", python.to_str().unwrap()];
        let added = cluster.eventually("a model is added", LIMIT, async || idunno(&cluster, &words)).await;
        assert!(added.contains("1 package") && added.contains("an environment of its own"), "{added}");
    }
    cluster.trained(&["toys-1".parse().unwrap(), "toys-2".parse().unwrap()]).await;
    let mut jobs = Vec::new();
    for model in ["toys-1", "toys-2"] {
        let job = cluster.add_job(model, "rows.jsonl", 16).await;
        cluster.start_job(job).await;
        jobs.push(job);
    }
    for (job, word) in jobs.into_iter().zip(["toy 1", "toy 2"]) {
        let view = cluster.finished(job, LIMIT).await;
        assert_eq!((view.done, view.dead), (ROWS, 0), "{view:?}");
        assert!(cluster.results(job).await.values().all(|row| row.output == word));
    }
    let refused = idunno(&cluster, &["model", "add", folders[0].to_str().unwrap(), "--python", "/nothing"]);
    assert!(refused.as_ref().unwrap_err().contains("--no-environment"), "{refused:?}");
}
