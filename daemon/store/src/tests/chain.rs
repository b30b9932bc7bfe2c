//! Puts through a chain of holders, with and without failures.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use idunno_shared::client::connections::Connections;
use idunno_shared::client::files::connection::{BlobError, STALL_TIMEOUT, Stored};
use idunno_shared::ids::{Digest, NodeId, Term, UploadId};
use idunno_shared::wire::blobs::{BlobRef, EXTENT_BYTES_MAX, FileReply, FileRequest, Holder, ReplicaCommand};
use idunno_shared::wire::refusal::RefusalCode;

use super::{Fault, TestCluster, UPLOAD, blob_of, noise};
use crate::blobs::testing::TestDisk;
use crate::replica_commands::ReplicaCommands;
use crate::server::DISK_TIMEOUT;

fn ids(numbers: &[u64]) -> Vec<NodeId> {
    numbers.iter().map(|number| NodeId(*number)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_stores_every_size_on_all_its_holders() {
    let cluster = TestCluster::new(4);
    let first = cluster.connect(0).await;
    let chain = &cluster.holders()[1..];
    for length in [0, 1, 1 << 20, (1 << 20) + 1, 64 << 20] {
        let bytes = Bytes::from(noise(length, 1));
        let blob = blob_of(&bytes);
        let stored = first.put(blob, UPLOAD, chain, bytes.clone()).await.unwrap();
        assert_eq!((stored.holders, stored.failed), (ids(&[1, 2, 3, 4]), vec![]), "{length} bytes");
        for number in 0..4 {
            assert_eq!(cluster.store(number).read(blob.digest).unwrap(), bytes, "{length} bytes at {number}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_small_blobs_share_one_connection() {
    let cluster = TestCluster::new(4);
    let first = cluster.connect(0).await;
    let chain = cluster.holders()[1..].to_vec();
    let puts = (0..1000_u64).map(|seed| {
        let bytes = Bytes::from(noise(2_000, seed));
        first.put(blob_of(&bytes), UPLOAD, &chain, bytes)
    });
    for stored in join_all(puts).await {
        assert_eq!(stored.unwrap().holders.len(), 4);
    }
    assert!((0..4).all(|number| cluster.store(number).totals() == (1000, 2_000_000)));
    let gets = (0..1000_u64).map(|seed| {
        let first = first.clone();
        async move {
            let bytes = noise(2_000, seed);
            let chunk = first.get(blob_of(&bytes), 0).await.unwrap().next().await.unwrap();
            assert_eq!(chunk.unwrap(), bytes);
        }
    });
    join_all(gets).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_dies_midway_loses_only_its_own_and_later_copies() {
    let cluster = TestCluster::new(4);
    cluster.inject(2, Fault::CutTowards(3 << 20));
    let bytes = Bytes::from(noise(8 << 20, 2));
    let first = cluster.connect(0).await;
    let stored = first.put(blob_of(&bytes), UPLOAD, &cluster.holders()[1..], bytes.clone()).await.unwrap();
    assert_eq!(stored.holders, ids(&[1, 2]));
    assert_eq!(
        stored.failed.iter().map(|(node, _)| *node).collect::<Vec<_>>(),
        ids(&[3]),
        "4 was not reached, so it did not fail"
    );
    assert!(!cluster.store(2).contains(Digest::of(&bytes)) && !cluster.store(3).contains(Digest::of(&bytes)));
    // A holder that refuses connections is skipped; later ones are not.
    let cluster = TestCluster::new(4);
    cluster.set_down(1, true);
    let bytes = Bytes::from(noise(20_000, 3));
    let first = cluster.connect(0).await;
    let stored = first.put(blob_of(&bytes), UPLOAD, &cluster.holders()[1..], bytes).await.unwrap();
    assert_eq!((stored.holders, stored.failed.len()), (ids(&[1, 3, 4]), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_damaged_in_transit_are_stored_nowhere() {
    for length in [20_000, 3 << 20] {
        let cluster = TestCluster::new(4);
        cluster.inject(1, Fault::Flip(10_000));
        let bytes = Bytes::from(noise(length, 4));
        let first = cluster.connect(0).await;
        let stored = first.put(blob_of(&bytes), UPLOAD, &cluster.holders()[1..], bytes).await.unwrap();
        assert_eq!(stored.holders, ids(&[1]), "{length} bytes");
        assert!(stored.failed.iter().all(|(_, reason)| reason.contains("digest")), "{:?}", stored.failed);
        assert!((1..4).all(|number| cluster.store(number).totals() == (0, 0)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_holder_is_abandoned_by_its_predecessor() {
    let cluster = TestCluster::new(4);
    cluster.inject(3, Fault::Freeze);
    let bytes = Bytes::from(noise(3 << 20, 5));
    let first = cluster.connect(0).await;
    let stored = first.put(blob_of(&bytes), UPLOAD, &cluster.holders()[1..], bytes).await.unwrap();
    assert_eq!(stored.holders, ids(&[1, 2, 3]));
    assert!(stored.failed[0].1.contains("no progress"), "{:?}", stored.failed);
}

#[tokio::test]
async fn a_caller_that_announces_too_much_is_disconnected() {
    let cluster = TestCluster::new(1);
    let first = cluster.connect(0).await;
    let blob = BlobRef { digest: Digest::default(), size: EXTENT_BYTES_MAX + 1 };
    let put = first.stream_put(blob, UPLOAD, &[]).await;
    assert_eq!(put.unwrap().1.answer().await, Err(BlobError::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_members_are_dialled_for_a_chain() {
    let cluster = TestCluster::new(3);
    let first = cluster.connect(0).await;
    let holders = cluster.holders();
    // A port of no member, and a member's port under another member's id.
    let probed = [
        Holder { node: NodeId(2), address: "127.0.0.1:22".parse().unwrap() },
        Holder { node: NodeId(2), address: holders[2].address },
    ];
    for probe in probed {
        for length in [10, 3 << 20] {
            let bytes = Bytes::from(noise(length, 1));
            let stored = first.put(blob_of(&bytes), UPLOAD, &[probe, holders[2]], bytes).await.unwrap();
            assert_eq!(stored.holders, ids(&[1, 3]));
            assert!(stored.failed[0].1.contains("is no address of"), "{:?}", stored.failed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_of_a_term_that_never_was_pins_nothing() {
    let cluster = TestCluster::new(1);
    let first = cluster.connect(0).await;
    for length in [10, 3 << 20] {
        let bytes = Bytes::from(noise(length, 1));
        let blob = blob_of(&bytes);
        let future = UploadId { term: Term(u64::MAX), number: 1 };
        let refused = first.put(blob, future, &[], bytes.clone()).await.unwrap();
        assert_eq!((refused.holders, refused.failed.len()), (vec![], 1));
        assert_eq!(cluster.store(0).size(blob.digest), None);
        // The connection goes on.
        let stored = first.put(blob, UPLOAD, &[], bytes).await.unwrap();
        assert_eq!(stored.holders, ids(&[1]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_are_carried_out_unless_their_term_is_over() {
    let cluster = TestCluster::new(3);
    let holders = cluster.holders();
    let mut blobs = Vec::new();
    for (seed, length) in [(1, 500), (2, 2 << 20)] {
        let bytes = Bytes::from(noise(length, seed));
        let connection = cluster.connect(1).await;
        connection.put(blob_of(&bytes), UPLOAD, &[], bytes.clone()).await.unwrap();
        blobs.push(blob_of(&bytes));
    }
    let store = cluster.store(2);
    let orders = ReplicaCommands::new(NodeId(3), store.clone(), Connections::new(cluster.connector()), 7);
    let order = |term, request| orders.handle(ReplicaCommand { term: Term(term), to: NodeId(3), request });
    for &blob in &blobs {
        // The first source does not have it.
        let sources = holders[..2].to_vec();
        let reply = order(2, FileRequest::Copy { blob, sources }).await;
        assert_eq!(reply, Ok(FileReply::Copied));
        assert!(store.read(blob.digest).is_ok());
    }
    let unknown = BlobRef { digest: Digest::of(b"unknown!"), size: 8 };
    let copy = FileRequest::Copy { blob: unknown, sources: holders[..2].to_vec() };
    assert!(order(2, copy).await.unwrap_err().message.contains("is not stored on this member"));
    let Ok(FileReply::Inventory {
        generation: 7,
        digests,
        more: false,
        free_bytes,
        damaged: 0,
        disk_hung: false,
    }) = order(2, FileRequest::Inventory { void_below: 0, after: None }).await
    else {
        panic!("no inventory");
    };
    assert_eq!((digests.len(), free_bytes > 0), (2, true));
    let collect = |term, digests| {
        let watermark = UploadId { term: Term(2), number: 5 };
        order(term, FileRequest::Collect { generation: 7, number: 1, watermark, digests })
    };
    let other = ReplicaCommand {
        term: Term(2),
        to: NodeId(4),
        request: FileRequest::Inventory { void_below: 0, after: None },
    };
    assert_eq!(orders.handle(other).await.unwrap_err().code, RefusalCode::Conflict, "for another member");
    let watermark = UploadId { term: Term(2), number: 5 };
    let earlier = FileRequest::Collect { generation: 6, number: 1, watermark, digests: digests.clone() };
    assert_eq!(order(2, earlier).await.unwrap_err().code, RefusalCode::Conflict, "for an earlier start");
    assert_eq!(collect(1, digests.clone()).await.unwrap_err().code, RefusalCode::StaleTerm);
    assert_eq!(collect(2, digests.clone()).await, Ok(FileReply::Collected { gone: digests }));
    assert_eq!(store.totals(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_copy_is_fetched_again() {
    let cluster = TestCluster::new(2);
    let first = cluster.connect(0).await;
    for length in [20_000, 3 << 20] {
        let bytes = Bytes::from(noise(length, 6));
        let blob = blob_of(&bytes);
        first.put(blob, UPLOAD, &cluster.holders()[1..], bytes).await.unwrap();
        assert!(cluster.damage(1, blob.digest));
        let orders =
            ReplicaCommands::new(NodeId(2), cluster.store(1), Connections::new(cluster.connector()), 1);
        let request = FileRequest::Copy { blob, sources: cluster.holders()[..1].to_vec() };
        let order = ReplicaCommand { term: Term(2), to: NodeId(2), request };
        assert_eq!(orders.handle(order).await, Ok(FileReply::Copied));
        assert_eq!(cluster.store(1).check(blob.digest).unwrap(), blob.size, "{length} bytes");
    }
}

/// Stores a blob on a healthy holder and, next in the chain, on one whose flush waits for `opened`.
async fn put_on_a_slow_disk(disk_timeout: Duration, opened: impl Future<Output = ()>) -> Stored {
    let (cluster, disk) = (TestCluster::new(1), TestDisk::default());
    let slow = cluster.add_on(Box::new(disk.clone()), disk_timeout);
    let first = cluster.connect(0).await;
    disk.0.close_gate();
    let bytes = Bytes::from(noise(20_000, 8));
    let chain = [slow];
    let put = first.put(blob_of(&bytes), UPLOAD, &chain, bytes);
    let flush = async {
        opened.await;
        disk.0.open_gate();
        std::future::pending().await
    };
    let stored = tokio::select! {
        stored = put => stored,
        stored = flush => stored,
    };
    disk.0.open_gate();
    stored.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_may_take_longer_than_a_silent_peer() {
    let flush = tokio::time::sleep(STALL_TIMEOUT + Duration::from_secs(2));
    let stored = put_on_a_slow_disk(DISK_TIMEOUT, flush).await;
    assert_eq!((stored.holders, stored.failed), (ids(&[1, 2]), vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_disk_is_abandoned() {
    let stored = put_on_a_slow_disk(Duration::from_secs(1), std::future::pending()).await;
    assert_eq!(stored.holders, ids(&[1]));
    assert_eq!((stored.failed[0].0, stored.failed.len()), (NodeId(2), 1));
    assert!(stored.failed[0].1.contains("has not stored it within 1 s"), "{:?}", stored.failed);
}
