//! JSON of commands on members and the cluster as a whole.

use std::collections::BTreeMap;

use idunno_shared::backup::BackupInfo;
use idunno_shared::ids::NodeId;
use idunno_shared::wire::control::{ClusterView, MemberView};
use idunno_shared::wire::resources::{self, WorkerResources};
use schemars::JsonSchema;
use serde::Serialize;

use super::document::documents;
use super::jobs::JobStats;
use super::words::{LogRole, MemberState, Policy, ServerState};
use super::{text, warnings};

documents!(MemberList, MemberIdentity, MembershipChange, ClusterStatus, Backup, Event);
documents!(listed LogLine);

/// `list_mem`: the membership list of one member. With `--output jsonl` this, too, is one line.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct MemberList {
    /// The address of the member that was asked.
    pub answered_by: String,
    /// The members, in natural order of their names.
    pub items: Vec<Member>,
    /// What is wrong with them, in sentences for people.
    pub warnings: Vec<String>,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Member {
    /// The member's name.
    pub name: String,
    /// The member's id, which it keeps for life.
    pub node_id: String,
    /// Where it listens.
    pub address: String,
    /// Whether it is reachable.
    pub state: MemberState,
    /// Since when it is in this state, in milliseconds since the epoch, by the clock of the member that was asked.
    pub since_ms: u64,
    /// Its role in the metadata log, as far as the member that was asked knows.
    pub role: LogRole,
    /// Whether it receives no UDP: it is then reached by TCP alone.
    pub udp_blocked: bool,
    /// Whether its disk does not answer, as far as the member that was asked knows: it then stores no new files.
    pub disk_hung: bool,
    /// Its SWIM incarnation.
    pub incarnation: u64,
    /// How often it has been started.
    pub generation: u64,
    /// The GPUs of its machine, as far as the coordinator knows: none where no model server of ours runs.
    pub devices: Vec<Device>,
}

/// A GPU of a member's machine.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Device {
    /// Its number on the machine, in PCI order.
    pub index: u32,
    /// The id that it keeps.
    pub uuid: String,
    /// Its product name.
    pub name: String,
    /// Its memory, in MiB.
    pub memory_mib: u64,
    /// What all processes of the machine use of it, in MiB.
    pub memory_used_mib: u64,
    /// Why models cannot use it.
    pub reason: Option<String>,
}

impl From<&resources::Device> for Device {
    fn from(device: &resources::Device) -> Self {
        Self {
            index: device.index,
            uuid: device.uuid.clone(),
            name: device.name.clone(),
            memory_mib: device.memory_mib,
            memory_used_mib: device.memory_used_mib,
            reason: Some(device.reason.clone()).filter(|reason| !reason.is_empty()),
        }
    }
}

impl Member {
    /// A member, with what the coordinator knows of its machine.
    pub fn new(member: &MemberView, resources: Option<&WorkerResources>) -> Self {
        let devices = resources.map_or(&[][..], |resources| &resources.devices);
        Self {
            name: member.name.to_string(),
            node_id: member.id.to_string(),
            address: member.address.to_string(),
            state: member.liveness.into(),
            since_ms: member.since_ms,
            role: member.role.into(),
            udp_blocked: member.udp_blocked,
            disk_hung: member.disk_hung(),
            incarnation: member.incarnation,
            generation: member.generation,
            devices: devices.iter().map(Device::from).collect(),
        }
    }
}

/// What the coordinator knows of each member's machine.
pub fn resources_by_member(view: &ClusterView) -> BTreeMap<NodeId, &WorkerResources> {
    view.workers.iter().map(|worker| (worker.node, &worker.resources)).collect()
}

/// `list_self`: what a member says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct MemberIdentity {
    /// The member.
    #[serde(flatten)]
    pub member: Member,
    /// Whether it has joined the cluster.
    pub joined: bool,
    /// Its data directory.
    pub data_dir: String,
    /// Its process.
    pub pid: u32,
    /// The version of its program.
    pub program_version: String,
}

/// `join`, `leave`: the member that joined or left.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct MembershipChange {
    /// The member's address.
    pub address: String,
    /// What it did.
    pub change: Membership,
}

