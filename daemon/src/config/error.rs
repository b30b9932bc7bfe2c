//! Why a daemon does not start with what it was told.

use std::fmt::Display;
use std::path::PathBuf;

use thiserror::Error;

/// Why the settings cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not valid; the message names line and key.
    #[error("the configuration file {path} is not valid: {source}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<toml::de::Error>,
    },
    /// A setting is missing.
    #[error("'{key}' is not set: give --{flag}, {variable} or '{key}' in the configuration file")]
    Missing {
        /// The key in the file.
        key: &'static str,
        /// The flag.
        flag: &'static str,
        /// The environment variable.
        variable: &'static str,
    },
    /// Nothing says how others prove that they belong here.
    #[error(
        "'secret' is not set: make the cluster's with 'idunno cluster init --out FILE', and give that file to each of its \
         processes by --secret, IDUNNO_SECRET or 'secret' in the configuration file (--insecure does without, on loopback)"
    )]
    NoSecret,
    /// A setting has a value that cannot be used.
    #[error("'{key}' = {value} cannot be used: {why}")]
    Invalid {
        /// The key in the file.
        key: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it, and what to do.
        why: String,
    },
}

/// The error of a value that cannot be used.
pub(super) fn invalid(key: &'static str, value: impl Display, why: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { key, value: value.to_string(), why: why.into() }
}
