//! Tells every other member who coordinates, and who votes, until each has heard it.
//!
//! Voters learn it from the log too. Spares are not sent the log, and a voter that was replaced while it was away has an
//! old one: without the leader_announcer their workers, and people who ask them, would look for the coordinator in vain.
//! Bounds: one call a member at a time; one that does not answer is told again every [`RETRY_PERIOD`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use idunno_shared::ids::{NodeId, Term};
use idunno_shared::wire::consensus::LeaderAnnouncement;
use idunno_shared::wire::frame::{Reply, Request};
use idunno_shared::wire::membership::Generation;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Deps;
use crate::membership::MembershipView;

/// Between two attempts to tell those that have not heard it.
pub const RETRY_PERIOD: Duration = Duration::from_millis(250);
const CALL_TIMEOUT: Duration = Duration::from_millis(500);

/// Tells all members of `term`, and those that come later, until the term is over.
pub async fn run(deps: Deps, term: Term, closed: CancellationToken) {
    tokio::select! {
        () = tell(deps, term) => {}
        () = closed.cancelled() => {}
    }
}

async fn tell(deps: Deps, term: Term) {
    let (mut view, mut leadership) = (deps.membership.view(), deps.consensus.leadership());
    let mut voters = BTreeSet::new();
    // A member that restarts forgets what it heard.
    let mut told: BTreeMap<NodeId, Generation> = BTreeMap::new();
    loop {
        let now = Arc::clone(&view.borrow_and_update());
        let voting = leadership.borrow_and_update().voters.clone();
        if voters != voting {
            told.clear();
            voters = voting;
        }
        told.retain(|id, generation| now.is_live(*id) && generation_of(&now, *id) == Some(*generation));
        let said = LeaderAnnouncement { term, voters: voters.clone() };
        let untold = now.live().filter(|id| *id != deps.me && !told.contains_key(id));
        let calls = untold.filter_map(|id| {
            let (address, generation) = (now.address(id)?, generation_of(&now, id)?);
            let call = deps.peers.call(address, Request::LeaderAnnouncement(said.clone()), CALL_TIMEOUT);
            Some(async move { (id, generation, matches!(call.await, Ok(Reply::LeaderNoted))) })
        });
        let heard = join_all(calls).await;
        let all_heard = heard.iter().all(|(_, _, has_heard)| *has_heard);
        told.extend(heard.into_iter().filter(|(_, _, has)| *has).map(|(id, generation, _)| (id, generation)));
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
            () = sleep(RETRY_PERIOD), if !all_heard => {}
        }
    }
}

fn generation_of(view: &MembershipView, id: NodeId) -> Option<Generation> {
    view.members.get(&id).map(|peer| peer.record.generation)
}
