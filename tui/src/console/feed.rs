//! Where the log page's lines come from: files of this machine, or the members themselves.
//!
//! Files are followed where a directory was named or the cluster is one of this machine; otherwise the members that are
//! up are asked, while the page is read, for what came since they were asked last. Bounds: one batch in flight.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use idunno_shared::client::cluster::Cluster;
use idunno_shared::wire::control::{ControlReply, ControlRequest, LogPlace};
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::local::record::Record;
use crate::session::Session;
use crate::tail::{Follower, Lines, LogLine, merged};

const TAIL_PERIOD: Duration = Duration::from_millis(250);
const STREAM_PERIOD: Duration = Duration::from_millis(700);
const DEADLINE: Duration = Duration::from_secs(2);

/// Members whose logs are wanted.
pub type Wanted = Vec<(String, SocketAddr)>;

/// Passes new lines on until nobody listens.
pub async fn run(
    session: Session,
    given: Option<PathBuf>,
    wanted: watch::Receiver<Wanted>,
    lines: Sender<Vec<LogLine>>,
) {
    if given.is_some() || (session.is_local() && Record::exists(&session.dir)) {
        tail(given, session.dir.clone(), lines).await;
    } else {
        stream(session, wanted, lines).await;
    }
}

/// Follows files in a thread that may wait for disks.
async fn tail(given: Option<PathBuf>, local: PathBuf, lines: Sender<Vec<LogLine>>) {
    let mut followers: BTreeMap<PathBuf, (String, Follower)> = BTreeMap::new();
    loop {
        let (given, local) = (given.clone(), local.clone());
        let looked = tokio::task::spawn_blocking(move || {
            for (source, dir) in log_dirs(given.as_deref(), &local) {
                followers.entry(dir.clone()).or_insert_with(|| (source, Follower::new(dir)));
            }
            let mut found = Vec::new();
            for (source, follower) in followers.values_mut() {
                let texts = follower.poll();
                found.extend(texts.into_iter().map(|text| LogLine { source: source.clone(), text }));
            }
            (followers, found)
        });
        let Ok((back, found)) = looked.await else { return };
        followers = back;
        if !found.is_empty() && lines.send(merged(found)).await.is_err() {
            return;
        }
        if lines.is_closed() {
            return;
        }
        sleep(TAIL_PERIOD).await;
    }
}

/// Where logs are, and whose: the directory asked for, else the local cluster's.
fn log_dirs(given: Option<&Path>, local: &Path) -> Vec<(String, PathBuf)> {
    if let Some(dir) = given {
        return vec![(String::from("log"), dir.to_owned())];
    }
    let mut dirs = Vec::new();
    for entry in local.read_dir().into_iter().flatten().flatten() {
        let dir = entry.path().join("logs");
        if dir.is_dir() {
            dirs.push((entry.file_name().to_string_lossy().into_owned(), dir));
        }
    }
    dirs
}

#[derive(Default)]
struct Place {
    after: Option<LogPlace>,
    lines: Lines,
}

/// Asks the members that are wanted, all at once.
async fn stream(session: Session, mut wanted: watch::Receiver<Wanted>, lines: Sender<Vec<LogLine>>) {
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    loop {
        let members = wanted.borrow_and_update().clone();
        if members.is_empty() {
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                () = lines.closed() => return,
            }
            continue;
        }
        let cluster = session.cluster().with_deadline(DEADLINE);
        // Each place is with its request for as long as that takes.
        let asked = members.iter().map(|(name, address)| {
            let place = places.remove(name).unwrap_or_default();
            page(&cluster, name, *address, place)
        });
        let mut found = Vec::new();
        for (name, place, texts) in join_all(asked).await {
            found.extend(texts.into_iter().map(|text| LogLine { source: name.clone(), text }));
            places.insert(name, place);
        }
        if !found.is_empty() && lines.send(merged(found)).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep(STREAM_PERIOD) => {}
            () = lines.closed() => return,
        }
    }
}

/// What came in a member's log since its place; nothing from one that does not answer.
async fn page(
    cluster: &Cluster,
    name: &str,
    address: SocketAddr,
    mut place: Place,
) -> (String, Place, Vec<String>) {
    let request = ControlRequest::Log { after: place.after.clone() };
    let mut texts = Vec::new();
    if let Ok(ControlReply::Log(page)) = cluster.ask_member(address, request).await {
        if page.cut {
            place.lines.cut();
        }
        place.lines.take(&page.bytes, &mut texts);
        place.after = Some(page.end);
    }
    (name.to_owned(), place, texts)
}
