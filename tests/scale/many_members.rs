//! Sixty real members on one machine: they join, lose a third at one moment, and form one cluster again.

use std::time::{Duration, Instant};

use idunno_shared::wire::control::{Liveness, LogRole};
use rustix::process::Signal;

use crate::harness::{LocalCluster, heavy, with_liveness};
use crate::process_figures::ProcessFigures;

const MEMBERS: usize = 60;
const KILLED: usize = 20;
const VOTERS: usize = 7;
const READY_WITHIN: Duration = Duration::from_secs(90);
/// Connections opened on demand, to join and to compare lists, are idle and closed by then.
const SETTLED_WITHIN: Duration = Duration::from_secs(90);
/// Sockets of a member that is not a voter, once those have closed.
const SPARE_SOCKETS_MAX: usize = 40;
/// Sockets of a voter: from each member, to each member at the coordinator, and a few others.
const VOTER_SOCKETS_MAX: usize = 2 * MEMBERS + 60;

/// Counts and prints the sockets of voters and of others; an error if one has too many.
fn check_sockets(cluster: &LocalCluster, voters: &[usize]) -> Result<String, String> {
    let (mut of_voters, mut of_others, mut resident_mib) = (Vec::new(), Vec::new(), 0);
    let mut too_many = None;
    for index in cluster.up() {
        let figures = ProcessFigures::of(&cluster.members[index]);
        resident_mib = resident_mib.max(figures.resident_mib);
        let is_voter = voters.contains(&index);
        let (sockets, sockets_max) =
            if is_voter { (&mut of_voters, VOTER_SOCKETS_MAX) } else { (&mut of_others, SPARE_SOCKETS_MAX) };
        sockets.push(figures.sockets);
        if figures.sockets > sockets_max {
            let (name, sockets) = (&cluster.members[index].name, figures.sockets);
            too_many = Some(format!("{name} has {sockets} sockets, {sockets_max} at most"));
        }
    }
    let range =
        |sockets: &[usize]| format!("{} to {}", sockets.iter().min().unwrap(), sockets.iter().max().unwrap());
    let text = format!(
        "sockets of voters: {}; of others: {}; at most {resident_mib} MiB resident",
        range(&of_voters),
        range(&of_others)
    );
    too_many.map_or(Ok(text), Err)
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
    println!("{:?}", check_sockets(&cluster, &voters));

    let spares = cluster.up().into_iter().filter(|index| !voters.contains(index));
    let killed: Vec<usize> = spares.take(KILLED).collect();
    let up: Vec<usize> = cluster.up().into_iter().filter(|index| !killed.contains(index)).collect();
    // The processes are waited for later: one that is within a flush of a busy disk ends behind it.
    killed.iter().for_each(|&index| cluster.members[index].signal(Signal::KILL));
    let died = Instant::now();
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
    cluster.kill(&killed);
    assert_eq!(cluster.who_coordinates(&voters).await.len(), 1);
    let settled = cluster
        .eventually("only the connections that are needed stay", SETTLED_WITHIN, async || {
            check_sockets(&cluster, &voters)
        })
        .await;
    println!("{settled}, {:?} after the deaths", died.elapsed());
}
