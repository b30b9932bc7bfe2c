//! A few real members among hundreds of fake ones: connections stay few, no member is dialled repeatedly, and deaths of any
//! member are detected.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use idunno_shared::ids::NodeId;
use idunno_shared::security::Credentials;
use idunno_shared::security::secret::Secret;
use idunno_shared::wire::control::{Liveness, LogRole};
use tokio::time::sleep;

use crate::fake_member::{Crowd, FakeMember};
use crate::harness::{LocalCluster, heavy, with_liveness};
use crate::process_figures::{ProcessFigures, failed_dials};
use crate::size::sized;

/// In the short and in the long form.
const FAKES: (usize, usize) = (600, 1_000);
/// Seven voters and two spares: no fake is needed as a voter.
const MEMBERS: usize = 9;
const VOTERS: usize = 7;
const LISTED_WITHIN: Duration = Duration::from_secs(60);
const STEADY: Duration = Duration::from_secs(15);
/// Sockets of a member that is not a voter: to the voters, from the coordinator, for lists and blobs, and listeners.
const SPARE_SOCKETS_MAX: usize = 40;
/// Sockets of a voter beyond one from each member: consensus, calls, lists and blobs.
const VOTER_SOCKETS_MAX: usize = 80;
/// Connections per second that all fakes together may accept in a steady cluster: lists are compared periodically.
const STEADY_DIALS_PER_SECOND_MAX: usize = 10;
/// Failed dials to each dead member: each voter dials up to three times, and callers dial too.
const DIALS_PER_DEATH_MAX: u64 = 40;
/// Percent of one core, in a debug build.
const CPU_PERCENT_MAX: f64 = 60.0;

/// Waits until these real members list exactly these fakes as alive, and returns how long it took.
async fn listed(cluster: &LocalCluster, by: &BTreeSet<usize>, fakes: &[FakeMember]) -> Duration {
    let wanted: BTreeSet<NodeId> = fakes.iter().map(|fake| fake.record().id).collect();
    let real: BTreeSet<NodeId> = cluster.up().into_iter().map(|index| cluster.node(index)).collect();
    let started = Instant::now();
    cluster
        .eventually("the fakes that live are listed, and no other", LISTED_WITHIN, async || {
            for &index in by {
                let list = cluster.list_of(index).await?;
                let alive: BTreeSet<NodeId> =
                    with_liveness(&list, Liveness::Alive).filter(|id| !real.contains(id)).collect();
                if alive != wanted {
                    let name = &cluster.members[index].name;
                    return Err(format!("{name} lists {} of {} fakes", alive.len(), wanted.len()));
                }
            }
            Ok(())
        })
        .await;
    started.elapsed()
}

