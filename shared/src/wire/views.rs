//! Views of the cluster for clients: members, workers, models and the store, as the coordinator knows them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::job_views::{AssignmentView, JobView, RebalanceView};
use super::jobs::{ModelState, Policy, ServerState, TrainingProgress};
use super::packages::PackageSummary;
use super::resources::WorkerResources;
use crate::ids::{Digest, JobId, NodeId, Term};
use crate::names::{FileName, MemberName, ModelName};

/// A model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelView {
    /// The model's name.
    pub model: ModelName,
    /// The version trained last, if there is one.
    pub version: Option<Digest>,
    /// Whether the model is being trained.
    pub training: bool,
    /// Why the last training failed, if it did.
    pub failure: Option<String>,
    /// The model's state at each worker that reported one.
    pub workers: Vec<(NodeId, ModelState)>,
    /// Progress of the training at each worker that trains the model.
    #[serde(default)]
    pub progress: Vec<(NodeId, TrainingProgress)>,
    /// Metrics of the training of `version`, as name and value.
    #[serde(default)]
    pub metrics: Vec<(String, String)>,
    /// What was added as `version`, if that is a package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageSummary>,
}

/// Whether a member is reachable, according to SWIM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Liveness {
    /// The member answers probes.
    Alive,
    /// A probe failed, and the member may still refute the suspicion.
    Suspect,
    /// The suspicion was not refuted in time, or the process is known to be gone.
    Dead,
    /// The member announced that it leaves.
    Left,
}

/// A member's role in the metadata log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogRole {
    /// The leader of the log.
    Coordinator,
    /// Votes.
    Voter,
    /// Receives the log, without a vote.
    Learner,
    /// Takes no part.
    Spare,
}

/// A member in the membership list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// The member's id.
    pub id: NodeId,
    /// The member's name.
    pub name: MemberName,
    /// The address at which the member listens.
    pub address: SocketAddr,
    /// The member's boot count.
    pub generation: u64,
    /// The member's SWIM incarnation.
    pub incarnation: u64,
    /// Whether the member is reachable.
    pub liveness: Liveness,
    /// Whether the member is reachable over TCP only.
    pub udp_blocked: bool,
    /// The member's role in the metadata log, as far as the member asked knows it.
    pub role: LogRole,
    /// When the member asked saw `liveness` change last, in milliseconds since the epoch; for that member itself, when it
    /// started.
    #[serde(default)]
    pub since_ms: u64,
    /// What the member asked finds wrong with it, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubts: Option<MemberDoubts>,
}

impl MemberView {
    /// Whether the member's disk does not answer.
    pub fn disk_hung(&self) -> bool {
        self.doubts.is_some_and(|doubts| doubts.disk_hung)
    }
}

/// What a member finds wrong with another that is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberDoubts {
    /// Its wall clock is ahead of the members' median by so many seconds, behind it if negative; 0 if it is in order.
    pub clock_ahead_s: i64,
    /// Whether its disk does not answer: the coordinator knows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disk_hung: bool,
}

/// A member as a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerView {
    /// The member's id.
    pub node: NodeId,
    /// State of its model server.
    pub server: ServerState,
    /// States of its models.
    pub models: Vec<(ModelName, ModelState)>,
    /// The devices of its machine and the processes of its models.
    #[serde(default, skip_serializing_if = "WorkerResources::is_empty")]
    pub resources: WorkerResources,
}

/// Totals of the file store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreView {
    /// Number of files.
    pub files: u64,
    /// Number of referenced blobs.
    pub blobs: u64,
    /// Bytes of the referenced blobs, each blob counted once.
    pub bytes: u64,
    /// Blobs with fewer live copies than they should have.
    pub under_replicated: u64,
    /// Copies in progress.
    pub copying: u64,
    /// Blobs without a live copy.
    pub unavailable: u64,
    /// Disks of live members that have no room for another extent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub full_disks: u64,
}

