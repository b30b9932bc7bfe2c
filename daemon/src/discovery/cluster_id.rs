//! Which cluster this member belongs to, named by the member that founded it. It is learnt once and kept.
//!
//! Two clusters must never mix: an introducer that has lost its file takes the next newcomer for a founder, and addresses
//! are handed on from one machine to another. So a member that belongs to a cluster says so to the introducer, and
//! exchanges lists with nobody who belongs to another one. One that is recovered from a lost majority is another cluster
//! ([`crate::recovery`]).

use std::sync::{Arc, OnceLock};

use idunno_shared::ids::NodeId;
use thiserror::Error;
use tracing::{info, warn};

use crate::runtime::data_dir::{DataDir, DataDirError};

/// Which cluster it is.
pub const CLUSTER_FILE: &str = "cluster.json";
/// While it is there, this member has forgotten its log and not found its cluster yet: it must not found one.
pub const MUST_JOIN_FILE: &str = "must-join.json";

/// Somebody belongs to another cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "this member belongs to the cluster that {ours} founded, not to that of {theirs}: if it is to move, stop it and give \
     it an empty --data-dir; if an introducer lost its file, stop it, delete its introducer.json, and stop the members of \
     the cluster that is not wanted; if one of them was recovered from the other's lost majority, stop the members of \
     the lost one and run 'idunnod recover --forget-log' on their --data-dir, which keeps their blobs"
)]
pub struct ClusterMismatch {
    ours: NodeId,
    theirs: NodeId,
}

/// The cluster that this member belongs to, once it does. Cheap to clone.
#[derive(Clone)]
pub struct ClusterId {
    founder: Arc<OnceLock<NodeId>>,
    must_join: bool,
    data_dir: Arc<DataDir>,
}

impl ClusterId {
    /// Reads what an earlier run learnt.
    pub fn open(data_dir: Arc<DataDir>) -> Result<Self, DataDirError> {
        let founder = data_dir.read_json::<NodeId>(CLUSTER_FILE)?;
        let must_join = data_dir.read_json::<bool>(MUST_JOIN_FILE)?.is_some();
        let founder = Arc::new(founder.map_or_else(OnceLock::new, OnceLock::from));
        Ok(Self { founder, must_join, data_dir })
    }

    /// Its founder.
    pub fn founder(&self) -> Option<NodeId> {
        self.founder.get().copied()
    }

    /// Whether it keeps blobs of a cluster that it has not found yet. Until then it founds none.
    pub fn must_join(&self) -> bool {
        self.must_join && self.founder().is_none()
    }

    /// Whether whoever belongs there, if anywhere, may be spoken to.
    pub fn check(&self, theirs: Option<NodeId>) -> Result<(), ClusterMismatch> {
        match (self.founder(), theirs) {
            (Some(ours), Some(theirs)) if ours != theirs => Err(ClusterMismatch { ours, theirs }),
            _ => Ok(()),
        }
    }

    /// Belongs to that cluster from now on, unless it belongs to one already.
    pub fn belong(&self, founder: NodeId) -> Result<(), ClusterMismatch> {
        let known = self.founder.get_or_init(|| {
            // Without the file it is learnt anew at the next start.
            let write = || {
                self.data_dir.write_json(CLUSTER_FILE, &founder)?;
                self.data_dir.remove(MUST_JOIN_FILE)
            };
            if let Err(error) = write() {
                warn!(%error, "which cluster this member belongs to is not kept");
            }
            info!(%founder, "belongs to the cluster");
            founder
        });
        if *known == founder { Ok(()) } else { Err(ClusterMismatch { ours: *known, theirs: founder }) }
    }
}
