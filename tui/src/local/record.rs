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
pub const GATEWAY: &str = "gateway";

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
    /// The gateway's program, if the cluster has one.
    #[serde(default)]
    pub gateway: Option<PathBuf>,
    /// The introducer first, then the members in order; among them the gateway, if there is one.
    pub processes: Vec<Process>,
}

/// A process of a local cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// `introducer`, `gateway`, or a member's name.
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

    pub fn is_gateway(&self) -> bool {
        self.name == GATEWAY
    }

    pub fn is_member(&self) -> bool {
        !self.is_introducer() && !self.is_gateway()
    }

    /// Whether the process started last is still alive.
    pub fn is_alive(&self) -> bool {
        self.running.as_ref().is_some_and(ProcessIdentity::is_alive)
    }
}

impl Record {
    /// A record without processes.
    pub fn new(idunnod: PathBuf, python: Option<PathBuf>, threads: u32) -> Self {
        Self {
            version: VERSION,
            idunnod,
            python,
            threads,
            insecure: false,
            gateway: None,
            processes: Vec::new(),
        }
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
        self.processes.iter().filter(|process| process.is_member())
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

    /// The data directories that exist, links resolved. Refused if one of them is not below `dir`.
    pub fn data_dirs_below(&self, dir: &Path) -> Result<Vec<PathBuf>, Failure> {
        let failed = |path: &Path, error| Failure::error(format!("cannot find {}: {error}", path.display()));
        let root = std::fs::canonicalize(dir).map_err(|error| failed(dir, error))?;
        let mut found = Vec::new();
        for process in &self.processes {
            let path = match std::fs::canonicalize(&process.data_dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                resolved => resolved.map_err(|error| failed(&process.data_dir, error))?,
            };
            if path == root || !path.starts_with(&root) {
                let text = format!(
                    "nothing was deleted: the data directory of {}, {}, is not in {}: delete it yourself",
                    process.name,
                    path.display(),
                    root.display()
                );
                return Err(Failure::new(Exit::Refused, text));
            }
            found.push(path);
        }
        Ok(found)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_is_below_the_clusters_directory_may_be_deleted() {
        let root = tempfile::tempdir().unwrap();
        let (dir, other) = (root.path().join("cluster"), root.path().join("home"));
        for path in [dir.join("m1"), other.clone()] {
            fs::create_dir_all(path).unwrap();
        }
        symlink(&other, dir.join("link")).unwrap();
        let named = |data_dir: PathBuf| {
            let mut record = Record::new("idunnod".into(), None, 1);
            record.processes.push(Process { name: "m1".into(), data_dir, address: None, running: None });
            record
        };
        assert_eq!(
            named(dir.join("m1")).data_dirs_below(&dir).unwrap(),
            [fs::canonicalize(dir.join("m1")).unwrap()]
        );
        assert_eq!(named(dir.join("gone")).data_dirs_below(&dir).unwrap(), Vec::<PathBuf>::new());
        for outside in [other, dir.join("link"), dir.join("../home"), dir.clone(), root.path().to_owned()] {
            let refused = named(outside.clone()).data_dirs_below(&dir).unwrap_err();
            assert!(refused.message.contains("nothing was deleted"), "{}: {refused}", outside.display());
        }
    }
}
