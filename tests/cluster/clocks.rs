//! Members whose wall clocks are wrong.

use std::time::Duration;

use crate::harness::{Expected, LocalCluster, heavy};

const DAY_S: i64 = 24 * 3_600;
/// Members compare their clocks with each list that they exchange, every 15 s.
const NOTICED: Duration = Duration::from_secs(90);

/// Waits until a client that comes now finds another coordinator than `old`.
async fn another_coordinates(cluster: &LocalCluster, old: usize, term: u64) {
    cluster
        .eventually("another member coordinates", NOTICED, async || {
            let others: Vec<usize> = cluster.up().into_iter().filter(|&index| index != old).collect();
            let found = cluster.who_coordinates(&others).await;
            if found.iter().any(|&(_, new)| new > term) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_clients_refuse_for_its_clock_steps_down() {
    let _turn = heavy().await;
    let cluster = LocalCluster::start(5, false).await;
    let mut expected = Expected::small("before", 0..20);
    expected.put(&cluster).await;
    // Ahead, all others refuse its certificate; behind, it refuses theirs.
    for (number, ahead_s) in [(1, 400 * DAY_S), (2, -400 * DAY_S)] {
        let (old, term) = cluster.coordinator().await;
        cluster.members[old].set_clock_ahead_s(ahead_s);
        another_coordinates(&cluster, old, term).await;
        let log = cluster.members[old].log();
        let line = log.lines().find(|line| line.contains("it steps down"));
        let line =
            line.unwrap_or_else(|| cluster.fail("the old coordinator does not say why it stepped down"));
        assert!(line.contains("ahead_s="), "{line}");
        let more = Expected::small(&format!("meanwhile-{number}"), 0..20);
        more.put(&cluster).await;
        expected.0.extend(more.0);
        cluster.members[old].set_clock_ahead_s(0);
        cluster.ready_within(&cluster.up(), NOTICED).await;
        expected.verify(&cluster).await;
    }
}
