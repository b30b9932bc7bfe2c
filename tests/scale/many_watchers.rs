//! Two hundred jobs and fifty watchers: the coordinator builds one view a period, however many watch, and all of them see
//! the last change.

use std::time::{Duration, Instant};

use idunno_shared::client::cluster::Cluster;
use idunno_shared::wire::control::{Change, ControlReply};
use idunno_shared::wire::frame::Reply;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::harness::{LocalCluster, SOON, heavy};
use crate::size::{figure, sized};

const JOBS: usize = 200;
const WATCHERS: usize = 50;
const WATCHED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// Between two views, by the coordinator's documentation.
const PUSH_PERIOD: Duration = Duration::from_millis(200);
const BUILT: &str = "idunno_views_built_total";

/// Follows the views of a watcher: publishes the revision of the newest one.
async fn follow(client: Cluster, seen: watch::Sender<u64>) {
    let mut views = client.watch().await.unwrap();
    while let Some(Reply::Control(reply)) = views.recv().await {
        if let ControlReply::View(view) = *reply {
            assert_eq!(view.jobs.len(), JOBS);
            seen.send_replace(view.revision);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_watchers_of_two_hundred_jobs_share_their_views() {
    let _turn = heavy().await;
    let cluster = LocalCluster::start_with(3, &["--metrics-listen", "127.0.0.1:0"]).await;
    let mut jobs = Vec::new();
    for _ in 0..JOBS {
        jobs.push(cluster.add_job("mnist-mlp", "inputs", 0).await);
    }
    let (coordinator, term) = cluster.coordinator().await;
    let (mut watchers, mut seen) = (JoinSet::new(), Vec::new());
    for _ in 0..WATCHERS {
        let (newest, receiver) = watch::channel(0);
        watchers.spawn(follow(cluster.client(), newest));
        seen.push(receiver);
    }
    let arriving = Instant::now();
    for receiver in &mut seen {
        tokio::time::timeout(SOON, receiver.wait_for(|revision| *revision > 0)).await.unwrap().unwrap();
    }
    figure("watchers: number, time until each had a view", format!("{WATCHERS}, {:.1?}", arriving.elapsed()));

    let built = cluster.figure(coordinator, BUILT).await.unwrap();
    let (started, mut changes) = (Instant::now(), 0);
    while started.elapsed() < sized(WATCHED.0, WATCHED.1) {
        let job = jobs[changes % JOBS];
        cluster.change(Change::SetWeight { job, weight: 1 + u32::try_from(changes % 7).unwrap() }).await;
        changes += 1;
    }
    let revision = cluster.revision().await;
    for receiver in &mut seen {
        tokio::time::timeout(SOON, receiver.wait_for(|seen| *seen >= revision)).await.unwrap().unwrap();
    }
    let elapsed = started.elapsed();
    let built = cluster.figure(coordinator, BUILT).await.unwrap() - built;
    let periods = elapsed.as_secs_f64() / PUSH_PERIOD.as_secs_f64();
    figure("watchers: changes, views built, periods", format!("{changes}, {built}, {periods:.0}"));
    assert_eq!(cluster.coordinator().await, (coordinator, term), "the coordinator stays");
    assert!(built <= periods + 2.0, "{built} views in {periods:.0} periods for {WATCHERS} watchers");
    watchers.abort_all();
}
