//! Files of a test, and what must be read back.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use idunno_shared::client::files::{GetItem, NoProgress, PutItem, PutOptions, PutReport};
use idunno_shared::ids::NodeId;
use idunno_shared::names::FileName;
use idunno_shared::wire::control::{ControlReply, ControlRequest, FileVersion, ITEMS_PER_REQUEST_MAX};

use super::{LocalCluster, name};

/// Bytes that differ from number to number and do not compress.
pub(crate) fn content(number: u64, length: usize) -> Vec<u8> {
    use rand::{RngExt, SeedableRng};
    let mut bytes = vec![0; length];
    rand_chacha::ChaCha8Rng::seed_from_u64(number).fill(&mut bytes[..]);
    bytes
}

/// Files of a test by their names in the store, with the content that must be read back.
#[derive(Clone, Default)]
pub(crate) struct Expected(pub(crate) BTreeMap<String, Vec<u8>>);

impl Expected {
    /// Small files `PREFIX/NNNN` of up to 20 KB, different from each other.
    pub(crate) fn small(prefix: &str, numbers: Range<u64>) -> Self {
        let length = |number: u64| usize::try_from(number * 7919 % 20_000).unwrap();
        Self(numbers.map(|n| (format!("{prefix}/{n:04}"), content(n, length(n)))).collect())
    }

    /// One file more.
    pub(crate) fn add(&mut self, name: &str, bytes: Vec<u8>) {
        self.0.insert(name.to_owned(), bytes);
    }

    /// Writes them to local files and puts them, all in one call.
    pub(crate) async fn put(&self, cluster: &LocalCluster) -> PutReport {
        let items = self.write_local(cluster);
        let put = cluster.files().put_files(items, PutOptions::default(), &NoProgress).await;
        put.unwrap_or_else(|error| cluster.fail(&format!("put: {error}")))
    }

    /// Writes them to local files.
    pub(crate) fn write_local(&self, cluster: &LocalCluster) -> Vec<PutItem> {
        let local = |name: &str| cluster.scratch(&format!("put-{}", name.replace('/', "-")));
        let items = self.0.iter().map(|(file, bytes)| {
            let path = local(file);
            std::fs::write(&path, bytes).unwrap();
            PutItem { name: name(file), path }
        });
        items.collect()
    }

    /// Gets all and compares every byte.
    pub(crate) async fn verify(&self, cluster: &LocalCluster) {
        let dir = tempfile::tempdir_in(cluster.path()).unwrap();
        let target = |file: &str| dir.path().join(file.replace('/', "-"));
        let items = self.0.keys().map(|file| GetItem { name: name(file), target: target(file) }).collect();
        let got = cluster.files().get_files(items, &NoProgress).await;
        let report = got.unwrap_or_else(|error| cluster.fail(&format!("get: {error}")));
        assert_eq!(report.files, self.0.len() as u64);
        for (file, bytes) in &self.0 {
            assert!(std::fs::read(target(file)).unwrap() == *bytes, "'{file}' came back different");
        }
    }

    /// Where they are, as the coordinator says.
    pub(crate) async fn located(&self, cluster: &LocalCluster) -> Result<Vec<FileVersion>, String> {
        let names: Vec<FileName> = self.0.keys().map(|file| name(file)).collect();
        let (client, mut found) = (cluster.client(), Vec::with_capacity(names.len()));
        for part in names.chunks(ITEMS_PER_REQUEST_MAX) {
            let request = ControlRequest::Locate { names: part.to_vec(), version: None };
            match client.control(request).await {
                Ok(ControlReply::Located(versions)) => found.extend(versions.into_iter().flatten()),
                other => return Err(format!("{other:?}")),
            }
        }
        if found.len() == names.len() { Ok(found) } else { Err(String::from("files are missing")) }
    }
}

/// Whether every extent of the versions has `copies` different holders, all of them members that are up.
pub(crate) fn check_copies(
    cluster: &LocalCluster,
    versions: &[FileVersion],
    copies: usize,
) -> Result<(), String> {
    let up: BTreeSet<NodeId> = cluster.up().into_iter().map(|index| cluster.node(index)).collect();
    for version in versions {
        for placed in &version.extents {
            let holders: BTreeSet<NodeId> = placed.holders.iter().map(|holder| holder.node).collect();
            let live = holders.intersection(&up).count();
            if live != copies || holders.len() != copies {
                return Err(format!(
                    "'{}' has {live} live of {} holders, {copies} wanted",
                    version.name,
                    holders.len()
                ));
            }
        }
    }
    Ok(())
}