/// The state of the cluster, as a console shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The coordinator's term.
    pub term: Term,
    /// The coordinator's id.
    pub coordinator: NodeId,
    /// When the view was taken, in milliseconds since the epoch.
    pub at_ms: u64,
    /// Revision of the metadata; each change raises it.
    pub revision: u64,
    /// Members in id order.
    pub members: Vec<MemberView>,
    /// Members as workers.
    pub workers: Vec<WorkerView>,
    /// All models.
    pub models: Vec<ModelView>,
    /// Jobs in the order of their numbers: those with workers and the newest, as many as fit.
    pub jobs: Vec<JobView>,
    /// The jobs that each worker works for.
    pub assignments: Vec<AssignmentView>,
    /// Totals of the file store.
    pub store: StoreView,
    /// Batches and blobs of each member.
    #[serde(default)]
    pub loads: Vec<LoadView>,
    /// How workers are shared between jobs.
    #[serde(default)]
    pub policy: Policy,
    /// The latest changes of the assignment of workers to jobs, oldest first.
    #[serde(default, rename = "sharings")]
    pub rebalances: Vec<RebalanceView>,
    /// Recent query rates; only in a watcher's first view, and whenever a step has ended since the view before.
    #[serde(default)]
    pub rates: Option<RatesView>,
    /// Older jobs that are left out of `jobs`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub jobs_left_out: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Queries answered in steps of wall-clock time, as far back as the coordinator's term goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatesView {
    /// Length of a step, in milliseconds. Step n begins n steps after the epoch.
    pub step_ms: u32,
    /// Number of the first step.
    pub first: u64,
    /// Number of steps.
    pub steps: u16,
    /// Queries answered of each job, one count a step, ending with the last step. Leading zeros are left out, and so are
    /// jobs with nothing else.
    pub jobs: Vec<(JobId, Vec<u32>)>,
    /// Queries answered by each member, in the same form.
    pub members: Vec<(NodeId, Vec<u32>)>,
}

/// What a member holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadView {
    /// The member's id.
    pub node: NodeId,
    /// Batches that its worker holds.
    pub batches: u32,
    /// Queries in these batches.
    pub queries: u64,
    /// Blobs recorded at the member.
    pub blobs: u64,
    /// Bytes of these blobs.
    pub bytes: u64,
}

/// A row of `ls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSummary {
    /// The file's name.
    pub name: FileName,
    /// Number of the newest version.
    pub version: u64,
    /// Number of versions kept.
    pub versions: u32,
    /// Size of the newest version in bytes.
    pub size: u64,
    /// Digest of the newest version.
    pub digest: Digest,
    /// When the newest version was committed, in milliseconds since the epoch.
    pub created_ms: u64,
    /// Members that hold all of the newest version, and are up.
    pub holders: Vec<NodeId>,
    /// The attribute [`super::changes::ETAG`] of the newest version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

/// What a list of files is sorted by. Equal files are in the order of their names, and folders have no value but their name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKey {
    /// The name.
    #[default]
    Name,
    /// Size of the newest version.
    Size,
    /// Number of the newest version.
    Version,
    /// Number of the versions that are kept.
    Kept,
    /// Number of the members that hold the newest version, and are up.
    Copies,
    /// When the newest version was committed.
    Created,
}

/// The order of a list of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOrder {
    /// What it is sorted by.
    pub key: FileKey,
    /// Whether the greatest comes first.
    pub descending: bool,
}

/// An entry of a folder of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FolderEntry {
    /// A subfolder: its full name, with the slash at its end.
    Folder(String),
    /// A file.
    File(FileSummary),
}

/// The identity of the member asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityView {
    /// The member's own entry in the membership list.
    pub member: MemberView,
    /// Whether the member is part of the cluster; false after `leave`.
    pub joined: bool,
    /// The member's data directory.
    pub data_dir: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Version of the daemon's program.
    pub program_version: String,
}
