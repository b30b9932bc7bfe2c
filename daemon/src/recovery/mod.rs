//! Going on after a majority of the voters is lost for ever: offline, on the data directory of a member that is stopped.
//!
//! One survivor becomes the only voter of a new cluster that starts from its metadata. All others forget their logs, keep
//! their blobs, and join like new members; inventories find the blobs.
//!
//! The old cluster is fenced off twice. Every member of the new one has a new id, so that the old voters can neither call
//! it (the transport checks who answers) nor count its vote, and it may forget the votes that it gave. And the new cluster
//! has a new founder, so that an old member that comes back is refused, and told what to do.
//!
//! With `--backup` the new cluster starts from a backup's metadata instead, also in an empty directory.
//!
//! Order: the new store lies beside the old one before the identity changes, and takes its place last. While it lies there
//! no member starts ([`check_finished`]); the command can be given again. And the identity changes before the log does,
//! durably: the other way round a member could vote twice.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use idunno_shared::backup::BackupError;
use idunno_shared::ids::NodeId;
use thiserror::Error;

use self::restore::restore;
use crate::discovery::PEERS_FILE;
use crate::discovery::cluster_id::{CLUSTER_FILE, MUST_JOIN_FILE};
use crate::runtime::data_dir::{DataDir, DataDirError, IDENTITY_FILE, Identity};
use idunno_consensus::{Origin, RecoverError, STORE_FILE, Survivor};

/// The new store, until it takes the old one's place.
const NEW_STORE_FILE: &str = "metadata.redb.recovered";

/// What is to be done to which directory.
#[derive(Args)]
pub struct Arguments {
    /// The stopped member's data directory
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Drop the log and keep the blobs: for every survivor but the one that is recovered
    #[arg(long, conflicts_with = "backup")]
    forget_log: bool,
    /// Start from this backup instead of the directory's log; the directory may also be empty
    #[arg(long, value_name = "FILE")]
    backup: Option<PathBuf>,
    /// Do it; without this, only tell
    #[arg(long)]
    yes: bool,
}

/// Why nothing was recovered.
#[derive(Debug, Error)]
pub enum CannotRecover {
    /// No member ever ran there.
    #[error("{path} is not the data directory of a member: give the --data-dir of one that survived")]
    NoMember { path: PathBuf },
    /// Something is there, and no member.
    #[error("{path} is not empty, and not the data directory of a member: give an empty one, or a member's")]
    NotEmpty { path: PathBuf },
    /// The backup is of no use.
    #[error("{0}; nothing was changed")]
    Backup(#[from] BackupError),
    /// Its bytes are whole, and their meaning is not.
    #[error("the backup {path} cannot be used: {reason}; nothing was changed")]
    Unusable { path: PathBuf, reason: String },
    /// What this process writes there, the member could not read.
    #[error(
        "{path} belongs to user {owner}, and this runs as {me}: run it as that user (runuser -u NAME -- idunnod ...)"
    )]
    OtherUser {
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who runs this.
        me: u32,
    },
    /// The directory is in use or cannot be written.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The log is of no use.
    #[error(transparent)]
    Log(#[from] RecoverError),
    /// The result cannot be told.
    #[error("cannot write the answer: {0}")]
    Answer(#[from] io::Error),
}

/// A recovery was interrupted.
#[derive(Debug, Error)]
#[error(
    "an 'idunnod recover' of {path} was interrupted: give the command again, and start the member when it has succeeded"
)]
pub struct Unfinished {
    path: PathBuf,
}

/// Refuses to start a member in a directory that is half recovered.
pub fn check_finished(data_dir: &DataDir) -> Result<(), Unfinished> {
    let path = data_dir.path();
    if path.join(NEW_STORE_FILE).exists() { Err(Unfinished { path: path.to_path_buf() }) } else { Ok(()) }
}

/// Called after each durable step; a test stops there.
type Passed<'a> = &'a mut dyn FnMut() -> Result<(), CannotRecover>;

/// Does what the arguments say, and tells it to `out`.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<()> {
    let passed: Passed<'_> = &mut || Ok(());
    let Arguments { data_dir, forget_log: forgets, backup, yes } = arguments;
    match (backup, forgets, yes) {
        (Some(file), _, yes) => restore(file, data_dir, *yes, out, passed)?,
        (None, false, false) => tell(&open(data_dir)?, out)?,
        (None, false, true) => recover(&open(data_dir)?, out, passed)?,
        (None, true, false) => {
            let data_dir = open(data_dir)?;
            writeln!(
                out,
                "with --yes: {} drops its metadata log, its identity and its cluster, and keeps its blobs. Do so only when \
                 another survivor was recovered, for this log may be the newest one.",
                data_dir.path().display()
            )?;
        }
        (None, true, true) => forget_log(&open(data_dir)?, out, passed)?,
    }
    Ok(())
}

