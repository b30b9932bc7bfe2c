//! Asks every member again and again whether it coordinates, and in which term.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use idunno_shared::wire::control::{ControlReply, ControlRequest};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Means;
use crate::check::terms::Claim;
use crate::cluster::views;

const PERIOD: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs until told to stop; returns what was said.
pub(crate) async fn run(means: Means) -> BTreeSet<Claim> {
    let mut watching: JoinSet<BTreeSet<Claim>> =
        means.addresses.iter().map(|&address| watch(means.clone(), address)).collect();
    let mut claims = BTreeSet::new();
    while let Some(Ok(said)) = watching.join_next().await {
        claims.extend(said);
    }
    claims
}

async fn watch(means: Means, address: SocketAddr) -> BTreeSet<Claim> {
    let client = views::client(&means.credentials, vec![address]);
    let mut claims = BTreeSet::new();
    while means.goes_on() {
        let asked = client.ask_member(address, ControlRequest::Coordinator);
        if let Ok(Ok(ControlReply::Coordinator { coordinator, term })) = timeout(PATIENCE, asked).await {
            claims.insert(Claim { term: term.0, who: coordinator.node.to_string() });
        }
        sleep(PERIOD).await;
    }
    claims
}
