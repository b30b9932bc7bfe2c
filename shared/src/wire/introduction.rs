//! Between a member and the introducer.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::names::MemberName;

/// What a member asks of the introducer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IntroductionRequest {
    /// Remember me, and tell me whom to join.
    Introduce {
        /// The member.
        id: NodeId,
        /// Its name.
        name: MemberName,
        /// Where it listens.
        address: SocketAddr,
        /// The founder of the cluster that it belongs to, once it does.
        #[serde(default)]
        founder: Option<NodeId>,
        /// It forgot its log and keeps blobs: it must find its cluster again, and never found one, for which all that it
        /// keeps would be garbage.
        #[serde(default)]
        must_join: bool,
    },
    /// Whom do you know? (people's tools, to find a member)
    Known,
}

/// The introducer's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntroductionReply {
    /// The one member that founds the metadata log: the first that was ever introduced, or the one that the first of a
    /// cluster names.
    pub founder: Option<NodeId>,
    /// Members known, the most recently introduced first; at most 64.
    pub members: Vec<(NodeId, SocketAddr)>,
}
