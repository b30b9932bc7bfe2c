//! Errors of a daemon's configuration.

use std::fmt::Display;
use std::path::PathBuf;

use thiserror::Error;

/// The configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    /// The message names the line and the key.
    #[error("the configuration file {path} is not valid: {source}")]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error("'{key}' is not set: give --{flag}, {variable} or '{key}' in the configuration file")]
    Missing { key: &'static str, flag: &'static str, variable: &'static str },
    #[error(
        "'secret' is not set: create the cluster's secret with 'idunno cluster init --out FILE' and give that file to each \
         process by --secret, IDUNNO_SECRET or 'secret' in the configuration file (--insecure needs none, on loopback only)"
    )]
    NoSecret,
    #[error("'{key}' = {value} cannot be used: {why}")]
    Invalid {
        key: &'static str,
        value: String,
        /// What is wrong with the value, and what to do.
        why: String,
    },
}

pub(super) fn invalid(key: &'static str, value: impl Display, why: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { key, value: value.to_string(), why: why.into() }
}
