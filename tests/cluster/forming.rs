//! Members form a cluster, also while the introducer is down.

use std::time::{Duration, Instant};

use idunno_shared::wire::control::{Liveness, LogRole};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::backup::idunno;
use crate::harness::{LocalCluster, SOON, heavy, light, with_liveness};
use crate::recovery::logged;

#[tokio::test(flavor = "multi_thread")]
async fn seven_members_form_a_cluster() {
    let _turn = heavy().await;
    let start = Instant::now();
    let cluster = LocalCluster::start(7, false).await;
    println!("seven members were ready {:?} after the first was started", start.elapsed());

    let first = cluster.list_of(0).await.unwrap();
    for index in cluster.up() {
        let list = cluster.list_of(index).await.unwrap();
        let rows = |list: &[idunno_shared::wire::control::MemberView]| {
            list.iter()
                .map(|m| (m.id, m.name.clone(), m.address, m.generation, m.liveness, m.role))
                .collect::<Vec<_>>()
        };
        assert_eq!(rows(&list), rows(&first), "the lists of m1 and {}", cluster.members[index].name);
        assert_eq!(list.len(), 7);
        let me = list.iter().find(|member| member.id == cluster.node(index)).unwrap();
        assert_eq!(me.name.as_str(), cluster.members[index].name);
        assert_eq!(me.address, cluster.members[index].address());
    }
    let role = |role| first.iter().filter(|member| member.role == role).count();
    assert_eq!((role(LogRole::Coordinator), role(LogRole::Voter)), (1, 6));
    assert_eq!(cluster.who_coordinates(&cluster.up()).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_waits_for_its_introducer() {
    let _turn = light().await;
    let mut cluster = LocalCluster::start(2, false).await;
    cluster.introducer.reap();
    // A listener in its place only accepts connections.
    let introducer = cluster.introducer.address();
    let listener = TcpListener::bind(introducer).await.unwrap();

    let newcomer = cluster.new_member("m3", introducer, false);
    cluster.members.push(newcomer);
    cluster.restart(&[2]).await;
    for _ in 0..3 {
        let attempt = timeout(SOON, listener.accept()).await;
        attempt.unwrap_or_else(|_| cluster.fail("the new member does not retry")).unwrap();
    }
    drop(listener);
    assert_eq!(cluster.list_of(2).await.unwrap().len(), 1);
    assert_eq!(with_liveness(&cluster.list_of(0).await.unwrap(), Liveness::Alive).count(), 2);

    cluster.introducer.spawn();
    cluster.introducer.started().await;
    let back = Instant::now();
    cluster.ready().await;
    assert!(
        back.elapsed() < Duration::from_secs(15),
        "it joined only {:?} after the introducer",
        back.elapsed()
    );

    // It loses its file, and learns the founder again before the next new member arrives.
    cluster.introducer.reap();
    let file = cluster.introducer.data_dir.join("introducer.json");
    let founder = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["founder"].clone();
    let before = founder(&std::fs::read_to_string(&file).unwrap());
    std::fs::remove_file(&file).unwrap();
    cluster.introducer.spawn();
    cluster.introducer.started().await;
    cluster
        .eventually("the introducer knows the founder again", SOON, async || {
            let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
            if founder(&text) == before { Ok(()) } else { Err(text) }
        })
        .await;
    let newcomer = cluster.new_member("m4", introducer, false);
    cluster.members.push(newcomer);
    cluster.restart(&[3]).await;
    cluster.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_of_one_name_are_told_by_the_log_and_by_list_mem_and_status() {
    let _turn = light().await;
    let mut cluster = LocalCluster::start(2, false).await;
    let mut namesake = cluster.new_member("m1", cluster.introducer.address(), false);
    namesake.data_dir = cluster.path().join("another");
    cluster.members.push(namesake);
    cluster.restart(&[2]).await;
    cluster.ready().await;
    for index in cluster.up() {
        logged(&cluster, index, "two members have one name", "m1").await;
    }
    for command in ["list_mem", "status"] {
        let text = idunno(&cluster, &[command]).unwrap();
        assert!(text.contains("warning: 2 members are named m1"), "{text}");
    }
}