/// Locks the directory of a member that is stopped.
fn open(path: &Path) -> Result<DataDir, CannotRecover> {
    let identity = path.join(IDENTITY_FILE).metadata();
    let identity = identity.map_err(|_absent| CannotRecover::NoMember { path: path.to_path_buf() })?;
    check_owner(path, identity.uid())?;
    Ok(DataDir::open(path)?)
}

fn check_owner(path: &Path, owner: u32) -> Result<(), CannotRecover> {
    let me = rustix::process::geteuid().as_raw();
    if owner == me { Ok(()) } else { Err(CannotRecover::OtherUser { path: path.to_path_buf(), owner, me }) }
}

/// What the operator compares before choosing.
fn tell(data_dir: &DataDir, out: &mut impl Write) -> Result<(), CannotRecover> {
    let survivor = Survivor::read(&data_dir.path().join(STORE_FILE))?;
    let (term, index) = survivor.origin.last_log();
    let committed = survivor.committed.map_or_else(|| String::from("nothing"), |index| format!("{index}"));
    let voters: Vec<String> = survivor.voters.iter().map(NodeId::to_string).collect();
    writeln!(out, "member     {}", survivor.node)?;
    writeln!(out, "last entry (term, index) = ({term}, {index})")?;
    writeln!(out, "committed  {committed}, as far as this member knew")?;
    writeln!(out, "voters     {}", voters.join(" "))?;
    writeln!(out, "files      {}", survivor.origin.state.file_count())?;
    writeln!(out, "jobs       {}", survivor.origin.state.jobs().count())?;
    writeln!(
        out,
        "\nCompare (term, index) of all survivors, the term first: recover the one with the highest, and no other. With \
         --yes this member goes on alone from all that its log holds.\n\
         Lost is what only the lost voters had: changes that they acknowledged and that no survivor's log holds, and files \
         whose copies were all on their disks. Kept is all else, also changes that were not acknowledged yet.\n\
         Nothing was changed."
    )?;
    Ok(())
}

/// Makes the member the only voter of a new cluster.
fn recover(data_dir: &DataDir, out: &mut impl Write, passed: Passed<'_>) -> Result<(), CannotRecover> {
    let survivor = Survivor::read(&data_dir.path().join(STORE_FILE))?;
    let (was, (term, index)) = (survivor.node, survivor.origin.last_log());
    let above = survivor.origin.new_term();
    let identity = found(data_dir, survivor.origin, passed)?;
    writeln!(
        out,
        "Recovered from (term, index) = ({term}, {index}): member {was} is now member {}, the founder and only voter of a \
         new cluster, whose terms are above {above}.\n{NEXT}",
        identity.id
    )?;
    Ok(())
}

const NEXT: &str = "Next: delete the introducer's introducer.json, start the introducer, start this member, and wait until \
'idunno status' answers. Then, for each other survivor: 'idunnod recover --forget-log --yes' on its directory, and start it. \
New members need an empty directory.\n\
Never start a lost voter with what it kept: it is refused, until its log is forgotten too.";

/// Makes the directory that of the founder and only voter of a new cluster.
fn found(data_dir: &DataDir, origin: Origin, passed: Passed<'_>) -> Result<Identity, CannotRecover> {
    let identity = data_dir.mint()?;
    data_dir.remove(NEW_STORE_FILE)?;
    passed()?;
    if let Err(error) = origin.found(identity.id, &data_dir.path().join(NEW_STORE_FILE)) {
        // A half one would keep the member from starting.
        data_dir.remove(NEW_STORE_FILE)?;
        return Err(error.into());
    }
    data_dir.flush()?;
    passed()?;
    data_dir.write_json(IDENTITY_FILE, &identity)?;
    passed()?;
    data_dir.write_json(CLUSTER_FILE, &identity.id)?;
    passed()?;
    // They are of the old cluster, whichever comes back.
    data_dir.remove(PEERS_FILE)?;
    passed()?;
    data_dir.remove(MUST_JOIN_FILE)?;
    passed()?;
    data_dir.replace(STORE_FILE, NEW_STORE_FILE)?;
    passed()?;
    Ok(identity)
}

/// Makes the member a new one that has blobs already.
fn forget_log(data_dir: &DataDir, out: &mut impl Write, passed: Passed<'_>) -> Result<(), CannotRecover> {
    let identity = data_dir.mint()?;
    // Before all else: without a log and without the mark it might found a cluster, for which its blobs are garbage.
    data_dir.write_json(MUST_JOIN_FILE, &true)?;
    passed()?;
    data_dir.write_json(IDENTITY_FILE, &identity)?;
    passed()?;
    for file in [CLUSTER_FILE, PEERS_FILE, STORE_FILE, NEW_STORE_FILE] {
        data_dir.remove(file)?;
        passed()?;
    }
    data_dir.flush()?;
    writeln!(
        out,
        "{} has forgotten its log, and is now member {}. Its blobs are kept: the cluster that it joins counts those that it \
         needs within a minute or so, and deletes the others. It founds no cluster: until there is one to join, it waits.",
        data_dir.path().display(),
        identity.id
    )?;
    Ok(())
}

mod restore;
#[cfg(test)]
mod tests;