/// What a member did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Membership {
    /// It joined the cluster.
    Joined,
    /// It left the cluster.
    Left,
}

impl Membership {
    /// As it is serialised.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Left => "left",
        }
    }
}

/// `status`: the whole cluster, as its coordinator sees it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ClusterStatus {
    /// The name of the coordinator.
    pub coordinator: String,
    /// The coordinator's term.
    pub term: u64,
    /// When the coordinator took this, in milliseconds since the epoch.
    pub at_ms: u64,
    /// The metadata's revision, which rises with every change.
    pub revision: u64,
    /// How workers are shared between running jobs.
    pub policy: Policy,
    /// The members.
    pub members: Vec<Member>,
    /// The model servers of the members that have one.
    pub model_servers: Vec<ModelServer>,
    /// The jobs, by number.
    pub jobs: Vec<JobStats>,
    /// The file store.
    pub store: Store,
    /// What is wrong with the members, in sentences for people.
    pub warnings: Vec<String>,
}

/// A member's model server.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ModelServer {
    /// The member's name.
    pub member: String,
    /// The state.
    pub state: ServerState,
    /// Why it is down.
    pub reason: Option<String>,
}

/// The file store in figures.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Store {
    /// Files.
    pub files: u64,
    /// Blobs that files and results consist of.
    pub blobs: u64,
    /// Bytes of the blobs, each counted once.
    pub size_bytes: u64,
    /// Blobs with fewer live copies than they should have.
    pub under_replicated: u64,
    /// Copies under way.
    pub copying: u64,
    /// Blobs without a live copy.
    pub unavailable: u64,
    /// Disks of live members that have no room for another extent of 64 MiB.
    pub full_disks: u64,
}

impl From<&ClusterView> for ClusterStatus {
    fn from(view: &ClusterView) -> Self {
        let model_servers = view.workers.iter().map(|worker| ModelServer {
            member: text::member_name(&view.members, worker.node),
            state: ServerState::from(&worker.server),
            reason: text::server_state(&worker.server).1.map(str::to_owned),
        });
        let resources = resources_by_member(view);
        let member = |member: &MemberView| Member::new(member, resources.get(&member.id).copied());
        let store = &view.store;
        Self {
            coordinator: text::member_name(&view.members, view.coordinator),
            term: view.term.0,
            at_ms: view.at_ms,
            revision: view.revision,
            policy: view.policy.into(),
            members: view.members.iter().map(member).collect(),
            model_servers: model_servers.collect(),
            jobs: view.jobs.iter().map(JobStats::from).collect(),
            store: Store {
                files: store.files,
                blobs: store.blobs,
                size_bytes: store.bytes,
                under_replicated: store.under_replicated,
                copying: store.copying,
                unavailable: store.unavailable,
                full_disks: store.full_disks,
            },
            warnings: warnings::of(&view.members),
        }
    }
}

/// `backup`: a backup of the metadata.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Backup {
    /// The local file.
    pub path: String,
    /// The id of the member that founded the cluster, if that is known.
    pub founder_node_id: Option<String>,
    /// The version of the program that made it.
    pub program_version: String,
    /// The coordinator's term in which it was made.
    pub term: u64,
    /// The last entry of the log that it contains.
    pub index: u64,
    /// When it was made, in milliseconds since the epoch, by the coordinator's clock.
    pub created_ms: u64,
    /// Files of the store.
    pub files: u64,
    /// Jobs.
    pub jobs: u64,
}

impl Backup {
    /// The backup at `path`.
    pub fn new(path: String, about: &BackupInfo) -> Self {
        Self {
            path,
            founder_node_id: about.founder.map(|founder| founder.to_string()),
            program_version: about.program_version.clone(),
            term: about.term,
            index: about.index,
            created_ms: about.made_ms,
            files: about.files,
            jobs: about.jobs,
        }
    }
}

/// `logs`: a line of a member's log.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct LogLine {
    /// The member's name.
    pub member: String,
    /// The line.
    pub line: String,
}

/// `events`: something that happened in the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Event {
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// What it concerns: election, member, worker, job, sharing, model or store.
    pub subject: String,
    /// What happened.
    pub text: String,
}
