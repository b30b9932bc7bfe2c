//! Argument types of the command line: references to jobs and members, parameters, choices.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use idunno_shared::ids::{JobId, JobIdError};
use idunno_shared::names::{JobName, MemberName, NameError, ParameterName};
use idunno_shared::security::secret::KeyRotation;
use idunno_shared::security::{Role, VALID_DAYS_DEFAULT, VALID_DAYS_MAX};
use idunno_shared::wire::control::LogLevel;
use idunno_shared::wire::jobs::Policy;
use idunno_shared::wire::webhooks::{WebhookUrl, WebhookUrlError};
use thiserror::Error;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The format of result rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RowFormat {
    /// One JSON object per line
    #[default]
    Jsonl,
    /// CSV with a header line
    Csv,
    /// Parquet with typed columns
    Parquet,
}

/// What happens when a job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnEnd {
    /// The cluster tells this address.
    Url(WebhookUrl),
    /// The shell runs this here.
    Command(String),
}

impl FromStr for OnEnd {
    type Err = WebhookUrlError;

    fn from_str(text: &str) -> Result<Self, WebhookUrlError> {
        if WebhookUrl::is_meant(text) {
            text.parse().map(Self::Url)
        } else {
            Ok(Self::Command(text.to_owned()))
        }
    }
}

/// How workers are shared between running jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PolicyName {
    /// Equal query rates
    Rate,
    /// Equal worker time
    Time,
    /// The oldest job first
    Fifo,
}

/// The minimum level of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum MinLevel {
    #[default]
    Debug,
    Info,
    Warn,
    Error,
}

impl From<MinLevel> for LogLevel {
    fn from(level: MinLevel) -> Self {
        match level {
            MinLevel::Debug => Self::Debug,
            MinLevel::Info => Self::Info,
            MinLevel::Warn => Self::Warn,
            MinLevel::Error => Self::Error,
        }
    }
}

/// A time, as a prefix of a log's UTC time stamps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since(pub String);

/// The argument is neither a duration nor a time.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SinceError {
    #[error("write a duration such as 90s, 10m, 2h or 1d, or a UTC time such as 2026-11-25T20:06")]
    Format,
    #[error("'{0}' is no date of the calendar, or no time of the day")]
    NoTime(String),
    #[error("that time is before the earliest representable one")]
    TooEarly,
}

impl FromStr for Since {
    type Err = SinceError;

    fn from_str(text: &str) -> Result<Self, SinceError> {
        let time = text.strip_suffix('Z').unwrap_or(text);
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        if shape.len() >= 10 && "0000-00-00T00:00:00.000000".starts_with(&shape) {
            // The first moment that the text may mean: a time that is cut short ends in a separator or in half a number.
            let first = format!("{time}{}Z", &"0001-01-01T00:00:00.000000"[time.len()..]);
            return match humantime::parse_rfc3339(&first) {
                Ok(_) => Ok(Self(time.to_owned())),
                Err(_) => Err(SinceError::NoTime(text.to_owned())),
            };
        }
        let ago = humantime::parse_duration(text).map_err(|_not_a_duration| SinceError::Format)?;
        let then = std::time::SystemTime::now().checked_sub(ago).ok_or(SinceError::TooEarly)?;
        Ok(Self(humantime::format_rfc3339_micros(then).to_string().trim_end_matches('Z').to_owned()))
    }
}

/// What an identity permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ConsoleRole {
    /// Reading only
    #[value(alias = "view")]
    Viewer,
    /// Reading, jobs of its own, and files below its prefixes
    #[value(alias = "submit")]
    Submitter,
    /// Everything
    #[value(alias = "operate")]
    Operator,
}

impl From<ConsoleRole> for Role {
    fn from(role: ConsoleRole) -> Self {
        match role {
            ConsoleRole::Viewer => Self::Viewer,
            ConsoleRole::Submitter => Self::Submitter,
            ConsoleRole::Operator => Self::Operator,
        }
    }
}

