//! All logs are lost and the blobs are not: a backup restores the metadata that names them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use idunno_shared::client::files::GetItem;
use idunno_shared::wire::control::{ControlReply, ControlRequest, JobState};

use crate::failover::{start, working_cluster};
use crate::harness::{Expected, LocalCluster, SOON, SlowServer, heavy, idunnod, name};
use crate::recovery::{logged, recover};

const JOB_LIMIT: Duration = Duration::from_secs(120);
const QUERIES: u64 = 160;

/// Runs `idunno`; returns its output, or its standard error if it fails.
pub(crate) fn idunno(cluster: &LocalCluster, words: &[&str]) -> Result<String, String> {
    let seeds: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    let mut command = Command::new(idunnod().with_file_name("idunno"));
    command.args(words).args(["--cluster", &seeds.join(",")]).arg("--identity").arg(cluster.secret());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Files in a member's `blobs`.
fn blobs(dir: &Path) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { blobs(&path) } else { [path].into() }).collect()
}

/// Makes a backup during a job, lets the job end, puts further files, and kills all members.
async fn back_up_and_lose(cluster: &mut LocalCluster, file: &str) {
    let job = start(cluster).await;
    cluster.midway(job, 20).await;
    println!("{}", idunno(cluster, &["backup", file]).unwrap());
    let view = cluster.job(job).await.unwrap();
    assert_eq!(view.state, JobState::Running, "the backup came too late");
    let refused = idunno(cluster, &["backup", file]).unwrap_err();
    assert!(refused.contains("--force"), "{refused}");
    let shown = idunno(cluster, &["backup", "--show", file]).unwrap();
    assert!(shown.contains("intact") && shown.contains("1 job"), "{shown}");
    Expected::small("late", 500..510).put(cluster).await;
    cluster.finished(job, JOB_LIMIT).await;
    cluster.all_results(job, QUERIES).await;
    let all = cluster.up();
    cluster.kill(&all);
}

