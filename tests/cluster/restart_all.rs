//! A power cut: every process is killed at the same moment, and all are restarted.

use std::time::Duration;

use idunno_shared::wire::control::JobState;

use crate::harness::{Expected, LocalCluster, dataset, heavy, put_dataset};

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_loses_nothing_acknowledged() {
    let _turn = heavy().await;
    let mut cluster = LocalCluster::start(3, true).await;
    let expected = Expected::small("kept", 0..40);
    expected.put(&cluster).await;
    put_dataset(&cluster, &dataset("digits", 60).await, "few").await;
    put_dataset(&cluster, &dataset("digits", 2000).await, "many").await;
    cluster.train(&["mnist-mlp"]).await;
    let finished = cluster.add_job("mnist-mlp", "few", 8).await;
    let submitted = cluster.start_job(finished).await;
    cluster.finished(finished, Duration::from_secs(30)).await;
    let rows = cluster.all_results(finished, submitted).await;

    let unfinished = cluster.add_job("mnist-mlp", "many", 2).await;
    assert_eq!(cluster.start_job(unfinished).await, 2000);
    let before = cluster.midway(unfinished, 1).await;
    let all = cluster.up();
    cluster.kill(&all);
    cluster.introducer.reap();
    cluster.introducer.spawn();
    cluster.introducer.started().await;
    cluster.restart(&all).await;
    cluster.ready().await;

    expected.verify(&cluster).await;
    let kept = cluster.job(finished).await.unwrap();
    assert_eq!((kept.state, kept.done, kept.dead), (JobState::Done, submitted, 0));
    assert_eq!(cluster.all_results(finished, submitted).await, rows);
    let after = cluster.job(unfinished).await.unwrap();
    assert!(after.done >= before.done, "answers were lost: {} then {}", before.done, after.done);
    let end = cluster.finished(unfinished, Duration::from_secs(60)).await;
    assert_eq!((end.done, end.dead), (2000, 0), "{end:?}");
    cluster.all_results(unfinished, 2000).await;
}
