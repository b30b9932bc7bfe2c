//! Measures repair: how long until a dead member's copies are replaced, and how reads are affected meanwhile.
//! A test run is short; with 1 GB in 16 files and with 10,000 files of 20 KB:
//! `IDUNNO_FIGURE_RUNS=5 cargo test -p idunno-tests --test cluster re_replication -- --nocapture`.
//!
//! One of seven members, a holder, is killed. Repair starts if it has not returned after ten seconds.

use std::time::{Duration, Instant};

use idunno_shared::client::files::{GetItem, NoProgress};

use crate::figures::runs;
use crate::harness::log_times::summary;
use crate::harness::{Expected, LocalCluster, check_copies, content, heavy, name};

const MEMBERS: usize = 7;
/// Files that are read all the time.
const READ: u64 = 100;
const LIMIT: Duration = Duration::from_secs(180);

/// What was seen of one death.
struct Repair {
    /// From the death to the last copy.
    total: Duration,
    /// From the first copy to the last.
    copying: Duration,
    /// Copied meanwhile.
    bytes: u64,
    gets: Vec<Duration>,
}

#[tokio::test(flavor = "multi_thread")]
async fn re_replication_figures_of_large_files() {
    let (count, bytes) = if runs().is_some() { (16, 64 << 20) } else { (4, 8 << 20) };
    measure(&format!("{count} files of {} MiB", bytes >> 20), count, bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn re_replication_figures_of_small_files() {
    let count = if runs().is_some() { 10_000 } else { 500 };
    measure(&format!("{count} files of 20 KB"), count, 20_000).await;
}

async fn measure(what: &str, count: u64, bytes: usize) {
    let _turn = heavy().await;
    let mut cluster = LocalCluster::start(MEMBERS, false).await;
    let read = Expected::small("read", 1..READ + 1);
    read.put(&cluster).await;
    let mut stored = Expected::default();
    for number in 0..count {
        stored.add(&format!("stored/{number:05}"), content(number + 1_000, bytes));
    }
    assert_eq!(stored.put(&cluster).await.copies_min, 4);
    let mut quiet = gets_during(&cluster, &read, tokio::time::sleep(Duration::from_secs(2))).await;
    println!("{}", summary(&format!("{what}: get of a small file, nothing else going on"), &mut quiet));

    let (mut totals, mut copying, mut gets, mut rates) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 0..runs().unwrap_or(1) {
        let repair = die(&mut cluster, run, &stored, &read).await;
        totals.push(repair.total);
        copying.push(repair.copying);
        gets.extend(repair.gets);
        rates.push(repair.bytes as f64 / repair.copying.as_secs_f64() / 1e6);
    }
    println!("{}", summary(&format!("{what}: from a death to four copies of everything"), &mut totals));
    println!("{}", summary(&format!("{what}: from the first copy to the last"), &mut copying));
    println!("{}", summary(&format!("{what}: get of a small file meanwhile"), &mut gets));
    println!("{what}: copied at {rates:.1?} MB/s");
}

/// Kills a member other than the coordinator, and restarts it once repair is complete.
async fn die(cluster: &mut LocalCluster, run: usize, stored: &Expected, read: &Expected) -> Repair {
    let (coordinator, _) = cluster.coordinator().await;
    let located = stored.located(cluster).await.unwrap();
    let held_by = |member: usize| {
        let node = cluster.node(member);
        let extents = located.iter().flat_map(|version| &version.extents);
        let held = extents.filter(|placed| placed.holders.iter().any(|holder| holder.node == node));
        held.map(|placed| placed.blob.size).sum::<u64>()
    };
    // Of a few large files, a member may hold none.
    let others = (0..MEMBERS - 1).map(|number| (coordinator + 1 + (run + number) % (MEMBERS - 1)) % MEMBERS);
    let mut holders = others.map(|member| (member, held_by(member))).filter(|(_, bytes)| *bytes > 0);
    let (killed, bytes) = holders.next().expect("three others hold copies");
    let died = Instant::now();
    cluster.kill(&[killed]);
    let (mut lacked, mut first) = (false, None);
    let gets = {
        let cluster = &*cluster;
        let repaired = cluster.eventually("four live copies of everything", LIMIT, async || {
            let view = cluster.view().await?;
            let store = view.store;
            if store.copying > 0 {
                first.get_or_insert_with(Instant::now);
            }
            let lacking = store.under_replicated + store.copying + store.unavailable;
            lacked |= lacking > 0;
            if lacked && lacking == 0 { Ok(()) } else { Err(format!("{store:?}")) }
        });
        gets_during(cluster, read, repaired).await
    };
    let repair = Repair {
        total: died.elapsed(),
        copying: first.map_or(Duration::ZERO, |first| first.elapsed()),
        bytes,
        gets,
    };
    cluster.restart(&[killed]).await;
    cluster.ready().await;
    cluster
        .eventually("as many copies as before", LIMIT, async || {
            check_copies(cluster, &stored.located(cluster).await?, 4)
        })
        .await;
    repair
}

/// How long each get took until something is over.
async fn gets_during(
    cluster: &LocalCluster,
    read: &Expected,
    over: impl Future<Output = ()>,
) -> Vec<Duration> {
    let (files, target) = (cluster.files(), cluster.scratch("read"));
    let mut gets = Vec::new();
    let reading = async {
        for file in read.0.keys().cycle() {
            let begun = Instant::now();
            let item = vec![GetItem { name: name(file), target: target.clone() }];
            let got = files.get_files(item, &NoProgress).await;
            got.unwrap_or_else(|error| cluster.fail(&format!("get '{file}': {error}")));
            gets.push(begun.elapsed());
        }
    };
    tokio::select! {
        () = reading => {}
        () = over => {}
    }
    gets
}
