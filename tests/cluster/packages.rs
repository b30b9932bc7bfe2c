//! A model that no member has is added from a user's machine; it is replaced, and removed again.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use idunno_shared::ids::{Digest, JobId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::control::ModelView;
use idunno_shared::wire::jobs::ModelState;

use crate::backup::idunno;
use crate::harness::{LocalCluster, heavy, put_text};

const LIMIT: Duration = Duration::from_secs(60);
const ROWS: u64 = 1200;
/// Spells a text backwards, behind a word from the package's data, slowly enough that a job can be disturbed.
const MODEL: &str = r#"
import time
from idunno_model_server.api import BatchModel, RowError
from helpers import backwards

class Backwards(BatchModel):
    batch_max = 4

    def setup(self, context):
        self.word = (context.folder / "data" / "word.txt").read_text()

    def predict(self, inputs):
        time.sleep(0.02 * len(inputs))
        rows = [str(row, "utf-8") for row in inputs]
        return [RowError("no seven") if row == "row 7" else self.word + backwards(row) for row in rows]

    def canary(self):
        return b"hello"
"#;

fn model() -> ModelName {
    "backwards".parse().unwrap()
}

/// The package's folder, whose answers begin with a word.
fn package(cluster: &LocalCluster, word: &str) -> PathBuf {
    let folder = cluster.scratch("backwards");
    std::fs::create_dir_all(folder.join("data")).unwrap();
    std::fs::create_dir_all(folder.join("__pycache__")).unwrap();
    std::fs::write(folder.join("model.py"), MODEL).unwrap();
    std::fs::write(folder.join("helpers.py"), "def backwards(text): return text[::-1]\n").unwrap();
    std::fs::write(folder.join("data/word.txt"), word).unwrap();
    std::fs::write(folder.join("__pycache__/model.pyc"), "junk").unwrap();
    folder
}

fn add(cluster: &LocalCluster, folder: &Path, further: &[&str]) -> Result<String, String> {
    idunno(cluster, &[&["model", "add", folder.to_str().unwrap()], further].concat())
}

/// Adds a package once a model server is ready to check it.
async fn add_first(cluster: &LocalCluster, folder: &Path) -> String {
    cluster.eventually("a member checks the package", LIMIT, async || add(cluster, folder, &[])).await
}

async fn view(cluster: &LocalCluster) -> Result<ModelView, String> {
    let view = cluster.view().await?;
    view.models.into_iter().find(|view| view.model == model()).ok_or_else(|| String::from("it is unknown"))
}

/// Waits until every member that is up has loaded the model's newest version. Returns it.
async fn loaded(cluster: &LocalCluster) -> Digest {
    cluster.trained(&[model()]).await;
    view(cluster).await.unwrap().version.unwrap()
}

