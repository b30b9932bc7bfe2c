//! Polls every member for whether it coordinates, and in which term.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use idunno_shared::wire::control::{ControlReply, ControlRequest};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::ClientContext;
use crate::check::terms::Claim;
use crate::cluster::views;

const PERIOD: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs until stopped; returns the members' claims.
pub(crate) async fn run(context: ClientContext) -> BTreeSet<Claim> {
    let mut watching: JoinSet<BTreeSet<Claim>> =
        context.addresses.iter().map(|&address| watch(context.clone(), address)).collect();
    let mut claims = BTreeSet::new();
    while let Some(Ok(said)) = watching.join_next().await {
        claims.extend(said);
    }
    claims
}

async fn watch(context: ClientContext, address: SocketAddr) -> BTreeSet<Claim> {
    let client = views::client(&context.credentials, vec![address]);
    let mut claims = BTreeSet::new();
    while context.is_running() {
        let asked = client.ask_member(address, ControlRequest::Coordinator);
        if let Ok(Ok(ControlReply::Coordinator { coordinator, term })) = timeout(PATIENCE, asked).await {
            claims.insert(Claim { term: term.0, who: coordinator.node.to_string() });
        }
        sleep(PERIOD).await;
    }
    claims
}
