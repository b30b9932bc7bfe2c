//! `DIR/cluster.json`: what a local cluster consists of. Written atomically, read by every command.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::process::Identity;
use crate::answer::{Exit, Failure};

/// The file's format.
const VERSION: u32 = 1;
const FILE: &str = "cluster.json";
/// The cluster's secret, beside it.
pub const SECRET: &str = "secret.pem";
/// The introducer's name in the record.
pub const INTRODUCER: &str = "introducer";

/// A local cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The format: 1.
    pub version: u32,
    /// The daemon's program.
    pub idunnod: PathBuf,
    /// Python with the model server, if the members have one each.
    pub python: Option<PathBuf>,
    /// Threads of each model server.
    pub threads: u32,
    /// Whether it does without a secret.
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
    /// Where it keeps everything.
    pub data_dir: PathBuf,
    /// Where it listens; kept over restarts.
    pub address: Option<SocketAddr>,
    /// The process last started, if any.
    pub running: Option<Identity>,
}

impl Process {
    /// Whether it is the introducer.
    pub fn is_introducer(&self) -> bool {
        self.name == INTRODUCER
    }

    /// Whether the process last started still lives.
    pub fn is_alive(&self) -> bool {
        self.running.as_ref().is_some_and(Identity::is_alive)
    }
}

impl Record {
    /// A record without processes.
    pub fn new(idunnod: PathBuf, python: Option<PathBuf>, threads: u32) -> Self {
        Self { version: VERSION, idunnod, python, threads, insecure: false, processes: Vec::new() }
    }

    /// The file of its secret, if it has one.
    pub fn secret(&self, dir: &Path) -> Option<PathBuf> {
        (!self.insecure).then(|| dir.join(SECRET))
    }

    /// Whether there is a local cluster in `dir`.
    pub fn exists(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    /// Reads the record, if there is one.
    pub fn load(dir: &Path) -> Result<Option<Self>, Failure> {
        let path = dir.join(FILE);
        let wrong = |reason: String| Failure::error(format!("cannot read {}: {reason}", path.display()));
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let record: Self = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if record.version != VERSION {
            return Err(wrong(format!("its format is {}, this program knows {VERSION}", record.version)));
        }
        Ok(Some(record))
    }

    /// Reads the record; there must be one.
    pub fn require(dir: &Path) -> Result<Self, Failure> {
        let missing = || {
            let text = format!("there is no local cluster in {}: 'idunno local up' makes one", dir.display());
            Failure::new(Exit::NotFound, text)
        };
        Self::load(dir)?.ok_or_else(missing)
    }

    /// Writes the record: whole, or not at all.
    pub fn save(&self, dir: &Path) -> Result<(), Failure> {
        let path = dir.join(FILE);
        let aside = dir.join(format!("{FILE}.{}.part", std::process::id()));
        let write = || {
            std::fs::write(&aside, serde_json::to_vec_pretty(self)?)?;
            std::fs::rename(&aside, &path)
        };
        write()
            .map_err(|error: io::Error| Failure::error(format!("cannot write {}: {error}", path.display())))
    }

    /// The addresses of all members, and the introducer's at the end.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let members = self.members().filter_map(|member| member.address);
        let introducer = self.processes.iter().filter(|process| process.is_introducer());
        members.chain(introducer.filter_map(|process| process.address)).collect()
    }

    /// The members.
    pub fn members(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| !process.is_introducer())
    }

    /// The positions of the processes that do not run.
    pub fn at_rest(&self) -> Vec<usize> {
        (0..self.processes.len()).filter(|&position| !self.processes[position].is_alive()).collect()
    }

    /// The position of a named process.
    pub fn position(&self, name: &str) -> Result<usize, Failure> {
        self.processes.iter().position(|process| process.name == name).ok_or_else(|| {
            let text = format!("the local cluster has no '{name}': 'idunno local status' shows what it has");
            Failure::new(Exit::NotFound, text)
        })
    }
}
