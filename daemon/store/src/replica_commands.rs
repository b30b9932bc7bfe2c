//! Carries out the coordinator's orders: copies blobs from other holders, deletes garbage, lists the stored blobs.
//!
//! Invariants: an order of an older term, for another member, or for an earlier process of this member changes nothing; a
//! copy is acknowledged once it is durable and verified on this member, even if it was stored before.
//! Bounds: [`COPIES_AT_ONCE`] concurrent copies, further ones wait; [`INVENTORY_DIGESTS_MAX`] digests in an inventory.

use bytes::{Bytes, BytesMut};
use idunno_shared::client::connections::{BlobLane, Connections, PeerError};
use idunno_shared::client::files::connection::{BlobError, BlobStream};
use idunno_shared::ids::{Digest, NodeId, UploadId};
use idunno_shared::wire::blobs::{
    BlobRef, EXTENT_BYTES_MAX, FileReply, FileRequest, Holder, INVENTORY_DIGESTS_MAX, ReplicaCommand,
};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::blobs::{BlobStore, OrderNumber, SMALL_BYTES_MAX, StaleTerm, StoreError};

/// Copies fetched concurrently.
pub const COPIES_AT_ONCE: usize = 16;

/// A blob was not copied from one of its sources.
#[derive(Debug, Error)]
enum CopyError {
    #[error(transparent)]
    Connect(#[from] PeerError),
    #[error(transparent)]
    Read(#[from] BlobError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub struct ReplicaCommands {
    node: NodeId,
    store: BlobStore,
    connections: Connections,
    generation: u64,
    copy_permits: Semaphore,
}

impl ReplicaCommands {
    /// `generation` is the boot count of the member `node`.
    pub fn new(node: NodeId, store: BlobStore, connections: Connections, generation: u64) -> Self {
        let copy_permits = Semaphore::new(COPIES_AT_ONCE);
        Self { node, store, connections, generation, copy_permits }
    }

    pub async fn handle(&self, order: ReplicaCommand) -> Result<FileReply, Refusal> {
        let ReplicaCommand { term, to, request } = order;
        if to != self.node {
            return Err(Refusal::conflict(format!(
                "the order is for member {to}, but this is {}",
                self.node
            )));
        }
        self.store.check_term(term).map_err(stale)?;
        match request {
            FileRequest::Copy { blob, sources } => self.copy(blob, &sources).await,
            FileRequest::Collect { generation, .. } if generation != self.generation => {
                let message = format!(
                    "the order is for start {generation} of this member, but this is start {}",
                    self.generation
                );
                Err(Refusal::conflict(message))
            }
            FileRequest::Collect { number, watermark, digests, .. } => {
                self.collect(OrderNumber { term, number }, watermark, digests).await
            }
            FileRequest::Inventory { void_below, after } => {
                self.inventory(OrderNumber { term, number: void_below }, after).await
            }
        }
    }

    async fn copy(&self, blob: BlobRef, sources: &[Holder]) -> Result<FileReply, Refusal> {
        if blob.size > EXTENT_BYTES_MAX {
            return Err(Refusal::invalid(format!(
                "a blob of {} bytes exceeds the size of an extent",
                blob.size
            )));
        }
        let _permit = self.copy_permits.acquire().await.map_err(|_| Refusal::internal("shutting down"))?;
        if self.has_intact(blob).await? {
            return Ok(FileReply::Copied);
        }
        let mut failures = Vec::new();
        for source in sources {
            match self.copy_from(blob, source).await {
                Ok(()) => return Ok(FileReply::Copied),
                Err(error) => failures.push(format!("{}: {error}", source.address)),
            }
        }
        let failures = failures.join("; ");
        Err(Refusal::internal(format!("no source returned blob {}: {failures}", blob.digest)))
    }

    /// Whether the blob is stored intact already. A damaged blob is quarantined.
    async fn has_intact(&self, blob: BlobRef) -> Result<bool, Refusal> {
        if self.store.size(blob.digest) != Some(blob.size) {
            return Ok(false);
        }
        let store = self.store.clone();
        blocking(move || store.check(blob.digest).is_ok()).await
    }

    async fn copy_from(&self, blob: BlobRef, source: &Holder) -> Result<(), CopyError> {
        let small = blob.size <= SMALL_BYTES_MAX;
        let lane = if small { BlobLane::RepairGets } else { BlobLane::RepairLarge };
        let connection = self.connections.blobs(*source, lane).await?;
        let mut stream = connection.get(blob, 0).await?;
        let stored = if small {
            let bytes = read_whole(&mut stream, blob.size).await?;
            let pending = self.store.start_put(blob, None, bytes).await?;
            pending.done().await
        } else {
            let put = self.store.stream_put(blob, None);
            while let Some(chunk) = stream.next().await? {
                put.send(chunk).await;
            }
            put.done().await
        };
        if let Err(StoreError::Mismatch(_)) = &stored {
            connection.doubt(blob.digest);
        }
        Ok(stored?)
    }

    async fn collect(
        &self,
        order: OrderNumber,
        watermark: UploadId,
        digests: Vec<Digest>,
    ) -> Result<FileReply, Refusal> {
        let store = self.store.clone();
        let gone = blocking(move || store.collect(order, watermark, digests)).await?.map_err(stale)?;
        Ok(FileReply::Collected { gone })
    }

    async fn inventory(&self, void_below: OrderNumber, after: Option<Digest>) -> Result<FileReply, Refusal> {
        let store = self.store.clone();
        let generation = self.generation;
        blocking(move || {
            // Counted first: damage found while the list is made appears in the next inventory.
            let damaged = store.damaged();
            let (digests, more) = store.inventory(void_below, after, INVENTORY_DIGESTS_MAX)?;
            let (free_bytes, disk_hung) = (store.usable_bytes(), store.hung_for().is_some());
            Ok(FileReply::Inventory { generation, digests, more, free_bytes, damaged, disk_hung })
        })
        .await?
        .map_err(stale)
    }
}

async fn read_whole(stream: &mut BlobStream, size: u64) -> Result<Bytes, BlobError> {
    let mut bytes = BytesMut::with_capacity(usize::try_from(size).unwrap_or(0));
    while let Some(chunk) = stream.next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    spawn_blocking(work).await.map_err(|error| Refusal::internal(error.to_string()))
}

fn stale(error: StaleTerm) -> Refusal {
    Refusal::new(RefusalCode::StaleTerm, error.to_string())
}
