//! The source of the log page's lines: log files on this machine, or the members themselves.
//!
//! Files are followed if a directory was given or the cluster is a local one. Otherwise the live members are polled for new
//! lines while the log page is open. Bounds: one batch in flight.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use idunno_shared::client::cluster::Cluster;
use idunno_shared::wire::control::{ControlReply, ControlRequest, LogCursor};
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;
use tokio::time::sleep;

use super::msg::LogSource;
use crate::local::record::Record;
use crate::session::Session;
use crate::tail::{Follower, Lines, LogLine, merged};

const TAIL_PERIOD: Duration = Duration::from_millis(250);
const STREAM_PERIOD: Duration = Duration::from_millis(700);
const DEADLINE: Duration = Duration::from_secs(2);

/// Sends new lines until the receiver is dropped.
pub async fn run(
    session: Session,
    log_dir: Option<PathBuf>,
    sources: watch::Receiver<Vec<LogSource>>,
    lines: Sender<Vec<LogLine>>,
) {
    if log_dir.is_some() || (session.is_local() && Record::exists(&session.dir)) {
        follow_files(log_dir, session.dir.clone(), lines).await;
    } else {
        poll_members(session, sources, lines).await;
    }
}

/// Reads files on a blocking thread, because disks may be slow.
async fn follow_files(log_dir: Option<PathBuf>, local_dir: PathBuf, lines: Sender<Vec<LogLine>>) {
    let mut followers: BTreeMap<PathBuf, (String, Follower)> = BTreeMap::new();
    loop {
        let (log_dir, local_dir) = (log_dir.clone(), local_dir.clone());
        let reading = tokio::task::spawn_blocking(move || {
            for (source, dir) in log_dirs(log_dir.as_deref(), &local_dir) {
                followers.entry(dir.clone()).or_insert_with(|| (source, Follower::new(dir)));
            }
            let mut batch = Vec::new();
            for (source, follower) in followers.values_mut() {
                let texts = follower.poll();
                batch.extend(texts.into_iter().map(|text| LogLine { source: source.clone(), text }));
            }
            (followers, batch)
        });
        let Ok((returned, batch)) = reading.await else { return };
        followers = returned;
        if !batch.is_empty() && lines.send(merged(batch)).await.is_err() {
            return;
        }
        if lines.is_closed() {
            return;
        }
        sleep(TAIL_PERIOD).await;
    }
}

/// Log directories with the name of their process: the one that was given, else those of the local cluster.
fn log_dirs(log_dir: Option<&Path>, local_dir: &Path) -> Vec<(String, PathBuf)> {
    if let Some(dir) = log_dir {
        return vec![(String::from("log"), dir.to_owned())];
    }
    let mut dirs = Vec::new();
    for entry in local_dir.read_dir().into_iter().flatten().flatten() {
        let dir = entry.path().join("logs");
        if dir.is_dir() {
            dirs.push((entry.file_name().to_string_lossy().into_owned(), dir));
        }
    }
    dirs
}

/// How far a member's log has been read.
#[derive(Default)]
struct ReadCursor {
    after: Option<LogCursor>,
    lines: Lines,
}

/// A member's new lines, and the cursor behind them.
struct LogBatch {
    source: String,
    cursor: ReadCursor,
    texts: Vec<String>,
}

/// Polls all members of `sources` concurrently.
async fn poll_members(
    session: Session,
    mut sources: watch::Receiver<Vec<LogSource>>,
    lines: Sender<Vec<LogLine>>,
) {
    let mut cursors: BTreeMap<String, ReadCursor> = BTreeMap::new();
    loop {
        let members = sources.borrow_and_update().clone();
        if members.is_empty() {
            tokio::select! {
                changed = sources.changed() => if changed.is_err() { return },
                () = lines.closed() => return,
            }
            continue;
        }
        let cluster = session.cluster().with_deadline(DEADLINE);
        // Each request owns its member's cursor until it is answered.
        let requests = members.iter().map(|member| {
            let cursor = cursors.remove(&member.name).unwrap_or_default();
            read_batch(&cluster, member, cursor)
        });
        let mut batch = Vec::new();
        for page in join_all(requests).await {
            let LogBatch { source, cursor, texts } = page;
            batch.extend(texts.into_iter().map(|text| LogLine { source: source.clone(), text }));
            cursors.insert(source, cursor);
        }
        if !batch.is_empty() && lines.send(merged(batch)).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep(STREAM_PERIOD) => {}
            () = lines.closed() => return,
        }
    }
}

/// A member that does not answer yields no lines and keeps its cursor.
async fn read_batch(cluster: &Cluster, member: &LogSource, mut cursor: ReadCursor) -> LogBatch {
    let request = ControlRequest::Log { after: cursor.after.clone() };
    let mut texts = Vec::new();
    if let Ok(ControlReply::Log(page)) = cluster.ask_member(member.address, request).await {
        if page.cut {
            cursor.lines.cut();
        }
        cursor.lines.take(&page.bytes, &mut texts);
        cursor.after = Some(page.end);
    }
    LogBatch { source: member.name.clone(), cursor, texts }
}
