//! A fake coordinator: plans, commits and locates files in a map.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use idunno_shared::client::frames::{read_frame, write_frame};
use idunno_shared::client::link::Link;
use idunno_shared::ids::{NodeId, Term, UploadId};
use idunno_shared::names::FileName;
use idunno_shared::wire::blobs::{BlobRef, COPIES, Holder, PlacedBlob};
use idunno_shared::wire::control::{
    Attributes, Chain, Change, Changed, ControlReply, ControlRequest, FileVersion, NewFile,
};
use idunno_shared::wire::frame::{Answer, Call, Reply, Request};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use tokio::io::{duplex, split};
use tokio::sync::Notify;

use super::{PIPE_BYTES, TestCluster, link};

#[derive(Default)]
pub(crate) struct FakeCoordinator {
    state: Mutex<State>,
    /// Notified when a plan found its upload ended.
    refused: Notify,
}

#[derive(Default)]
struct State {
    members: Vec<Holder>,
    /// Members without room.
    full: Vec<NodeId>,
    files: BTreeMap<FileName, Vec<FileVersion>>,
    uploads: u64,
    live: Vec<u64>,
    /// Number of commits that will find their upload ended.
    ending_commits: u32,
    /// The next commit ends its upload, and is answered after a plan was refused for it.
    delay_commit: bool,
    plans: u32,
    commits: u32,
}

pub(super) fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 6999))
}

pub(super) fn serve(cluster: &Arc<TestCluster>) -> Link {
    let (near, far) = duplex(PIPE_BYTES);
    let cluster = Arc::clone(cluster);
    tokio::spawn(async move {
        let (mut reader, writer) = split(far);
        let writer = Arc::new(tokio::sync::Mutex::new(writer));
        while let Ok(Call { id, request }) = read_frame(&mut reader).await {
            let (reply, is_delayed) = match request {
                Request::Control(request) => cluster.coordinator.answer(request),
                other => panic!("not implemented by the fake coordinator: {other:?}"),
            };
            let reply = reply.map_or_else(Reply::Refused, |reply| Reply::Control(Box::new(reply)));
            let (cluster, writer) = (Arc::clone(&cluster), Arc::clone(&writer));
            tokio::spawn(async move {
                if is_delayed {
                    cluster.coordinator.refused.notified().await;
                }
                // The client may have disconnected.
                let _ = write_frame(&mut *writer.lock().await, &Answer { id, more: false, reply }).await;
            });
        }
    });
    link(near)
}

impl FakeCoordinator {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn set_members(&self, members: Vec<Holder>) {
        self.state().members = members;
    }

    pub(super) fn set_full(&self, full: Vec<NodeId>) {
        self.state().full = full;
    }

    pub(super) fn end_uploads_at_commit(&self, count: u32) {
        self.state().ending_commits = count;
    }

    pub(super) fn delay_the_next_commit(&self) {
        self.state().delay_commit = true;
    }

    /// Number of plans, of commits, and of open uploads.
    pub(super) fn figures(&self) -> (u32, u32, usize) {
        let state = self.state();
        (state.plans, state.commits, state.live.len())
    }

    pub(super) fn newest(&self, name: &str) -> FileVersion {
        self.state().files[&name.parse().unwrap()].last().unwrap().clone()
    }

    /// The reply, and whether it is delayed.
    fn answer(&self, request: ControlRequest) -> (Result<ControlReply, Refusal>, bool) {
        let mut state = self.state();
        let is_delayed =
            matches!(&request, ControlRequest::Change { .. }) && std::mem::take(&mut state.delay_commit);
        let reply = self.reply(&mut state, request);
        if is_delayed {
            state.live.clear();
        }
        (reply, is_delayed)
    }

    fn reply(&self, state: &mut State, request: ControlRequest) -> Result<ControlReply, Refusal> {
        match request {
            ControlRequest::Plan { upload, blobs, exclude } => {
                let planned = state.plan(upload, &blobs, &exclude);
                if planned.is_err() {
                    self.refused.notify_one();
                }
                planned
            }
            ControlRequest::EndUpload(upload) => {
                state.live.retain(|live| *live != upload.number);
                Ok(ControlReply::Done)
            }
            ControlRequest::Change { change: Change::CommitFiles { upload, files }, .. } => {
                state.commit(upload, files)
            }
            ControlRequest::Locate { names, version } => {
                let locate = |name| {
                    let versions = state.files.get(name)?;
                    versions
                        .iter()
                        .rfind(|known| version.is_none_or(|wanted| known.version == wanted))
                        .cloned()
                };
                Ok(ControlReply::Located(names.iter().map(locate).collect()))
            }
            ControlRequest::Versions { name, limit } => {
                let versions = state.files.get(&name).into_iter().flatten().rev();
                Ok(ControlReply::Versions(versions.take(limit as usize).cloned().collect()))
            }
            other => panic!("not implemented by the fake coordinator: {other:?}"),
        }
    }
}

impl State {
    fn check(&self, upload: UploadId) -> Result<(), Refusal> {
        let over = || Refusal::new(RefusalCode::UploadOver, "over");
        if self.live.contains(&upload.number) { Ok(()) } else { Err(over()) }
    }

    fn plan(
        &mut self,
        upload: Option<UploadId>,
        blobs: &[BlobRef],
        exclude: &[NodeId],
    ) -> Result<ControlReply, Refusal> {
        let upload = upload.unwrap_or_else(|| {
            self.uploads += 1;
            self.live.push(self.uploads);
            UploadId { term: Term(1), number: self.uploads }
        });
        self.check(upload)?;
        self.plans += u32::from(!blobs.is_empty());
        let chain = |blob: &BlobRef| {
            let mut chain = self.members.clone();
            chain.rotate_left(usize::from(blob.digest.0[0]) % self.members.len());
            chain.retain(|holder| !exclude.contains(&holder.node) && !self.full.contains(&holder.node));
            chain.truncate(COPIES);
            Chain(chain)
        };
        let copies = u32::try_from(self.members.len().min(COPIES)).unwrap();
        Ok(ControlReply::Planned { upload, chains: blobs.iter().map(chain).collect(), copies })
    }

    fn commit(&mut self, upload: UploadId, files: Vec<NewFile>) -> Result<ControlReply, Refusal> {
        if self.ending_commits > 0 {
            self.ending_commits -= 1;
            self.live.clear();
        }
        self.check(upload)?;
        self.commits += 1;
        let mut changed = Vec::new();
        for file in files {
            assert_eq!(file.size, file.extents.iter().map(|(blob, _)| blob.size).sum::<u64>());
            let members = &self.members;
            let placed = |(blob, nodes): (BlobRef, Vec<NodeId>)| {
                assert!(!nodes.is_empty(), "every extent of a committed version has a copy");
                let holders = members.iter().filter(|member| nodes.contains(&member.node)).copied().collect();
                PlacedBlob { blob, holders }
            };
            let extents: Vec<PlacedBlob> = file.extents.into_iter().map(placed).collect();
            let copies = extents.iter().map(|extent| extent.holders.len()).min().unwrap_or(0);
            let versions = self.files.entry(file.name.clone()).or_default();
            let version = versions.len() as u64 + 1;
            let (size, digest, created_ms) = (file.size, file.digest, 1_795_395_723_000);
            let (name, attributes) = (file.name, Attributes::new());
            versions.push(FileVersion { name, version, size, digest, created_ms, extents, attributes });
            changed.push((version, u32::try_from(copies).unwrap()));
        }
        Ok(ControlReply::Changed(Changed::Files(changed)))
    }
}
