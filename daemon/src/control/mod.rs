//! Requests from clients and workers: a member answers those about itself, the coordinator all others.

mod audit;
mod backup;
pub mod log_search;
mod logs;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use idunno_shared::ids::OpId;
use idunno_shared::wire::control::{ControlReply, ControlRequest, IdentityView};
use idunno_shared::wire::frame::{Reply, Request};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::audit::RequestAudit;
use self::log_search::{IDENTITY_SEARCHES_MAX, SEARCH_TIME_MAX, SEARCHES_MAX};
use self::turns::Turns;
use crate::audit::Audit;
use crate::config::Common;
use crate::coordinator::file_order::Wanted;
use crate::coordinator::{Coordinator, Deps, LeaderTerm, not_coordinator, views};
use crate::discovery::cluster_id::ClusterId;
use crate::net::server::{Caller, Response};

/// Backups that are made at once: each is a copy of all metadata in memory.
const BACKUPS_MAX: usize = 2;
/// Of these, backups of one identity.
const IDENTITY_BACKUPS_MAX: usize = 1;
/// Lists that are sorted at once: all entries of each are in memory.
const SORTS_MAX: usize = 2;
/// Of these, lists of one identity.
const IDENTITY_SORTS_MAX: usize = 1;
/// How long a request waits while this member, elected a moment ago, catches up with the log.
const OPENING_MAX: Duration = Duration::from_secs(1);

/// Serves control and job requests.
pub struct Control {
    deps: Deps,
    coordinator: Coordinator,
    config: Common,
    cluster_id: ClusterId,
    rejoin: mpsc::Sender<()>,
    audit: RequestAudit,
    searches: Turns,
    backups: Turns,
    sorts: Turns,
}

impl Control {
    /// `rejoin` makes this member join the cluster again.
    pub fn new(
        deps: Deps,
        coordinator: Coordinator,
        config: Common,
        cluster_id: ClusterId,
        rejoin: mpsc::Sender<()>,
        audit: Audit,
    ) -> Self {
        let searches = Turns::new(SEARCHES_MAX, IDENTITY_SEARCHES_MAX);
        let backups = Turns::new(BACKUPS_MAX, IDENTITY_BACKUPS_MAX);
        let sorts = Turns::new(SORTS_MAX, IDENTITY_SORTS_MAX);
        let audit = RequestAudit::new(audit);
        Self { deps, coordinator, config, cluster_id, rejoin, audit, searches, backups, sorts }
    }

    /// Answers a request for the coordinator or for this member.
    pub async fn request(&self, request: Request, from: &Caller) -> Response {
        let answer = match request {
            Request::Control(ControlRequest::Watch) => match self.leader_term().await {
                Ok(leader_term) => return Response::Many(leader_term.watch()),
                Err(refusal) => Err(refusal),
            },
            Request::Control(ControlRequest::Backup) => match self.backup(from).await {
                Ok(pieces) => return Response::Many(pieces),
                Err(refusal) => Err(refusal),
            },
            Request::Control(request) => {
                self.control(request, from).await.map(|reply| Reply::Control(Box::new(reply)))
            }
            Request::Jobs(request) => match self.leader_term().await {
                Ok(leader_term) => leader_term.jobs(request).await.map(Reply::Jobs),
                Err(refusal) => Err(refusal),
            },
            _ => Err(Refusal::new(RefusalCode::Unsupported, "this is neither a control nor a job request")),
        };
        answer.unwrap_or_else(Reply::Refused).into()
    }

    async fn backup(&self, from: &Caller) -> Result<mpsc::Receiver<Reply>, Refusal> {
        let leader_term = self.leader_term().await?;
        let turn = self.backups.take(from.identity()).await?;
        let entry = self.audit.open(OpId::random(), &"backup", from, from.identity());
        let sent = backup::send(&leader_term, self.cluster_id.founder(), turn).await;
        entry.close(sent.as_ref().map(|_| &ControlReply::Done)).await;
        sent
    }

