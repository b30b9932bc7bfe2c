//! `DIR/cluster.json`: the processes of a local cluster. Written atomically, read by every command.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use atomic_write_file::AtomicWriteFile;
use serde::{Deserialize, Serialize};

use super::process::ProcessIdentity;
use super::trust;
use crate::answer::{Exit, Failure};

/// The version of the file format.
const VERSION: u32 = 1;
const FILE: &str = "cluster.json";
/// The file with the cluster's secret.
pub const SECRET: &str = "secret.pem";
pub const INTRODUCER: &str = "introducer";

/// A local cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    /// The daemon program.
    pub idunnod: PathBuf,
    /// The Python interpreter of the model servers, if there are any.
    pub python: Option<PathBuf>,
    /// Threads of each model server.
    pub threads: u32,
    /// Whether the cluster has no secret.
    #[serde(default)]
    pub insecure: bool,
    /// The introducer first, then the members in order.
    pub processes: Vec<Process>,
}

/// A process of a local cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// `introducer`, or a member's name.
    pub name: String,
    pub data_dir: PathBuf,
    /// The listen address, kept across restarts.
    pub address: Option<SocketAddr>,
    /// The process started last, if any.
    pub running: Option<ProcessIdentity>,
}

impl Process {
    pub fn is_introducer(&self) -> bool {
        self.name == INTRODUCER
    }

    /// Whether the process started last is still alive.
    pub fn is_alive(&self) -> bool {
        self.running.as_ref().is_some_and(ProcessIdentity::is_alive)
    }
}

impl Record {
    /// A record without processes.
    pub fn new(idunnod: PathBuf, python: Option<PathBuf>, threads: u32) -> Self {
        Self { version: VERSION, idunnod, python, threads, insecure: false, processes: Vec::new() }
    }

    /// The path of the cluster's secret, if it has one.
    pub fn secret(&self, dir: &Path) -> Option<PathBuf> {
        (!self.insecure).then(|| dir.join(SECRET))
    }

    pub fn exists(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    /// Reads the record, if there is one. Refused if somebody else could have written it.
    pub fn load(dir: &Path) -> Result<Option<Self>, Failure> {
        let path = dir.join(FILE);
        trust::check(dir)?;
        trust::check(&path)?;
        let wrong = |reason: String| Failure::error(format!("cannot read {}: {reason}", path.display()));
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let record: Self = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if record.version != VERSION {
            return Err(wrong(format!("its format is {}; this program reads {VERSION}", record.version)));
        }
        Ok(Some(record))
    }

    /// Reads the record, which must exist.
    pub fn require(dir: &Path) -> Result<Self, Failure> {
        let missing = || {
            let text = format!("no local cluster in {}: 'idunno local up' creates one", dir.display());
            Failure::new(Exit::NotFound, text)
        };
        Self::load(dir)?.ok_or_else(missing)
    }

    /// Writes the record atomically.
    pub fn save(&self, dir: &Path) -> Result<(), Failure> {
        let path = dir.join(FILE);
        let write = || {
            let mut file = AtomicWriteFile::open(&path)?;
            // Whatever the user's umask is: a record that others could write is not believed.
            #[cfg(unix)]
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.commit()
        };
        write()
            .map_err(|error: io::Error| Failure::error(format!("cannot write {}: {error}", path.display())))
    }

    /// The addresses of all members, followed by the introducer's.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let members = self.members().filter_map(|member| member.address);
        let introducer = self.processes.iter().filter(|process| process.is_introducer());
        members.chain(introducer.filter_map(|process| process.address)).collect()
    }

    pub fn members(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| !process.is_introducer())
    }

    /// The positions of the processes that are not running.
    pub fn stopped(&self) -> Vec<usize> {
        (0..self.processes.len()).filter(|&position| !self.processes[position].is_alive()).collect()
    }

    /// The position of a named process.
    pub fn position(&self, name: &str) -> Result<usize, Failure> {
        self.processes.iter().position(|process| process.name == name).ok_or_else(|| {
            let text = format!(
                "the local cluster has no process '{name}': 'idunno local status' lists the processes"
            );
            Failure::new(Exit::NotFound, text)
        })
    }
}
