//! How a daemon that cannot run says so: one line, and an exit status that tells systemd whether a restart can help.

use idunno_consensus::OpenError;
use idunno_shared::security::SecurityError;

use crate::audit::AuditError;
use crate::config::ConfigError;
use crate::config::check::UnusableConfig;
use crate::recovery::NotStartable;
use crate::runtime::data_dir::DataDirError;

/// A restart may help.
const TRANSIENT: u8 = 1;
/// The data directory is damaged or another's, until somebody acts (`EX_DATAERR` of sysexits.h).
pub const DATA: u8 = 65;
/// The settings or the secret cannot be used, until somebody changes them (`EX_CONFIG`).
pub const SETTINGS: u8 = 78;

/// The exit status for an error. `RestartPreventExitStatus=` of the systemd units names those but [`TRANSIENT`].
pub fn exit_status(error: &anyhow::Error) -> u8 {
    error.chain().find_map(lasting).unwrap_or(TRANSIENT)
}

/// The status of a cause that a restart cannot remove.
fn lasting(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if cause.is::<ConfigError>() || cause.is::<SecurityError>() || cause.is::<UnusableConfig>() {
        return Some(SETTINGS);
    }
    let is_damaged = match cause.downcast_ref::<DataDirError>() {
        Some(DataDirError::Format { .. } | DataDirError::Damaged { .. }) => true,
        Some(DataDirError::InUse { .. } | DataDirError::Io { .. }) | None => false,
    };
    let has_no_log = match cause.downcast_ref::<OpenError>() {
        Some(OpenError::Damaged { .. } | OpenError::OtherNode { .. } | OpenError::Format { .. }) => true,
        Some(OpenError::Config(_) | OpenError::Store { .. } | OpenError::Start(_)) | None => false,
    };
    let has_no_audit = matches!(cause.downcast_ref::<AuditError>(), Some(AuditError::Damaged { .. }));
    (is_damaged || has_no_log || has_no_audit || cause.is::<NotStartable>()).then_some(DATA)
}

/// The error and its causes, each once: most texts name their cause already.
pub fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use anyhow::Context;

    use super::*;

    fn io_error() -> DataDirError {
        DataDirError::Io {
            path: PathBuf::from("/d/identity.json"),
            source: io::Error::other("no such device"),
        }
    }

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow::Error::new(io_error());
        assert_eq!(text(&error), "cannot use /d/identity.json: no such device");
        let error = Err::<(), _>(io_error()).context("cannot write the runtime file").unwrap_err();
        assert_eq!(
            text(&error),
            "cannot write the runtime file: cannot use /d/identity.json: no such device"
        );
    }

    #[test]
    fn only_what_a_restart_cannot_mend_has_a_status_of_its_own() {
        let path = PathBuf::from("/d/metadata.redb");
        let damaged = DataDirError::Damaged { path: path.clone(), why: String::from("it ends early") };
        let store = OpenError::Damaged { path, reason: String::from("a checksum") };
        assert_eq!(exit_status(&ConfigError::NoSecret.into()), SETTINGS);
        assert_eq!(exit_status(&anyhow::Error::from(damaged).context("cannot start")), DATA);
        assert_eq!(exit_status(&store.into()), DATA);
        assert_eq!(exit_status(&io_error().into()), TRANSIENT);
        assert_eq!(exit_status(&anyhow::anyhow!("the metadata log failed")), TRANSIENT);
    }

    #[test]
    fn the_units_do_not_restart_what_cannot_succeed() {
        for unit in ["member", "introducer"] {
            let path = format!("{}/../scripts/systemd/idunno-{unit}.service", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus="));
            // 2 is clap's, for arguments that it does not know.
            assert_eq!(line, Some(format!("2 {DATA} {SETTINGS}").as_str()), "{unit}");
        }
    }
}
