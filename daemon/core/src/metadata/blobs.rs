//! The blob table: the references and the holders of each blob.
//!
//! A blob without references keeps its entry until it is forgotten; its copies are deleted only after that. If it is
//! committed again before, only the holders of the new commit count, because the earlier ones may be deleting it.

use std::collections::BTreeSet;
use std::sync::Arc;

use idunno_shared::ids::{Digest, NodeId};
use idunno_shared::wire::blobs::{BlobRef, COPIES, EXTENT_BYTES_MAX};
use idunno_shared::wire::control::Change;
use idunno_shared::wire::refusal::Refusal;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{Applied, AskedBy, HolderChange, OneOrMany, State};

/// Most holders recorded per blob; if there are more, the newest are kept.
pub const HOLDERS_PER_BLOB_MAX: usize = 32;

/// A blob's entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// The blob's size in bytes.
    pub size: u64,
    /// References from file versions, held inputs, segments and models.
    pub references: u64,
    /// The members that hold a copy, in id order. Blobs at the same members share the list.
    pub holders: Arc<[NodeId]>,
}

/// The blob table, by digest.
pub type BlobTable = OrdMap<Digest, Blob>;

/// Extents with their holders, as commands carry them.
pub(super) type PlacedExtents = [(BlobRef, Vec<NodeId>)];

fn merge_holders(old: &[NodeId], new: &[NodeId]) -> Vec<NodeId> {
    let mut holders = new.to_vec();
    holders.truncate(HOLDERS_PER_BLOB_MAX);
    let room = HOLDERS_PER_BLOB_MAX - holders.len();
    holders.extend(old.iter().filter(|node| !new.contains(node)).take(room));
    holders.sort_unstable();
    holders.dedup();
    holders
}

impl State {
    /// All blobs, in digest order.
    pub fn blobs(&self) -> &BlobTable {
        &self.blobs
    }

    /// The entry of a blob; `None` if it is unknown.
    pub fn blob(&self, digest: &Digest) -> Option<&Blob> {
        self.blobs.get(digest)
    }

    /// The recorded holders of a blob, in id order; empty if the blob is unknown.
    pub fn holders(&self, digest: &Digest) -> &[NodeId] {
        self.blobs.get(digest).map_or(&[], |blob| &blob.holders)
    }

