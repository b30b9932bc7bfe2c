//! Measures failover: how long a killed member delays work. A test run kills once of each kind; at length:
//! `IDUNNO_FIGURE_RUNS=100 cargo test -p idunno-tests --test cluster failover_figures -- --nocapture`.
//!
//! Ten members work on jobs of one query a batch. In turn the coordinator and another worker are killed with SIGKILL at
//! a random moment, and started again. What is measured ends with the line that the coordinator logs as it grants.

use std::time::{Duration, SystemTime};

use crate::failover::{start, working_cluster};
use crate::harness::log_times::{since_epoch, summary};
use crate::harness::{SOON, SlowServer, heavy};

const MEMBERS: usize = 10;
const QUERIES: u64 = 1_500;

#[tokio::test(flavor = "multi_thread")]
async fn failover_figures() {
    let _turn = heavy().await;
    let runs = runs().unwrap_or(1);
    let server = SlowServer::start(Duration::from_millis(150)).await;
    let mut cluster = working_cluster(MEMBERS, &server, QUERIES).await;
    let (mut failovers, mut releases) = (Vec::new(), Vec::new());
    let mut job = start(&cluster).await;
    for run in 0..2 * runs {
        if cluster.job(job).await.unwrap().done > QUERIES / 2 {
            job = start(&cluster).await;
        }
        let done = cluster.job(job).await.unwrap().done;
        cluster.midway(job, done + 30).await;
        // The death may fall anywhere between two heartbeats.
        let phase = Duration::from_millis(u64::from(since_epoch(SystemTime::now()).subsec_millis() % 500));
        tokio::time::sleep(phase).await;
        let (coordinator, _) = cluster.coordinator().await;
        let is_failover = run % 2 == 0;
        let killed = if is_failover { coordinator } else { (coordinator + 1) % MEMBERS };
        let line = if is_failover { "the first lease of the term" } else { "leased again" };
        let at = SystemTime::now();
        cluster.kill(&[killed]);
        let waited = cluster
            .eventually(line, SOON, async || {
                cluster.first_logged(line, at).ok_or_else(|| String::from("not logged"))
            })
            .await;
        if is_failover { &mut failovers } else { &mut releases }.push(waited);
        cluster.restart(&[killed]).await;
        cluster.ready().await;
    }
    println!("{}", summary("SIGKILL of the coordinator to the next lease granted", &mut failovers));
    println!("{}", summary("SIGKILL of a worker to its batch leased again", &mut releases));
}

/// How often everything is to be measured, if this is about figures.
pub(crate) fn runs() -> Option<usize> {
    std::env::var("IDUNNO_FIGURE_RUNS").ok().map(|runs| runs.parse().unwrap())
}
