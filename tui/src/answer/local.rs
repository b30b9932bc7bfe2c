//! JSON of commands on a cluster of this machine.

use schemars::JsonSchema;
use serde::Serialize;

use super::document::documents;
use super::words::{LogRole, MemberState};

documents!(LocalCluster, StartedProcesses, KilledMembers, StoppedCluster);
documents!(listed LocalProcess, DeployedHost);

/// `deploy`: a VM with IDunno on it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct DeployedHost {
    /// What ssh calls it.
    pub host: String,
    /// The address at which others reach its member.
    pub address: String,
    /// The version that is installed now.
    pub version: String,
    /// Whether the introducer runs there, too.
    pub is_introducer: bool,
    /// Seconds until its member worked.
    pub took_s: f64,
}

/// `local up`: the cluster that runs.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct LocalCluster {
    /// The directory of its data.
    pub directory: String,
    /// The members.
    pub members: Vec<LocalMember>,
    /// Whether each member has a model server.
    pub model_servers: bool,
    /// Seconds until all members were ready.
    pub ready_s: f64,
    /// The URL of its gateway, if it has one.
    pub gateway: Option<String>,
}

/// A member on this machine.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct LocalMember {
    /// The member's name.
    pub name: String,
    /// Where it listens.
    pub address: Option<String>,
    /// Its data directory.
    pub data_dir: String,
}

/// `local start`: the processes that were started.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct StartedProcesses {
    /// Their names.
    pub started: Vec<String>,
}

/// `local kill`: the members that were killed.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct KilledMembers {
    /// The members.
    pub killed: Vec<KilledMember>,
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
}

/// A member that was killed.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct KilledMember {
    /// The member's name.
    pub name: String,
    /// Its process.
    pub pid: Option<u32>,
    /// Whether it was the coordinator.
    pub coordinator: bool,
}

/// `local down`: the cluster that was stopped.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct StoppedCluster {
    /// Processes that were running.
    pub stopped: u64,
    /// Of these, processes that did not end in time and were killed.
    pub forced: u64,
    /// Whether the data was deleted.
    pub purged: bool,
}

/// `local status`: a process of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct LocalProcess {
    /// `introducer`, or the member's name.
    pub name: String,
    /// Whether the process runs.
    pub running: bool,
    /// The process, if it runs.
    pub pid: Option<u32>,
    /// Where it listens.
    pub address: Option<String>,
    /// Whether the other members reach it; null for the introducer, and where no member answers.
    pub state: Option<MemberState>,
    /// Its role in the metadata log, while it runs.
    pub role: Option<LogRole>,
    /// Its data directory.
    pub data_dir: String,
}
