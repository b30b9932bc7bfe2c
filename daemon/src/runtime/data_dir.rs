//! The data directory, which holds everything a daemon keeps: it is locked, versioned, and stores the member's identity.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use atomic_write_file::AtomicWriteFile;
use idunno_shared::ids::NodeId;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub const IDENTITY_FILE: &str = "identity.json";
pub const RUNTIME_FILE: &str = "runtime.json";
/// The introducer's state.
pub const INTRODUCER_FILE: &str = "introducer.json";
const FORMAT_FILE: &str = "FORMAT";
/// What every version of the format begins with.
const FORMAT_PREFIX: &str = "idunno ";
const FORMAT: &str = "idunno 2\n";
/// The format before: it differs in the metadata alone, which this release reads in both. The mark is replaced when the
/// directory is opened, so that a daemon of the older release refuses what this one writes.
const FORMAT_BEFORE: &str = "idunno 1\n";

/// The data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    #[error(
        "the data directory {path} is in use by another daemon{}: stop that daemon, or give this one its own --data-dir",
        .pid.map(|pid| format!(", process {pid}")).unwrap_or_default()
    )]
    InUse {
        path: PathBuf,
        /// The process that says that it uses the directory.
        pid: Option<u32>,
    },
    /// Another program, or another version of this one, wrote it.
    #[error(
        "{path} names the format {found:?}, and this daemon reads {FORMAT:?}: use the release that wrote the directory"
    )]
    Format { path: PathBuf, found: String },
    #[error("{path} is damaged: {why}; {}", way_out(path))]
    Damaged { path: PathBuf, why: String },
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// What to do about a damaged file.
fn way_out(path: &Path) -> String {
    let data_dir = path.parent().unwrap_or_else(|| Path::new(".")).display();
    match path.file_name().and_then(|name| name.to_str()) {
        Some(FORMAT_FILE) => format!(
            "if {data_dir} holds a daemon's data, write it again: echo '{}' >{}",
            FORMAT.trim(),
            path.display()
        ),
        Some(INTRODUCER_FILE) => String::from(
            "delete it and start the introducer again: the first member that asks, within a minute, tells it of its cluster. \
             Let nothing new join before that",
        ),
        _ => format!(
            "run 'idunnod recover --forget-log --yes --data-dir {data_dir}', which keeps the blobs, while a majority of the \
             voters is up"
        ),
    }
}

/// A locked data directory. The lock is released when the process ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Who a member is across restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Minted when the directory was empty, and never reused.
    pub id: NodeId,
    /// Incremented at each start and made durable before this process sends anything.
    pub generation: u64,
}

/// The content of `runtime.json`: where a running daemon listens and logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    pub pid: u32,
    /// The address that other processes use.
    pub address: SocketAddr,
    /// The node id; an introducer has none.
    pub node: Option<String>,
    /// `member` or `introducer`.
    pub program: String,
    pub name: String,
    pub log_dir: PathBuf,
}

impl DataDir {
    /// Opens the directory, creating it if needed, and locks it. It is for its owner only.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let failed = |at: &Path| {
            let path = at.to_path_buf();
            move |source| DataDirError::Io { path, source }
        };
        fs::create_dir_all(path).map_err(failed(path))?;
        // One that an earlier version made, or an administrator.
        if path.metadata().map_err(failed(path))?.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed(path))?;
        }
        let lock_path = path.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(failed(&lock_path))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let pid = read_json(path, RUNTIME_FILE).ok().flatten().map(|runtime: Runtime| runtime.pid);
            return Err(DataDirError::InUse { path: path.to_path_buf(), pid });
        }
        check_format(path.join(FORMAT_FILE))?;
        Ok(Self { path: path.to_path_buf(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the member's identity, or mints one, and increments its generation. The result is durable.
    pub fn identity(&self) -> Result<Identity, DataDirError> {
        let identity = match self.read_json(IDENTITY_FILE)? {
            Some(Identity { id, generation }) => Identity { id, generation: generation + 1 },
            None => self.mint()?,
        };
        self.write_json(IDENTITY_FILE, &identity)?;
        Ok(identity)
    }

    /// Mints an identity without writing it.
    pub fn mint(&self) -> Result<Identity, DataDirError> {
        let source = |error| io::Error::other(format!("no randomness for an identity: {error}"));
        let failed = |error| DataDirError::Io { path: self.path.join(IDENTITY_FILE), source: source(error) };
        Ok(Identity { id: NodeId(getrandom::u64().map_err(failed)?), generation: 1 })
    }

    /// Reads a JSON file of the directory, if it exists.
    pub fn read_json<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, DataDirError> {
        read_json(&self.path, name)
    }

    /// Writes a JSON file of the directory atomically. It is durable on return.
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), DataDirError> {
        let path = self.path.join(name);
        let bytes = serde_json::to_vec_pretty(value)
            .map_err(|error| DataDirError::Damaged { path: path.clone(), why: error.to_string() })?;
        write_atomically(&path, &bytes).map_err(|source| DataDirError::Io { path, source })
    }

    /// Renames the file `by` to `name`, durably. Earlier removals become durable with it.
    pub fn replace(&self, name: &str, by: &str) -> Result<(), DataDirError> {
        let path = self.path.join(name);
        fs::rename(self.path.join(by), &path).map_err(|source| DataDirError::Io { path, source })?;
        self.flush()
    }

    /// Makes the directory's entries durable.
    pub fn flush(&self) -> Result<(), DataDirError> {
        let flushed = File::open(&self.path).and_then(|directory| directory.sync_all());
        flushed.map_err(|source| DataDirError::Io { path: self.path.clone(), source })
    }

    /// Removes a file of the directory, if it exists.
    pub fn remove(&self, name: &str) -> Result<(), DataDirError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(DataDirError::Io { path, source }),
            _ => Ok(()),
        }
    }
}