/// A backup with a flipped bit, or truncated, is refused with its path, and the member is unchanged.
fn a_damaged_backup_is_refused(file: &str, data_dir: &Path) {
    let (bytes, identity) =
        (std::fs::read(file).unwrap(), std::fs::read(data_dir.join("identity.json")).unwrap());
    let bad = format!("{file}.bad");
    let mut changed = bytes.clone();
    let middle = bytes.len() / 2;
    changed[middle] ^= 1;
    for wrong in [&changed[..], &bytes[..bytes.len() - 100]] {
        std::fs::write(&bad, wrong).unwrap();
        let error = recover(data_dir, &["--backup", &bad, "--yes"]).unwrap_err();
        assert!(error.contains(&bad) && error.contains("nothing was changed"), "{error}");
        assert_eq!(std::fs::read(data_dir.join("identity.json")).unwrap(), identity);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_all_logs_are_lost_a_backup_restores_the_files_and_the_job_resumes() {
    let _turn = heavy().await;
    let server = SlowServer::start(Duration::from_millis(100)).await;
    let mut cluster = working_cluster(4, &server, QUERIES).await;
    let files = Expected::small("inputs", 0..QUERIES);
    let file = cluster.scratch("metadata.backup").display().to_string();
    back_up_and_lose(&mut cluster, &file).await;
    for index in 0..3 {
        std::fs::remove_file(cluster.members[index].data_dir.join("metadata.redb")).unwrap();
    }
    cluster.introducer.reap();
    std::fs::remove_file(cluster.introducer.data_dir.join("introducer.json")).unwrap();

    let first = cluster.members[0].data_dir.clone();
    a_damaged_backup_is_refused(&file, &first);
    let text = recover(&first, &["--backup", &file]).unwrap();
    assert!(text.contains("Nothing was changed") && text.contains("deleted permanently"), "{text}");
    println!("{}", recover(&first, &["--backup", &file, "--yes"]).unwrap());
    for index in [1, 2] {
        recover(&cluster.members[index].data_dir, &["--forget-log", "--yes"]).unwrap();
    }

    // The wrong order: the introducer knows no members, and these two arrive first.
    let held = [1, 2].map(|index| blobs(&cluster.members[index].data_dir.join("blobs")));
    cluster.introducer.spawn();
    cluster.introducer.started().await;
    cluster.restart(&[1, 2]).await;
    for index in [1, 2] {
        logged(&cluster, index, "not introduced", "must not found").await;
    }
    assert_eq!(cluster.who_coordinates(&[1, 2]).await, []);
    for (index, held) in [1, 2].into_iter().zip(held) {
        // A blob whose put was killed between flush and rename is added at the start.
        let now = blobs(&cluster.members[index].data_dir.join("blobs"));
        assert!(now.is_superset(&held), "m{} has deleted {:?}", index + 1, held.difference(&now));
    }

    cluster.restart(&[0]).await;
    cluster.ready_with(&[0, 1, 2]).await;
    // A member of the old cluster that still has its log is refused.
    cluster.restart(&[3]).await;
    logged(&cluster, 3, "not introduced", "recover --forget-log").await;
    cluster.ready_with(&[0, 1, 2]).await;
    cluster.kill(&[3]);
    recover(&cluster.members[3].data_dir, &["--forget-log", "--yes"]).unwrap();
    cluster.restart(&[3]).await;
    cluster.ready().await;

    files.verify(&cluster).await;
    let Ok(ControlReply::Jobs(jobs)) = cluster.client().control(ControlRequest::Jobs(None)).await else {
        cluster.fail("no jobs")
    };
    let [job] = &jobs[..] else { cluster.fail(&format!("{jobs:?}")) };
    cluster.finished(job.id, JOB_LIMIT).await;
    cluster.all_results(job.id, QUERIES).await;
    let late = GetItem { name: name("late/0500"), target: cluster.scratch("late") };
    let error = cluster.files().get_files(vec![late], &idunno_shared::client::files::NoProgress).await;
    assert!(error.unwrap_err().to_string().contains("late/0500"), "it came after the backup");
}

/// What the introducer's file holds.
fn founder(cluster: &LocalCluster) -> Result<String, String> {
    let text = std::fs::read_to_string(cluster.introducer.data_dir.join("introducer.json"));
    let text = text.map_err(|error| error.to_string())?;
    text.lines().find(|line| line.contains("founder")).map(str::to_owned).ok_or(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_member_that_starts_first_does_not_keep_the_introducer_for_the_lost_cluster() {
    let _turn = heavy().await;
    let mut cluster = LocalCluster::start(3, false).await;
    let files = Expected::small("kept", 0..10);
    files.put(&cluster).await;
    let lost = founder(&cluster).unwrap();
    cluster.kill(&[0, 1, 2]);
    recover(&cluster.members[0].data_dir, &["--yes"]).unwrap();
    recover(&cluster.members[1].data_dir, &["--forget-log", "--yes"]).unwrap();
    cluster.introducer.reap();
    std::fs::remove_file(cluster.introducer.data_dir.join("introducer.json")).unwrap();
    cluster.introducer.spawn();
    cluster.introducer.started().await;

    cluster.restart(&[2]).await;
    cluster
        .eventually("the old member tells the introducer of its cluster", SOON, async || {
            let now = founder(&cluster)?;
            if now == lost { Ok(()) } else { Err(now) }
        })
        .await;
    cluster.restart(&[0]).await;
    cluster
        .eventually("the introducer serves the recovered cluster", SOON, async || {
            let now = founder(&cluster)?;
            if now == lost { Err(now) } else { Ok(()) }
        })
        .await;
    logged(&cluster, 2, "not introduced", "recover --forget-log").await;
    cluster.restart(&[1]).await;
    cluster.ready_with(&[0, 1]).await;
    cluster.kill(&[2]);
    recover(&cluster.members[2].data_dir, &["--forget-log", "--yes"]).unwrap();
    cluster.restart(&[2]).await;
    cluster.ready().await;
    files.verify(&cluster).await;
}
