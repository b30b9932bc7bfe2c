//! Stores blobs at as many holders as planned, or at as many as are available.
//!
//! Decides when a plan is replaced: a member that failed is left out of the next plan, and only what is missing is
//! sent again. Fewer copies than planned are accepted after [`PLANS_MAX`] plans, or at once where no
//! member failed and no other has room; none at all never.
//!
//! Bounds: [`PLANS_MAX`] plans a batch, [`PLANS_WITHOUT_COPY_MAX`] while a blob has no copy at all;
//! [`BATCH_BLOBS_MAX`] blobs a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::sleep;

use super::connection::Stored;
use super::{Files, PutError};
use crate::client::cluster::ClusterError;
use crate::client::connections::BlobLane;
use crate::ids::{Digest, NodeId, UploadId};
use crate::wire::blobs::{BlobRef, EXTENT_BYTES_MAX, Holder, PlacedBlob};
use crate::wire::control::{Chain, ControlReply, ControlRequest};
use crate::wire::refusal::{Refusal, RefusalCode};

/// Plans that are tried before fewer copies than planned are accepted.
pub const PLANS_MAX: u32 = 4;
/// Plans that are tried before a blob without any copy is given up.
pub const PLANS_WITHOUT_COPY_MAX: u32 = 10;
/// Most blobs in one plan.
pub const BATCH_BLOBS_MAX: usize = 256;
/// Uploads that are begun before a put is given up because they were over too early.
pub const UPLOADS_MAX: u32 = 5;
const PAUSE_STEP: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_millis(600);
const TRIED_SHOWN_MAX: usize = 8;

/// Blobs that are durable on their holders and referenced by nothing yet: name the upload in what commits them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlobs {
    /// The upload under which they are safe from collection, until it is ended or idles for 40 s.
    pub upload: UploadId,
    /// The blobs in the order given, and who holds each: at least one member.
    pub blobs: Vec<PlacedBlob>,
    /// Copies that each should have with the members there are.
    pub copies_wanted: u32,
}

/// Why a batch was not placed.
#[derive(Debug)]
pub(super) enum PlaceError {
    /// The upload is over: begin another one, and send everything again that is not committed.
    Over,
    /// The put cannot succeed.
    Failed(PutError),
}

impl From<ClusterError> for PlaceError {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::Refused(Refusal { code: RefusalCode::UploadOver, .. }) => Self::Over,
            other => Self::Failed(other.into()),
        }
    }
}

/// A blob and its bytes.
pub(super) type Loaded = (BlobRef, Bytes);

pub(super) struct Plan {
    pub(super) upload: UploadId,
    chains: Vec<Chain>,
    copies: u32,
}

fn loaded(blobs: Vec<Bytes>) -> Result<Vec<Loaded>, PutError> {
    let mut loaded = Vec::with_capacity(blobs.len());
    for bytes in blobs {
        if bytes.len() as u64 > EXTENT_BYTES_MAX {
            let (what, bytes) = (String::from("the blob"), bytes.len() as u64);
            return Err(PutError::TooLarge { what, bytes, limit: EXTENT_BYTES_MAX });
        }
        loaded.push((BlobRef { digest: Digest::of(&bytes), size: bytes.len() as u64 }, bytes));
    }
    Ok(loaded)
}

impl Files {
    /// Stores bytes as blobs under a new upload; at most 64 MiB each, all of them stay in memory meanwhile.
    /// Commit them, then call [`Files::end_upload`].
    pub async fn store_blobs(&self, blobs: Vec<Bytes>) -> Result<StoredBlobs, PutError> {
        let loaded = loaded(blobs)?;
        for _ in 0..UPLOADS_MAX {
            match self.store_loaded(None, &loaded).await {
                Err(PlaceError::Over) => {}
                Err(PlaceError::Failed(error)) => return Err(error),
                Ok(stored) => return Ok(stored),
            }
        }
        Err(PutError::UploadOver { tries: UPLOADS_MAX })
    }

    /// Stores further bytes under an upload that must still be open; without one, a new one is opened.
    pub async fn store_more(
        &self,
        upload: Option<UploadId>,
        blobs: Vec<Bytes>,
    ) -> Result<StoredBlobs, PutError> {
        self.store_loaded(upload, &loaded(blobs)?).await.map_err(|error| match error {
            PlaceError::Over => PutError::UploadOver { tries: 1 },
            PlaceError::Failed(error) => error,
        })
    }

