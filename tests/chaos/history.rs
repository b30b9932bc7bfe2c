//! The history of client operations on one clock: the input of the checkers.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use idunno_shared::ids::Digest;

/// The call of an operation on one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Put a new version with these bytes.
    Put(Digest),
    /// Get the newest version.
    Get,
    /// List all versions that are kept.
    Versions,
    /// Delete the file.
    Delete,
}

/// The reply to an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The put is version `version`, durable on `copies` of `wanted` members.
    Committed { version: u64, copies: u32, wanted: u32 },
    /// The newest version.
    Found { version: u64, bytes: Digest },
    /// All versions, newest first.
    Kept(Vec<(u64, Digest)>),
    /// The file existed with this many versions and was deleted.
    Deleted { versions: u32 },
    /// There is no such file.
    Absent,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Microseconds since the start of the run.
    pub(crate) at: u64,
    /// The reply, or why there is none. Without a reply a change may have been made, may still be made, or never.
    pub(crate) outcome: Result<Reply, String>,
}

/// One operation of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    /// Name of the client.
    pub(crate) client: String,
    /// The file.
    pub(crate) name: String,
    /// The call.
    pub(crate) call: Call,
    /// When the operation began, in microseconds since the start of the run.
    pub(crate) begun: u64,
    /// How the operation ended; `None` while it is in progress.
    pub(crate) end: Option<End>,
}

/// The record of all operations, shared by the clients.
#[derive(Clone)]
pub(crate) struct History {
    start: Instant,
    operations: Arc<Mutex<Vec<Operation>>>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), operations: Arc::default() }
    }

    /// Microseconds since the start of the run.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Records the start of an operation; call it before the first byte is sent. The number is for [`History::end`].
    pub(crate) fn begin(&self, client: &str, name: &str, call: Call) -> usize {
        let operation = Operation {
            client: client.to_owned(),
            name: name.to_owned(),
            call,
            begun: self.now(),
            end: None,
        };
        let mut operations = self.operations();
        operations.push(operation);
        operations.len() - 1
    }

    /// Records the end of an operation; call it after the reply.
    pub(crate) fn end(&self, number: usize, outcome: Result<Reply, String>) {
        let end = End { at: self.now(), outcome };
        if let Some(operation) = self.operations().get_mut(number) {
            operation.end = Some(end);
        }
    }

    /// All operations so far, in the order of their beginnings.
    pub(crate) fn snapshot(&self) -> Vec<Operation> {
        let mut operations = self.operations().clone();
        operations.sort_by_key(|operation| operation.begun);
        operations
    }

    /// How many operations were begun.
    pub(crate) fn len(&self) -> usize {
        self.operations().len()
    }

    fn operations(&self) -> MutexGuard<'_, Vec<Operation>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The longest time between `from` and `to` in which no client was answered, in microseconds.
pub(crate) fn longest_pause(operations: &[Operation], from: u64, to: u64) -> u64 {
    let answers = operations.iter().filter_map(|operation| operation.end.as_ref());
    let answers = answers.filter(|end| end.outcome.is_ok() && (from..to).contains(&end.at)).map(|end| end.at);
    let mut moments: Vec<u64> = answers.chain([from, to]).collect();
    moments.sort_unstable();
    moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

/// A summary of a history.
pub(crate) fn summary(operations: &[Operation]) -> String {
    let ended = |wanted: fn(&Result<Reply, String>) -> bool| {
        let ends = operations.iter().filter_map(|operation| operation.end.as_ref());
        ends.filter(|end| wanted(&end.outcome)).count()
    };
    let short = |outcome: &Result<Reply, String>| matches!(outcome, Ok(Reply::Committed { copies, wanted, .. }) if copies < wanted);
    let (first, last) = (operations.first(), operations.last());
    let pause =
        longest_pause(operations, first.map_or(0, |first| first.begun), last.map_or(0, |last| last.begun));
    format!(
        "{} operations on files: {} puts acknowledged, {} of them with fewer copies than wanted; {} deletes; {} without \
         an answer; the longest pause of all clients was {} s",
        operations.len(),
        ended(|outcome| matches!(outcome, Ok(Reply::Committed { .. }))),
        ended(short),
        ended(|outcome| matches!(outcome, Ok(Reply::Deleted { .. }))),
        ended(Result::is_err),
        seconds(pause),
    )
}

/// One line for people.
pub(crate) fn line(operation: &Operation) -> String {
    let Operation { client, name, call, begun, end } = operation;
    let end = match end {
        None => String::from("in progress"),
        Some(End { at, outcome: Ok(reply) }) => format!("{} {reply}", seconds(*at)),
        Some(End { at, outcome: Err(reason) }) => format!("{} outcome unknown: {reason}", seconds(*at)),
    };
    format!("{} {client} {name} {call} -> {end}", seconds(*begun))
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(bytes) => write!(f, "put {}", short(bytes)),
            Self::Get => write!(f, "get"),
            Self::Versions => write!(f, "versions"),
            Self::Delete => write!(f, "delete"),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed { version, copies, wanted } => {
                write!(f, "version {version}, {copies} of {wanted} copies")
            }
            Self::Found { version, bytes } => write!(f, "version {version} is {}", short(bytes)),
            Self::Kept(versions) => write!(f, "versions are {}", versions_line(versions)),
            Self::Deleted { versions } => write!(f, "{versions} versions deleted"),
            Self::Absent => write!(f, "no such file"),
        }
    }
}

/// Versions with the beginnings of their digests.
pub(crate) fn versions_line(versions: &[(u64, Digest)]) -> String {
    let versions = versions.iter().map(|(number, bytes)| format!("{number}: {}", short(bytes)));
    format!("[{}]", versions.collect::<Vec<_>>().join(", "))
}

/// Enough of a digest to tell it from others.
fn short(digest: &Digest) -> String {
    digest.to_string().chars().take(8).collect()
}

fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pause_counts_answers_only() {
        let answered = |at, outcome| {
            let end = Some(End { at, outcome });
            Operation { client: String::new(), name: String::new(), call: Call::Get, begun: 0, end }
        };
        let history = [
            answered(10, Ok(Reply::Absent)),
            answered(40, Err(String::from("no answer"))),
            answered(70, Ok(Reply::Absent)),
            answered(500, Ok(Reply::Absent)),
        ];
        assert_eq!(longest_pause(&history, 0, 100), 60);
        assert_eq!(longest_pause(&history, 100, 150), 50);
    }
}
