//! Waits until a local cluster is ready: all members list each other, there is a coordinator, all model servers answer.

use std::net::SocketAddr;
use std::time::Duration;

use idunno_shared::client::cluster::Cluster;
use idunno_shared::wire::control::{ClusterView, ControlReply, ControlRequest, Liveness};
use idunno_shared::wire::frame::Reply;
use idunno_shared::wire::jobs::ServerState;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep, timeout};

use super::launch::Launched;
use crate::answer::{Failure, text};

const POLL_PERIOD: Duration = Duration::from_millis(50);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// The condition to wait for.
pub struct ReadyCondition<'a> {
    /// Members that must list each other: name and address.
    pub members: &'a [(String, SocketAddr)],
    /// Whether each member's model server must be ready.
    pub servers: bool,
}

/// What kept the cluster from being ready.
pub enum NotReady {
    /// A process ended.
    Ended(Failure),
    /// The deadline passed; one line for each missing thing.
    TimedOut { missing: Vec<String> },
}

/// Waits until the condition holds.
pub async fn wait(
    cluster: &Cluster,
    wanted: &ReadyCondition<'_>,
    launched: &mut [Launched],
    deadline: Instant,
) -> Result<(), NotReady> {
    let mut views: Option<Receiver<Reply>> = None;
    let mut view = None;
    loop {
        launched.iter_mut().try_for_each(Launched::check).map_err(NotReady::Ended)?;
        let mut missing = unlisted(cluster, wanted.members).await;
        if missing.is_empty() {
            follow(cluster, &mut views, &mut view).await;
            missing = lacking(view.as_ref(), wanted);
        }
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(NotReady::TimedOut { missing });
        }
        sleep(POLL_PERIOD).await;
    }
}

/// Reports the members that do not list all others as up.
async fn unlisted(cluster: &Cluster, members: &[(String, SocketAddr)]) -> Vec<String> {
    let mut missing = Vec::new();
    for (name, address) in members {
        let reply = timeout(ASK_TIMEOUT, cluster.ask_member(*address, ControlRequest::Members)).await;
        let Ok(Ok(ControlReply::Members(list))) = reply else {
            missing.push(format!("{name} at {address} does not answer"));
            continue;
        };
        let up = |wanted: &SocketAddr| {
            list.iter().any(|member| member.address == *wanted && member.liveness == Liveness::Alive)
        };
        let count = members.iter().filter(|(_, address)| up(address)).count();
        if count < members.len() {
            missing.push(format!("{name} lists {count} of {} members", members.len()));
        }
    }
    missing
}

/// Takes the newest pushed view, and watches again if the coordinator is gone.
async fn follow(cluster: &Cluster, views: &mut Option<Receiver<Reply>>, view: &mut Option<ClusterView>) {
    if views.is_none() {
        *views = cluster.with_deadline(ASK_TIMEOUT).watch().await.ok();
    }
    let Some(receiver) = views else { return };
    let Ok(first) = timeout(POLL_PERIOD, receiver.recv()).await else { return };
    let newest = std::iter::from_fn(|| receiver.try_recv().ok()).last().or(first);
    *view = newest.and_then(Cluster::view);
    if view.is_none() {
        // The coordinator is gone, or another member coordinates.
        *views = None;
    }
}

fn lacking(view: Option<&ClusterView>, wanted: &ReadyCondition<'_>) -> Vec<String> {
    let Some(view) = view else { return vec![String::from("there is no coordinator")] };
    if !wanted.servers {
        return Vec::new();
    }
    let mut missing = Vec::new();
    for (name, address) in wanted.members {
        let id = view.members.iter().find(|member| member.address == *address).map(|member| member.id);
        let worker = view.workers.iter().find(|worker| Some(worker.node) == id);
        match worker.map(|worker| &worker.server) {
            Some(ServerState::Ready) => {}
            Some(state) => {
                let (word, reason) = text::server_state(state);
                missing.push(format!("the model server of {name} is {word} {}", reason.unwrap_or_default()));
            }
            None => missing.push(format!("{name} has not reported to the coordinator")),
        }
    }
    missing
}
