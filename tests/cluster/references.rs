//! Datasets whose inputs are files that all members mount. The programs are built with the feature `references`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use idunno_shared::wire::control::{Change, JobState};
use idunno_shared::wire::jobs::RecordFormat;
use idunno_shared::wire::refusal::RefusalCode;
use serde_json::Value;

use crate::backup::idunno;
use crate::harness::{LocalCluster, SlowServer, assert_refused, light, put_text};

const MODEL: &str = "mnist-mlp";
const JOB_LIMIT: Duration = Duration::from_secs(60);
const FILES: usize = 300;

/// The server answers an input with its length.
fn content(file: usize) -> String {
    "x".repeat(1 + file % 9)
}

fn url(folder: &Path, name: &str) -> String {
    format!("file://{}/{name}", folder.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_stay_where_they_are_and_each_is_read_as_it_was_listed() {
    let _turn = light().await;
    let (mounted, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mounted = mounted.path().canonicalize().unwrap();
    for file in 0..FILES {
        fs::write(mounted.join(format!("f {file:03}")), content(file)).unwrap();
    }
    fs::write(mounted.join(".DS_Store"), "junk").unwrap();
    for file in 0..FILES {
        fs::write(elsewhere.path().join(file.to_string()), "x").unwrap();
    }
    let server = SlowServer::start(Duration::from_millis(2)).await;
    let listed = url(&mounted, "");
    let cluster = LocalCluster::start_at_with(3, &server, &["--reference-urls", &listed]).await;
    cluster.train(&[MODEL]).await;

    let told = idunno(&cluster, &["reference-data", &url(&mounted, ""), "mounted.refs"]).unwrap();
    assert!(told.contains("300 objects") && told.contains("1 files of a system"), "{told}");
    let job = cluster.add_job(MODEL, "mounted.refs", 32).await;
    assert_eq!(cluster.start_job(job).await, 300);
    let view = cluster.finished(job, JOB_LIMIT).await;
    assert_eq!((view.done, view.dead), (300, 0), "{view:?}");
    let rows = idunno(&cluster, &["get-job-results", &job.to_string()]).unwrap();
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!(rows.len(), FILES);
    for (file, row) in rows.iter().enumerate() {
        assert_eq!(row["id"], url(&mounted, &format!("f%20{file:03}")));
        assert_eq!(row["name"], format!("mounted.refs:{}", file + 1));
        assert_eq!(row["output"]["top5"][0]["index"], content(file).len(), "{row}");
    }

    // Of the same list, two files are not what they were.
    fs::write(mounted.join("f 007"), "longer than before").unwrap();
    fs::remove_file(mounted.join("f 011")).unwrap();
    let again = cluster.add_job(MODEL, "mounted.refs", 32).await;
    cluster.start_job(again).await;
    let view = cluster.finished(again, JOB_LIMIT).await;
    assert_eq!((view.done, view.dead), (298, 2), "{view:?}");
    assert!(matches!(view.details.records.as_deref(), Some(RecordFormat::References(_))), "{view:?}");
    let dead = cluster.dead_letters(again).await;
    assert_eq!(dead.iter().map(|letter| letter.index).collect::<Vec<_>>(), [7, 11]);
    assert!(dead[0].reason.contains("f%20007 has changed since it was listed"), "{dead:?}");
    assert!(dead[1].reason.contains("f%20011 is gone"), "{dead:?}");
    let id = dead[1].identity.id.as_deref().unwrap();
    assert_eq!(id, format!("\"{}\"", url(&mounted, "f%20011")));

    // What no member may read pauses the job in place of failing each query.
    idunno(&cluster, &["reference-data", &url(elsewhere.path(), ""), "elsewhere.refs"]).unwrap();
    let refused = cluster.add_job(MODEL, "elsewhere.refs", 32).await;
    cluster.start_job(refused).await;
    let why = cluster
        .eventually("the job is paused", JOB_LIMIT, async || match cluster.job(refused).await?.state {
            JobState::Paused(why) => Ok(why),
            state => Err(format!("{state:?}")),
        })
        .await;
    assert!(why.contains("reference_urls"), "{why}");
    assert_eq!(cluster.job(refused).await.unwrap().dead, 0);

    put_text(&cluster, "headless.refs", "{\"input\":{\"url\":\"s3://b/k\",\"size\":1}}\n").await;
    let headless = cluster.add_job(MODEL, "headless.refs", 32).await;
    let start = cluster.client().change(Change::start(headless)).await;
    assert_refused(start, &RefusalCode::Conflict, "no header of references");
}