/// Accepts a directory of this format, and marks a new one.
fn check_format(path: PathBuf) -> Result<(), DataDirError> {
    let found = match fs::read(&path) {
        Ok(found) => String::from_utf8_lossy(&found).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::from(FORMAT_BEFORE),
        Err(source) => return Err(DataDirError::Io { path, source }),
    };
    if found == FORMAT {
        return Ok(());
    }
    if found == FORMAT_BEFORE {
        return write_atomically(&path, FORMAT.as_bytes())
            .map_err(|source| DataDirError::Io { path, source });
    }
    match found.strip_prefix(FORMAT_PREFIX).map(|rest| rest.trim_end().parse::<u32>()) {
        Some(Ok(_)) => Err(DataDirError::Format { path, found }),
        _ => Err(DataDirError::Damaged { path, why: format!("it holds {found:?}") }),
    }
}

fn read_json<T: for<'a> Deserialize<'a>>(directory: &Path, name: &str) -> Result<Option<T>, DataDirError> {
    let path = directory.join(name);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| DataDirError::Damaged { path, why: error.to_string() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataDirError::Io { path, source }),
    }
}

/// Replaces a file atomically and durably: on return both the file and its directory entry are on disk.
fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = AtomicWriteFile::open(path)?;
    file.write_all(bytes)?;
    file.commit()?;
    File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_kept_and_its_generation_increases() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap().identity().unwrap();
        let second = DataDir::open(dir.path()).unwrap().identity().unwrap();
        assert_eq!((first.id, first.generation + 1), (second.id, second.generation));
    }

    #[test]
    fn a_directory_in_use_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, DataDirError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(&dir.path().display().to_string()));
        let runtime = Runtime {
            pid: 77,
            address: "127.0.0.1:7401".parse().unwrap(),
            node: None,
            program: "member".into(),
            name: "m1".into(),
            log_dir: dir.path().to_owned(),
        };
        held.write_json(RUNTIME_FILE, &runtime).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("another daemon, process 77: stop"), "{error}");
    }

    #[test]
    fn a_directory_of_the_format_before_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("FORMAT"), FORMAT_BEFORE).unwrap();
        drop(DataDir::open(dir.path()).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("FORMAT")).unwrap(), FORMAT);
    }

    #[test]
    fn a_data_directory_is_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        DataDir::open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_foreign_or_damaged_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("FORMAT"), "idunno 9\n").unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Format { .. })));
        for damaged in [&b"other 9\n"[..], b"", b"idunno", &[0; 9], b"\xe9dunno 1\n"] {
            fs::write(dir.path().join("FORMAT"), damaged).unwrap();
            let error = DataDir::open(dir.path()).unwrap_err().to_string();
            assert!(error.contains("FORMAT is damaged") && error.contains("echo 'idunno 2'"), "{error}");
        }
        fs::write(dir.path().join("FORMAT"), FORMAT).unwrap();
        fs::write(dir.path().join("identity.json"), "{").unwrap();
        let error = DataDir::open(dir.path()).unwrap().identity().unwrap_err();
        assert!(matches!(error, DataDirError::Damaged { .. }), "{error}");
    }
}
