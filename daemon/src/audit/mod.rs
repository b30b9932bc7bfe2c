//! The audit: what people and members asked this member to change, and what became of it.
//!
//! A log can be forged by a line end in a name, flushed out by a flood of other lines, and is dropped where it is written
//! too slowly. The audit is none of these: it has files of its own, each event is one line of JSON, an answer waits for its
//! event to be on disk, and each line names the digest of the one before ([`chain`]), so that a line that was changed,
//! removed or inserted shows. [`files`] bounds it.
//!
//! An event that cannot be written does not undo what it tells of. It is counted, the log says so, and the next line
//! that can be written says how many are missing.
//!
//! Bounds: [`WAITING_MAX`] events wait for the disk; an answer waits for [`FLUSH_MAX`] at most; a text has at most
//! [`TEXT_BYTES_MAX`] bytes.

pub mod chain;
mod files;
#[cfg(test)]
mod tests;
pub mod verify;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::error;

use self::files::AuditFiles;

/// The audit's directory in the data directory.
pub const DIRECTORY: &str = "audit";
/// Events that wait for the disk; beyond it, requests wait.
pub const WAITING_MAX: usize = 256;
/// The longest that an answer waits for its event to be on disk. A disk that hangs must not hold back the answers of a
/// member that otherwise does without it.
pub const FLUSH_MAX: Duration = Duration::from_secs(5);
/// Bytes of one text of an event.
pub const TEXT_BYTES_MAX: usize = 512;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum AuditEvent {
    /// The process began.
    Started { version: &'static str, member: String },
    /// The process is about to end as asked.
    Stopped,
    /// Somebody asked for a change, or for a backup.
    Request { op: String, by: String, request: String, outcome: String, took_ms: u64 },
    /// So many changes that somebody asked for were refused, beyond those that have events of their own.
    RefusalsOmitted { by: String, count: u64 },
    /// A file begins. Lines before this one are in other files, the oldest of which begins with line `kept_from`.
    Rotated { kept_from: u64 },
    /// Events that could not be written.
    Lost { events: u64, why: String },
    /// The end of the file was not a whole line, as after a power cut, and was removed.
    Repaired { bytes: u64 },
}

/// The audit cannot be opened.
#[derive(Debug, Error)]
pub enum AuditError {
    #[error("cannot open the audit in {path}: {source}")]
    Open { path: std::path::PathBuf, source: std::io::Error },
    #[error("{path} is damaged: {why}; see docs/operations.md, Audit")]
    Damaged { path: std::path::PathBuf, why: String },
}

/// Writes the audit. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit {
    events: mpsc::Sender<Waiting>,
    /// Events that found no place in the queue, until the writer says so in the audit.
    lost: Arc<AtomicU64>,
}

struct Waiting {
    event: AuditEvent,
    written: oneshot::Sender<()>,
}

impl Audit {
    /// Opens the audit in a data directory, and continues it.
    pub fn open(data_dir: &Path) -> Result<Self, AuditError> {
        let files = AuditFiles::open(&data_dir.join(DIRECTORY))?;
        let (audit, waiting, lost) = queue();
        // A thread, and not a task: it waits for the disk.
        let write = move || write_all(files, waiting, &lost);
        let spawned = std::thread::Builder::new().name("audit".into()).spawn(write);
        spawned.map_err(|source| AuditError::Open { path: data_dir.join(DIRECTORY), source })?;
        Ok(audit)
    }

    /// Writes an event. It is on disk on return, unless the disk fails or hangs.
    pub async fn record(&self, event: AuditEvent) {
        let (written, done) = oneshot::channel();
        let until = Instant::now() + FLUSH_MAX;
        let unplaced = Unplaced(&self.lost);
        let place = timeout_at(until, self.events.reserve()).await;
        let Ok(Ok(place)) = place else {
            error!(waited = ?FLUSH_MAX, "the disk does not take the audit: an event is missing in it");
            return;
        };
        place.send(Waiting { event, written });
        std::mem::forget(unplaced);
        // If it was not written, the thread has said so.
        if timeout_at(until, done).await.is_err() {
            error!(waited = ?FLUSH_MAX, "the disk does not take the audit: an answer is given before its event is on disk");
        }
    }

    /// Has an event written for whose answer nobody waits.
    pub fn record_later(&self, event: AuditEvent) {
        let (written, _) = oneshot::channel();
        if self.events.try_send(Waiting { event, written }).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An event that waits for a place in the queue. It is lost if nobody waits for it any longer.
struct Unplaced<'a>(&'a AtomicU64);

impl Drop for Unplaced<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// An audit, and what its writer needs.
fn queue() -> (Audit, mpsc::Receiver<Waiting>, Arc<AtomicU64>) {
    let (events, waiting) = mpsc::channel(WAITING_MAX);
    let lost = Arc::default();
    (Audit { events, lost: Arc::clone(&lost) }, waiting, lost)
}

/// Writes events until all senders are gone. Those that wait together are flushed together.
fn write_all(mut files: AuditFiles, mut waiting: mpsc::Receiver<Waiting>, lost: &AtomicU64) {
    let mut group = Vec::new();
    while let Some(first) = waiting.blocking_recv() {
        group.push(first);
        while group.len() < WAITING_MAX
            && let Ok(next) = waiting.try_recv()
        {
            group.push(next);
        }
        let events: Vec<&AuditEvent> = group.iter().map(|one| &one.event).collect();
        files.add_lost(lost.swap(0, Ordering::Relaxed));
        if let Err(error) = files.write(&events) {
            error!(%error, events = group.len(), "cannot write the audit: these events are missing in it");
        }
        for one in group.drain(..) {
            // The caller may have given up.
            let _ = one.written.send(());
        }
    }
}

/// A text of an event, cut to its limit.
pub fn text(full: impl std::fmt::Display) -> String {
    let mut full = full.to_string();
    if full.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|&at| full.is_char_boundary(at));
        full.truncate(end.unwrap_or_default());
        full.push_str("...");
    }
    full
}
