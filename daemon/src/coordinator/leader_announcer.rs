//! Announces the coordinator, the voters and the revoked names to every other member, until each has acknowledged it.
//!
//! Voters learn it from the log too. Spares are not sent the log, and a voter that was replaced while it was away has an
//! old one: without the announcement their workers and clients would not find the coordinator.
//! Bounds: one call a member at a time; a member that does not answer is called again every [`RETRY_PERIOD`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use idunno_shared::access::NAMES_MAX;
use idunno_shared::ids::{NodeId, Term};
use idunno_shared::wire::consensus::LeaderAnnouncement;
use idunno_shared::wire::frame::{Reply, Request};
use idunno_shared::wire::membership::Generation;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Deps;
use crate::membership::MembershipView;
use crate::net::revocations::Names;

/// Between two attempts to reach the members that have not acknowledged.
pub const RETRY_PERIOD: Duration = Duration::from_millis(250);
const CALL_TIMEOUT: Duration = Duration::from_millis(500);

/// Announces `term` to all members, and to those that come later, until the term is over.
pub async fn run(deps: Deps, term: Term, closed: CancellationToken) {
    tokio::select! {
        () = announce(deps, term) => {}
        () = closed.cancelled() => {}
    }
}

async fn announce(deps: Deps, term: Term) {
    let (mut view, mut leadership) = (deps.membership.view(), deps.consensus.leadership());
    let mut revocations = deps.revocations.names();
    let mut told = (BTreeSet::new(), Names::default());
    // A member that restarts forgets the announcement.
    let mut announced: BTreeMap<NodeId, Generation> = BTreeMap::new();
    loop {
        let now = Arc::clone(&view.borrow_and_update());
        let voting = leadership.borrow_and_update().voters.clone();
        let news = (voting, Arc::clone(&revocations.borrow_and_update()));
        if told != news {
            announced.clear();
            told = news;
        }
        announced.retain(|id, generation| now.is_live(*id) && generation_of(&now, *id) == Some(*generation));
        let (voters, revoked) = &told;
        let (voters, revoked) = (voters.clone(), revoked.iter().take(NAMES_MAX).cloned().collect());
        let announcement = LeaderAnnouncement { term, voters, revoked };
        let unreported = now.live().filter(|id| *id != deps.me && !announced.contains_key(id));
        let calls = unreported.filter_map(|id| {
            let (address, generation) = (now.address(id)?, generation_of(&now, id)?);
            let call =
                deps.peers.call(address, Request::LeaderAnnouncement(announcement.clone()), CALL_TIMEOUT);
            Some(async move { (id, generation, matches!(call.await, Ok(Reply::LeaderNoted))) })
        });
        let called = join_all(calls).await;
        let is_complete = called.iter().all(|(_, _, has_acknowledged)| *has_acknowledged);
        let acknowledged = called.into_iter().filter(|(_, _, has_acknowledged)| *has_acknowledged);
        announced.extend(acknowledged.map(|(id, generation, _)| (id, generation)));
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
            changed = revocations.changed() => if changed.is_err() { return },
            () = sleep(RETRY_PERIOD), if !is_complete => {}
        }
    }
}

fn generation_of(view: &MembershipView, id: NodeId) -> Option<Generation> {
    view.members.get(&id).map(|peer| peer.record.generation)
}
