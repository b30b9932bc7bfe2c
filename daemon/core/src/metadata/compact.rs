//! What keeps the metadata small in memory: leaves of the tables that are full after a restart, and lists of holders and
//! names of files that are kept once.
//!
//! Bounds: [`HOLDER_LISTS_MAX`] lists of holders are remembered, and [`WINDOW`] entries while a table is read.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use idunno_shared::ids::{Digest, NodeId};
use imbl::OrdMap;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::blobs::{Blob, BlobTable};
use super::dataset_freeze::{Manifest, Query};
use super::{JobRecord, State};

/// Lists of holders that are remembered, a power of two: those of all blobs in a cluster of a dozen members, and the most recent ones in a
/// larger cluster.
const HOLDER_LISTS_MAX: u64 = 4_096;
/// Entries of a table that are put into order at a time.
const WINDOW: usize = 1_024;

/// The lists of holders given last. Blobs with equal ones share them: there are many blobs, and few ways to place them.
#[derive(Clone, Debug, Default)]
pub(super) struct HolderLists(OrdMap<u64, Arc<[NodeId]>>);

/// Equal states may have come about in different ways.
impl PartialEq for HolderLists {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl HolderLists {
    /// The remembered list that is equal to this one, if there is one.
    pub(super) fn share(&mut self, holders: &[NodeId]) -> Arc<[NodeId]> {
        // Fibonacci hashing (Knuth, volume 3, section 6.4): the upper bits are the mixed ones.
        let mix =
            |hash: u64, node: &NodeId| (hash.rotate_left(23) ^ node.0).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let slot = holders.iter().fold(0, mix) >> (u64::BITS - HOLDER_LISTS_MAX.ilog2());
        if let Some(known) = self.0.get(&slot).filter(|known| ***known == *holders) {
            return Arc::clone(known);
        }
        let list: Arc<[NodeId]> = holders.into();
        self.0.insert(slot, Arc::clone(&list));
        list
    }
}

/// A table of entries in order. Where a tree's leaf is full, the next entry divides it into halves: filled in order, it would
/// consist of half-empty leaves. Here every second entry comes first, and the others fill the leaves.
fn compact<K: Ord + Clone, V: Clone, E>(
    mut entries: impl Iterator<Item = Result<(K, V), E>>,
) -> Result<OrdMap<K, V>, E> {
    let mut table = OrdMap::new();
    loop {
        let mut later = Vec::with_capacity(WINDOW / 2);
        for (number, entry) in entries.by_ref().take(WINDOW).enumerate() {
            let (key, value) = entry?;
            if number.is_multiple_of(2) {
                table.insert(key, value);
            } else {
                later.push((key, value));
            }
        }
        if later.is_empty() {
            return Ok(table);
        }
        table.extend(later);
    }
}

/// Reads a table, whose entries are changed as `change` says.
struct TableVisitor<K, V, F> {
    change: F,
    entries: PhantomData<(K, V)>,
}

impl<'de, K, V, F> Visitor<'de> for TableVisitor<K, V, F>
where
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
    F: FnMut(V) -> V,
{
    type Value = OrdMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of the metadata")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut table: A) -> Result<Self::Value, A::Error> {
        let entries = std::iter::from_fn(|| table.next_entry().transpose());
        compact(entries.map(|entry| entry.map(|(key, value)| (key, (self.change)(value)))))
    }
}

/// Reads a table into full leaves.
pub(super) fn read_table<'de, K, V, D>(deserializer: D) -> Result<OrdMap<K, V>, D::Error>
where
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
    D: Deserializer<'de>,
{
    deserializer.deserialize_map(TableVisitor { change: |value| value, entries: PhantomData })
}

/// Reads the blob table into full leaves, and keeps equal lists of holders once.
pub(super) fn read_blobs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BlobTable, D::Error> {
    let mut lists = HolderLists::default();
    let change = |blob: Blob| Blob { holders: lists.share(&blob.holders), ..blob };
    deserializer.deserialize_map(TableVisitor::<Digest, Blob, _> { change, entries: PhantomData })
}

impl State {
    /// Has the jobs share names and extents with the file table again, as they did before they were written.
    pub(super) fn share_with_files(&mut self) {
        let lists_inputs = |job: &&Arc<JobRecord>| job.manifest.is_some() || job.folder.is_some();
        let jobs: Vec<Arc<JobRecord>> = self.jobs.values().filter(lists_inputs).map(Arc::clone).collect();
        for job in jobs {
            let mut job = (*job).clone();
            if let Some(manifest) = &job.manifest {
                let queries = manifest.queries.iter().map(|query| self.shared(query)).collect();
                job.manifest = Some(Arc::new(Manifest { queries }));
            }
            if let Some(index) = job.folder.as_mut().and_then(|folder| Arc::make_mut(folder).index.as_mut()) {
                self.share_names(&mut index.checkpoints);
            }
            self.set_job(job);
        }
    }

    /// Replaces names by those of the file table.
    pub(super) fn share_names(&self, names: &mut [Arc<idunno_shared::names::FileName>]) {
        for name in names {
            if let Some((key, _)) = self.files.get_key_value(name.as_str()) {
                *name = Arc::clone(&key.0);
            }
        }
    }

    fn shared(&self, query: &Query) -> Query {
        let Some((key, file)) = self.files.get_key_value(query.name.as_str()) else { return query.clone() };
        let known = file.versions().find(|version| version.extents == query.extents);
        let extents = known.map_or_else(|| query.extents.clone(), |version| version.extents.clone());
        Query { name: Arc::clone(&key.0), extents }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compact_table_has_all_its_entries() {
        for count in [0, 1, 2, 3, 1_023, 1_024, 1_025, 5_000_u64] {
            let plain: OrdMap<u64, u64> = (0..count).map(|number| (number, number * 2)).collect();
            let read = compact((0..count).map(|number| Ok::<_, ()>((number, number * 2)))).unwrap();
            assert_eq!(read, plain, "{count}");
        }
    }

    #[test]
    fn equal_lists_of_holders_are_one() {
        let mut lists = HolderLists::default();
        let list = |first: u64| [NodeId(first), NodeId(first + 1)];
        let one = lists.share(&list(1));
        assert!(Arc::ptr_eq(&one, &lists.share(&list(1))));
        for first in 0..20 * HOLDER_LISTS_MAX {
            assert_eq!(*lists.share(&list(first)), list(first));
        }
        assert!(lists.0.len() as u64 <= HOLDER_LISTS_MAX);
        // All ways to place four copies in a cluster of ten: few displace each other.
        let mut lists = HolderLists::default();
        for nodes in (0_u64..1 << 10).filter(|nodes| nodes.count_ones() == 4) {
            let holders: Vec<NodeId> = (0..10).filter(|bit| nodes >> bit & 1 == 1).map(NodeId).collect();
            lists.share(&holders);
        }
        assert!(lists.0.len() >= 195, "{} of 210", lists.0.len());
    }
}
