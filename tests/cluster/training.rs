//! A custom model is trained on a dataset in the store; another worker takes over when the trainer dies; training stops.

use std::path::Path;
use std::time::Duration;

use idunno_shared::client::files::NoProgress;
use idunno_shared::ids::NodeId;
use idunno_shared::names::ModelName;
use idunno_shared::wire::control::{Change, ModelView};
use idunno_shared::wire::jobs::Training;
use rustix::process::Signal;

use crate::backup::idunno;
use crate::harness::{LocalCluster, heavy, name, put_text};

const LIMIT: Duration = Duration::from_secs(60);
/// Answers with the label whose examples used the input's word. An example `forever` makes it train without an end.
const MODEL: &str = r#"
import json, time
from idunno_model_server.api import Model, Runner

class Words(Model):
    name = "words"
    description = "which label's examples used the word"
    suffix = ".json"

    def train(self, dataset, run):
        labels = {bytes(example.content).decode(): example.label for example in dataset}
        step = 0
        while "forever" in labels:
            step += 1
            run.report(min(step, 99), 100, loss=1 / step)
            time.sleep(0.05)
        run.artefact.write_text(json.dumps(labels, sort_keys=True))
        return {"examples": len(labels)}

    def load(self, artefact):
        return WordsRunner(json.loads(artefact.read_text()))

    def canary(self):
        return b"hello"

class WordsRunner(Runner):
    def __init__(self, labels):
        self.labels = labels

    def decode(self, content):
        return bytes(content).decode()

    def predict(self, word):
        return self.labels.get(word, "unknown")

    def encode(self, label):
        return json.dumps({"label": label}).encode()
"#;

fn words() -> ModelName {
    "words".parse().unwrap()
}

fn on(dataset: &str) -> Change {
    let training = Training { seed: 1, dataset: Some(dataset.parse().unwrap()), ..Training::default() };
    Change::TrainStart { models: vec![words()], training }
}

async fn view(cluster: &LocalCluster) -> Result<ModelView, String> {
    let view = cluster.view().await?;
    view.models.into_iter().find(|view| view.model == words()).ok_or_else(|| String::from("it is unknown"))
}

/// The worker, other than `not`, that says how far it is with the training.
async fn trainer(cluster: &LocalCluster, not: Option<NodeId>) -> NodeId {
    cluster
        .eventually("a worker trains", LIMIT, async || {
            let view = view(cluster).await?;
            let found = view.progress.iter().find(|(node, progress)| Some(*node) != not && progress.step > 1);
            let (node, progress) = found.ok_or_else(|| format!("{view:?}"))?;
            assert!(progress.steps == 100 && progress.metrics.len() == 1, "{progress:?}");
            Ok(*node)
        })
        .await
}

