//! What happens to the console, and what it has done.

use std::net::SocketAddr;
use std::path::PathBuf;

use crossterm::event::{KeyEvent, MouseEvent};
use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::names::FileName;
use idunno_shared::wire::control::{
    ClusterView, DeadLetter, FileSummary, FileVersion, FolderEntry, LeaseView,
};

use crate::answer::{Answer, Failure};
use crate::command::Verb;
use crate::tail::LogLine;

/// What the connection's task tells.
#[derive(Clone, Debug)]
pub enum NetEvent {
    /// It looks for the coordinator.
    Connecting,
    /// The coordinator pushed.
    View(Box<ClusterView>),
    /// The coordinator answered that nothing is new.
    Confirmed,
    /// No luck: it tries again after a while.
    Waiting {
        /// How long, in milliseconds.
        wait_ms: u64,
        /// How often it was tried.
        attempt: u32,
        /// What went wrong.
        reason: String,
        /// Whether a member answers: then one is being elected.
        answered: bool,
    },
}

/// A question for a page of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesQuery {
    /// How their names start.
    pub prefix: String,
    /// Behind which entry.
    pub after: Option<FolderEntry>,
    /// Whether all files are wanted, not only those of one level.
    pub flat: bool,
}

/// A question about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The queries of a job that failed for good.
    DeadLetters(JobId),
    /// The newest results of a job.
    Results(JobId),
    /// The batches in workers' hands.
    Leases {
        /// Of this job only.
        job: Option<JobId>,
        /// Of this worker only.
        worker: Option<NodeId>,
    },
    /// What a member holds.
    Stored(NodeId),
    /// A file's versions, their extents and holders.
    Versions(FileName),
    /// The beginning of a file.
    Preview(FileName),
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Facts {
    /// Dead letters, and whether there are more.
    Letters(Vec<DeadLetter>, bool),
    /// Files, and whether there are more.
    Files(Vec<FileSummary>, bool),
    /// Versions, newest first.
    Versions(Vec<FileVersion>),
    /// Lines of text.
    Lines(Vec<String>),
    /// Batches in workers' hands.
    Leases(Vec<LeaseView>),
}

/// What happens.
#[derive(Debug)]
pub enum Msg {
    /// A key.
    Key(KeyEvent),
    /// The mouse.
    Mouse(MouseEvent),
    /// Text that was pasted.
    Paste(String),
    /// The terminal has another size.
    Resized(u16, u16),
    /// From the connection.
    Net(NetEvent),
    /// New lines of logs.
    Log(Vec<LogLine>),
    /// A page of files came, or did not.
    Files(FilesQuery, Result<(Vec<FolderEntry>, bool), String>),
    /// An answer about one thing came, or did not.
    Seen(Question, Result<Facts, String>),
    /// A command is under way: files and bytes done.
    Progress(u64, u64, u64),
    /// A command is done.
    Finished(u64, Result<Answer, Failure>),
    /// The page was written into a file, or was not.
    Saved(Result<String, String>),
    /// A second has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Carry a command out.
    Run(u64, Box<Verb>),
    /// Ask for a page of files.
    FetchFiles(FilesQuery),
    /// Ask about one thing.
    Look(Question),
    /// Stream the logs of these members, and no others.
    Stream(Vec<(String, SocketAddr)>),
    /// Put a text on the clipboard of the terminal.
    Copy(String),
    /// Write a text into a file.
    Save(PathBuf, String),
    /// Take the mouse, or give it back.
    Mouse(bool),
    /// Go to another cluster.
    Switch(String),
    /// Try to connect now.
    RetryNow,
    /// Stop as a shell's job.
    Suspend,
    /// End the console.
    Quit,
}
