//! Two jobs of different cost share the workers by the rate of their queries.

use std::time::{Duration, Instant};

use idunno_shared::client::files::{NoProgress, PutItem, PutOptions};
use idunno_shared::ids::JobId;
use idunno_shared::wire::control::Change;
use tokio::time::sleep_until;

use crate::harness::{LocalCluster, dataset, heavy, name};

/// Answers reach the log in segments, a second apart; the jobs have had time to show their cost by then.
const WARM_UP: Duration = Duration::from_secs(12);
const MEASURED: Duration = Duration::from_secs(10);

/// More queries than the measured time can answer, from few different photos.
async fn put_photos(cluster: &LocalCluster, prefix: &str, queries: usize) {
    let dir = dataset("photos", 100).await;
    let entries = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let photos: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "jpg")).collect();
    let item = |number: usize| PutItem {
        name: name(&format!("{prefix}/{number:05}.jpg")),
        path: photos[number % photos.len()].clone(),
    };
    let put =
        cluster.files().put_files((0..queries).map(item).collect(), PutOptions::default(), &NoProgress).await;
    put.unwrap_or_else(|error| cluster.fail(&format!("put: {error}")));
}

async fn done(cluster: &LocalCluster, jobs: [JobId; 2]) -> ([f64; 2], Instant) {
    let mut done = [0.0; 2];
    for (done, job) in done.iter_mut().zip(jobs) {
        let view = cluster.job(job).await.unwrap();
        assert!(view.done + view.dead < view.submitted, "{job} ran out of work: {view:?}");
        println!("{job} {}: {} done, {:.1}/s shown", view.model, view.done, view.rate_10s_qps);
        *done = view.done as f64;
    }
    (done, Instant::now())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_jobs_of_different_cost_have_the_same_rate() {
    let _turn = heavy().await;
    let cluster = LocalCluster::start(3, true).await;
    put_photos(&cluster, "photos", 4000).await;
    cluster.train(&["squeezenet1.1", "efficientnet-lite2"]).await;
    let cheap = cluster.add_job("squeezenet1.1", "photos", 8).await;
    let dear = cluster.add_job("efficientnet-lite2", "photos", 8).await;
    cluster.start_job(cheap).await;
    cluster.start_job(dear).await;

    let start = tokio::time::Instant::now();
    sleep_until(start + WARM_UP).await;
    let (before, from) = done(&cluster, [cheap, dear]).await;
    sleep_until(start + WARM_UP + MEASURED).await;
    let (after, to) = done(&cluster, [cheap, dear]).await;
    let seconds = to.duration_since(from).as_secs_f64();
    let [cheap_qps, dear_qps] = [0, 1].map(|job: usize| (after[job] - before[job]) / seconds);
    println!("squeezenet1.1 {cheap_qps:.1}/s, efficientnet-lite2 {dear_qps:.1}/s over {seconds:.1} s");
    let gap = (cheap_qps - dear_qps).abs() / cheap_qps.max(dear_qps);
    assert!(gap <= 0.2, "the rates differ by {:.0} %\n{}", gap * 100.0, cluster.log_tails());
    for job in [cheap, dear] {
        cluster.change(Change::StopJob { job }).await;
    }
}
