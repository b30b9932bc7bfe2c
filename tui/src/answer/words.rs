//! States that JSON names in a word, with the same words as the tables.

use idunno_shared::wire::control as wire;
use idunno_shared::wire::jobs::{self, BatchSize as WireBatchSize};
use schemars::JsonSchema;
use serde::Serialize;

/// A job's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Added and never started.
    Added,
    /// Running, or waiting for members that can run it.
    Running,
    /// Paused by stop-job.
    Stopped,
    /// Paused by the cluster because every batch failed.
    Paused,
    /// Every query is answered or a dead letter.
    Done,
    /// Ended by cancel-job before every query had an outcome.
    Cancelled,
    /// Started, and runs once the job that it follows is done.
    Waiting,
}

impl From<&wire::JobState> for JobState {
    fn from(state: &wire::JobState) -> Self {
        match state {
            wire::JobState::Added => Self::Added,
            wire::JobState::Running => Self::Running,
            wire::JobState::Stopped => Self::Stopped,
            wire::JobState::Paused(_) => Self::Paused,
            wire::JobState::Done => Self::Done,
            wire::JobState::Cancelled => Self::Cancelled,
            wire::JobState::Waiting(_) => Self::Waiting,
        }
    }
}

/// Whether a member is reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// It answers.
    Up,
    /// It does not answer and is not declared dead yet.
    Suspect,
    /// It was declared dead.
    Dead,
    /// It left the cluster in good order.
    Left,
}

impl From<wire::Liveness> for MemberState {
    fn from(liveness: wire::Liveness) -> Self {
        match liveness {
            wire::Liveness::Alive => Self::Up,
            wire::Liveness::Suspect => Self::Suspect,
            wire::Liveness::Dead => Self::Dead,
            wire::Liveness::Left => Self::Left,
        }
    }
}

/// A member's role in the replicated metadata log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogRole {
    /// Leads the log and schedules the cluster's work.
    Coordinator,
    /// Votes on entries of the log.
    Voter,
    /// Follows the log without a vote.
    Learner,
    /// Does not hold the log.
    Spare,
}

impl From<wire::LogRole> for LogRole {
    fn from(role: wire::LogRole) -> Self {
        match role {
            wire::LogRole::Coordinator => Self::Coordinator,
            wire::LogRole::Voter => Self::Voter,
            wire::LogRole::Learner => Self::Learner,
            wire::LogRole::Spare => Self::Spare,
        }
    }
}

/// A model's state at one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModelState {
    /// The member trains it.
    Training,
    /// The member's model server loads it.
    Loading,
    /// It is loaded and answers queries.
    Ready,
    /// It could not be loaded.
    Failed,
}

impl From<&jobs::ModelState> for ModelState {
    fn from(state: &jobs::ModelState) -> Self {
        match state {
            jobs::ModelState::Training => Self::Training,
            jobs::ModelState::Loading => Self::Loading,
            jobs::ModelState::Ready(_) => Self::Ready,
            jobs::ModelState::Failed(_) => Self::Failed,
        }
    }
}

/// The state of a member's model server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    /// It starts.
    Starting,
    /// It answers requests.
    Ready,
    /// It does not answer, or there is none.
    Down,
}

impl From<&jobs::ServerState> for ServerState {
    fn from(state: &jobs::ServerState) -> Self {
        match state {
            jobs::ServerState::Starting => Self::Starting,
            jobs::ServerState::Ready => Self::Ready,
            jobs::ServerState::Down(_) => Self::Down,
        }
    }
}

/// How workers are shared between running jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Every job answers equally many queries per second.
    Rate,
    /// Every job gets an equal share of the workers' time.
    Time,
    /// The oldest job gets all workers that can serve it.
    Fifo,
}

impl From<jobs::Policy> for Policy {
    fn from(policy: jobs::Policy) -> Self {
        match policy {
            jobs::Policy::Rate => Self::Rate,
            jobs::Policy::Time => Self::Time,
            jobs::Policy::Fifo => Self::Fifo,
        }
    }
}

/// How far a worker is with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LeaseStage {
    /// The batch waits for those before it.
    Waiting,
    /// Inference runs.
    Running,
    /// Inference is over, and the result awaits its commit.
    Committing,
}

impl From<wire::LeaseStage> for LeaseStage {
    fn from(stage: wire::LeaseStage) -> Self {
        match stage {
            wire::LeaseStage::Waiting => Self::Waiting,
            wire::LeaseStage::Running { .. } => Self::Running,
            wire::LeaseStage::AwaitingCommit => Self::Committing,
        }
    }
}

/// Queries per batch: a number, or `auto`, which measures the best size for each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum BatchSize {
    /// The same for all workers.
    Fixed(u32),
    /// Measured for each worker.
    Auto(Auto),
}

/// The word `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Auto {
    /// Measured for each worker.
    Auto,
}

impl From<WireBatchSize> for BatchSize {
    fn from(size: WireBatchSize) -> Self {
        match size {
            WireBatchSize::Fixed(queries) => Self::Fixed(queries.get()),
            WireBatchSize::Auto => Self::Auto(Auto::Auto),
        }
    }
}
