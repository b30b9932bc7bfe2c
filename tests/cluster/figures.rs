//! Measures failover: how long a killed member delays work. A test run kills once of each kind; at length:
//! `IDUNNO_FIGURE_RUNS=100 cargo test -p idunno-tests --test cluster failover_figures -- --nocapture`.
//!
//! Ten members work on jobs of one query a batch. In turn the coordinator and another worker are killed with SIGKILL at
//! a random moment, and started again. What is measured ends with the line that the coordinator logs as it grants.

use std::time::{Duration, SystemTime};

use idunno_shared::wire::control::ControlRequest;

use crate::failover::{start, working_cluster};
use crate::harness::log_times::{since_epoch, summary};
use crate::harness::{SOON, SlowServer, heavy};

/// What the members log on the way to the first lease of a term, in order.
const STAGES: [(&str, &str); 5] = [
    ("its death is known", "state=Dead"),
    ("the ring has a winner", "allowed=true"),
    ("the winner is elected", "this member is elected"),
    ("it has committed an entry and opens its term", "this member coordinates"),
    ("it grants a lease", FIRST_LEASE),
];
const FIRST_LEASE: &str = "the first lease of the term";
const MEMBERS: usize = 10;
const QUERIES: u64 = 1_500;

#[tokio::test(flavor = "multi_thread")]
async fn failover_figures() {
    let _turn = heavy().await;
    let runs = runs().unwrap_or(1);
    let server = SlowServer::start(Duration::from_millis(150)).await;
    let mut cluster = working_cluster(MEMBERS, &server, QUERIES).await;
    let (mut failovers, mut releases, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    let mut stages = STAGES.map(|_| Vec::new());
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
        let line = if is_failover { FIRST_LEASE } else { "leased again" };
        // It knows the coordinator, as a client at work does.
        let client = cluster.client();
        client.control(ControlRequest::Models).await.unwrap();
        let at = SystemTime::now();
        cluster.kill(&[killed]);
        client.control(ControlRequest::Models).await.unwrap();
        let answered = at.elapsed().unwrap();
        let waited = cluster
            .eventually(line, SOON, async || {
                cluster.first_logged(line, at).ok_or_else(|| String::from("not logged"))
            })
            .await;
        if is_failover {
            failovers.push(waited);
            answers.push(answered);
            for ((_, line), waits) in STAGES.iter().zip(&mut stages) {
                let logged = cluster.first_logged(line, at);
                waits.push(logged.unwrap_or_else(|| cluster.fail(&format!("'{line}' was not logged"))));
            }
        } else {
            releases.push(waited);
        }
        cluster.restart(&[killed]).await;
        cluster.ready().await;
    }
    for ((stage, _), waits) in STAGES.iter().zip(&mut stages) {
        println!("{}", summary(&format!("SIGKILL of the coordinator until {stage}"), waits));
    }
    println!("{}", summary("SIGKILL of the coordinator to the next lease granted", &mut failovers));
    println!("{}", summary("SIGKILL of the coordinator until a client has its next answer", &mut answers));
    println!("{}", summary("SIGKILL of a worker to its batch leased again", &mut releases));
}

/// How often everything is to be measured, if this is about figures.
pub(crate) fn runs() -> Option<usize> {
    std::env::var("IDUNNO_FIGURE_RUNS").ok().map(|runs| runs.parse().unwrap())
}
