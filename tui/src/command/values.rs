//! What people write as arguments, beside names that the cluster has: references, parameters, choices.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use idunno_shared::ids::JobId;
use idunno_shared::names::{JobName, MemberName, NameError, ParameterName};
use idunno_shared::security::Role;
use idunno_shared::security::secret::KeyRotation;
use idunno_shared::wire::control::LogLevel;
use idunno_shared::wire::jobs::Policy;

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RowFormat {
    /// A JSON object a line.
    #[default]
    Jsonl,
    /// CSV with a headline.
    Csv,
}

/// In what jobs are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PolicyName {
    /// In answers per second.
    Rate,
    /// In the workers' time.
    Time,
    /// In nothing: the oldest job comes first.
    Fifo,
}

/// How much a log's lines matter at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LeastLevel {
    /// All lines.
    #[default]
    Debug,
    /// What goes on.
    Info,
    /// What may go wrong.
    Warn,
    /// What went wrong.
    Error,
}

impl From<LeastLevel> for LogLevel {
    fn from(level: LeastLevel) -> Self {
        match level {
            LeastLevel::Debug => Self::Debug,
            LeastLevel::Info => Self::Info,
            LeastLevel::Warn => Self::Warn,
            LeastLevel::Error => Self::Error,
        }
    }
}

/// A moment, as a log's timestamps in UTC begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since(pub String);

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_moment = |text: &str| {
            let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            shape.len() >= 10 && "0000-00-00T00:00:00.000000".starts_with(&shape)
        };
        let moment = text.trim_end_matches('Z');
        if is_moment(moment) {
            return Ok(Self(moment.to_owned()));
        }
        let ago = humantime::parse_duration(text);
        let ago = ago.map_err(|_| "write 90s, 10m, 2h or 1d, or a moment in UTC as 2026-11-25T20:06")?;
        let then = std::time::SystemTime::now().checked_sub(ago).ok_or("that is before all time")?;
        Ok(Self(humantime::format_rfc3339_micros(then).to_string().trim_end_matches('Z').to_owned()))
    }
}

/// What an identity lets a person do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ConsoleRole {
    /// Look.
    Viewer,
    /// Everything.
    Operator,
}

impl From<ConsoleRole> for Role {
    fn from(role: ConsoleRole) -> Self {
        match role {
            ConsoleRole::Viewer => Self::Viewer,
            ConsoleRole::Operator => Self::Operator,
        }
    }
}

/// A step of replacing a secret's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum RotationStep {
    /// A new key is trusted.
    Add,
    /// It signs.
    Sign,
    /// The old key is trusted no more.
    Drop,
}

impl From<RotationStep> for KeyRotation {
    fn from(step: RotationStep) -> Self {
        match step {
            RotationStep::Add => Self::Add,
            RotationStep::Sign => Self::Sign,
            RotationStep::Drop => Self::Drop,
        }
    }
}

impl From<PolicyName> for Policy {
    fn from(name: PolicyName) -> Self {
        match name {
            PolicyName::Rate => Self::Rate,
            PolicyName::Time => Self::Time,
            PolicyName::Fifo => Self::Fifo,
        }
    }
}

/// A shell that can complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    /// Bash.
    Bash,
    /// Elvish.
    Elvish,
    /// Fish.
    Fish,
    /// PowerShell.
    Powershell,
    /// Zsh.
    Zsh,
}

/// A parameter as it is written: `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter(pub ParameterName, pub String);

impl FromStr for Parameter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or_else(|| format!("'{text}' is no K=V"))?;
        Ok(Self(name.parse().map_err(|error: NameError| error.to_string())?, value.to_owned()))
    }
}

/// A job as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobRef {
    /// Its number.
    Id(JobId),
    /// Its name.
    Name(JobName),
}

impl FromStr for JobRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(id) => Ok(Self::Id(id)),
            Err(error) => {
                text.parse().map(Self::Name).map_err(|_| format!("{error}, or the name it was given"))
            }
        }
    }
}

impl fmt::Display for JobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// A member as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberRef {
    /// Where it listens.
    Address(SocketAddr),
    /// Its name.
    Name(MemberName),
}

impl FromStr for MemberRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.parse() {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) => text.parse().map(Self::Name),
        }
    }
}

impl fmt::Display for MemberRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}
