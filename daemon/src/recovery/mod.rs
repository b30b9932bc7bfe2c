//! `idunnod recover`: recovery after a majority of the voters is lost permanently. It works offline, on the data directory of a
//! stopped member.
//!
//! One survivor becomes the only voter of a new cluster that starts from its metadata. All others drop their logs, keep
//! their blobs and join as new members; inventories find the blobs.
//!
//! The old cluster is fenced off in two ways. Every member of the new cluster has a new id, so that old voters can neither
//! call it (the transport checks the id) nor count its vote, and so that it need not remember votes that it gave. And the
//! new cluster has a new founder, so that a returning old member is refused with instructions.
//!
//! With `--backup` the new cluster starts from a backup's metadata instead; the directory may then be empty.
//!
//! Order of writes: the new store is complete beside the old one before the identity changes, and replaces it last. Until
//! then no member starts ([`check_startable`]) and the command can be repeated. The identity changes durably
//! before the log does: in the opposite order a member could vote twice.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use idunno_shared::backup::BackupError;
use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::MAX_SUPERSEDED;
use thiserror::Error;

use self::restore::restore;
use crate::discovery::PEERS_FILE;
use crate::discovery::cluster_id::{CLUSTER_FILE, MUST_JOIN_FILE, SUPERSEDES_FILE};
use crate::runtime::data_dir::{DataDir, DataDirError, IDENTITY_FILE, Identity};
use idunno_consensus::{InitialState, RecoverError, STORE_FILE, SurvivorLog};

/// The new store until it replaces the old one.
const NEW_STORE_FILE: &str = "metadata.redb.recovered";

#[derive(Args)]
pub struct Arguments {
    /// Data directory of the stopped member
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Drop the metadata log and keep the blobs: for every survivor except the recovered one
    #[arg(long, conflicts_with = "backup")]
    forget_log: bool,
    /// Start from this backup instead of the directory's log; the directory may be empty
    #[arg(long, value_name = "FILE")]
    backup: Option<PathBuf>,
    /// Make the changes; without this flag, only show what would be done
    #[arg(long)]
    yes: bool,
}

/// The recovery failed.
#[derive(Debug, Error)]
pub enum CannotRecover {
    #[error("{path} is not the data directory of a member: give the --data-dir of a survivor")]
    NoMember { path: PathBuf },
    #[error(
        "{path} is neither empty nor the data directory of a member: give an empty directory or a member's"
    )]
    NotEmpty { path: PathBuf },
    #[error("{0}; nothing was changed")]
    Backup(#[from] BackupError),
    /// The backup's digest is right, but its content cannot be decoded.
    #[error("the backup {path} cannot be used: {reason}; nothing was changed")]
    Unusable { path: PathBuf, reason: String },
    /// The member could not read files that this user writes.
    #[error(
        "{path} belongs to user {owner}, but this command runs as user {me}: run it as the owner (runuser -u NAME -- \
         idunnod ...)"
    )]
    OtherUser { path: PathBuf, owner: u32, me: u32 },
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Log(#[from] RecoverError),
    #[error("cannot write the answer: {0}")]
    Answer(#[from] io::Error),
}

/// No member may start in this directory.
#[derive(Debug, Error)]
pub enum NotStartable {
    #[error(
        "'idunnod recover' was interrupted in {path}: repeat the command, and start the member once it succeeds"
    )]
    Unfinished { path: PathBuf },
    /// With an empty log the member could vote again where it has voted.
    #[error(
        "the metadata store {store} is {}, but this member belongs to a cluster, where it may have voted: run 'idunnod recover \
         --forget-log --yes --data-dir {data_dir}', which keeps the blobs, while a majority of the voters is up",
        if *is_empty { "empty" } else { "missing" }
    )]
    LogLost { store: PathBuf, data_dir: PathBuf, is_empty: bool },
}