    async fn control(&self, request: ControlRequest, from: &Caller) -> Result<ControlReply, Refusal> {
        match request {
            ControlRequest::Members => {
                let leadership = self.deps.consensus.leadership().borrow().clone();
                Ok(ControlReply::Members(views::members(&self.deps.membership.current(), &leadership)))
            }
            ControlRequest::Identity => self.identity().map(ControlReply::Identity),
            ControlRequest::Join => {
                let entry = self.audit.open(OpId::random(), &"join", from, from.identity());
                let answer = self.join().await;
                entry.close(answer.as_ref()).await;
                answer
            }
            ControlRequest::Leave => {
                let entry = self.audit.open(OpId::random(), &"leave", from, from.identity());
                let answer = self.leave().await;
                entry.close(answer.as_ref()).await;
                answer
            }
            ControlRequest::Change { op, change } => {
                let leader_term = self.leader_term().await?;
                let entry = self.audit.open(op, &change, from, from.identity());
                let request = ControlRequest::Change { op, change };
                let answer = leader_term.control(request, from.asker()).await;
                entry.close(answer.as_ref()).await;
                answer
            }
            ControlRequest::Log { after } => {
                let dir = self.config.log_dir.clone();
                let read = tokio::task::spawn_blocking(move || logs::page(&dir, after)).await;
                let read = read.map_err(|error| Refusal::internal(error.to_string()))?;
                Ok(ControlReply::Log(read?))
            }
            ControlRequest::SearchLog(search) => {
                let dir = self.config.log_dir.clone();
                let turn = self.searches.take(from.identity()).await?;
                let found = tokio::task::spawn_blocking(move || {
                    let found = log_search::search(&dir, &search, SEARCH_TIME_MAX);
                    drop(turn);
                    found
                })
                .await;
                let found = found.map_err(|error| Refusal::internal(error.to_string()))?;
                Ok(ControlReply::FoundLog(found?))
            }
            ControlRequest::SortedFiles { prefix, flat, order, first, limit } => {
                let leader_term = self.leader_term().await?;
                let turn = self.sorts.take(from.identity()).await?;
                leader_term.sorted_files(Wanted { prefix, flat, order, first, limit }, turn).await
            }
            request => self.leader_term().await?.control(request, from.asker()).await,
        }
    }

    async fn join(&self) -> Result<ControlReply, Refusal> {
        if self.deps.membership.current().joined {
            return Err(Refusal::conflict("this member is already in the cluster"));
        }
        self.rejoin.send(()).await.map_err(|_| Refusal::internal("this member is stopping"))?;
        Ok(ControlReply::Done)
    }

    async fn leave(&self) -> Result<ControlReply, Refusal> {
        if !self.deps.membership.current().joined {
            return Err(Refusal::conflict("this member has already left the cluster"));
        }
        self.deps.membership.leave().await;
        Ok(ControlReply::Done)
    }

    /// The current term, if this member leads. A member elected a moment ago opens its term shortly: waiting for that is
    /// faster than the client's retry.
    async fn leader_term(&self) -> Result<Arc<LeaderTerm>, Refusal> {
        let leads = self.deps.consensus.leadership().borrow().is_leader;
        let open = match self.coordinator.leader_term() {
            None if leads => timeout(OPENING_MAX, self.coordinator.opened()).await.unwrap_or(None),
            open => open,
        };
        open.ok_or_else(|| not_coordinator(&self.deps))
    }

    fn identity(&self) -> Result<IdentityView, Refusal> {
        let view = self.deps.membership.current();
        let leadership = self.deps.consensus.leadership().borrow().clone();
        let peer = view.members.get(&self.deps.me);
        let peer = peer.ok_or_else(|| Refusal::internal("this member is not in its own list"))?;
        Ok(IdentityView {
            member: views::member(self.deps.me, peer, &leadership),
            joined: view.joined,
            data_dir: self.config.data_dir.display().to_string(),
            pid: std::process::id(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}