    /// Refuses extents that are too large, have no holder, or contradict a known size. `what` names them in messages.
    pub(super) fn check_extents(&self, what: &str, extents: &PlacedExtents) -> Result<(), Refusal> {
        for (index, (blob, holders)) in extents.iter().enumerate() {
            let BlobRef { digest, size } = blob;
            let invalid = |why: String| Err(Refusal::invalid(format!("extent {index} of {what}: {why}")));
            if *size == 0 || *size > EXTENT_BYTES_MAX {
                return invalid(format!("it has {size} bytes; 1 to {EXTENT_BYTES_MAX} are allowed"));
            }
            if holders.is_empty() {
                return invalid("no member holds it: store it before the commit".to_owned());
            }
            if holders.len() > HOLDERS_PER_BLOB_MAX {
                return invalid(format!(
                    "it names {} holders; {HOLDERS_PER_BLOB_MAX} are allowed",
                    holders.len()
                ));
            }
            let known = self.blobs.get(digest).map(|known| known.size);
            if let Some(known) = known.filter(|known| known != size) {
                return invalid(format!("blob {digest} has {known} bytes, not {size}"));
            }
        }
        let mut sizes: Vec<(Digest, u64)> =
            extents.iter().map(|(blob, _)| (blob.digest, blob.size)).collect();
        sizes.sort_unstable();
        if let Some(pair) = sizes.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1) {
            let (digest, size) = pair[0];
            let message = format!("{what} gives blob {digest} both {size} and {} bytes", pair[1].1);
            return Err(Refusal::invalid(message));
        }
        Ok(())
    }

    /// Refuses extents of which one belongs to nothing.
    pub(super) fn check_referenced(&self, what: &str, extents: &PlacedExtents) -> Result<(), Refusal> {
        let is_free = |(blob, _): &&(BlobRef, Vec<NodeId>)| {
            self.blobs.get(&blob.digest).is_none_or(|known| known.references == 0)
        };
        match extents.iter().find(is_free) {
            Some((blob, _)) => Err(Refusal::not_found(format!(
                "{what} is to share blob {}, which belongs to no file any more",
                blob.digest
            ))),
            None => Ok(()),
        }
    }

    /// Records the holders of a blob and adds `references` to its count.
    pub(super) fn record(&mut self, blob: BlobRef, holders: &[NodeId], references: u64) {
        let known = self.blobs.get(&blob.digest);
        let old = known.filter(|known| known.references > 0).map_or(&[][..], |known| &known.holders);
        let holders = merge_holders(old, holders);
        let references = known.map_or(0, |known| known.references) + references;
        let holders = self.holder_lists.share(&holders);
        self.blobs.insert(blob.digest, Blob { size: blob.size, references, holders });
    }

    /// Those of the claimed holders of a blob that are believed of somebody who is not trusted with the blobs of others: no
    /// more than it lacks of [`COPIES`]. Copies of members that are `gone` do not count. Who commits says itself where it
    /// stored its bytes. If it lies, a blob that others use, too, may lack a copy until its holders are asked for their
    /// inventory; but it can make no true copy look surplus, which would be deleted.
    fn believed(&self, blob: BlobRef, claimed: &[NodeId], gone: &[NodeId]) -> Vec<NodeId> {
        let known = self.blobs.get(&blob.digest).filter(|known| known.references > 0);
        let known = known.map_or(&[][..], |known| &known.holders);
        let new = claimed.iter().filter(|node| !known.contains(node));
        let copies = known.iter().filter(|node| !gone.contains(node)).count();
        new.copied().take(COPIES.saturating_sub(copies)).collect()
    }

    /// The holders of the blobs that a change commits which are not up, for [`AskedBy::gone`].
    pub fn gone_holders(&self, change: &Change, is_live: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let committed: Vec<&PlacedExtents> = match change {
            Change::CommitFiles { files, .. } => files.iter().map(|file| &*file.extents).collect(),
            Change::CommitFile { file, .. } => vec![&file.extents],
            Change::AddModel { package, .. } => vec![&package.extents],
            _ => return Vec::new(),
        };
        let holders = committed.into_iter().flatten().flat_map(|(blob, _)| self.holders(&blob.digest));
        let gone: BTreeSet<NodeId> = holders.copied().filter(|&node| !is_live(node)).collect();
        gone.into_iter().collect()
    }

    /// Records extents with one reference each. Returns them without their holders. `confined` is who stored them, if that
    /// is nobody who is trusted with the blobs of others.
    pub(super) fn record_extents(
        &mut self,
        extents: &PlacedExtents,
        confined: Option<&AskedBy>,
    ) -> OneOrMany<BlobRef> {
        for (blob, holders) in extents {
            match confined {
                Some(by) => self.record(*blob, &self.believed(*blob, holders, &by.gone), 1),
                None => self.record(*blob, holders, 1),
            }
        }
        extents.iter().map(|(blob, _)| *blob).collect()
    }

    /// The same where some of the extents belong to something already. Those keep the holders that they have: who names
    /// them has not stored them, and knows only where they were.
    pub(super) fn record_shared_extents(&mut self, extents: &PlacedExtents) -> OneOrMany<BlobRef> {
        for (blob, holders) in extents {
            let is_shared = self.blobs.get(&blob.digest).is_some_and(|known| known.references > 0);
            let stored: &[NodeId] = if is_shared { &[] } else { holders };
            self.record(*blob, stored, 1);
        }
        extents.iter().map(|(blob, _)| *blob).collect()
    }

    /// Adds one reference to each extent; all have entries.
    pub(super) fn reference(&mut self, extents: &[BlobRef]) {
        for blob in extents {
            if let Some(entry) = self.blobs.get_mut(&blob.digest) {
                entry.references += 1;
            }
        }
    }

    /// Removes one reference from each extent.
    pub(super) fn release(&mut self, extents: &[BlobRef]) {
        for blob in extents {
            if let Some(entry) = self.blobs.get_mut(&blob.digest) {
                entry.references = entry.references.saturating_sub(1);
            }
        }
    }

    pub(super) fn change_holders(&mut self, changes: &[HolderChange]) -> Applied {
        for HolderChange { digest, add, remove } in changes {
            let Some(entry) = self.blobs.get(digest) else { continue };
            let kept: Vec<NodeId> =
                entry.holders.iter().copied().filter(|node| !remove.contains(node)).collect();
            let holders = merge_holders(&kept, add);
            if holders.is_empty() && entry.references == 0 {
                self.blobs.remove(digest);
            } else if *holders != *entry.holders {
                let entry = Blob { holders: self.holder_lists.share(&holders), ..entry.clone() };
                self.blobs.insert(*digest, entry);
            }
        }
        Applied::Done
    }

    pub(super) fn forget(&mut self, digests: &[Digest]) -> Applied {
        for digest in digests {
            if self.blobs.get(digest).is_some_and(|blob| blob.references == 0) {
                self.blobs.remove(digest);
            }
        }
        Applied::Done
    }
}
