//! A model package on this machine.

use std::path::PathBuf;

use idunno_shared::names::ModelName;
use tokio::task::spawn_blocking;

use crate::answer::{Exit, Failure};
use crate::package::{Links, LocalPackage};

/// What a path holds, read on a thread that may wait for the disk.
pub(super) async fn open(
    path: PathBuf,
    name: Option<ModelName>,
    links: Links,
) -> Result<LocalPackage, Failure> {
    let opened = spawn_blocking(move || LocalPackage::open(&path, name, links)).await;
    let opened = opened.map_err(|error| Failure::error(error.to_string()))?;
    opened.map_err(|error| Failure::new(Exit::Refused, error.to_string()))
}