/// Refuses to start a member in a directory whose recovery is unfinished, or whose log was lost.
pub fn check_startable(data_dir: &DataDir) -> Result<(), NotStartable> {
    let path = data_dir.path();
    if path.join(NEW_STORE_FILE).exists() {
        return Err(NotStartable::Unfinished { path: path.to_path_buf() });
    }
    let store = path.join(STORE_FILE);
    let size = store.metadata().map(|metadata| metadata.len()).ok();
    // A member learns its cluster after it has made its store.
    if path.join(CLUSTER_FILE).exists() && size.unwrap_or(0) == 0 {
        return Err(NotStartable::LogLost { store, data_dir: path.to_path_buf(), is_empty: size.is_some() });
    }
    Ok(())
}

/// Called after each durable step, so that tests can interrupt there.
type StepHook<'a> = &'a mut dyn FnMut() -> Result<(), CannotRecover>;

/// Carries out the command and writes its report to `out`.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<()> {
    let passed: StepHook<'_> = &mut || Ok(());
    let Arguments { data_dir, forget_log: drops_log, backup, yes } = arguments;
    match (backup, drops_log, yes) {
        (Some(file), _, yes) => restore(file, data_dir, *yes, out, passed)?,
        (None, false, false) => describe(&open(data_dir)?, out)?,
        (None, false, true) => recover(&open(data_dir)?, out, passed)?,
        (None, true, false) => {
            let data_dir = open(data_dir)?;
            writeln!(
                out,
                "With --yes, {} drops its metadata log, its identity and its cluster id, and keeps its blobs. Do so only \
                 after another survivor was recovered: this log may be the newest one.",
                data_dir.path().display()
            )?;
        }
        (None, true, true) => forget_log(&open(data_dir)?, out, passed)?,
    }
    Ok(())
}

/// Locks the data directory of a stopped member.
fn open(path: &Path) -> Result<DataDir, CannotRecover> {
    // Either may be what was lost.
    let file = path.join(IDENTITY_FILE).metadata().or_else(|_absent| path.join(STORE_FILE).metadata());
    let identity = file.map_err(|_absent| CannotRecover::NoMember { path: path.to_path_buf() })?;
    check_owner(path, identity.uid())?;
    Ok(DataDir::open(path)?)
}

fn check_owner(path: &Path, owner: u32) -> Result<(), CannotRecover> {
    let me = rustix::process::geteuid().as_raw();
    if owner == me { Ok(()) } else { Err(CannotRecover::OtherUser { path: path.to_path_buf(), owner, me }) }
}

/// Shows what the operator compares before choosing a survivor.
fn describe(data_dir: &DataDir, out: &mut impl Write) -> Result<(), CannotRecover> {
    let survivor = SurvivorLog::read(&data_dir.path().join(STORE_FILE))?;
    let (term, index) = survivor.initial.last_log();
    let committed = survivor.committed.map_or_else(|| String::from("none"), |index| format!("{index}"));
    let voters: Vec<String> = survivor.voters.iter().map(NodeId::to_string).collect();
    writeln!(out, "member     {}", survivor.node)?;
    writeln!(out, "last entry (term, index) = ({term}, {index})")?;
    writeln!(out, "committed  {committed}, as far as this member knew")?;
    writeln!(out, "voters     {}", voters.join(" "))?;
    writeln!(out, "files      {}", survivor.initial.state.file_count())?;
    writeln!(out, "jobs       {}", survivor.initial.state.jobs().count())?;
    writeln!(
        out,
        "\nCompare (term, index) of all survivors, term first, and recover only the survivor with the highest. With --yes \
         this member becomes the only voter and continues from everything in its log.\n\
         Changes that only the lost voters acknowledged are lost, and so are files whose copies were all on their disks. \
         Everything else is kept, including changes that were not acknowledged yet.\n\
         Nothing was changed."
    )?;
    Ok(())
}

