//! Messages into [`super::update::update`] and the effects that come out of it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crossterm::event::{KeyEvent, MouseEvent};
use idunno_shared::wire::control::{ClusterView, JobView, MemberView};
use thiserror::Error;

use super::query::{DetailData, DetailQuery, FilesPage, FilesQuery, QueryError};
use crate::answer::{Answer, Failure};
use crate::command::Verb;
use crate::tail::LogLine;

/// What the connection task reports.
#[derive(Clone, Debug)]
pub enum NetEvent {
    Connecting,
    View(Box<ClusterView>),
    /// The coordinator answered that nothing has changed.
    Confirmed,
    /// The attempt failed; the next one follows after a wait.
    Waiting {
        wait_ms: u64,
        attempt: u32,
        reason: String,
        /// Whether a member answered: then an election is under way.
        member_reachable: bool,
        /// That member's list of the members: no coordinator vouches for another.
        members: Option<Vec<MemberView>>,
    },
}

/// How much of a command's transfer is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferProgress {
    pub files: u64,
    pub bytes: u64,
}

/// A member whose log is streamed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSource {
    pub name: String,
    pub address: SocketAddr,
}

/// The page could not be written to a file.
#[derive(Debug, Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct SaveError {
    pub path: PathBuf,
    pub source: io::Error,
}

#[derive(Debug)]
pub enum Msg {
    Key(KeyEvent),
    Mouse(MouseEvent),
    Paste(String),
    /// The terminal's new width and height.
    Resized(u16, u16),
    Net(NetEvent),
    Log(Vec<LogLine>),
    Files(FilesQuery, Result<FilesPage, QueryError>),
    Detail(DetailQuery, Result<DetailData, QueryError>),
    /// The jobs that the view leaves out.
    OldJobs(Result<Vec<JobView>, QueryError>),
    /// The entries of a local directory.
    LocalPaths(String, Vec<String>),
    /// Progress of the operation with this id.
    Progress(u64, TransferProgress),
    /// The operation with this id ended.
    Finished(u64, Result<Answer, Failure>),
    Saved(Result<PathBuf, SaveError>),
    /// One second has passed.
    Tick,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Run a command as the operation with this id.
    Run(u64, Box<Verb>),
    FetchFiles(FilesQuery),
    FetchDetail(DetailQuery),
    /// Fetch so many jobs that the view leaves out.
    FetchOldJobs(u64),
    /// List a local directory, whose name ends in a slash; the empty one is the console's own.
    ListDirectory(String),
    /// Stream the logs of these members and of no others.
    StreamLogs(Vec<LogSource>),
    /// Copy a text to the terminal's clipboard.
    Copy(String),
    Save(PathBuf, String),
    /// Capture the mouse, or release it.
    CaptureMouse(bool),
    SwitchCluster(String),
    /// Remember that the tour was seen.
    EndTour,
    RetryNow,
    /// Suspend the console as a job of its shell.
    Suspend,
    Quit,
}
