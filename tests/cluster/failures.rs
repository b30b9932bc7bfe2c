//! Three of seven members are killed at the same moment.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::harness::{Expected, LocalCluster, SOON, check_copies, content, heavy};

#[tokio::test(flavor = "multi_thread")]
async fn three_of_seven_members_are_killed_and_nothing_is_lost() {
    let _turn = heavy().await;
    let mut cluster = LocalCluster::start(7, false).await;
    let mut expected = Expected::small("small", 0..1000);
    expected.add("large", content(1_000_000, 10_000_000));
    assert_eq!(expected.put(&cluster).await.copies_min, 4);

    let (coordinator, term) = cluster.coordinator().await;
    let killed = [coordinator, (coordinator + 2) % 7, (coordinator + 5) % 7];
    let died = Instant::now();
    cluster.kill(&killed);
    let (successor, next) = cluster.coordinator().await;
    println!("a new coordinator answered after {:?}", died.elapsed());
    assert!(!killed.contains(&successor) && next > term, "term {term} then {next}");

    expected.verify(&cluster).await;
    println!("every file was read {:?} after the deaths", died.elapsed());

    let left = Duration::from_secs(30).saturating_sub(died.elapsed());
    cluster
        .eventually("every blob has four live copies within 30 s of the deaths", left, async || {
            let store = cluster.view().await?.store;
            if (store.under_replicated, store.unavailable, store.copying) != (0, 0, 0) {
                return Err(format!("{store:?}"));
            }
            check_copies(&cluster, &expected.located(&cluster).await?, 4)
        })
        .await;
    println!("four copies of everything were back after {:?}", died.elapsed());
    expected.verify(&cluster).await;

    cluster.restart(&killed).await;
    cluster.ready().await;
    cluster
        .eventually("no surplus copies stay", SOON, async || {
            check_copies(&cluster, &expected.located(&cluster).await?, 4)?;
            on_disk_as_recorded(&cluster, &expected).await
        })
        .await;
    expected.verify(&cluster).await;
}

/// Whether every disk holds exactly the blobs that the log says it holds.
async fn on_disk_as_recorded(cluster: &LocalCluster, expected: &Expected) -> Result<(), String> {
    let located = expected.located(cluster).await?;
    for index in cluster.up() {
        let extents = located.iter().flat_map(|version| &version.extents);
        let held =
            extents.filter(|placed| placed.holders.iter().any(|holder| holder.node == cluster.node(index)));
        let recorded: BTreeSet<String> = held.map(|placed| placed.blob.digest.to_string()).collect();
        let blobs = cluster.members[index].data_dir.join("blobs");
        let mut found = BTreeSet::new();
        for folder in std::fs::read_dir(&blobs).map_err(|error| error.to_string())?.flatten() {
            let Ok(entries) = std::fs::read_dir(folder.path()) else { continue };
            let first = folder.file_name().into_string().unwrap();
            found.extend(
                entries.flatten().map(|entry| first.clone() + &entry.file_name().into_string().unwrap()),
            );
        }
        if found != recorded {
            let (extra, missing) = (found.difference(&recorded).count(), recorded.difference(&found).count());
            return Err(format!(
                "{}: {extra} blobs too many, {missing} missing",
                cluster.members[index].name
            ));
        }
    }
    Ok(())
}
