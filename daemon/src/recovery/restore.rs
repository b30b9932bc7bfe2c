//! Founds a new cluster from a backup's metadata.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use idunno_shared::backup::{self, BackupInfo};

use super::{
    CannotRecover, NEW_STORE_FILE, NEXT, SUPERSEDES_FILE, StepHook, check_owner, found_cluster, open,
};
use crate::runtime::clock::wall_ms;
use crate::runtime::data_dir::{DataDir, DataDirError, IDENTITY_FILE};
use idunno_consensus::InitialState;

const WARNING: &str = "Everything put, deleted or answered after the backup is lost. Files put since then are deleted \
permanently: within minutes of the members joining, blobs that the backup does not name are deleted from their disks. Until \
you are sure, leave some members stopped or copy each data directory first.";

/// Verifies the backup and describes it. With `yes`, turns `path` into the founder of a new cluster that starts from it.
pub(super) fn restore(
    file: &Path,
    path: &Path,
    yes: bool,
    out: &mut impl Write,
    passed: StepHook<'_>,
) -> Result<(), CannotRecover> {
    let (about, state) = backup::read(file)?;
    let unusable = |reason| CannotRecover::Unusable { path: file.to_path_buf(), reason };
    let origin =
        InitialState::decode(about.term, about.index, &state).map_err(|error| unusable(error.to_string()))?;
    drop(state);
    check_target(path)?;
    describe(&about, &origin, out)?;
    if !yes {
        writeln!(
            out,
            "\nThe backup is complete. With --yes, {} becomes the founder of a new cluster that starts from it.\n{WARNING}\n\
             Nothing was changed.",
            path.display()
        )?;
        return Ok(());
    }
    let data_dir = if is_member(path) { open(path)? } else { DataDir::open(path)? };
    let above = origin.term_floor();
    let identity = found_cluster(&data_dir, origin, about.founder, passed)?;
    writeln!(
        out,
        "\nRestored: {} is now member {}, the founder and only voter of a new cluster whose terms start above {above}.\n\
         {WARNING}\n{NEXT}",
        path.display(),
        identity.id
    )?;
    Ok(())
}

fn describe(about: &BackupInfo, origin: &InitialState, out: &mut impl Write) -> io::Result<()> {
    let made = Duration::from_millis(about.made_ms);
    let age = Duration::from_millis(wall_ms().saturating_sub(about.made_ms));
    let age = Duration::from_secs(age.as_secs());
    let founder = about.founder.map_or_else(|| String::from("unknown"), |founder| founder.to_string());
    writeln!(out, "cluster    founded by {founder}, IDunno {}", about.program_version)?;
    let at = std::time::UNIX_EPOCH.checked_add(made).unwrap_or(std::time::UNIX_EPOCH);
    let (at, age) = (humantime::format_rfc3339_seconds(at), humantime::format_duration(age));
    writeln!(out, "made       {at}, {age} ago")?;
    writeln!(out, "up to      (term, index) = ({}, {})", about.term, about.index)?;
    writeln!(out, "files      {}", origin.state.file_count())?;
    writeln!(out, "jobs       {}", origin.state.jobs().count())
}

fn is_member(path: &Path) -> bool {
    path.join(IDENTITY_FILE).exists()
}

/// Accepts a stopped member's directory, an empty or missing one, and one in which a restore was interrupted.
fn check_target(path: &Path) -> Result<(), CannotRecover> {
    let failed = |source| CannotRecover::DataDir(DataDirError::Io { path: path.to_path_buf(), source });
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    check_owner(path, path.metadata().map_err(failed)?.uid())?;
    if is_member(path) {
        return Ok(());
    }
    let names: BTreeSet<_> = entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    let own = ["lock", "FORMAT", "FORMAT.new", "identity.new", SUPERSEDES_FILE, NEW_STORE_FILE];
    if names.iter().all(|name| own.iter().any(|own| name == own)) {
        return Ok(());
    }
    Err(CannotRecover::NotEmpty { path: path.to_path_buf() })
}