/// The packages on the disks of the members that are up.
fn on_disks(cluster: &LocalCluster) -> BTreeSet<String> {
    let folders = cluster.up().into_iter().map(|index| cluster.members[index].data_dir.join("packages"));
    let entries = folders.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

async fn until_on_disks(cluster: &LocalCluster, wanted: &[&str]) {
    cluster
        .eventually("the members have these packages", LIMIT, async || {
            let found = on_disks(cluster);
            if found.iter().eq(wanted) { Ok(()) } else { Err(format!("{found:?}, not {wanted:?}")) }
        })
        .await;
}

async fn start(cluster: &LocalCluster) -> JobId {
    let job = cluster.add_job("backwards", "rows.jsonl", 4).await;
    assert_eq!(cluster.start_job(job).await, ROWS);
    job
}

/// All rows of a finished job are right, and name this version.
async fn check_rows(cluster: &LocalCluster, job: JobId, version: Digest, word: &str) {
    let view = cluster.finished(job, LIMIT).await;
    assert_eq!((view.done, view.dead), (ROWS - 1, 1), "row 7 is refused");
    let rows = cluster.results(job).await;
    assert_eq!(rows.len() as u64, ROWS - 1);
    for (query, row) in rows {
        let expected: String = format!("row {query}").chars().rev().collect();
        assert_eq!(row.output, format!("{word}{expected}"), "{row:?}");
        assert_eq!(row.version, version.to_string(), "{row:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_no_member_has_is_added_replaced_and_removed() {
    let _turn = heavy().await;
    let mut cluster = LocalCluster::start(4, true).await;
    let mut rows = String::new();
    (0..ROWS).for_each(|row| writeln!(rows, "{{\"input\":\"row {row}\"}}").unwrap());
    put_text(&cluster, "rows.jsonl", &rows).await;

    let added = add_first(&cluster, &package(&cluster, "old: ")).await;
    assert!(added.contains("3 files") && added.contains("runtime python"), "{added}");
    assert!(added.contains("left out: __pycache__"), "{added}");
    let old = loaded(&cluster).await;
    let again = add(&cluster, &package(&cluster, "old: "), &[]).unwrap();
    assert!(again.contains("nothing changed"), "{again}");

    // A member dies in the middle, one that never saw the model joins, and the model is replaced.
    let job = start(&cluster).await;
    cluster.midway(job, 20).await;
    cluster.kill(&[3]);
    let newcomer = cluster.new_member("m5", cluster.introducer.address(), true);
    cluster.members.push(newcomer);
    cluster.restart(&[4]).await;
    add(&cluster, &package(&cluster, "new: "), &[]).unwrap();
    let new = loaded(&cluster).await;
    assert_ne!(old, new);
    assert_eq!(cluster.job(job).await.unwrap().version, Some(old), "the job keeps its version");
    let (old_text, new_text) = (old.to_string(), new.to_string());
    let refused = idunno(&cluster, &["model", "rm", "backwards", "--yes"]).unwrap_err();
    assert!(refused.contains("job-1") && refused.contains("--force"), "{refused}");
    check_rows(&cluster, job, old, "old: ").await;

    let second = start(&cluster).await;
    check_rows(&cluster, second, new, "new: ").await;
    // The first job's dead letter can be retried until it is dropped, but nothing runs with its version.
    until_on_disks(&cluster, &[&new_text]).await;
    assert_ne!(old_text, new_text);

    let shown = idunno(&cluster, &["model", "show", "backwards"]).unwrap();
    assert!(shown.contains("data/word.txt") && shown.contains(&new_text), "{shown}");
    idunno(&cluster, &["model", "rm", "backwards", "--yes"]).unwrap();
    until_on_disks(&cluster, &[]).await;
    let listed = idunno(&cluster, &["model", "ls"]).unwrap();
    assert!(!listed.contains("backwards") && listed.contains("mnist-mlp"), "{listed}");
    let gone = idunno(&cluster, &["model", "show", "backwards"]).unwrap_err();
    assert!(gone.contains("there is no model 'backwards'"), "{gone}");
    let retried = idunno(&cluster, &["dead-letters", "retry", "job-1"]).unwrap();
    println!("{retried}");
    check_rows_after_retry(&cluster, job).await;
}

/// A job whose dead letter is run again fetches its version again, although the model was removed.
async fn check_rows_after_retry(cluster: &LocalCluster, job: JobId) {
    let view = cluster.finished(job, LIMIT).await;
    assert_eq!((view.done, view.dead), (ROWS - 1, 1), "the row is refused again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_model_is_refused_and_leaves_the_old_version_in_place() {
    let _turn = heavy().await;
    let cluster = LocalCluster::start(3, true).await;
    let folder = package(&cluster, "old: ");
    add_first(&cluster, &folder).await;
    let old = loaded(&cluster).await;
    let code = folder.join("model.py");
    for (text, reason) in [
        ("x = (", "model.py: SyntaxError"),
        ("x = 1", "defines no class that derives from BatchModel or Model"),
        ("\nimport not_a_module", "model.py: line 2: ModuleNotFoundError"),
    ] {
        std::fs::write(&code, text).unwrap();
        let refused = add(&cluster, &folder, &[]).unwrap_err();
        assert!(refused.contains(reason) && refused.contains("was not added"), "{refused}");
    }
    std::fs::write(&code, MODEL).unwrap();
    std::fs::write(folder.join("requirements.txt"), "not-a-package==3\n").unwrap();
    let refused = add(&cluster, &folder, &["--no-environment"]).unwrap_err();
    assert!(refused.contains("not-a-package is not installed"), "{refused}");
    std::fs::remove_file(folder.join("requirements.txt")).unwrap();
    std::fs::write(folder.join("model.toml"), "entry = \"gone.py\"\n").unwrap();
    let refused = add(&cluster, &folder, &[]).unwrap_err();
    assert!(refused.contains("the entry 'gone.py'"), "{refused}");
    std::fs::remove_file(folder.join("model.toml")).unwrap();
    for name in ["my model", "mnist-mlp"] {
        let refused = add(&cluster, &folder, &["--name", name]).unwrap_err();
        assert!(refused.contains(name), "{refused}");
    }
    assert_eq!(view(&cluster).await.unwrap().version, Some(old));

    // What is wrong with the weights shows only when they are loaded.
    std::fs::remove_file(folder.join("data/word.txt")).unwrap();
    add(&cluster, &folder, &[]).unwrap();
    cluster
        .eventually("every member says why it cannot load the model", LIMIT, async || {
            let view = view(&cluster).await?;
            let failed =
                |state: &ModelState| matches!(state, ModelState::Failed(why) if why.contains("word.txt"));
            let failed = view.workers.iter().filter(|(_, state)| failed(state)).count();
            if failed == 3 { Ok(()) } else { Err(format!("{view:?}")) }
        })
        .await;
    let shown = idunno(&cluster, &["model", "show", "backwards"]).unwrap();
    assert!(shown.contains("word.txt") && shown.contains("model.py, line"), "{shown}");
}
