//! The file format of a metadata backup.
//!
//! A file consists of a line that names the format, a line of JSON with a [`BackupInfo`], the encoded state, and the BLAKE3
//! digest of everything before it. `head -n 2 FILE` describes a backup. The state is encoded by the metadata log and opaque
//! to this module.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::client::files::atomic_file::Aside;
use crate::client::files::destination::regular;
use crate::ids::{Digest, NodeId};

/// Most bytes of a backup in one message.
pub const PIECE_BYTES: usize = 4 << 20;
/// Largest encoded state, in bytes; the same limit as for a snapshot of the metadata log.
pub const STATE_BYTES_MAX: u64 = 2 << 30;
/// Longest header (both lines), in bytes.
pub const HEADER_BYTES_MAX: u64 = 4096;
const MAGIC: &str = "idunno-backup\n";
const FORMAT: u32 = 1;
const DIGEST_BYTES: usize = 32;

/// The description of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupInfo {
    /// Version of the daemon that made the backup.
    pub program_version: String,
    /// Founder of the cluster.
    pub founder: Option<NodeId>,
    /// Term of the coordinator that made the backup.
    pub term: u64,
    /// Index of the last log entry that the state includes.
    pub index: u64,
    /// When the backup was made, in milliseconds since the epoch by the coordinator's clock.
    pub made_ms: u64,
    /// Number of files in the store.
    pub files: u64,
    /// Number of jobs.
    pub jobs: u64,
}

/// The second line of the file.
#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    state_bytes: u64,
    #[serde(flatten)]
    about: BackupInfo,
}

/// The part of a header that every format has.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// Why a backup cannot be read.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is not a backup.
    #[error("{path} is not a backup of IDunno's metadata: name a file that 'idunno backup' made")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file has the format of another release.
    #[error(
        "the backup {path} has format {found}, but this program reads format {FORMAT}: use the release that made it"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Format of the file.
        found: u32,
    },
    /// The file differs from what was written.
    #[error("the backup {path} is damaged: {why}; use another one")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Encodes a backup as the bytes of a file.
pub fn encode(about: BackupInfo, state: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let header = Header { format: FORMAT, state_bytes: state.len() as u64, about };
    let mut bytes = Vec::with_capacity(state.len() + 1024);
    bytes.extend_from_slice(MAGIC.as_bytes());
    bytes.extend_from_slice(&serde_json::to_vec(&header)?);
    bytes.push(b'\n');
    bytes.extend_from_slice(state);
    let digest = Digest::of(&bytes);
    bytes.extend_from_slice(&digest.0);
    Ok(bytes)
}

/// Reads and verifies the backup at `path`; returns its description and the encoded state. Blocks.
pub fn read(path: &Path) -> Result<(BackupInfo, Vec<u8>), BackupError> {
    let failed = |source| BackupError::Read { path: path.to_path_buf(), source };
    let damaged = |why: String| BackupError::Damaged { path: path.to_path_buf(), why };
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut reader = BufReader::new(file);
    let head = header(path, &mut reader)?;
    let Header { state_bytes, about, .. } = head.1;
    let all = (head.0.len() as u64).saturating_add(state_bytes).saturating_add(DIGEST_BYTES as u64);
    if state_bytes > STATE_BYTES_MAX || size != all {
        return Err(damaged(format!("it has {size} bytes in place of {all}")));
    }
    let mut bytes = head.0;
    let start = bytes.len();
    reader.read_to_end(&mut bytes).map_err(failed)?;
    let end = bytes.len().saturating_sub(DIGEST_BYTES).max(start);
    if Digest::of(&bytes[..end]).0[..] != bytes[end..] {
        return Err(damaged(String::from("its digest does not match its bytes")));
    }
    Ok((about, bytes[start..end].to_vec()))
}

/// Reads the two header lines; returns their bytes and the decoded header.
fn header(path: &Path, reader: &mut impl BufRead) -> Result<(Vec<u8>, Header), BackupError> {
    let failed = |source| BackupError::Read { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let mut limited = reader.take(HEADER_BYTES_MAX);
    limited.read_until(b'\n', &mut bytes).map_err(failed)?;
    if bytes != MAGIC.as_bytes() {
        return Err(BackupError::Foreign { path: path.to_path_buf() });
    }
    limited.read_until(b'\n', &mut bytes).map_err(failed)?;
    let line = &bytes[MAGIC.len()..];
    match serde_json::from_slice::<FormatOnly>(line) {
        Ok(FormatOnly { format: FORMAT }) => {}
        Ok(FormatOnly { format: found }) => {
            return Err(BackupError::Format { path: path.to_path_buf(), found });
        }
        Err(error) => {
            let why = format!("its header cannot be read: {error}");
            return Err(BackupError::Damaged { path: path.to_path_buf(), why });
        }
    }
    let header = serde_json::from_slice(line).map_err(|error| BackupError::Damaged {
        path: path.to_path_buf(),
        why: format!("its header cannot be read: {error}"),
    })?;
    Ok((bytes, header))
}

/// Writes a backup to a temporary file, flushes and verifies it, and renames it to `path`, replacing any file there. Blocks.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<BackupInfo> {
    let path = regular(path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or_else(|| Path::new("."));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    // Metadata names every file and job, so only the owner may read it.
    let (aside, mut file) = Aside::create(directory, name, true)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let (about, _) = read(aside.path()).map_err(io::Error::other)?;
    aside.rename(&path)?;
    File::open(directory)?.sync_all()?;
    Ok(about)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn about() -> BackupInfo {
        let program_version = String::from("0.1.0");
        BackupInfo {
            program_version,
            founder: Some(NodeId(7)),
            term: 3,
            index: 42,
            made_ms: 5,
            files: 2,
            jobs: 1,
        }
    }

    #[test]
    fn a_backup_survives_a_round_trip_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        let bytes = encode(about(), b"state\nof it").unwrap();
        assert_eq!(write(&path, &bytes).unwrap(), about());
        assert_eq!(read(&path).unwrap(), (about(), b"state\nof it".to_vec()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn truncated_modified_extended_foreign_and_newer_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        let whole = encode(about(), &[9; 100]).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            read(&path).expect_err("a truncated backup");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            read(&path).expect_err("a modified backup");
        }
        fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
        assert!(matches!(read(&path), Err(BackupError::Damaged { .. })));
        fs::write(&path, b"PK something else").unwrap();
        assert!(matches!(read(&path), Err(BackupError::Foreign { .. })));
        fs::write(&path, format!("{MAGIC}{{\"format\":2,\"what\":1}}\n")).unwrap();
        assert!(matches!(read(&path), Err(BackupError::Format { found: 2, .. })));
        let refused = write(&dir.path().join("other"), &whole[1..]).unwrap_err();
        assert!(refused.to_string().contains("not a backup"), "{refused}");
        assert!(!dir.path().join("other").exists());
    }
}