fn install(models: &Path) {
    std::fs::create_dir_all(models).unwrap();
    std::fs::write(models.join("words.py"), MODEL).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_model_is_trained_on_a_data_set_in_the_store() {
    let _turn = heavy().await;
    let mut cluster = LocalCluster::start(4, true).await;
    put_text(&cluster, "lessons.csv", "input,label\nmeow,cat\nwoof,dog\n").await;
    put_text(&cluster, "endless/labels.csv", "file,label\na/1.txt,x\n").await;
    put_text(&cluster, "endless/a/1.txt", "forever").await;
    put_text(
        &cluster,
        "words.jsonl",
        "{\"input\":\"meow\",\"label\":\"cat\"}\n{\"input\":\"woof\",\"label\":\"cat\"}\n",
    )
    .await;

    // Model servers read the models when they start.
    install(&cluster.path().join("models"));
    cluster.up().into_iter().for_each(|index| cluster.members[index].signal_model_server(Signal::KILL));
    cluster
        .eventually("the model is offered, and its training begins", LIMIT, async || {
            cluster.client().change(on("lessons.csv")).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    cluster.trained(&[words()]).await;
    let first = view(&cluster).await.unwrap();
    assert_eq!(first.metrics, [(String::from("examples"), String::from("2"))], "{first:?}");
    let path = cluster.scratch("report");
    cluster.files().get_file(&name("training/words.json"), None, &path, &NoProgress).await.unwrap();
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!((&report["metrics"]["examples"], &report["dataset"]), (&"2".into(), &"lessons.csv".into()));
    let answers = async |cluster: &LocalCluster| {
        let job = cluster.add_job("words", "words.jsonl", 1).await;
        cluster.start_job(job).await;
        let view = cluster.finished(job, LIMIT).await;
        (view.done, view.correct, view.labelled)
    };
    assert_eq!(answers(&cluster).await, (2, 1, 2), "cat is a cat, and woof is none");

    cluster.change(on("endless")).await;
    let died = trainer(&cluster, None).await;
    cluster.kill(&[cluster.index_of(died)]);
    trainer(&cluster, Some(died)).await;
    cluster.change(Change::TrainStop { models: vec![words()] }).await;
    cluster
        .eventually("no worker trains", LIMIT, async || {
            let view = view(&cluster).await?;
            let is_over = !view.training && view.progress.is_empty() && view.version == first.version;
            if is_over { Ok(()) } else { Err(format!("{view:?}")) }
        })
        .await;
    assert_eq!(answers(&cluster).await, (2, 1, 2), "what was trained before answers");
}

/// Answers how many examples had the input as their label, times a number from a file of the package.
const PACKAGE: &str = r#"
import json
from idunno_model_server.api import BatchModel

class Votes(BatchModel):
    dataset = "required"

    def train(self, dataset, run):
        votes = {label: 0 for label in dataset.labels()}
        for example in dataset:
            votes[example.label] += int((run.folder / "weight.txt").read_text())
        print("counted", len(dataset), "examples")
        run.artefact.write_text(json.dumps(votes, sort_keys=True))
        return {"examples": len(dataset)}

    def setup(self, context):
        self.votes = json.loads(context.artefact.read_text())

    def predict(self, inputs):
        return [self.votes.get(str(row, "utf-8"), 0) for row in inputs]

    def canary(self):
        return b"cat"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_trained_in_its_own_process_and_every_member_loads_the_outcome() {
    let _turn = heavy().await;
    let cluster = LocalCluster::start(3, true).await;
    put_text(&cluster, "lessons.csv", "input,label\nmeow,cat\npurr,cat\nwoof,dog\n").await;
    put_text(&cluster, "words.jsonl", "{\"input\":\"cat\"}\n{\"input\":\"dog\"}\n{\"input\":\"cow\"}\n")
        .await;
    let votes: ModelName = "votes".parse().unwrap();
    for (name, code) in [("votes", PACKAGE), ("fixed", &PACKAGE.replace("def train", "def untrained"))] {
        let folder = cluster.scratch(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("model.py"), code).unwrap();
        std::fs::write(folder.join("weight.txt"), "10").unwrap();
        let words = ["model", "add", folder.to_str().unwrap()];
        cluster.eventually("a package is added", LIMIT, async || idunno(&cluster, &words)).await;
    }
    let of_votes = async || {
        let view = cluster.view().await.unwrap();
        view.models.into_iter().find(|view| view.model == votes).unwrap()
    };
    let before = of_votes().await;
    for (words, says) in [
        (&["train-start", "fixed", "--dataset", "lessons.csv"][..], "its class defines no train"),
        (&["train-start", "votes"], "needs a dataset"),
    ] {
        let refused = idunno(&cluster, words).unwrap_err();
        assert!(refused.contains(says), "{refused}");
    }
    assert!(!of_votes().await.training, "nothing runs");

    idunno(&cluster, &["train-start", "votes", "--dataset", "lessons.csv", "--wait"]).unwrap();
    cluster.trained(std::slice::from_ref(&votes)).await;
    let log = idunno(&cluster, &["logs", "--grep", "training votes"]).unwrap();
    assert_eq!(log.matches("training votes: counted 3 examples").count(), 1, "{log}");
    let after = of_votes().await;
    assert_ne!(before.version, after.version);
    assert_eq!(after.metrics, [(String::from("examples"), String::from("3"))], "{after:?}");
    assert_eq!(
        after.package.unwrap().files,
        before.package.unwrap().files + 1,
        "what it wrote is a file of it"
    );
    let job = cluster.add_job("votes", "words.jsonl", 2).await;
    cluster.start_job(job).await;
    let view = cluster.finished(job, LIMIT).await;
    assert_eq!((view.done, view.dead), (3, 0), "{view:?}");
    let rows = cluster.results(job).await;
    let answers: Vec<String> = rows.values().map(|row| row.output.to_string()).collect();
    assert_eq!(answers, ["20", "10", "0"]);
}
