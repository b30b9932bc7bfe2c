//! Requests from outside: a member answers what is its own, the coordinator the rest.

use idunno_shared::wire::control::{ControlReply, ControlRequest, IdentityView};
use idunno_shared::wire::frame::{Reply, Request};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use tokio::sync::mpsc;

use crate::coordinator::{Coordination, Means, not_coordinator, views};
use crate::net::server::Response;

/// What answers people's tools and workers.
pub struct Control {
    means: Means,
    coordination: Coordination,
    data_dir: String,
    rejoin: mpsc::Sender<()>,
}

impl Control {
    /// `rejoin` is told when this member is to go back into the cluster.
    pub fn new(means: Means, coordination: Coordination, data_dir: String, rejoin: mpsc::Sender<()>) -> Self {
        Self { means, coordination, data_dir, rejoin }
    }

    /// Answers a request for the coordinator or for this member.
    pub async fn request(&self, request: Request) -> Response {
        let answer = match request {
            Request::Control(ControlRequest::Watch) => match self.coordination.office() {
                Some(office) => return Response::Many(office.watch()),
                None => Err(not_coordinator(&self.means)),
            },
            Request::Control(request) => {
                self.control(request).await.map(|reply| Reply::Control(Box::new(reply)))
            }
            Request::Jobs(request) => match self.coordination.office() {
                Some(office) => office.jobs(request).await.map(Reply::Jobs),
                None => Err(not_coordinator(&self.means)),
            },
            _ => Err(Refusal::new(RefusalCode::Unsupported, "this request is not for a member's control")),
        };
        answer.unwrap_or_else(Reply::Refused).into()
    }

    async fn control(&self, request: ControlRequest) -> Result<ControlReply, Refusal> {
        match request {
            ControlRequest::Members => {
                let leadership = self.means.consensus.leadership().borrow().clone();
                Ok(ControlReply::Members(views::members(&self.means.membership.current(), &leadership)))
            }
            ControlRequest::Identity => self.identity().map(ControlReply::Identity),
            ControlRequest::Join => {
                if self.means.membership.current().joined {
                    return Err(Refusal::conflict("this member is in the cluster already"));
                }
                self.rejoin.send(()).await.map_err(|_| Refusal::internal("this member is stopping"))?;
                Ok(ControlReply::Done)
            }
            ControlRequest::Leave => {
                if !self.means.membership.current().joined {
                    return Err(Refusal::conflict("this member has left the cluster already"));
                }
                self.means.membership.leave().await;
                Ok(ControlReply::Done)
            }
            request => match self.coordination.office() {
                Some(office) => office.control(request).await,
                None => Err(not_coordinator(&self.means)),
            },
        }
    }

    fn identity(&self) -> Result<IdentityView, Refusal> {
        let view = self.means.membership.current();
        let leadership = self.means.consensus.leadership().borrow().clone();
        let peer = view.members.get(&self.means.me);
        let peer = peer.ok_or_else(|| Refusal::internal("this member is not in its own list"))?;
        Ok(IdentityView {
            member: views::member(self.means.me, peer, &leadership),
            joined: view.joined,
            data_dir: self.data_dir.clone(),
            pid: std::process::id(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}
