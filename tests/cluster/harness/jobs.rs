//! Jobs as a person runs them: train, put a dataset, add, start, watch, read the results.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use idunno_shared::client::files::{NoProgress, PutItem, PutOptions};
use idunno_shared::client::results::query_of;
use idunno_shared::ids::JobId;
use idunno_shared::names::ModelName;
use idunno_shared::wire::control::{
    Change, Changed, ControlReply, ControlRequest, DeadLetter, JobOptions, JobState, JobView, SegmentView,
};
use idunno_shared::wire::jobs::Training;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{LocalCluster, SOON, name, python};

/// Training includes fetching and converting the weights.
const TRAINING_LIMIT: Duration = Duration::from_secs(60);

/// A result row, as far as two runs must agree on it. `worker` and `attempt` may differ.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct ResultRow {
    pub(crate) query: u64,
    pub(crate) name: String,
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) output: serde_json::Value,
}

/// A directory with a labelled dataset, made once: `kind` is `digits` or `photos`.
pub(crate) async fn dataset(kind: &str, images: u64) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::const_new(());
    let _one_at_a_time = MAKING.lock().await;
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{kind}-{images}"));
    let made = Command::new(python())
        .args(["-m", "idunno_model_server.make_dataset", kind])
        .arg(&dir)
        .args(["--images", &images.to_string()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    dir
}

/// Puts all files of a directory as the dataset `prefix`.
pub(crate) async fn put_dataset(cluster: &LocalCluster, dir: &Path, prefix: &str) {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let items = entries.filter(|entry| entry.file_type().unwrap().is_file()).map(|entry| {
        let file = entry.file_name().into_string().unwrap();
        PutItem { name: name(&format!("{prefix}/{file}")), path: entry.path() }
    });
    let put = cluster.files().put_files(items.collect(), PutOptions::default(), &NoProgress).await;
    put.unwrap_or_else(|error| cluster.fail(&format!("put of {prefix}: {error}")));
}

/// Puts a file of this text.
pub(crate) async fn put_text(cluster: &LocalCluster, file: &str, text: &str) {
    let path = cluster.scratch("put");
    std::fs::write(&path, text).unwrap();
    let item = PutItem { name: name(file), path };
    let put = cluster.files().put_files(vec![item], PutOptions::default(), &NoProgress).await;
    put.unwrap_or_else(|error| cluster.fail(&format!("put of {file}: {error}")));
}

impl LocalCluster {
    /// Makes a change that must succeed.
    pub(crate) async fn change(&self, change: Change) -> Changed {
        let result = self.client().change(change.clone()).await;
        result.unwrap_or_else(|error| self.fail(&format!("{change:?}: {error}")))
    }

    /// Has models trained and waits until every worker that is up has them loaded.
    pub(crate) async fn train(&self, models: &[&str]) {
        let models: Vec<ModelName> = models.iter().map(|model| model.parse().unwrap()).collect();
        let training = Training { seed: 1, ..Training::default() };
        self.change(Change::TrainStart { models: models.clone(), training }).await;
        self.trained(&models).await;
    }

    /// Waits until models are trained, and loaded by every worker that is up.
    pub(crate) async fn trained(&self, models: &[ModelName]) {
        let workers = self.up().len();
        self.eventually("the models are trained and loaded", TRAINING_LIMIT, async || {
            let view = self.view().await?;
            for model in models {
                let Some(view) = view.models.iter().find(|view| view.model == *model) else {
                    return Err(format!("{model} is not known"));
                };
                let ready = |state: &_| matches!(state, idunno_shared::wire::jobs::ModelState::Ready(_));
                let loaded = view.workers.iter().filter(|(_, state)| ready(state)).count();
                if view.version.is_none() || loaded < workers {
                    return Err(format!("{view:?}"));
                }
            }
            Ok(())
        })
        .await;
    }

    /// Adds a job; a batch size of 0 stands for auto.
    pub(crate) async fn add_job(&self, model: &str, dataset: &str, batch_size: u32) -> JobId {
        self.add_job_with(model, dataset, batch_size, JobOptions::default()).await
    }

    /// The same with options.
    pub(crate) async fn add_job_with(
        &self,
        model: &str,
        dataset: &str,
        batch_size: u32,
        options: JobOptions,
    ) -> JobId {
        let (model, dataset) = (model.parse().unwrap(), dataset.parse().unwrap());
        match self.change(Change::AddJob { model, dataset, batch_size: batch_size.into(), options }).await {
            Changed::JobAdded(job) => job,
            other => panic!("{other:?}"),
        }
    }

    /// The dead letters of a job, which has at most one page of them.
    pub(crate) async fn dead_letters(&self, job: JobId) -> Vec<DeadLetter> {
        match self.client().control(ControlRequest::DeadLetters { job, from: 0, limit: 1024 }).await {
            Ok(ControlReply::DeadLetters { dead_letters, more: false }) => dead_letters,
            other => self.fail(&format!("{other:?}")),
        }
    }

    /// Starts a job and returns its number of queries.
    pub(crate) async fn start_job(&self, job: JobId) -> u64 {
        match self.change(Change::start(job)).await {
            Changed::JobStarted { submitted } => submitted,
            other => panic!("{other:?}"),
        }
    }

    /// A job's figures.
    pub(crate) async fn job(&self, job: JobId) -> Result<JobView, String> {
        match self.client().control(ControlRequest::Jobs(Some(job))).await {
            Ok(ControlReply::Jobs(mut jobs)) if jobs.len() == 1 => Ok(jobs.remove(0)),
            other => Err(format!("{other:?}")),
        }
    }

    /// Waits until the job has this many answered queries, and sees that it is not at its end.
    pub(crate) async fn midway(&self, job: JobId, done: u64) -> JobView {
        let view = self
            .eventually(&format!("{job} has {done} answers"), SOON, async || {
                let view = self.job(job).await?;
                if view.done >= done { Ok(view) } else { Err(format!("{view:?}")) }
            })
            .await;
        assert!(
            view.done + view.dead < view.submitted,
            "{job} was over before the test could break it: {view:?}"
        );
        view
    }

    /// Waits for the end of a job; nothing may be lost.
    pub(crate) async fn finished(&self, job: JobId, limit: Duration) -> JobView {
        let view = self
            .eventually(&format!("{job} ends"), limit, async || {
                let view = self.job(job).await?;
                if view.state == JobState::Done { Ok(view) } else { Err(format!("{view:?}")) }
            })
            .await;
        assert_eq!(view.done + view.dead, view.submitted, "{view:?}");
        view
    }

    /// The result rows by query: each query at most once, and only rows that count.
    pub(crate) async fn results(&self, job: JobId) -> BTreeMap<u64, ResultRow> {
        self.eventually(&format!("the results of {job} can be read"), SOON, async || {
            let segments = self.segments(job).await?;
            let placed: Vec<_> = segments.iter().map(|view| view.segment.clone()).collect();
            let mut rows = BTreeMap::new();
            for (segment, bytes) in segments.iter().zip(self.files().fetch_segments(&placed).await) {
                // They may have been replaced by the extents of merged results since.
                let bytes = bytes.map_err(|error| format!("a segment of {job}: {error}"))?;
                for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                    let query = query_of(line).unwrap();
                    if segment.ranges.iter().any(|range| range.queries().contains(&query)) {
                        let older = rows.insert(query, serde_json::from_slice(line).unwrap());
                        assert_eq!(older, None, "query {query} of {job} is in the results twice");
                    }
                }
            }
            Ok(rows)
        })
        .await
    }

    /// The segments of a job's results.
    pub(crate) async fn segments(&self, job: JobId) -> Result<Vec<SegmentView>, String> {
        let (client, mut segments) = (self.client(), Vec::new());
        loop {
            let request = ControlRequest::Results { job, skip: segments.len() as u64, limit: 1024 };
            match client.control(request).await {
                Ok(ControlReply::Results { segments: page, more, .. }) => {
                    segments.extend(page);
                    if !more {
                        return Ok(segments);
                    }
                }
                other => return Err(format!("results of {job}: {other:?}")),
            }
        }
    }

    /// The results of a finished job without dead letters: exactly one row for each query.
    pub(crate) async fn all_results(&self, job: JobId, submitted: u64) -> BTreeMap<u64, ResultRow> {
        let rows = self.results(job).await;
        assert!(rows.keys().copied().eq(0..submitted), "{job}: {} rows for {submitted} queries", rows.len());
        rows
    }
}
