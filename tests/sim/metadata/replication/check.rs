//! Checks after every step, and in the settled state.

use std::collections::BTreeMap;

use idunno_core::machine::Machine;
use idunno_core::metadata::Blob;
use idunno_core::placement::Holdings;
use idunno_shared::ids::{Digest, NodeId};
use idunno_shared::wire::blobs::COPIES;

use super::World;
use super::member::{Health, Node};

impl World {
    fn referenced(&self) -> impl Iterator<Item = (&Digest, &Blob)> {
        self.state.blobs().iter().filter(|(_, blob)| blob.references > 0)
    }

    pub(super) fn check(&self) {
        self.replication.check().unwrap();
        for (digest, blob) in self.referenced() {
            let has = |node: &Node| node.disk.contains(digest);
            let found = blob.holders.iter().any(|id| has(&self.nodes[id]));
            assert!(found, "blob {digest} is lost; recorded at {:?}", blob.holders);
            for id in &*blob.holders {
                let node = &self.nodes[id];
                assert!(has(node) || node.health == Health::Destroyed, "{id} does not have blob {digest}");
            }
        }
    }

    pub(super) fn check_settled(&mut self) {
        let up = self.up();
        let members = self.members();
        let wanted = COPIES.min(up.len());
        for (digest, blob) in self.referenced() {
            let real = up.iter().filter(|id| self.nodes[id].disk.contains(digest)).count();
            assert_eq!((members.live_among(&blob.holders), real), (wanted, wanted), "blob {digest}");
        }
        for id in &up {
            for digest in &self.nodes[id].disk {
                let recorded = self
                    .state
                    .blob(digest)
                    .is_some_and(|blob| blob.references > 0 && blob.holders.contains(id));
                assert!(recorded, "{id} still has blob {digest}");
            }
        }
        self.maintain();
        assert!(self.work.is_empty(), "{:?}", self.work);
        assert_eq!(self.replication.copies_under_way(), 0);
        let mut holdings: BTreeMap<NodeId, Holdings> = BTreeMap::new();
        for blob in self.state.blobs().values() {
            for &id in &*blob.holders {
                let held = holdings.entry(id).or_default();
                (held.blobs, held.bytes) = (held.blobs + 1, held.bytes + blob.size);
            }
        }
        assert_eq!(*self.replication.holdings(), holdings);
        let figures = self.replication.figures();
        let (blobs, bytes) = self.referenced().fold((0, 0), |sum, (_, blob)| (sum.0 + 1, sum.1 + blob.size));
        assert_eq!((figures.blobs, figures.bytes, figures.under_replicated), (blobs, bytes, 0));
    }
}
