//! Sixty real members on one machine: they join, lose a third at one moment, and are one cluster again.

use std::time::{Duration, Instant};

use idunno_shared::wire::control::{Liveness, LogRole};

use crate::harness::{LocalCluster, heavy, with_liveness};
use crate::process_figures::ProcessFigures;

const MEMBERS: usize = 60;
const KILLED: usize = 20;
const VOTERS: usize = 7;
const READY_WITHIN: Duration = Duration::from_secs(90);
/// Sockets of a member that is no voter, while lists are still being compared.
const SPARE_SOCKETS_MAX: usize = 70;
/// Sockets of a voter: from and, at the coordinator, to each member, and those beside.
const VOTER_SOCKETS_MAX: usize = 2 * MEMBERS + 80;

/// Prints and checks how many sockets voters and spares have.
fn check_sockets(cluster: &LocalCluster, voters: &[usize]) {
    let (mut of_voters, mut of_spares, mut resident_mib) = (Vec::new(), Vec::new(), 0);
    for index in cluster.up() {
        let figures = ProcessFigures::of(&cluster.members[index]);
        resident_mib = resident_mib.max(figures.resident_mib);
        let is_voter = voters.contains(&index);
        if is_voter {
            of_voters.push(figures.sockets)
        } else {
            of_spares.push(figures.sockets)
        }
        let sockets_max = if is_voter { VOTER_SOCKETS_MAX } else { SPARE_SOCKETS_MAX };
        let (name, sockets) = (&cluster.members[index].name, figures.sockets);
        assert!(sockets <= sockets_max, "{name} has {sockets} sockets, {sockets_max} at most");
    }
    let range = |sockets: &[usize]| format!("{:?} to {:?}", sockets.iter().min(), sockets.iter().max());
    println!(
        "sockets of voters: {}; of others: {}; at most {resident_mib} MiB resident",
        range(&of_voters),
        range(&of_spares)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_members_lose_twenty_at_once_and_heal() {
    let _turn = heavy().await;
    let started = Instant::now();
    let mut cluster = LocalCluster::launch(MEMBERS, false).await;
    println!("{MEMBERS} members listened {:?} after the first was started", started.elapsed());
    cluster.ready_within(&cluster.up(), READY_WITHIN).await;
    println!("and were one cluster after {:?}", started.elapsed());
    let list = cluster.list_of(0).await.unwrap();
    let voting = list.iter().filter(|member| matches!(member.role, LogRole::Voter | LogRole::Coordinator));
    let voters: Vec<usize> = voting.map(|member| cluster.index_of(member.id)).collect();
    assert_eq!(voters.len(), VOTERS);
    check_sockets(&cluster, &voters);

    let spares = cluster.up().into_iter().filter(|index| !voters.contains(index));
    let killed: Vec<usize> = spares.take(KILLED).collect();
    cluster.kill(&killed);
    let died = Instant::now();
    let up = cluster.up();
    cluster
        .eventually("a survivor knows of all deaths", READY_WITHIN, async || {
            let list = cluster.list_of(up[0]).await?;
            let alive = with_liveness(&list, Liveness::Alive).count();
            if alive == up.len() { Ok(()) } else { Err(format!("{alive} of {} are alive", up.len())) }
        })
        .await;
    println!("one survivor knew of {KILLED} deaths after {:?}", died.elapsed());
    cluster.ready_within(&up, READY_WITHIN).await;
    println!("all agreed after {:?}", died.elapsed());
    assert_eq!(cluster.who_coordinates(&voters).await.len(), 1);
    check_sockets(&cluster, &voters);
}
