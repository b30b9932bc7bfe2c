//! Dispatches the requests of other members and of clients, and carries the metadata log's calls.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use idunno_consensus::{Consensus, Transport, TransportError};
use idunno_shared::access::Issued;
use idunno_shared::client::connections::Connections;
use idunno_shared::client::link::Link;
use idunno_shared::ids::NodeId;
use idunno_shared::wire::consensus::{ConsensusReply, ConsensusRequest};
use idunno_shared::wire::frame::{Reply, Request};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use idunno_store::access::BlobAccess;
use idunno_store::replica_commands::ReplicaCommands;
use idunno_store::server::BlobServer;
use idunno_worker::coordinator_requests::CoordinatorRequests;
use tokio::sync::watch;
use tracing::info;

use crate::control::Control;
use crate::election::ElectionHandle;
use crate::greetings::Greetings;
use crate::membership::{MembershipHandle, MembershipView};
use crate::net::revocations::Revocations;
use crate::net::server::{Caller, Response, Service};

/// Dispatches requests to the parts of a member.
pub(super) struct MemberService {
    pub(super) me: NodeId,
    pub(super) control: Control,
    pub(super) membership: MembershipHandle,
    pub(super) election: ElectionHandle,
    pub(super) consensus: Consensus,
    pub(super) blobs: BlobServer,
    pub(super) replica_commands: ReplicaCommands,
    pub(super) requests: CoordinatorRequests,
    pub(super) peers: Connections,
    pub(super) revocations: Revocations,
    pub(super) greetings: Greetings,
}

impl Service for MemberService {
    fn node(&self) -> Option<NodeId> {
        Some(self.me)
    }

    fn knows(&self, address: IpAddr) -> bool {
        let members = &self.membership.current().members;
        members.values().any(|member| member.record.address.ip().to_canonical() == address.to_canonical())
    }

    fn greeted(&self, identity: &Issued) {
        self.greetings.note(identity);
    }

    async fn request(&self, request: Request, from: &Caller) -> Response {
        let reply = match (request, from.node) {
            (Request::PushPull(theirs), Some(_)) => self.membership.push_pull(theirs).await,
            (Request::Ping(ping), Some(_)) => self.membership.ping(ping).await,
            (Request::Election(message), Some(from)) => {
                self.election.message(from, message).await;
                Reply::Election
            }
            (Request::Consensus(request), Some(_)) => Reply::Consensus(self.consensus.handle(request).await),
            (Request::Files(request), Some(_)) => match self.replica_commands.handle(request).await {
                Ok(reply) => Reply::Files(reply),
                Err(refusal) => Reply::Refused(refusal),
            },
            (request @ (Request::Control(_) | Request::Jobs(_)), _) => {
                return self.control.request(request, from).await;
            }
            (Request::Work(request), Some(_)) => match self.requests.serve(request).await {
                Ok(reply) => Reply::Work(reply),
                Err(refusal) => Reply::Refused(refusal),
            },
            (Request::LeaderAnnouncement(mut announcement), Some(from)) => {
                self.revocations.learn(std::mem::take(&mut announcement.revoked));
                self.consensus.observe_coordinator(from, announcement);
                Reply::LeaderNoted
            }
            (Request::Introduction(_), _) => unsupported("this is a member, not the introducer"),
            (_, None) => unsupported("only members may send this request"),
        };
        reply.into()
    }

    async fn hung_up(&self, member: NodeId) {
        self.peers.hung_up(member).await;
    }

    async fn blobs(&self, link: Link, access: BlobAccess) {
        if let Err(error) = self.blobs.serve(link.reader, link.writer, access).await {
            info!(%error, from = ?link.node, "a blob connection ended");
        }
    }
}

fn unsupported(message: &str) -> Reply {
    Reply::Refused(Refusal::new(RefusalCode::Unsupported, message))
}

/// Carries the log's calls; the failure detector resolves the addresses.
#[derive(Clone)]
pub(super) struct LogTransport {
    pub(super) peers: Connections,
    pub(super) view: watch::Receiver<Arc<MembershipView>>,
}

impl Transport for LogTransport {
    async fn call(
        &self,
        target: NodeId,
        request: ConsensusRequest,
        timeout: Duration,
    ) -> Result<ConsensusReply, TransportError> {
        let failed = |reason: String| TransportError { target, reason };
        let address = self.view.borrow().address(target);
        let address = address.ok_or_else(|| failed(String::from("its address is unknown")))?;
        match self.peers.call_member(target, address, Request::Consensus(request), timeout).await {
            Ok(Reply::Consensus(reply)) => Ok(reply),
            Ok(_) => Err(failed(String::from("unexpected reply"))),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}