/// For how long an identity is valid: a minute to [`VALID_DAYS_MAX`] days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity(pub Duration);

/// The argument is no time that an identity may be valid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("write a time from a minute to {VALID_DAYS_MAX} days, such as 90d or 12h")]
pub struct ValidityError;

impl Default for Validity {
    fn default() -> Self {
        Self(DAY * VALID_DAYS_DEFAULT)
    }
}

impl FromStr for Validity {
    type Err = ValidityError;

    fn from_str(text: &str) -> Result<Self, ValidityError> {
        let valid = humantime::parse_duration(text).map_err(|_not_a_duration| ValidityError)?;
        let allowed = Duration::from_secs(60)..=DAY * VALID_DAYS_MAX;
        if allowed.contains(&valid) { Ok(Self(valid)) } else { Err(ValidityError) }
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds if seconds % DAY.as_secs() == 0 => write!(f, "{}d", seconds / DAY.as_secs()),
            _ => humantime::format_duration(self.0).fmt(f),
        }
    }
}

/// A step of a key rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum RotationStep {
    /// Trust a new key
    Add,
    /// Sign with the new key
    Sign,
    /// Stop trusting the old key
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

/// A shell with completion support.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

/// A model parameter, written `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter(pub ParameterName, pub String);

/// The argument is not `NAME=VALUE`.
#[derive(Clone, Debug, Error)]
pub enum ParameterError {
    #[error("'{0}' has no '=': write NAME=VALUE")]
    NoValue(String),
    #[error(transparent)]
    Name(#[from] NameError),
}

impl FromStr for Parameter {
    type Err = ParameterError;

    fn from_str(text: &str) -> Result<Self, ParameterError> {
        let (name, value) = text.split_once('=').ok_or_else(|| ParameterError::NoValue(text.to_owned()))?;
        Ok(Self(name.parse()?, value.to_owned()))
    }
}

/// A reference to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobRef {
    Id(JobId),
    /// The job's own name, or its model's name.
    Name(JobName),
}

/// The argument cannot name a job.
#[derive(Clone, Debug, Error)]
#[error("{0}, the job's name, or its model's name")]
pub struct JobRefParseError(JobIdError);

impl FromStr for JobRef {
    type Err = JobRefParseError;

    fn from_str(text: &str) -> Result<Self, JobRefParseError> {
        match text.parse() {
            Ok(id) => Ok(Self::Id(id)),
            Err(error) => text.parse().map(Self::Name).map_err(|_not_a_name| JobRefParseError(error)),
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

/// A reference to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberRef {
    Address(SocketAddr),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_valid_for_a_bounded_time() {
        assert_eq!(Validity::default().to_string(), "90d");
        for (text, seconds) in [("90d", 7_776_000), ("12h", 43_200), ("1m", 60), ("3650d", 315_360_000)] {
            assert_eq!(text.parse(), Ok(Validity(Duration::from_secs(seconds))), "{text}");
        }
        for wrong in ["", "90", "0d", "59s", "3651d", "-1d", "soon"] {
            assert_eq!(wrong.parse::<Validity>(), Err(ValidityError), "{wrong}");
        }
    }

    #[test]
    fn a_time_exists_or_is_refused() {
        for good in ["2026-11-25", "2024-02-29", "2026-11-25T2", "2026-11-25T20:06:01.5Z", "90s"] {
            assert!(good.parse::<Since>().is_ok(), "{good}");
        }
        assert_eq!("2026-11-25T20:06Z".parse(), Ok(Since("2026-11-25T20:06".into())));
        for wrong in [
            "2026-99-99",
            "2026-02-29",
            "2026-11-25T24",
            "2026-11-25T20:61",
            "2026-1",
            "soon",
            "2026-11-25ZZ",
        ] {
            assert!(wrong.parse::<Since>().is_err(), "{wrong}");
        }
    }
}
