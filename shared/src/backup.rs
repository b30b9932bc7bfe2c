//! A backup of a cluster's metadata, as a file.
//!
//! A line that says what it is, a line of JSON ([`BackupInfo`]), the encoded state, and the BLAKE3 digest of all that is before
//! it. `head -n 2 FILE` shows what it is. The state's encoding is the metadata log's own; nothing here looks into it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{Digest, NodeId};

/// Bytes of a backup in one message.
pub const PIECE_BYTES: usize = 4 << 20;
/// Largest state, in bytes: that of a snapshot of the metadata log.
pub const STATE_BYTES_MAX: u64 = 2 << 30;
/// Longest header, both lines.
pub const HEADER_BYTES_MAX: u64 = 4096;
const MAGIC: &str = "idunno-backup\n";
const FORMAT: u32 = 1;
const DIGEST_BYTES: usize = 32;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupInfo {
    /// The version of the program that made it.
    pub program_version: String,
    /// Who founded the cluster.
    pub founder: Option<NodeId>,
    /// The term in which it was read.
    pub term: u64,
    /// It holds every entry of the log up to this one.
    pub index: u64,
    /// When it was made, in milliseconds since the epoch, by the coordinator's clock.
    pub made_ms: u64,
    /// Files of the store.
    pub files: u64,
    /// Jobs.
    pub jobs: u64,
}

/// The second line.
#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    state_bytes: u64,
    #[serde(flatten)]
    about: BackupInfo,
}

/// Just enough of it to tell another format.
#[derive(Deserialize)]
struct Formatted {
    format: u32,
}

/// Why a file is no backup that can be used.
#[derive(Debug, Error)]
pub enum BackupError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("{path} is not a backup of IDunno's metadata: name a file that 'idunno backup' made")]
    Foreign {
        /// Which.
        path: PathBuf,
    },
    /// It was made by another release.
    #[error(
        "the backup {path} has format {found}, this program reads {FORMAT}: use the release that made it"
    )]
    Format {
        /// Which.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It is not what was written.
    #[error("the backup {path} is damaged: {why}; use another one")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        why: String,
    },
}

/// A backup, whole, as it lies in a file.
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

/// Reads the backup at `path` and verifies it: what it holds, and the encoded state. Blocks.
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
        return Err(damaged(format!("it has {size} bytes, and {all} are to be there")));
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

/// The two lines, as they are and as they are meant.
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
    match serde_json::from_slice::<Formatted>(line) {
        Ok(Formatted { format: FORMAT }) => {}
        Ok(Formatted { format: found }) => {
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

/// Writes a backup: aside, verified as it lies, flushed, and put in its place. What was at `path` is replaced. Blocks.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<BackupInfo> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let aside = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let written = write_aside(&aside, bytes).and_then(|about| fs::rename(&aside, path).map(|()| about));
    if written.is_err() {
        // It bears a name that says what it is.
        let _ = fs::remove_file(&aside);
    }
    let about = written?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
    Ok(about)
}

fn write_aside(aside: &Path, bytes: &[u8]) -> io::Result<BackupInfo> {
    // It names everything: for its owner only.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let (about, _) = read(aside).map_err(io::Error::other)?;
    Ok(about)
}

#[cfg(test)]
mod tests {
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
    fn what_is_written_is_read_again_and_nothing_lies_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        let bytes = encode(about(), b"state\nof it").unwrap();
        assert_eq!(write(&path, &bytes).unwrap(), about());
        assert_eq!(read(&path).unwrap(), (about(), b"state\nof it".to_vec()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_cut_changed_longer_foreign_or_newer_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        let whole = encode(about(), &[9; 100]).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            read(&path).expect_err("a cut one");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            read(&path).expect_err("a changed one");
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
