//! Obeys the coordinator: fetches copies, deletes what is garbage, lists what is stored.
//!
//! Invariants: an order of an older term than one seen before, or for another member, or for an earlier process of this
//! one, changes nothing; a copy is answered once it is durable and verified here, also where it was here before.
//! Bounds: [`COPIES_AT_ONCE`] copies at once, further ones wait; an inventory has at most
//! [`INVENTORY_DIGESTS_MAX`] digests.

use bytes::{Bytes, BytesMut};
use idunno_shared::client::connections::{BlobLane, Connections};
use idunno_shared::client::files::connection::BlobStream;
use idunno_shared::ids::{Digest, NodeId, UploadId};
use idunno_shared::wire::blobs::{
    BlobRef, EXTENT_BYTES_MAX, FileOrder, FileReply, FileRequest, Holder, INVENTORY_DIGESTS_MAX,
};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::blobs::{BlobStore, OrderNumber, SMALL_BYTES_MAX, StaleTerm, StoreError};

/// Copies that are fetched at once.
pub const COPIES_AT_ONCE: usize = 16;

/// Obeys orders on one store.
pub struct ReplicaCommands {
    node: NodeId,
    store: BlobStore,
    connections: Connections,
    generation: u64,
    turns: Semaphore,
}

impl ReplicaCommands {
    /// ReplicaCommands for the member `node` and its `store`, in a process of boot count `generation`.
    pub fn new(node: NodeId, store: BlobStore, connections: Connections, generation: u64) -> Self {
        let turns = Semaphore::new(COPIES_AT_ONCE);
        Self { node, store, connections, generation, turns }
    }

    /// Does as ordered.
    pub async fn handle(&self, order: FileOrder) -> Result<FileReply, Refusal> {
        let FileOrder { term, to, request } = order;
        if to != self.node {
            return Err(Refusal::conflict(format!("the order is for member {to}, this is {}", self.node)));
        }
        self.store.check_term(term).map_err(stale)?;
        match request {
            FileRequest::Copy { blob, sources } => self.copy(blob, &sources).await,
            FileRequest::Collect { generation, .. } if generation != self.generation => {
                let message =
                    format!("the order is for start {generation}, this is start {}", self.generation);
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
            return Err(Refusal::invalid(format!("a blob of {} bytes is no extent", blob.size)));
        }
        let _turn = self.turns.acquire().await.map_err(|_| Refusal::internal("shutting down"))?;
        if self.has_whole(blob).await? {
            return Ok(FileReply::Copied);
        }
        let mut tried = Vec::new();
        for source in sources {
            match self.copy_from(blob, source).await {
                Ok(()) => return Ok(FileReply::Copied),
                Err(reason) => tried.push(format!("{}: {reason}", source.address)),
            }
        }
        let tried = tried.join("; ");
        Err(Refusal::internal(format!("no source gave blob {}: {tried}", blob.digest)))
    }

    /// Whether the blob is here already, as it should be; one that is damaged is moved aside.
    async fn has_whole(&self, blob: BlobRef) -> Result<bool, Refusal> {
        if self.store.size(blob.digest) != Some(blob.size) {
            return Ok(false);
        }
        let store = self.store.clone();
        blocking(move || store.check(blob.digest).is_ok()).await
    }

    async fn copy_from(&self, blob: BlobRef, source: &Holder) -> Result<(), String> {
        let small = blob.size <= SMALL_BYTES_MAX;
        let lane = if small { BlobLane::RepairGets } else { BlobLane::RepairLarge };
        let connection = self.connections.blobs(*source, lane).await.map_err(|error| error.to_string())?;
        let mut stream = connection.get(blob, 0).await.map_err(|error| error.to_string())?;
        let stored = if small {
            let bytes = gather(&mut stream, blob.size).await?;
            let pending = self.store.start_put(blob, None, bytes).await.map_err(|error| error.to_string())?;
            pending.done().await
        } else {
            let put = self.store.stream_put(blob, None);
            while let Some(chunk) = stream.next().await.map_err(|error| error.to_string())? {
                put.send(chunk).await;
            }
            put.done().await
        };
        if let Err(StoreError::Mismatch(_)) = &stored {
            connection.doubt(blob.digest);
        }
        stored.map_err(|error| error.to_string())
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
            // Counted first: what is damaged while the list is made shows in the next one.
            let damaged = store.damaged();
            let (digests, more) = store.inventory(void_below, after, INVENTORY_DIGESTS_MAX)?;
            let free_bytes = store.usable_bytes();
            Ok(FileReply::Inventory { generation, digests, more, free_bytes, damaged })
        })
        .await?
        .map_err(stale)
    }
}

async fn gather(stream: &mut BlobStream, size: u64) -> Result<Bytes, String> {
    let mut bytes = BytesMut::with_capacity(usize::try_from(size).unwrap_or(0));
    while let Some(chunk) = stream.next().await.map_err(|error| error.to_string())? {
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
