//! The cluster's own view of itself, and the contents of its disks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::client::cluster::Cluster;
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::ids::{Digest, JobId, NodeId};
use idunno_shared::names::FileName;
use idunno_shared::security::Credentials;
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::control::{
    ClusterView, ControlReply, ControlRequest, FileVersion, Liveness, LogRole, SegmentView,
};

use super::World;
use crate::check::disks::{Disk, Recorded};

/// How long the driver retries a request.
const DEADLINE: Duration = Duration::from_secs(5);
const PAGE: u32 = 1024;
const VERSIONS: u32 = 5;
/// With seven voters any three may be lost.
const VOTERS_MAX: usize = 7;

/// A client of its own, so that no connection is used that a fault has spoilt.
pub(crate) fn client(credentials: &Credentials, addresses: Vec<SocketAddr>) -> Cluster {
    Cluster::new(Arc::new(TcpConnector::new(credentials.clone())), addresses).with_deadline(DEADLINE)
}

impl World {
    pub(crate) fn client(&self) -> Cluster {
        client(&self.credentials, self.addresses())
    }

    /// Checks that all members list each other as alive and none as suspect, vote, and agree on a coordinator that answers.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        let wanted: BTreeSet<NodeId> = self.members.iter().filter_map(|member| member.node).collect();
        let (client, mut coordinators) = (self.client(), BTreeSet::new());
        for member in &self.members {
            let name = &member.daemon.name;
            let list = match client.ask_member(member.daemon.address, ControlRequest::Members).await {
                Ok(ControlReply::Members(list)) => list,
                other => return Err(format!("{name} answers {other:?}")),
            };
            let alive: BTreeSet<NodeId> =
                list.iter().filter(|row| row.liveness == Liveness::Alive).map(|row| row.id).collect();
            if alive != wanted {
                return Err(format!("{name} lists {} of {} as alive", alive.len(), wanted.len()));
            }
            if let Some(row) = list.iter().find(|row| row.liveness == Liveness::Suspect) {
                return Err(format!("{name} suspects {}", row.name));
            }
            let role = |role| list.iter().filter(move |row| row.role == role).map(|row| row.id);
            let voting: BTreeSet<NodeId> = role(LogRole::Voter).chain(role(LogRole::Coordinator)).collect();
            let voters = voting.intersection(&wanted).count();
            if voters != wanted.len().min(VOTERS_MAX) || voting.len() != voters {
                return Err(format!("{name} knows {} voters, {voters} of them alive", voting.len()));
            }
            coordinators.extend(role(LogRole::Coordinator));
        }
        if coordinators.len() != 1 {
            return Err(format!("{} coordinators", coordinators.len()));
        }
        // One that has lost its log may be listed for long.
        self.coordinator().await.map(drop)
    }

    /// Checks [`Self::ready`], and that every blob has all its copies.
    pub(crate) async fn healed(&self) -> Result<(), String> {
        self.ready().await?;
        let store = self.view().await?.store;
        let wanting = (store.under_replicated, store.unavailable, store.copying);
        if wanting == (0, 0, 0) { Ok(()) } else { Err(format!("blobs want copies: {store:?}")) }
    }

    /// Which member coordinates.
    pub(crate) async fn coordinator(&self) -> Result<usize, String> {
        let node = match self.client().control(ControlRequest::Coordinator).await {
            Ok(ControlReply::Coordinator { coordinator, .. }) => Some(coordinator.node),
            other => return Err(format!("{other:?}")),
        };
        let found = self.members.iter().position(|member| member.node == node);
        found.ok_or_else(|| String::from("an unknown member coordinates"))
    }

    /// Everything a console shows, once.
    pub(crate) async fn view(&self) -> Result<ClusterView, String> {
        let mut views = self.client().watch().await.map_err(|error| error.to_string())?;
        let reply = views.recv().await.ok_or("the watched coordinator is gone")?;
        Cluster::view(reply).ok_or_else(|| String::from("a watcher got something else than a view"))
    }

    /// What the log says of blobs.
    pub(crate) async fn recorded(&self) -> Result<Recorded, String> {
        let (client, view) = (self.client(), self.view().await?);
        let mut holders = BTreeMap::new();
        for name in files(&client).await? {
            for version in versions(&client, name).await? {
                version.extents.iter().for_each(|placed| self.note(placed, &mut holders));
            }
        }
        for job in &view.jobs {
            for segment in segments(&client, job.id).await? {
                self.note(&segment.segment, &mut holders);
            }
        }
        Ok(Recorded { blobs: view.store.blobs, bytes: view.store.bytes, holders })
    }

    fn note(&self, placed: &PlacedBlob, holders: &mut BTreeMap<Digest, BTreeSet<String>>) {
        let name = |node: NodeId| {
            let member = self.members.iter().find(|member| member.node == Some(node));
            member.map_or_else(|| format!("unknown member {node}"), |member| member.daemon.name.clone())
        };
        let names = placed.holders.iter().map(|holder| name(holder.node));
        holders.insert(placed.blob.digest, names.collect());
    }

    /// What the disks hold. Reads every blob.
    pub(crate) fn disks(&self) -> Vec<Disk> {
        let scan = |member: &super::Member| disk(&member.daemon.name, &member.daemon.data_dir);
        self.members.iter().map(scan).collect()
    }
}

/// All files' names.
pub(crate) async fn files(client: &Cluster) -> Result<Vec<FileName>, String> {
    let mut names: Vec<FileName> = Vec::new();
    loop {
        let after = names.last().cloned();
        match client.control(ControlRequest::List { prefix: String::new(), after, limit: PAGE }).await {
            Ok(ControlReply::Files { files, more }) => {
                names.extend(files.into_iter().map(|file| file.name));
                if !more {
                    return Ok(names);
                }
            }
            other => return Err(format!("{other:?}")),
        }
    }
}

/// The versions kept of a file, newest first.
async fn versions(client: &Cluster, name: FileName) -> Result<Vec<FileVersion>, String> {
    match client.control(ControlRequest::Versions { name, limit: VERSIONS }).await {
        Ok(ControlReply::Versions(versions)) => Ok(versions),
        other => Err(format!("{other:?}")),
    }
}

/// All segments of a job's results.
pub(crate) async fn segments(client: &Cluster, job: JobId) -> Result<Vec<SegmentView>, String> {
    let mut found: Vec<SegmentView> = Vec::new();
    loop {
        let request = ControlRequest::Results { job, skip: found.len() as u64, limit: PAGE };
        match client.control(request).await {
            Ok(ControlReply::Results { segments, more, .. }) => {
                found.extend(segments);
                if !more {
                    return Ok(found);
                }
            }
            other => return Err(format!("results of {job}: {other:?}")),
        }
    }
}

fn disk(member: &str, data: &Path) -> Disk {
    let mut disk = Disk { member: member.to_owned(), ..Disk::default() };
    (disk.incoming, disk.corrupt) = (names(&data.join("incoming")), names(&data.join("corrupt")));
    for prefix in names(&data.join("blobs")) {
        let folder = data.join("blobs").join(&prefix);
        for rest in names(&folder) {
            let Ok(digest) = format!("{prefix}{rest}").parse::<Digest>() else {
                disk.corrupt.push(rest);
                continue;
            };
            // One that is collected at this moment is not there any more.
            let Ok(bytes) = fs::read(folder.join(&rest)) else { continue };
            if Digest::of(&bytes) != digest {
                disk.damaged.push(digest);
            }
            disk.blobs.insert(digest, bytes.len() as u64);
        }
    }
    disk
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