/// Makes the member the only voter of a new cluster.
fn recover(data_dir: &DataDir, out: &mut impl Write, passed: StepHook<'_>) -> Result<(), CannotRecover> {
    let survivor = SurvivorLog::read(&data_dir.path().join(STORE_FILE))?;
    let (was, (term, index)) = (survivor.node, survivor.initial.last_log());
    let above = survivor.initial.term_floor();
    let identity = found_cluster(data_dir, survivor.initial, None, passed)?;
    writeln!(
        out,
        "Recovered from (term, index) = ({term}, {index}): member {was} is now member {}, the founder and only voter of a \
         new cluster whose terms start above {above}.\n{NEXT}",
        identity.id
    )?;
    Ok(())
}

const NEXT: &str = "Next: delete the introducer's introducer.json, start the introducer, start this member, and wait until \
'idunno status' answers. Then run 'idunnod recover --forget-log --yes' on the data directory of each other survivor and \
start it. New members need an empty data directory.\n\
A lost voter that comes back with its old data is refused until 'idunnod recover --forget-log' has been run on it.";

/// Turns the directory into that of the founder and only voter of a new cluster. Its predecessors are the directory's own
/// cluster and `origin_founder`'s.
fn found_cluster(
    data_dir: &DataDir,
    origin: InitialState,
    origin_founder: Option<NodeId>,
    passed: StepHook<'_>,
) -> Result<Identity, CannotRecover> {
    let identity = data_dir.mint()?;
    data_dir.remove(NEW_STORE_FILE)?;
    passed()?;
    // Before the directory forgets its cluster. Until then the file says nothing that matters.
    data_dir.write_json(SUPERSEDES_FILE, &predecessors(data_dir, origin_founder))?;
    passed()?;
    if let Err(error) = origin.write_store(identity.id, &data_dir.path().join(NEW_STORE_FILE)) {
        // An incomplete store would keep the member from starting.
        data_dir.remove(NEW_STORE_FILE)?;
        return Err(error.into());
    }
    data_dir.flush()?;
    passed()?;
    data_dir.write_json(IDENTITY_FILE, &identity)?;
    passed()?;
    data_dir.write_json(CLUSTER_FILE, &identity.id)?;
    passed()?;
    // The remembered addresses belong to the old cluster.
    data_dir.remove(PEERS_FILE)?;
    passed()?;
    data_dir.remove(MUST_JOIN_FILE)?;
    passed()?;
    data_dir.replace(STORE_FILE, NEW_STORE_FILE)?;
    passed()?;
    Ok(identity)
}

/// The founders of the clusters that the new one replaces, the last ones first. A damaged file costs a convenience only.
fn predecessors(data_dir: &DataDir, origin_founder: Option<NodeId>) -> Vec<NodeId> {
    let own = data_dir.read_json::<NodeId>(CLUSTER_FILE).ok().flatten();
    let earlier = data_dir.read_json::<Vec<NodeId>>(SUPERSEDES_FILE).ok().flatten().unwrap_or_default();
    let mut founders: Vec<NodeId> = Vec::new();
    for founder in own.into_iter().chain(origin_founder).chain(earlier) {
        if !founders.contains(&founder) && founders.len() < MAX_SUPERSEDED {
            founders.push(founder);
        }
    }
    founders
}

/// Turns the member into a new one that already has blobs.
fn forget_log(data_dir: &DataDir, out: &mut impl Write, passed: StepHook<'_>) -> Result<(), CannotRecover> {
    let identity = data_dir.mint()?;
    // First of all: without its log and without this mark, the member might found a cluster that treats its blobs as garbage.
    data_dir.write_json(MUST_JOIN_FILE, &true)?;
    passed()?;
    data_dir.write_json(IDENTITY_FILE, &identity)?;
    passed()?;
    for file in [CLUSTER_FILE, SUPERSEDES_FILE, PEERS_FILE, STORE_FILE, NEW_STORE_FILE] {
        data_dir.remove(file)?;
        passed()?;
    }
    data_dir.flush()?;
    writeln!(
        out,
        "{} has dropped its log and is now member {}. Its blobs are kept: within about a minute of joining, the cluster \
         counts those that it needs and deletes the others. This member does not found a cluster; it waits for one to join.",
        data_dir.path().display(),
        identity.id
    )?;
    Ok(())
}

mod restore;
#[cfg(test)]
mod tests;
