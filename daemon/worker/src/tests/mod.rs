//! The whole worker against a model server over HTTP, with a coordinator and a store in memory.

mod faults;

use std::sync::Arc;
use std::time::Duration;

use idunno_shared::ids::{Digest, JobId, NodeId, Term};
use idunno_shared::wire::control::WorkerView;
use idunno_shared::wire::jobs::{
    Grant, Lease, ModelArtefact, ModelState, Parameters, QueryInput, QueryRange, RecordFormat, RecordsGrant,
    ServerState, Training,
};
use idunno_shared::wire::refusal::RefusalCode;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::supervisor::{ServerConfig, Timing};
use super::testing::fake_coordinator::{Book, FakeCoordinator, Fate};
use super::testing::fake_server::FakeServer;
use super::testing::memory_store::MemoryStore;
use super::worker_task::HEARTBEAT;
use super::{WorkerConfig, first_view, run};

const WEIGHTS: &[u8] = b"the trained weights";

struct Scene {
    server: FakeServer,
    coordinator: Arc<FakeCoordinator>,
    store: Arc<MemoryStore>,
    news: watch::Sender<Term>,
    view: watch::Receiver<WorkerView>,
    shutdown: CancellationToken,
    worker: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        Self::with(FakeServer::start().await)
    }

    /// A worker that has been told to load the model "m".
    fn with(server: FakeServer) -> Self {
        let (coordinator, store) = (Arc::new(FakeCoordinator::default()), Arc::new(MemoryStore::default()));
        let extents = vec![store.add(&WEIGHTS[..7]), store.add(&WEIGHTS[7..])];
        let model = ModelArtefact { model: "m".parse().unwrap(), version: Digest::of(WEIGHTS), extents };
        coordinator.set(|book| {
            book.term = 5;
            book.load.push(model);
        });
        let folder = tempfile::tempdir().unwrap();
        let timing = Timing { health_interval: Duration::from_millis(20), ..Timing::default() };
        let config = WorkerConfig {
            timing,
            chunk_bytes: 40,
            ..WorkerConfig::new(
                NodeId(3),
                "m3".parse().unwrap(),
                1,
                ServerConfig::Elsewhere { url: server.url() },
                folder.path().to_path_buf(),
            )
        };
        let (sender, view) = watch::channel(first_view(NodeId(3)));
        let (news, heard) = watch::channel(Term(0));
        let shutdown = CancellationToken::new();
        let worker = tokio::spawn(run(
            config,
            Arc::clone(&coordinator) as _,
            Arc::clone(&store) as _,
            heard,
            sender,
            watch::Sender::default(),
            shutdown.clone(),
        ));
        Self { server, coordinator, store, news, view, shutdown, worker, _folder: folder }
    }

    /// A batch whose queries have these contents, with numbers from `first`.
    fn grant(&self, first: u64, contents: &[&str]) -> Grant {
        let input = |(index, content): (u64, &&str)| QueryInput {
            index,
            name: format!("set/{index}.jpg").parse().unwrap(),
            extents: vec![self.store.add(content.as_bytes())],
        };
        Grant {
            lease: lease(first, u32::try_from(contents.len()).unwrap()),
            model: "m".parse().unwrap(),
            version: Digest::of(WEIGHTS),
            inputs: (first..).zip(contents).map(input).collect(),
            labels: None,
            records: None,
            parameters: Parameters::default(),
        }
    }

    /// Waits until the coordinator's book shows something.
    async fn until(&self, what: &str, mut shown: impl FnMut(&Book) -> bool) {
        let wait = async {
            while !shown(&self.coordinator.book()) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    async fn until_called(&self, part: &str, times: usize) {
        let wait = async {
            while self.server.calls(part) < times {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("never called: {part}"));
    }

    /// The rows of all commits, after checking that each commit's rows are exactly those it says.
    fn rows(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for commit in &self.coordinator.book().commits {
            let rows = self.store.read(&commit.segment.blob.digest).unwrap();
            let rows: Vec<Value> = std::str::from_utf8(&rows)
                .unwrap()
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            let said = commit.batches.iter().flat_map(|batch| &batch.answered);
            let said: Vec<u64> = said.flat_map(|range| range.first..range.end()).collect();
            assert_eq!(rows.iter().map(|row| row["query"].as_u64().unwrap()).collect::<Vec<_>>(), said);
            all.extend(rows);
        }
        all
    }

    fn queries(&self) -> Vec<u64> {
        let mut queries: Vec<u64> = self.rows().iter().map(|row| row["query"].as_u64().unwrap()).collect();
        queries.sort_unstable();
        queries
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(Duration::from_secs(5), self.worker).await.unwrap().unwrap();
    }
}

fn lease(first: u64, count: u32) -> Lease {
    Lease { job: JobId(1), range: QueryRange { first, count }, attempt: 1, term: Term(5) }
}

fn committed(book: &Book) -> usize {
    book.commits.iter().map(|commit| commit.batches.len()).sum()
}

#[tokio::test]
async fn a_busy_worker_tells_a_new_coordinator_at_once_what_it_runs() {
    let scene = Scene::new().await;
    scene.server.hold(true);
    let grants = [scene.grant(0, &["one"]), scene.grant(1, &["two"])];
    scene.coordinator.set(|book| book.grants.extend(grants));
    let is_busy = |book: &Book| book.reports.last().is_some_and(|report| report.leases.len() == 2);
    scene.until("a report with both leases", is_busy).await;
    let reports = scene.coordinator.book().reports.len();
    let told = std::time::Instant::now();
    scene.news.send_replace(Term(6));
    scene.until("another report", |book| book.reports.len() > reports).await;
    assert!(told.elapsed() < HEARTBEAT / 2, "{:?}: all work waits for it", told.elapsed());
    assert_eq!(scene.coordinator.book().reports[reports].leases.len(), 2);
}

#[tokio::test]
async fn batches_are_answered_counted_and_committed_once() {
    let scene = Scene::new().await;
    let labels = scene.store.add(b"file,label\n0.jpg,1\n1.jpg,99\nbroken\n5.jpg,3\n");
    let grants: Vec<Grant> = [0, 2, 4]
        .into_iter()
        .map(|first| Grant { labels: Some(vec![labels.clone()]), ..scene.grant(first, &["x", "xxx"]) })
        .collect();
    scene.coordinator.set(|book| book.grants.extend(grants));
    scene.until("all committed", |book| committed(book) == 3).await;
    assert_eq!(scene.queries(), [0, 1, 2, 3, 4, 5]);

    let row = scene.rows().into_iter().find(|row| row["query"] == 5).unwrap();
    assert_eq!(
        (&row["name"], &row["model"], &row["worker"]),
        (&"set/5.jpg".into(), &"m".into(), &"m3".into())
    );
    assert_eq!((&row["output"]["top5"][0]["index"], &row["attempt"]), (&3.into(), &1.into()));
    assert_eq!(row["version"], Digest::of(WEIGHTS).to_string());
    {
        let book = scene.coordinator.book();
        let outcomes: Vec<_> = book.commits.iter().flat_map(|commit| &commit.batches).collect();
        let labelled: u32 = outcomes.iter().map(|batch| batch.labelled).sum();
        let correct: u32 = outcomes.iter().map(|batch| batch.correct).sum();
        assert_eq!((labelled, correct), (3, 2));
        assert!(outcomes.iter().all(|batch| batch.inference_us > 0));
        assert!(book.commits.iter().all(|commit| scene.store.ended(commit.upload)));
        assert!(book.failed.is_empty());
    }
    assert_eq!(scene.server.set(|script| script.artefacts.values().next().unwrap().clone()), WEIGHTS);
    let ready = ModelState::Ready(Digest::of(WEIGHTS));
    assert_eq!(scene.view.borrow().models, [("m".parse().unwrap(), ready)]);
    assert_eq!(scene.view.borrow().server, ServerState::Ready);
    scene.until("leases are reported no longer", |book| book.reports.last().unwrap().leases.is_empty()).await;
    scene.stop().await;
}

#[tokio::test]
async fn while_one_batch_runs_exactly_one_is_prefetched() {
    let scene = Scene::new().await;
    scene.server.hold(true);
    let grants: Vec<Grant> = (0..4).map(|first| scene.grant(first, &["x"])).collect();
    scene.coordinator.set(|book| book.grants.extend(grants));
    scene.until_called("/infer", 1).await;
    scene
        .until("both leases are renewed without another pull", |book| {
            book.reports.last().is_some_and(|report| report.leases.len() == 2 && report.wanted == 0)
        })
        .await;
    assert_eq!(scene.coordinator.book().granted, [lease(0, 1), lease(1, 1)]);
    assert_eq!(scene.server.calls("/infer"), 1, "one at a time");
    scene.server.hold(false);
    scene.until("all committed", |book| committed(book) == 4).await;
    scene.stop().await;
}

#[tokio::test]
async fn rows_that_wait_behind_a_commit_are_dropped_when_cancelled() {
    let scene = Scene::new().await;
    let mut grants: Vec<Grant> = (0..4).map(|first| scene.grant(first, &["x"])).collect();
    let after = grants.pop();
    let first = grants.remove(0);
    scene.coordinator.set(|book| {
        book.fates.push_back(Fate::Held);
        book.grants.push_back(first);
    });
    scene.until("a segment hangs", |book| book.commits_asked.len() == 1).await;
    scene.coordinator.set(|book| book.grants.extend(grants));
    scene
        .until("the others have run and wait", |book| {
            book.reports.last().is_some_and(|report| report.leases.len() == 3 && report.wanted == 2)
        })
        .await;
    scene.coordinator.set(|book| {
        book.cancelled.extend((0..3).map(|first| lease(first, 1)));
        book.grants.extend(after);
    });
    scene.until("the next is committed", |book| committed(book) == 1).await;
    assert_eq!(scene.queries(), [3]);
    scene.stop().await;
}

#[tokio::test]
async fn a_segment_goes_on_while_one_of_its_batches_is_wanted() {
    let scene = Scene::new().await;
    let grants: Vec<Grant> = (0..3).map(|first| scene.grant(first, &["x"])).collect();
    let [both @ .., after] = &grants[..] else { panic!("three") };
    scene.coordinator.set(|book| {
        book.fates.push_back(Fate::Held);
        book.grants.extend(both.to_vec());
    });
    scene.until("both hang", |book| book.commits_asked.iter().any(|it| it.batches.len() == 2)).await;
    scene.coordinator.set(|book| {
        book.cancelled.push(lease(0, 1));
        book.grants.push_back(after.clone());
    });
    scene
        .until("the last has run and waits", |book| {
            book.reports.last().is_some_and(|it| it.leases == [lease(1, 1), lease(2, 1)] && it.wanted == 2)
        })
        .await;
    assert_eq!(scene.coordinator.book().commits_asked.len(), 1, "nothing is sent beside it");
    scene.coordinator.set(|book| book.cancelled.push(lease(1, 1)));
    scene.until("the last is committed", |book| committed(book) == 1).await;
    assert_eq!(scene.queries(), [2]);
    scene.stop().await;
}

#[tokio::test]
async fn a_commit_outlives_a_failover_with_a_new_upload_and_the_same_rows() {
    let scene = Scene::new().await;
    let grant = scene.grant(0, &["x", "x"]);
    scene.coordinator.set(|book| {
        book.fates.extend([Fate::Unreachable, Fate::Refused(RefusalCode::UploadOver)]);
        book.grants.push_back(grant);
    });
    scene.until("it is committed", |book| committed(book) == 1).await;
    scene.until("the lease is over", |book| book.reports.last().unwrap().leases.is_empty()).await;
    {
        let book = scene.coordinator.book();
        let uploads: Vec<_> = book.commits_asked.iter().map(|commit| commit.upload.number).collect();
        assert_eq!(uploads, [1, 1, 2]);
        let digests: Vec<_> = book.commits_asked.iter().map(|commit| commit.segment.blob.digest).collect();
        assert!(digests.iter().all(|digest| *digest == digests[0]));
        let held: Vec<_> = book.reports.iter().map(|report| report.leases.len()).collect();
        let reported = held.iter().skip_while(|held| **held == 0).take_while(|held| **held == 1).count();
        assert!(reported >= 1, "reported until the answer: {held:?}");
    }
    assert_eq!(scene.queries(), [0, 1]);
    scene.stop().await;
}

#[tokio::test]
async fn a_commit_refused_for_good_gives_its_batches_back() {
    let scene = Scene::new().await;
    let grant = scene.grant(0, &["x"]);
    scene.coordinator.set(|book| {
        book.fates.push_back(Fate::Refused(RefusalCode::NotFound));
        book.grants.push_back(grant);
    });
    scene.until("it is refused", |book| book.commits_asked.len() == 1).await;
    scene.until("the lease is over", |book| book.reports.last().unwrap().leases.is_empty()).await;
    assert_eq!(committed(&scene.coordinator.book()), 0);
    scene.stop().await;
}

#[tokio::test]
async fn cancelled_batches_stop_and_leave_no_rows() {
    let scene = Scene::new().await;
    scene.server.hold(true);
    let grants = [scene.grant(0, &["x"]), scene.grant(1, &["x"])];
    scene.coordinator.set(|book| book.grants.extend(grants));
    scene.until_called("/infer", 1).await;
    scene.until("both are held", |book| book.granted.len() == 2).await;
    scene.coordinator.set(|book| book.cancelled.push(lease(0, 1)));
    scene.until_called("/infer", 2).await;
    scene.server.hold(false);
    scene.until("the other is committed", |book| committed(book) == 1).await;
    assert_eq!(scene.queries(), [1]);

    // One that has run and waits for its commit.
    let held = scene.grant(2, &["x"]);
    scene.coordinator.set(|book| {
        book.fates.push_back(Fate::Held);
        book.grants.push_back(held);
    });
    scene.until("its commit is on its way", |book| book.commits_asked.len() == 2).await;
    let after = scene.grant(3, &["x"]);
    scene.coordinator.set(|book| {
        book.cancelled.push(lease(2, 1));
        book.grants.push_back(after);
    });
    scene.until("the next one is not held up", |book| committed(book) == 2).await;
    assert_eq!(scene.queries(), [1, 3]);
    scene.stop().await;
}

#[tokio::test]
async fn a_drain_returns_what_waits_and_commits_what_runs() {
    let scene = Scene::new().await;
    scene.server.hold(true);
    let grants = [scene.grant(0, &["x"]), scene.grant(1, &["x"]), scene.grant(2, &["x"])];
    scene.coordinator.set(|book| book.grants.extend(grants));
    scene.until_called("/infer", 1).await;
    scene.until("one is prefetched", |book| book.granted.len() == 2).await;
    scene.shutdown.cancel();
    scene
        .until("the waiting one is returned", |book| {
            let report = book.reports.last().unwrap();
            report.draining && report.wanted == 0 && report.leases == [lease(0, 1)]
        })
        .await;
    assert!(!scene.worker.is_finished());
    scene.server.hold(false);
    scene.until("what ran is committed", |book| committed(book) == 1).await;
    scene.until("the last report", |book| book.reports.last().unwrap().leases.is_empty()).await;
    assert_eq!(scene.queries(), [0]);
    assert_eq!(scene.coordinator.book().granted.len(), 2, "nothing more was taken");
    scene.stop().await;
}

#[tokio::test]
async fn reports_tell_which_models_the_server_offers() {
    let scene = Scene::new().await;
    let offered = Some(vec!["mine".parse().unwrap()]);
    scene.until("it is told", |book| book.reports.iter().any(|report| report.offers == offered)).await;
    let before = scene.coordinator.book().reports.first().unwrap().offers.clone();
    assert_eq!(before, Some(Vec::new()), "nothing is offered before the server is ready");
    scene.stop().await;
}

#[tokio::test]
async fn training_is_done_once_stored_and_told() {
    let scene = Scene::new().await;
    let model = "trained-here".parse().unwrap();
    scene
        .coordinator
        .set(|book| book.train.push(("trained-here".parse().unwrap(), Training { seed: 7, dataset: None })));
    scene.until("it is told", |book| book.trained.len() == 1).await;
    {
        let book = scene.coordinator.book();
        let (told, result) = &book.trained[0];
        let (_, artefact) = result.as_ref().unwrap();
        assert_eq!((told, &artefact.model, artefact.version), (&model, &model, Digest::of(b"weights")));
        assert_eq!(scene.store.read(&artefact.extents[0].blob.digest).unwrap(), &b"weights"[..]);
    }
    assert_eq!(scene.server.calls("/train"), 1, "ordered with every answer, done once");

    scene.server.set(|script| script.training_failure = Some("no data"));
    scene
        .coordinator
        .set(|book| book.train.push(("other".parse().unwrap(), Training { seed: 7, dataset: None })));
    scene.until("a failure is told", |book| book.trained.len() == 2).await;
    assert!(scene.coordinator.book().trained[1].1.as_ref().unwrap_err().contains("no data"));
    scene.stop().await;
}

#[tokio::test]
async fn a_model_is_trained_on_the_data_set_that_was_named() {
    let scene = Scene::new().await;
    let on = |name: &str| Training { seed: 7, dataset: Some(name.parse().unwrap()) };
    scene.store.add(b"cats");
    scene.coordinator.set(|book| book.train.push(("theirs".parse().unwrap(), on("cats"))));
    scene.until("it is told", |book| book.trained.len() == 1).await;
    assert!(scene.coordinator.book().trained[0].1.is_ok());
    let folder = scene.server.set(|script| script.trained_on.clone()).remove(0).unwrap();
    assert!(folder.ends_with("training/theirs"), "{}", folder.display());

    scene.coordinator.set(|book| book.train.push(("other".parse().unwrap(), on("dogs"))));
    scene.until("a failure is told", |book| book.trained.len() == 2).await;
    assert!(scene.coordinator.book().trained[1].1.as_ref().unwrap_err().contains("no data set 'dogs'"));
    scene.stop().await;
}

#[tokio::test]
async fn a_training_tells_how_far_it_is_and_can_be_stopped() {
    let scene = Scene::new().await;
    scene.server.set(|script| script.training_steps = Some((3, 12)));
    scene
        .coordinator
        .set(|book| book.train.push(("trained-here".parse().unwrap(), Training { seed: 7, dataset: None })));
    let model = || "trained-here".parse().unwrap();
    scene
        .until("its progress is told", |book| {
            let told = book.reports.last().and_then(|report| report.trainings.first().cloned());
            told.is_some_and(|(name, progress)| {
                name == model()
                    && (progress.permille, progress.step, progress.steps) == (250, 3, 12)
                    && progress.metrics == [(String::from("loss"), String::from("0.5"))]
            })
        })
        .await;
    scene.coordinator.set(|book| {
        book.train.clear();
        book.stop_training.push(model());
    });
    scene
        .until("it is over", |book| book.reports.last().is_some_and(|report| report.trainings.is_empty()))
        .await;
    assert_eq!(scene.server.calls("DELETE"), 1);
    assert!(scene.coordinator.book().trained.is_empty(), "nothing was made");
    scene.stop().await;
}

#[tokio::test]
async fn records_of_a_file_are_answered_with_their_labels_and_parameters() {
    let scene = Scene::new().await;
    let text = b"{\"input\":\"a\",\"label\":1,\"id\":\"first\"}\n\"bb\"\n\n{\"input\":\"ccc\",\"label\":9}\nnonsense\n";
    let (start, end) = text.split_at(30);
    let extents = vec![scene.store.add(start), scene.store.add(end)];
    let grant = Grant {
        lease: lease(0, 4),
        records: Some(RecordsGrant {
            file: "texts.jsonl".parse().unwrap(),
            format: RecordFormat::Jsonl,
            extents,
            skip_bytes: 0,
            bytes: text.len() as u64,
            skip: 0,
        }),
        parameters: [("labels".parse().unwrap(), String::from("2"))].into(),
        ..scene.grant(0, &[])
    };
    scene.coordinator.set(|book| book.grants.push_back(grant));
    scene.until("they are answered", |book| committed(book) == 1).await;
    {
        let book = scene.coordinator.book();
        let outcome = &book.commits[0].batches[0];
        assert_eq!(outcome.answered, [QueryRange { first: 0, count: 3 }]);
        assert_eq!((outcome.labelled, outcome.correct), (2, 1), "the answer is the input's length");
        assert!(book.failed[0].1[0].reason.contains("not JSON"), "{:?}", book.failed);
    }
    let rows = scene.rows();
    assert_eq!(
        (&rows[0]["name"], &rows[0]["id"], &rows[0]["label"]),
        (&"texts.jsonl:1".into(), &"first".into(), &"1".into())
    );
    assert_eq!(
        (&rows[2]["name"], &rows[2]["output"]["top5"][0]["index"]),
        (&"texts.jsonl:3".into(), &3.into())
    );
    assert_eq!(scene.server.set(|script| script.parameters.clone())["labels"], "2");
    scene.stop().await;
}

#[tokio::test]
async fn orders_of_an_older_term_are_void() {
    let scene = Scene::new().await;
    let first = scene.grant(0, &["x"]);
    scene.coordinator.set(|book| book.grants.push_back(first));
    scene.until("a batch of term 5", |book| committed(book) == 1).await;
    let stale = scene.grant(1, &["x"]);
    scene.coordinator.set(|book| {
        book.term = 4;
        book.grants.push_back(stale);
    });
    scene.until("the stale grant is out", |book| book.granted.len() == 2).await;
    let reports = scene.coordinator.book().reports.len();
    scene.until("two more reports", |book| book.reports.len() >= reports + 2).await;
    assert!(scene.coordinator.book().reports.last().unwrap().leases.is_empty(), "not taken");
    let good = scene.grant(2, &["x"]);
    scene.coordinator.set(|book| {
        book.term = 6;
        book.grants.push_back(good);
    });
    scene.until("a batch of term 6", |book| committed(book) == 2).await;
    assert_eq!(scene.queries(), [0, 2]);
    scene.stop().await;
}

#[tokio::test]
async fn a_server_of_another_make_serves_its_own_models() {
    let server = FakeServer::start().await;
    server.set(|script| script.ours = false);
    let scene = Scene::with(server);
    scene.coordinator.set(|book| book.train.push(("m".parse().unwrap(), Training::default())));
    scene
        .until("it cannot list them", |book| book.reports.iter().any(|report| report.offers.is_none()))
        .await;
    scene.until("its description stands for an artefact", |book| book.trained.len() == 1).await;
    assert!(scene.coordinator.book().trained[0].1.is_ok());
    let grant = scene.grant(0, &["x", "xx"]);
    scene.coordinator.set(|book| book.grants.push_back(grant));
    scene.until("it answers in JSON", |book| committed(book) == 1).await;
    assert_eq!(scene.rows()[1]["output"]["top5"][0]["index"], 2);
    assert_eq!(scene.server.calls("/artefacts"), 0);
    scene.stop().await;
}
