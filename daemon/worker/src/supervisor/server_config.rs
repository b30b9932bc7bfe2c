//! How a member's model servers are run and called.

use std::collections::BTreeSet;
use std::path::PathBuf;

use idunno_shared::names::ModelName;

use crate::model_server::{Endpoint, Header, ValueSource};

/// The member's own model server.
#[derive(Clone, Debug)]
pub enum ServerConfig {
    None,
    /// Started and watched by this process.
    Supervised {
        /// A Python interpreter with the package `idunno_model_server`.
        python: PathBuf,
        /// Inputs processed concurrently; by default one per core.
        threads: Option<u32>,
    },
    /// Managed elsewhere.
    Elsewhere {
        endpoint: Endpoint,
    },
}

/// A server of others, with the models that it answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub name: String,
    pub endpoint: Endpoint,
    pub models: BTreeSet<ModelName>,
    /// Most batches that all members together have it run or wait for it, if they share it.
    pub shared_in_flight: Option<u16>,
}

/// The variables that have values of headers.
pub(super) fn secret_variables(backends: &[Backend]) -> Vec<String> {
    let headers = backends.iter().flat_map(|backend| &backend.endpoint.headers);
    let variable = |header: &Header| match &header.value {
        ValueSource::Variable(name) => Some(name.clone()),
        ValueSource::File(_) => None,
    };
    headers.filter_map(variable).collect()
}
