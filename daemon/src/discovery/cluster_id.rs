//! The cluster that this member belongs to, identified by the member that founded it. It is learned once and kept.
//!
//! Two clusters must never mix: an introducer that lost its file makes the next newcomer a founder, and addresses move from
//! one machine to another. So a member tells the introducer which cluster it belongs to, and exchanges membership lists only
//! within that cluster. A cluster recovered from a lost majority counts as a different one ([`crate::recovery`]).

use std::sync::{Arc, OnceLock};

use idunno_shared::ids::NodeId;
use thiserror::Error;
use tracing::{info, warn};

use crate::runtime::data_dir::{DataDir, DataDirError};

pub const CLUSTER_FILE: &str = "cluster.json";
/// Exists while this member has dropped its log and has not joined a cluster yet: it must not found one.
pub const MUST_JOIN_FILE: &str = "must-join.json";

/// The founders of the clusters of which this one was recovered or restored, at its founder.
pub const SUPERSEDES_FILE: &str = "supersedes.json";

/// The other side belongs to a different cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "this member belongs to the cluster founded by {ours}, not to the one founded by {theirs}. To move it, stop it and give \
     it an empty --data-dir. If an introducer lost its file, stop it, delete its introducer.json and stop the members of the \
     unwanted cluster. If one cluster was recovered from the other's lost majority, stop the members of the lost one and run \
     'idunnod recover --forget-log' on their --data-dir, which keeps their blobs"
)]
pub struct ClusterMismatch {
    ours: NodeId,
    theirs: NodeId,
}

/// The cluster that this member belongs to, once known. Cheap to clone.
#[derive(Clone)]
pub struct ClusterId {
    founder: Arc<OnceLock<NodeId>>,
    must_join: bool,
    supersedes: Arc<[NodeId]>,
    data_dir: Arc<DataDir>,
}

impl ClusterId {
    /// Reads what an earlier process stored.
    pub fn open(data_dir: Arc<DataDir>) -> Result<Self, DataDirError> {
        let founder = data_dir.read_json::<NodeId>(CLUSTER_FILE)?;
        let must_join = data_dir.read_json::<bool>(MUST_JOIN_FILE)?.is_some();
        let founder = Arc::new(founder.map_or_else(OnceLock::new, OnceLock::from));
        let supersedes = data_dir.read_json::<Vec<NodeId>>(SUPERSEDES_FILE).unwrap_or_else(|error| {
            warn!(%error, "cannot read which clusters this one replaces");
            None
        });
        let supersedes = supersedes.unwrap_or_default().into();
        Ok(Self { founder, must_join, supersedes, data_dir })
    }

    pub fn founder(&self) -> Option<NodeId> {
        self.founder.get().copied()
    }

    /// Whether this member keeps blobs of a cluster that it has not rejoined yet. Until then it must not found one.
    pub fn must_join(&self) -> bool {
        self.must_join && self.founder().is_none()
    }

    /// The founders of the clusters of which this one was recovered or restored, as its founder knows them.
    pub fn supersedes(&self) -> &[NodeId] {
        &self.supersedes
    }

    /// Refuses a peer of a different cluster. A peer without a cluster is accepted.
    pub fn check(&self, theirs: Option<NodeId>) -> Result<(), ClusterMismatch> {
        match (self.founder(), theirs) {
            (Some(ours), Some(theirs)) if ours != theirs => Err(ClusterMismatch { ours, theirs }),
            _ => Ok(()),
        }
    }

    /// Adopts the cluster, unless this member already belongs to one.
    pub fn adopt(&self, founder: NodeId) -> Result<(), ClusterMismatch> {
        let known = self.founder.get_or_init(|| {
            // Without the file it is learned again at the next start.
            let write = || {
                self.data_dir.write_json(CLUSTER_FILE, &founder)?;
                self.data_dir.remove(MUST_JOIN_FILE)
            };
            if let Err(error) = write() {
                warn!(%error, "cannot store the cluster id");
            }
            info!(%founder, "joined a cluster");
            founder
        });
        if *known == founder { Ok(()) } else { Err(ClusterMismatch { ours: *known, theirs: founder }) }
    }
}
