//! Without a majority of voters, changes are refused.

use std::time::{Duration, Instant};

use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::files::{NoProgress, PutOptions};
use idunno_shared::wire::control::{Change, ControlRequest};
use idunno_shared::wire::refusal::RefusalCode;

use crate::harness::{Expected, LocalCluster, SOON, heavy, name};

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_refuses_changes_and_says_why() {
    const PATIENCE: Duration = Duration::from_secs(4);
    let _turn = heavy().await;
    let mut cluster = LocalCluster::start(5, false).await;
    let before = Expected::small("before", 0..10);
    before.put(&cluster).await;
    let revision = cluster.revision().await;

    // The coordinator survives, and must notice by itself that it has no majority.
    let (coordinator, _) = cluster.coordinator().await;
    let killed: Vec<usize> = (1..=3).map(|step| (coordinator + step) % 5).collect();
    cluster.kill(&killed);
    let left = cluster.up();
    cluster
        .eventually("no member coordinates", SOON, async || match cluster.who_coordinates(&left).await[..] {
            [] => Ok(()),
            ref some => Err(format!("{some:?}")),
        })
        .await;

    let client = cluster.client().with_deadline(PATIENCE);
    let asked = Instant::now();
    let error = client.change(Change::Delete { name: name("before/0001") }).await.unwrap_err();
    let waited = asked.elapsed();
    println!("refused after {waited:?}: {error}");
    assert!(waited < PATIENCE + Duration::from_secs(1), "it took {waited:?}: {error}");
    let clear = match &error {
        ClusterError::Unreachable { last, .. } => last.contains("majority"),
        ClusterError::Refused(refusal) => refusal.code == RefusalCode::NoQuorum,
        ClusterError::Untrusted(_) | ClusterError::Unexpected { .. } => false,
    };
    assert!(clear, "the error does not name the cause: {error}");
    for &index in &left {
        let address = cluster.members[index].address();
        let error = client.ask_member(address, ControlRequest::Models).await.unwrap_err();
        assert!(error.to_string().contains("coordinat"), "{}: {error}", cluster.members[index].name);
    }
    let late = Expected::small("late", 50..52);
    let files = idunno_shared::client::files::Files::new(client);
    let put = files.put_files(late.write_local(&cluster), PutOptions::default(), &NoProgress).await;
    assert!(put.is_err(), "{put:?}");

    cluster.restart(&killed).await;
    cluster.ready().await;
    before.verify(&cluster).await;
    assert!(late.located(&cluster).await.is_err(), "a refused put became visible");
    let now = cluster.revision().await;
    println!("revision {revision} before, {now} after");
    late.put(&cluster).await;
    late.verify(&cluster).await;
}