    async fn store_loaded(
        &self,
        mut upload: Option<UploadId>,
        loaded: &[Loaded],
    ) -> Result<StoredBlobs, PlaceError> {
        let mut stored = StoredBlobs { upload: UploadId::default(), blobs: Vec::new(), copies_wanted: 0 };
        for batch in loaded.chunks(BATCH_BLOBS_MAX) {
            let first = self.plan(upload, refs(batch), BTreeSet::new()).await?;
            stored.upload = first.upload;
            upload = Some(first.upload);
            let (blobs, wanted) = self.place_as(first, batch).await?;
            stored.blobs.extend(blobs);
            stored.copies_wanted = wanted;
        }
        Ok(stored)
    }

    /// Ends an upload. It only hastens the collection of what was not committed, so its failure is no failure.
    pub async fn end_upload(&self, upload: UploadId) {
        if let Err(error) = self.cluster.control(ControlRequest::EndUpload(upload)).await {
            tracing::debug!(%error, "cannot end an upload: it ends after 40 s without a request");
        }
    }

    /// Asks where blobs are to go; without an upload, a new one is opened.
    pub(super) async fn plan(
        &self,
        upload: Option<UploadId>,
        blobs: Vec<BlobRef>,
        exclude: BTreeSet<NodeId>,
    ) -> Result<Plan, PlaceError> {
        let asked = blobs.len();
        let request = ControlRequest::Plan { upload, blobs, exclude: exclude.into_iter().collect() };
        match self.cluster.control(request).await? {
            ControlReply::Planned { upload, chains, copies } if chains.len() == asked => {
                Ok(Plan { upload, chains, copies })
            }
            _ => {
                Err(ClusterError::from(Refusal::internal("unexpected reply of the coordinator to a plan"))
                    .into())
            }
        }
    }

    /// Stores a batch under an open upload. Answers where each blob is, and how many copies it should have.
    pub(super) async fn place(
        &self,
        upload: UploadId,
        batch: &[Loaded],
    ) -> Result<(Vec<PlacedBlob>, u32), PlaceError> {
        let first = self.plan(Some(upload), refs(batch), BTreeSet::new()).await?;
        self.place_as(first, batch).await
    }

    async fn place_as(&self, first: Plan, batch: &[Loaded]) -> Result<(Vec<PlacedBlob>, u32), PlaceError> {
        let mut placement = Placement::new(batch);
        let mut plan = first;
        let mut plans = 1;
        loop {
            let upload = plan.upload;
            self.send_missing(&mut placement, &plan).await;
            let missing = placement.missing();
            // Without a failure, the plan named everybody with room, and so would the next.
            let is_final = plans >= PLANS_MAX || placement.failed.is_empty();
            if missing.is_empty() || (is_final && placement.all_have_one()) {
                break;
            }
            if plans >= PLANS_WITHOUT_COPY_MAX {
                return Err(PlaceError::Failed(placement.no_holder()));
            }
            if plans > 1 {
                sleep((PAUSE_STEP * plans).min(PAUSE_MAX)).await;
            }
            plans += 1;
            // Every fourth plan includes members that failed before, because they may have been restarted.
            let exclude = if plans % PLANS_MAX == 0 {
                BTreeSet::new()
            } else {
                placement.failed.keys().copied().collect()
            };
            let blobs = missing.iter().map(|&index| batch[index].0).collect();
            plan = self.plan(Some(upload), blobs, exclude).await?;
        }
        Ok((placement.placed, placement.wanted))
    }

    /// Sends each blob that lacks copies to those of its new chain that do not have it.
    async fn send_missing(&self, placement: &mut Placement<'_>, plan: &Plan) {
        let missing =
            if placement.wanted == 0 { (0..placement.batch.len()).collect() } else { placement.missing() };
        placement.wanted = plan.copies;
        let mut sends = FuturesUnordered::new();
        for (index, Chain(chain)) in missing.into_iter().zip(&plan.chains) {
            let have = &placement.placed[index].holders;
            let lacking = (plan.copies as usize).saturating_sub(have.len());
            let new = chain.iter().filter(|holder| have.iter().all(|had| had.node != holder.node));
            let chain: Vec<Holder> = new.copied().take(lacking).collect();
            let (blob, bytes) = placement.batch[index].clone();
            sends.push(async move { (index, self.send(plan.upload, blob, bytes, &chain).await, chain) });
        }
        while let Some((index, stored, chain)) = sends.next().await {
            placement.record(index, &stored, &chain);
        }
    }

