//! What the models of a worker run on, and what they take.

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::bounded;
use super::control::ITEMS_PER_REQUEST_MAX;
use crate::ids::Digest;
use crate::names::ModelName;

/// Most devices of a worker that are reported.
pub const DEVICES_MAX: usize = 64;
/// Most runners of a worker that are reported.
pub const RUNNERS_MAX: usize = ITEMS_PER_REQUEST_MAX;
/// Most model servers that a worker shares with others.
pub const SHARED_BACKENDS_MAX: usize = 16;
/// Longest text of a device or runner, in characters.
pub const RESOURCE_TEXT_CHARACTERS_MAX: usize = 128;

/// What a worker runs batches with: the devices of its machine, the processes there, servers that it shares, and what its
/// program can read. What it cannot read is left out of the message, as older programs send and expect it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct WorkerResources {
    /// The GPUs, by their index.
    #[serde(default, deserialize_with = "bounded::list::<DEVICES_MAX, _, _>")]
    pub devices: Vec<Device>,
    /// The runners.
    #[serde(default, deserialize_with = "bounded::list::<RUNNERS_MAX, _, _>")]
    pub runners: Vec<Runner>,
    /// The model servers of others that it calls beside other workers.
    #[serde(default, deserialize_with = "bounded::list::<SHARED_BACKENDS_MAX, _, _>")]
    pub shared: Vec<SharedBackend>,
    /// Whether its program reads Parquet.
    #[serde(default)]
    pub reads_parquet: bool,
    /// Whether its program reads objects outside the cluster.
    #[serde(default)]
    pub reads_references: bool,
}

impl Serialize for WorkerResources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let later = match (self.reads_parquet, self.reads_references) {
            (_, true) => 2,
            (true, false) => 1,
            (false, false) => 0,
        };
        let mut resources = serializer.serialize_struct("WorkerResources", 3 + later)?;
        resources.serialize_field("devices", &self.devices)?;
        resources.serialize_field("runners", &self.runners)?;
        resources.serialize_field("shared", &self.shared)?;
        if later > 0 {
            resources.serialize_field("reads_parquet", &self.reads_parquet)?;
        }
        if later > 1 {
            resources.serialize_field("reads_references", &self.reads_references)?;
        }
        resources.end()
    }
}

/// What a program must be built with to read a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFeature {
    /// Parquet files.
    Parquet,
    /// Objects outside the cluster.
    References,
}

impl WorkerResources {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What its program is built with.
    pub fn features(&self) -> Vec<ReadFeature> {
        let features =
            [(ReadFeature::Parquet, self.reads_parquet), (ReadFeature::References, self.reads_references)];
        features.into_iter().filter(|(_, is_built)| *is_built).map(|(feature, _)| feature).collect()
    }
}

/// A model server that several workers call. Workers share it if they give it the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedBackend {
    /// Its name in the workers' configurations.
    pub id: String,
    /// Most batches that all workers together have it run, or wait for it.
    pub in_flight: u16,
    /// The models that it answers for.
    #[serde(deserialize_with = "bounded::list::<ITEMS_PER_REQUEST_MAX, _, _>")]
    pub models: Vec<ModelName>,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Why models cannot use it; empty if they can.
    pub reason: String,
}

/// A process that runs one version of a model on one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runner {
    /// The model.
    pub model: ModelName,
    /// The model's version.
    pub version: Digest,
    /// `cpu`, or `cuda:` and the index of a device.
    pub device: String,
    /// The memory of the process and its children on the host, in MiB.
    pub memory_mib: u64,
    /// `running`, `restarting` or `failed`.
    pub state: String,
}
