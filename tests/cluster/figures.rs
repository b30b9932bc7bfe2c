//! Measures failover: how long a killed member delays work. A test run kills once of each kind; at length:
//! `IDUNNO_FIGURE_RUNS=100 cargo test -p idunno-tests --test cluster failover_figures -- --nocapture`.
//!
//! Ten members work on jobs of one query a batch. In turn the coordinator and another worker are killed with SIGKILL at
//! a random moment, and started again. What is measured ends with the line that the coordinator logs as it grants.

use std::time::{Duration, SystemTime};

use crate::failover::{start, working_cluster};
use crate::harness::{LocalCluster, SOON, SlowServer, heavy};

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
                first_after(&cluster, line, at).ok_or_else(|| String::from("not logged"))
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

/// How long after `since` a member first logged this.
fn first_after(cluster: &LocalCluster, line: &str, since: SystemTime) -> Option<Duration> {
    let since = since_epoch(since);
    let logs = cluster.up().into_iter().map(|index| cluster.members[index].log());
    let lines = logs.flat_map(|log| {
        log.lines().filter(|logged| logged.contains(line)).filter_map(time_of_day).collect::<Vec<_>>()
    });
    const DAY: u64 = 86_400;
    let begun = Duration::new(since.as_secs() % DAY, since.subsec_nanos());
    // The time of day wraps at midnight.
    let day = Duration::from_secs(DAY);
    let waits = lines.map(|at| if at < begun { at + day } else { at }.saturating_sub(begun));
    waits.filter(|wait| *wait < day / 2).min()
}

fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

/// The time of a log line such as `2026-11-25T10:31:00.123456Z  INFO ...`, since midnight.
fn time_of_day(line: &str) -> Option<Duration> {
    let (_, time) = line.split_once('T')?;
    let (time, _) = time.split_once('Z')?;
    let mut parts = time.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let minutes = hours.parse::<u64>().ok()? * 60 + minutes.parse::<u64>().ok()?;
    Some(Duration::from_secs(minutes * 60) + Duration::from_secs_f64(seconds.parse().ok()?))
}

pub(crate) fn summary(what: &str, waits: &mut [Duration]) -> String {
    waits.sort_unstable();
    let at = |percent: usize| waits[(waits.len() * percent).div_ceil(100).max(1) - 1].as_millis();
    let (median, p99) = (at(50), at(99));
    format!(
        "{what}: median {median} ms, p99 {p99} ms, min {} ms, max {} ms, {} runs",
        at(0),
        at(100),
        waits.len()
    )
}