    /// Sends a blob down a chain, past members that cannot be reached.
    async fn send(&self, upload: UploadId, blob: BlobRef, bytes: Bytes, chain: &[Holder]) -> Stored {
        let mut failed = Vec::new();
        let mut rest = chain;
        while let [first, behind @ ..] = rest {
            rest = behind;
            let connection = match self.cluster.connections().blobs(*first, BlobLane::Puts).await {
                Ok(connection) => connection,
                Err(error) => {
                    failed.push((first.node, error.to_string()));
                    continue;
                }
            };
            match connection.put(blob, upload, behind, bytes.clone()).await {
                Ok(mut stored) => {
                    stored.failed.append(&mut failed);
                    return stored;
                }
                Err(error) => failed.push((first.node, error.to_string())),
            }
        }
        Stored { holders: Vec::new(), failed }
    }
}

fn refs(batch: &[Loaded]) -> Vec<BlobRef> {
    batch.iter().map(|(blob, _)| *blob).collect()
}

/// How far a batch has come.
struct Placement<'a> {
    batch: &'a [Loaded],
    placed: Vec<PlacedBlob>,
    /// Copies each should have; 0 before the first plan.
    wanted: u32,
    /// The last error of each member that failed.
    failed: BTreeMap<NodeId, (SocketAddr, String)>,
}

impl<'a> Placement<'a> {
    fn new(batch: &'a [Loaded]) -> Self {
        let placed = batch.iter().map(|&(blob, _)| PlacedBlob { blob, holders: Vec::new() }).collect();
        Self { batch, placed, wanted: 0, failed: BTreeMap::new() }
    }

    fn missing(&self) -> Vec<usize> {
        let wanted = self.wanted as usize;
        (0..self.placed.len()).filter(|&index| self.placed[index].holders.len() < wanted.max(1)).collect()
    }

    fn all_have_one(&self) -> bool {
        self.placed.iter().all(|placed| !placed.holders.is_empty())
    }

    fn record(&mut self, index: usize, stored: &Stored, chain: &[Holder]) {
        let holders = &mut self.placed[index].holders;
        for holder in chain.iter().filter(|holder| stored.holders.contains(&holder.node)) {
            if !holders.contains(holder) {
                holders.push(*holder);
            }
        }
        for (node, reason) in &stored.failed {
            tracing::debug!(%node, reason, "a holder failed");
            let asked = chain.iter().find(|holder| holder.node == *node);
            self.failed.extend(asked.map(|holder| (*node, (holder.address, reason.clone()))));
        }
    }

    fn no_holder(&self) -> PutError {
        let without = self.placed.iter().find(|placed| placed.holders.is_empty());
        let what = without.map_or_else(String::new, |placed| format!("blob {}", placed.blob.digest));
        PutError::NoHolder { what, tried: tried(self.failed.values()) }
    }
}

/// The members tried and why each failed, grouped by reason.
fn tried<'a>(failed: impl Iterator<Item = &'a (SocketAddr, String)>) -> String {
    let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (address, reason) in failed.take(TRIED_SHOWN_MAX) {
        let address = address.to_string();
        let members = reasons.entry(reason).or_default();
        // A member that cannot be reached is named in the reason.
        if !reason.contains(&address) {
            members.push(address);
        }
    }
    if reasons.is_empty() {
        // A plan names every member with room.
        return String::from("no member: none has room for it beside the reserve of its disk");
    }
    let texts = reasons.into_iter().map(|(reason, members)| {
        let named = if members.is_empty() { String::new() } else { format!("{}: ", members.join(", ")) };
        named + reason
    });
    texts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::link::DialError;

    #[test]
    fn members_that_fail_for_one_reason_are_named_together() {
        let failed = [(1, "the disk is full"), (2, "it rests"), (3, "the disk is full")];
        let failed = failed.map(|(port, why)| (SocketAddr::from(([10, 0, 0, 1], port)), why.to_owned()));
        let expected = "10.0.0.1:2: it rests; 10.0.0.1:1, 10.0.0.1:3: the disk is full";
        assert_eq!(tried(failed.iter()), expected);
        let address = SocketAddr::from(([10, 0, 0, 1], 4));
        let unreached = DialError::Refused { address }.to_string();
        assert_eq!(tried([(address, unreached.clone())].iter()), unreached, "its address is in it");
        assert!(tried([].iter()).starts_with("no member: "));
    }
}