/// Measures a steady cluster for a while, prints the figures, and checks their bounds.
async fn steady(cluster: &LocalCluster, crowd: &Crowd, fakes: usize, voters: &BTreeSet<usize>) {
    let before: Vec<_> = cluster.members.iter().map(ProcessFigures::of).collect();
    let accepted = crowd.accepted.load(Ordering::Relaxed);
    sleep(STEADY).await;
    let accepted = crowd.accepted.load(Ordering::Relaxed) - accepted;
    let per_second = accepted as f64 / STEADY.as_secs_f64();
    println!("{fakes} fakes accepted {accepted} connections in {STEADY:?} ({per_second:.1} a second)");
    let (coordinator, _) = cluster.coordinator().await;
    for (index, before) in before.iter().enumerate() {
        let now = ProcessFigures::of(&cluster.members[index]);
        let cpu = now.cpu_percent_since(before);
        let (role, sockets_max) = match (index == coordinator, voters.contains(&index)) {
            // The coordinator calls every member too.
            (true, _) => ("coordinator", 2 * fakes + VOTER_SOCKETS_MAX),
            (false, true) => ("voter", fakes + VOTER_SOCKETS_MAX),
            (false, false) => ("spare", SPARE_SOCKETS_MAX),
        };
        let (name, ProcessFigures { sockets, resident_mib, .. }) = (&cluster.members[index].name, now);
        println!("{name} ({role}): {sockets} sockets, {cpu:.1} % of a core, {resident_mib} MiB resident");
        assert!(sockets <= sockets_max, "{name}: {sockets} sockets, {sockets_max} at most");
        assert!(cpu <= CPU_PERCENT_MAX, "{name} uses {cpu:.1} % of a core");
    }
    assert!(
        accepted <= STEADY_DIALS_PER_SECOND_MAX * usize::try_from(STEADY.as_secs()).unwrap(),
        "{accepted} connections in {STEADY:?} in a steady cluster"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_members_are_dialled_no_more_than_needed() {
    let _turn = heavy().await;
    let count = sized(FAKES.0, FAKES.1);
    let cluster = LocalCluster::start(MEMBERS, false).await;
    let voting = cluster.list_of(0).await.unwrap();
    let voting = voting.iter().filter(|member| matches!(member.role, LogRole::Voter | LogRole::Coordinator));
    let voters: BTreeSet<usize> = voting.map(|member| cluster.index_of(member.id)).collect();
    assert_eq!(voters.len(), VOTERS);
    let voter_addresses: Vec<_> = voters.iter().map(|&index| cluster.members[index].address()).collect();

    let credentials = Credentials::of_member(Secret::load(&cluster.secret()).unwrap()).unwrap();
    let (listed_fakes, none) = (std::sync::Mutex::default(), || std::sync::atomic::AtomicUsize::new(0));
    let crowd = Arc::new(Crowd { credentials, listed: listed_fakes, accepted: none(), contradicted: none() });
    let mut fakes = Vec::new();
    for number in 0..count {
        fakes.push(FakeMember::start(&crowd, number).await);
    }
    *crowd.listed.lock().unwrap() = fakes.iter().map(FakeMember::record).collect();
    // Fakes do not gossip, so each member gets the list once.
    for (fake, member) in fakes.iter().zip(&cluster.members) {
        fake.join(member.address()).await.unwrap_or_else(|error| cluster.fail(&error));
    }
    let all: BTreeSet<usize> = cluster.up().into_iter().collect();
    println!("{count} fakes were listed by all after {:?}", listed(&cluster, &all, &fakes).await);
    let keeping = Instant::now();
    for fake in &mut fakes {
        fake.keep(&voter_addresses).await;
    }
    println!("each kept a connection to {VOTERS} voters after {:?}", keeping.elapsed());
    // Connections opened on demand during the join are idle by then.
    sleep(Duration::from_secs(10)).await;
    steady(&cluster, &crowd, count, &voters).await;

    let (failed, accepted) = (failed_dials(), crowd.accepted.load(Ordering::Relaxed));
    let dead = fakes.split_off(count - count / 3);
    *crowd.listed.lock().unwrap() = fakes.iter().map(FakeMember::record).collect();
    let deaths = dead.len() as u64;
    drop(dead);
    // The others learn of it by rumours, of which few reach them: fakes pass none on.
    println!("{deaths} deaths were known to all voters after {:?}", listed(&cluster, &voters, &fakes).await);
    sleep(Duration::from_secs(5)).await;
    let failed = failed_dials() - failed;
    let dialled = crowd.accepted.load(Ordering::Relaxed) - accepted;
    println!("{failed} dials were refused meanwhile, and the live fakes accepted {dialled} connections");
    assert!(failed <= DIALS_PER_DEATH_MAX * deaths, "{failed} dials to {deaths} dead members");
    assert!(dialled <= count, "{dialled} connections to members that did not change");
    steady(&cluster, &crowd, fakes.len(), &voters).await;
    println!("{} suspicions were contradicted", crowd.contradicted.load(Ordering::Relaxed));
    assert_eq!(cluster.who_coordinates(&cluster.up()).await.len(), 1);
}
