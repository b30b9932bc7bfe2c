//! Members that leave and rejoin, also without the introducer.

use std::time::Duration;

use idunno_shared::wire::control::{ControlReply, ControlRequest, Liveness};

use crate::harness::{Expected, LocalCluster, SOON, heavy};

/// Waits until all others list the member in this state.
async fn listed(cluster: &LocalCluster, index: usize, liveness: Liveness) {
    let (node, member) = (cluster.node(index), &cluster.members[index].name);
    let others: Vec<usize> = cluster.up().into_iter().filter(|&other| other != index).collect();
    cluster
        .eventually(&format!("{member} is listed as {liveness:?}"), SOON, async || {
            for &other in &others {
                let list = cluster.list_of(other).await?;
                let row = list.iter().find(|row| row.id == node);
                if row.is_none_or(|row| row.liveness != liveness) {
                    return Err(format!("{}: {row:?}", cluster.members[other].name));
                }
            }
            Ok(())
        })
        .await;
}

async fn tell(cluster: &LocalCluster, index: usize, request: ControlRequest) {
    let reply = cluster.client().ask_member(cluster.members[index].address(), request.clone()).await;
    assert!(matches!(reply, Ok(ControlReply::Done)), "{request:?}: {reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_leaves_and_joins_again() {
    let _turn = heavy().await;
    let cluster = LocalCluster::start(5, false).await;
    let expected = Expected::small("kept", 0..30);
    expected.put(&cluster).await;

    // The coordinator itself, which has to step down.
    let (leaver, _) = cluster.coordinator().await;
    tell(&cluster, leaver, ControlRequest::Leave).await;
    listed(&cluster, leaver, Liveness::Left).await;
    assert!(!cluster.identity_of(leaver).await.unwrap().joined);
    let error = cluster.client().ask_member(cluster.members[leaver].address(), ControlRequest::Leave).await;
    assert!(error.unwrap_err().to_string().contains("left"), "leaving twice is refused");
    let others: Vec<usize> = cluster.up().into_iter().filter(|&index| index != leaver).collect();
    cluster
        .eventually("another member coordinates", SOON, async || {
            match cluster.who_coordinates(&others).await[..] {
                [(successor, _)] if successor != leaver => Ok(()),
                ref other => Err(format!("{other:?}")),
            }
        })
        .await;
    expected.verify(&cluster).await;

    tell(&cluster, leaver, ControlRequest::Join).await;
    cluster.ready().await;
    assert!(cluster.identity_of(leaver).await.unwrap().joined);
    expected.verify(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_stops_gracefully_and_rejoins_without_the_introducer() {
    let _turn = heavy().await;
    let mut cluster = LocalCluster::start(4, false).await;
    let (coordinator, _) = cluster.coordinator().await;
    let stopped = (coordinator + 1) % 4;
    let before = cluster.identity_of(stopped).await.unwrap().member;
    let status = cluster.stop(stopped, Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0), "{}", cluster.members[stopped].log_tail());
    listed(&cluster, stopped, Liveness::Left).await;
    cluster.restart(&[stopped]).await;
    cluster.ready().await;
    let after = cluster.identity_of(stopped).await.unwrap().member;
    assert_eq!((after.id, after.address), (before.id, before.address));
    assert_eq!(after.generation, before.generation + 1);

    // Without the introducer, remembered peers suffice.
    cluster.introducer.reap();
    let killed = (coordinator + 2) % 4;
    cluster
        .eventually("its peers are remembered", SOON, async || {
            let text = std::fs::read_to_string(cluster.members[killed].data_dir.join("peers.json"));
            let peers = text.unwrap_or_default().matches("127.0.0.1").count();
            if peers == 3 { Ok(()) } else { Err(format!("{peers} peers of 3")) }
        })
        .await;
    cluster.kill(&[killed]);
    cluster.restart(&[killed]).await;
    cluster.ready().await;

    // The coordinator stops gracefully too.
    let (coordinator, term) = cluster.coordinator().await;
    let status = cluster.stop(coordinator, Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0), "{}", cluster.members[coordinator].log_tail());
    listed(&cluster, coordinator, Liveness::Left).await;
    let (_, next) = cluster.coordinator().await;
    assert!(next > term);
}
