//! Data directories that the last release of format 1 left behind: a cluster of this release goes on with them.
//!
//! `format-1.tar.gz` has those of three members that were killed at work, written by the programs of commit 63fbfc4: jobs 1 and
//! 2 are done, over the folder `few` and the records of `texts.jsonl`; 3 and 4 were half-way, over the folder `data` and the
//! same records; 5 is added. Of `data` a file was deleted and one replaced since.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use idunno_shared::client::files::NoProgress;
use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{Change, Changed, JobState};

use crate::harness::{Expected, LocalCluster, SlowServer, content, heavy, name};

const ARCHIVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/format-1.tar.gz");
const JOB_LIMIT: Duration = Duration::from_secs(60);

fn expected() -> Expected {
    let mut expected = Expected::default();
    for number in 0..20 {
        expected.add(&format!("kept/{number:02}"), content(number, 500));
    }
    for number in (0..300_usize).filter(|number| *number != 5) {
        expected.add(&format!("data/{number:03}"), vec![b'x'; 1 + number]);
    }
    expected.add("data/006", b"changed since the start".to_vec());
    expected
}

/// What a job answered, by query: the lengths of its inputs.
async fn answers(cluster: &LocalCluster, job: u64) -> BTreeMap<u64, u64> {
    let rows = cluster.results(JobId(job)).await;
    rows.into_iter().map(|(query, row)| (query, row.output["top5"][0]["index"].as_u64().unwrap())).collect()
}

/// The answers to a folder of files, of which each is a byte longer than the one before.
fn of_folder(files: u64) -> BTreeMap<u64, u64> {
    (0..files).map(|query| (query, 1 + query)).collect()
}

/// The answers to `texts.jsonl`, of which record 7 cannot be read.
fn of_texts() -> BTreeMap<u64, u64> {
    (0..300).filter(|query| *query != 7).map(|query| (query, 1 + query % 9)).collect()
}

async fn first_version_is_kept(cluster: &LocalCluster) {
    let target = cluster.scratch("first");
    for number in 0..20 {
        let file = name(&format!("kept/{number:02}"));
        let got = cluster.files().get_file(&file, Some(1), &target, &NoProgress).await;
        got.unwrap_or_else(|error| cluster.fail(&format!("get version 1 of {file}: {error}")));
        assert_eq!(std::fs::read(&target).unwrap(), content(1000 + number, 300), "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_the_format_before_goes_on_with_its_files_and_jobs() {
    let _turn = heavy().await;
    let server = SlowServer::start(Duration::from_millis(2)).await;
    let mut cluster = LocalCluster::start_from(Path::new(ARCHIVE), 3, &server).await;
    let expected = expected();
    expected.verify(&cluster).await;
    first_version_is_kept(&cluster).await;

    assert_eq!(answers(&cluster, 1).await, of_folder(30));
    assert_eq!(answers(&cluster, 2).await, of_texts());
    for (job, dead) in [(3, 0), (4, 1)] {
        let view = cluster.finished(JobId(job), JOB_LIMIT).await;
        assert_eq!((view.submitted, view.done + view.dead, view.dead), (300, 300, dead), "{view:?}");
    }
    assert_eq!(answers(&cluster, 3).await, of_folder(300), "of the files as they were when it was started");
    assert_eq!(answers(&cluster, 4).await, of_texts());
    assert_eq!(cluster.job(JobId(5)).await.unwrap().state, JobState::Added);
    assert_eq!(cluster.start_job(JobId(5)).await, 299);
    cluster.finished(JobId(5), JOB_LIMIT).await;

    // A record that was dead under the old release is retried, and is as bad as it was.
    let retry = Change::RetryDeadLetters { job: JobId(2), queries: vec![7] };
    assert_eq!(cluster.change(retry).await, Changed::Retried { queries: 1 });
    assert_eq!(cluster.finished(JobId(2), JOB_LIMIT).await.dead, 1);

    // What this release has written it reads.
    let all = cluster.up();
    cluster.kill(&all);
    for member in &cluster.members {
        assert_eq!(std::fs::read_to_string(member.data_dir.join("FORMAT")).unwrap(), "idunno 2\n");
    }
    cluster.restart(&all).await;
    cluster.ready().await;
    expected.verify(&cluster).await;
    assert_eq!(answers(&cluster, 1).await, of_folder(30));
    assert_eq!(answers(&cluster, 3).await, of_folder(300));
    assert_eq!(answers(&cluster, 4).await, of_texts());
}
