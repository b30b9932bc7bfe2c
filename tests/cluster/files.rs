//! Files in a healthy cluster, and a put during which members are killed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use idunno_shared::client::files::{GetError, NoProgress, PutItem, PutOptions};
use idunno_shared::wire::control::{Change, Changed, ControlReply, ControlRequest, FileSummary};

use crate::backup::idunno;
use crate::harness::{Expected, LocalCluster, SOON, check_copies, content, heavy, name};

async fn list(cluster: &LocalCluster, prefix: &str) -> Vec<FileSummary> {
    let (client, mut rows) = (cluster.client(), Vec::<FileSummary>::new());
    loop {
        // A small page, so that pages are put together too.
        let after = rows.last().map(|row| row.name.clone());
        match client.control(ControlRequest::List { prefix: prefix.to_owned(), after, limit: 3 }).await {
            Ok(ControlReply::Files { files, more }) => {
                rows.extend(files);
                if !more {
                    return rows;
                }
            }
            other => cluster.fail(&format!("{other:?}")),
        }
    }
}

async fn stored(cluster: &LocalCluster, index: usize) -> BTreeSet<String> {
    let request = ControlRequest::Stored { member: cluster.node(index), after: None, limit: 1024 };
    match cluster.client().control(request).await {
        Ok(ControlReply::Stored { files, next: None }) => {
            files.into_iter().map(|row| row.name.to_string()).collect()
        }
        other => cluster.fail(&format!("{other:?}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_all_sizes_come_back_and_have_four_copies() {
    let _turn = heavy().await;
    let cluster = LocalCluster::start(5, false).await;
    let mut expected = Expected::default();
    expected.add("sizes/empty", Vec::new());
    expected.add("sizes/one", vec![7]);
    expected.add("sizes/small", content(1, 20_000));
    expected.add("sizes/medium", content(2, 3_000_000));
    expected.add("sizes/two extents", content(3, 70_000_000));
    expected.add("top", content(1, 20_000));
    let report = expected.put(&cluster).await;
    assert_eq!((report.files, report.copies_min, report.copies_wanted), (6, 4, 4));
    assert_eq!(report.versions, [Some(1); 6]);
    expected.verify(&cluster).await;

    let located = expected.located(&cluster).await.unwrap();
    check_copies(&cluster, &located, 4).unwrap_or_else(|why| cluster.fail(&why));
    let extents: Vec<usize> = located.iter().map(|version| version.extents.len()).collect();
    assert_eq!(extents, [0, 1, 1, 1, 2, 1]);

    // ls and store agree with where the bytes are.
    let rows = list(&cluster, "").await;
    assert!(rows.iter().map(|row| row.name.as_str()).eq(expected.0.keys().map(String::as_str)));
    assert_eq!(list(&cluster, "sizes/").await.len(), 5);
    for (row, version) in rows.iter().zip(&located) {
        assert_eq!((row.version, row.versions, row.size, row.digest), (1, 1, version.size, version.digest));
    }
    for index in cluster.up() {
        let holds = |version: &&idunno_shared::wire::control::FileVersion| {
            version.extents.iter().any(|p| p.holders.iter().any(|holder| holder.node == cluster.node(index)))
        };
        let wanted: BTreeSet<String> =
            located.iter().filter(holds).map(|version| version.name.to_string()).collect();
        let mut stored = stored(&cluster, index).await;
        // An empty file has no bytes, so holders are undefined.
        stored.remove("sizes/empty");
        assert_eq!(stored, wanted, "stored at {}", cluster.members[index].name);
    }

    // The same again: a new version of the same bytes, or nothing where that is asked for.
    let again = expected.put(&cluster).await;
    assert_eq!(again.versions, [Some(2); 6]);
    let items = expected.write_local(&cluster);
    let options = PutOptions { skip_unchanged: true, ..PutOptions::default() };
    let skipped = cluster.files().put_files(items, options, &NoProgress).await.unwrap();
    assert_eq!((skipped.files, skipped.skipped), (0, 6));
    expected.verify(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_versions_are_kept_and_a_deleted_file_is_gone() {
    let _turn = heavy().await;
    let cluster = LocalCluster::start(4, false).await;
    let (files, file) = (cluster.files(), name("docs/report"));
    let text = |version: u64| format!("the text of version {version}\n").into_bytes();
    for version in 1..=7 {
        let path = cluster.scratch("report");
        std::fs::write(&path, text(version)).unwrap();
        let item = PutItem { name: file.clone(), path };
        let report = files.put_files(vec![item], PutOptions::default(), &NoProgress).await.unwrap();
        assert_eq!(report.versions, [Some(version)]);
    }
    let target = cluster.scratch("versions");
    for (asked, wanted) in [(5, vec![7, 6, 5, 4, 3]), (2, vec![7, 6])] {
        let got = files.get_versions(&file, asked, &target, &NoProgress).await.unwrap();
        assert_eq!(got.iter().map(|version| version.version).collect::<Vec<_>>(), wanted);
        let written = String::from_utf8(std::fs::read(&target).unwrap()).unwrap();
        let mut rest = written.as_str();
        for version in got {
            let (line, behind) = rest.split_once('\n').unwrap();
            for part in [
                format!("version {}", version.version),
                format!("{} bytes", version.size),
                version.digest.to_string(),
            ] {
                assert!(line.contains(&part), "{part:?} is not in the delimiter {line:?}");
            }
            assert!(version.created_ms > 1_600_000_000_000, "{}", version.created_ms);
            let body = String::from_utf8(text(version.version)).unwrap();
            rest = behind.strip_prefix(&body).unwrap_or_else(|| panic!("{body:?} is not below {line:?}"));
            rest = rest.strip_prefix('\n').unwrap_or(rest);
        }
        assert_eq!(rest, "");
    }
    files.get_file(&file, Some(3), &target, &NoProgress).await.unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), text(3));
    let error = files.get_file(&file, Some(2), &target, &NoProgress).await.unwrap_err();
    assert!(matches!(error, GetError::NoVersion { version: 2, .. }), "{error}");
    assert_eq!(std::fs::read(&target).unwrap(), text(3), "a get that failed left its target alone");

    assert_eq!(cluster.change(Change::Delete { name: file.clone() }).await, Changed::Deleted { versions: 5 });
    let error = files.get_file(&file, None, &target, &NoProgress).await.unwrap_err();
    assert!(matches!(error, GetError::NotFound { .. }), "{error}");
    assert!(list(&cluster, "").await.is_empty());
    // Its blobs are collected: nothing holds them any more.
    cluster
        .eventually("the deleted file's blobs are gone from the disks", SOON, async || {
            let blobs: usize =
                cluster.members.iter().map(|member| count_files(&member.data_dir.join("blobs"))).sum();
            if blobs == 0 { Ok(()) } else { Err(format!("{blobs} blob files are there")) }
        })
        .await;
}

fn count_files(dir: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let count = entries.map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() { count_files(&path) } else { 1 }
    });
    count.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_acknowledged_while_members_are_killed_stay_readable() {
    const BATCHES: u64 = 60;
    const FILES: u64 = 25;
    let _turn = heavy().await;
    let mut cluster = LocalCluster::start(5, false).await;
    let batches: Vec<Expected> =
        (0..BATCHES).map(|batch| Expected::small("busy", batch * FILES..(batch + 1) * FILES)).collect();
    let local: Vec<Vec<PutItem>> = batches.iter().map(|batch| batch.write_local(&cluster)).collect();
    let (acknowledge, mut acknowledged) = tokio::sync::mpsc::unbounded_channel();
    let files = cluster.files();
    let putting = tokio::spawn(async move {
        for (batch, items) in local.into_iter().enumerate() {
            files.put_files(items, PutOptions::default(), &NoProgress).await?;
            acknowledge.send(batch).unwrap();
        }
        Ok::<_, idunno_shared::client::files::PutError>(())
    });

    let (coordinator, _) = cluster.coordinator().await;
    let other = (coordinator + 1) % 5;
    let mut known = vec![acknowledged.recv().await.unwrap(), acknowledged.recv().await.unwrap()];
    cluster.kill(&[coordinator, other]);
    let (before, mut last, mut longest) = (known.len(), Instant::now(), Duration::ZERO);
    while let Some(batch) = acknowledged.recv().await {
        known.push(batch);
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    assert!(before < batches.len(), "the put was over before the members died");
    let outcome = putting.await.unwrap();
    println!(
        "{before} batches were acknowledged before the deaths, {} in all, the longest pause was {longest:?}",
        known.len()
    );
    let mut expected = Expected::default();
    for &batch in &known {
        expected.0.extend(batches[batch].0.clone());
    }
    expected.verify(&cluster).await;
    // What a put sends again after a failover is not committed again.
    let versions = expected.located(&cluster).await.unwrap_or_else(|why| cluster.fail(&why));
    let twice = versions.iter().filter(|version| version.version != 1).count();
    assert_eq!(twice, 0, "files with a second version, of {}", versions.len());
    outcome.unwrap_or_else(|error| cluster.fail(&format!("the put did not survive the deaths: {error}")));
}

/// What the command line does with many files at once, and with its own streams.
#[tokio::test(flavor = "multi_thread")]
async fn patterns_name_many_files_and_nothing_is_replaced_unasked() {
    let _turn = heavy().await;
    let cluster = LocalCluster::start(3, false).await;
    let run = |words: &[&str]| tokio::task::block_in_place(|| idunno(&cluster, words));
    let names = |prefix: &str| -> Vec<String> {
        // A prefix without files is an error.
        let Ok(listed) = run(&["ls", prefix, "--all", "--output", "json"]) else { return Vec::new() };
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let items = listed["items"].as_array().unwrap().iter();
        items.map(|file| file["name"].as_str().unwrap().to_owned()).collect()
    };
    let mut expected = Expected::default();
    // More than one change of the log takes.
    for number in 0..1_100 {
        expected.add(&format!("many/{number:04}.txt"), format!("{number}\n").into_bytes());
    }
    expected.add("other/a.bin", content(1, 70_000_000));
    expected.put(&cluster).await;

    assert_eq!(names("many/000?.txt").len(), 10);
    assert_eq!(run(&["cat", "many/000[1-3].txt"]).unwrap(), "1\n2\n3\n");
    assert!(run(&["cp", "many/", "copy/"]).unwrap().contains("1100 files copied"));
    assert!(run(&["mv", "copy/**/*5.txt", "other/a.bin", "moved/"]).unwrap().contains("111 files moved"));
    assert_eq!((names("copy/").len(), names("moved/").len(), names("other/")), (990, 111, vec![]));
    assert_eq!(names("moved/").first().unwrap(), "moved/0005.txt");
    let refused = run(&["cp", "many/0005.txt", "moved/0005.txt"]).unwrap_err();
    assert!(refused.contains("moved/0005.txt") && refused.contains("--force"), "{refused}");
    assert!(run(&["cp", "many/0006.txt", "moved/0005.txt", "--force"]).unwrap().contains("version 2"));
    assert_eq!(run(&["get", "moved/0005.txt", "-"]).unwrap(), "6\n");
    assert_eq!(run(&["get", "moved/0005.txt", "-", "--version", "1"]).unwrap(), "5\n");

    let local = cluster.path().join("local");
    let local_name = local.to_str().unwrap();
    run(&["get", "moved/a.bin", local_name]).unwrap();
    assert!(std::fs::read(&local).unwrap() == content(1, 70_000_000), "the moved file has other bytes");
    for words in
        [&["get", "many/0001.txt", local_name][..], &["get-versions", "many/0001.txt", "1", local_name]]
    {
        let refused = run(words).unwrap_err();
        assert!(refused.contains("this replaces") && refused.contains("--force"), "{refused}");
    }
    assert_eq!(std::fs::metadata(&local).unwrap().len(), 70_000_000);
    run(&["get", "many/0001.txt", local_name, "--force"]).unwrap();
    assert_eq!(std::fs::read(&local).unwrap(), b"1\n");

    let planned = run(&["rm", "copy/", "moved/*", "--dry-run"]).unwrap();
    assert_eq!(planned.lines().count(), 1_101, "{planned}");
    let refused = run(&["rm", "copy/", "moved/*"]).unwrap_err();
    assert!(refused.contains("permanently deletes 1101 files") && refused.contains("--yes"), "{refused}");
    assert_eq!(names("copy/").len(), 990);
    let removed = run(&["rm", "copy/", "moved/*", "--yes"]).unwrap();
    assert!(removed.contains("1101 files deleted, 1102 versions"), "{removed}");
    assert!(run(&["ls", "copy/"]).is_err() && run(&["rm", "copy/*", "--yes"]).is_err());
    assert_eq!(names("many/").len(), 1_100);
}
