//! Which connections a member keeps open even while they are unused, by membership and the log's voters.
//!
//! Voters keep consensus and calls to each other, every other member keeps calls to each voter, the coordinator among
//! them. So a member of a large cluster has a handful of connections, a voter one from each member, and no member a full mesh
//! (design, section 14); all others are opened on demand and closed when idle.
//!
//! These connections carry the fast path of failure detection too: when a process dies its connections end, and a peer that
//! is then refused at its port has the proof. Each voter has a connection from every member, and checks
//! ([`Members::proves_deaths`]): a death is found by at most 7 voters at once, whatever the cluster's size. Where no
//! connection ends (a frozen process, a host without power, a cut) SWIM alone finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use idunno_consensus::Leadership;
use idunno_shared::client::connections::{Connections, Lane, LiveMember, Members};
use idunno_shared::ids::NodeId;
use tokio::sync::watch;

use crate::membership::MembershipView;

/// Keeps the connection manager informed of the live members and the connections to keep.
pub async fn maintain(
    connections: Connections,
    mut view: watch::Receiver<Arc<MembershipView>>,
    mut leadership: watch::Receiver<Leadership>,
) {
    let mut announced = Members::default();
    loop {
        let now = Arc::clone(&view.borrow_and_update());
        let (voters, leader) = {
            let leadership = leadership.borrow_and_update();
            (leadership.voters.clone(), leadership.leader)
        };
        let members = members(&now, &voters, leader);
        if members != announced {
            connections.set_members(members.clone()).await;
            announced = members;
        }
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

fn members(view: &MembershipView, voters: &BTreeSet<NodeId>, leader: Option<NodeId>) -> Members {
    let others = view.members.values().map(|peer| &peer.record).filter(|record| record.id != view.me);
    let live: BTreeMap<NodeId, LiveMember> = others
        .filter(|record| record.state.is_live())
        .map(|record| (record.id, LiveMember { address: record.address, generation: record.generation.0 }))
        .collect();
    let is_voter = voters.contains(&view.me);
    let called = voters.iter().copied().chain(leader).filter(|id| live.contains_key(id));
    let mut kept = BTreeSet::new();
    for id in called {
        kept.insert((id, Lane::Calls));
        if is_voter && voters.contains(&id) {
            kept.insert((id, Lane::Consensus));
        }
    }
    Members { live, kept, proves_deaths: is_voter }
}

#[cfg(test)]
mod tests {
    use idunno_shared::wire::membership::{Generation, Incarnation, MemberRecord, MemberState};

    use super::*;
    use crate::membership::ListedMember;

    fn view(me: u64, members: u64, dead: u64) -> MembershipView {
        let peer = |id: u64| {
            let record = MemberRecord {
                id: NodeId(id),
                name: format!("m{id}").parse().unwrap(),
                address: ([127, 0, 0, 1], 7_000 + u16::try_from(id).unwrap()).into(),
                generation: Generation(1),
                incarnation: Incarnation(0),
                state: if id == dead { MemberState::Dead } else { MemberState::Alive },
            };
            (NodeId(id), ListedMember { record, udp_blocked: false, clock_ahead_s: 0, since_ms: 0 })
        };
        MembershipView { me: NodeId(me), members: (1..=members).map(peer).collect(), joined: true }
    }

    fn voters() -> BTreeSet<NodeId> {
        (1..=7).map(NodeId).collect()
    }

    #[test]
    fn voters_keep_connections_to_each_other_only() {
        let members = members(&view(1, 600, 3), &voters(), Some(NodeId(2)));
        assert_eq!(members.live.len(), 598, "neither itself nor the dead one");
        let voters = [2, 4, 5, 6, 7].map(NodeId);
        let kept = voters.iter().flat_map(|&id| [(id, Lane::Consensus), (id, Lane::Calls)]);
        assert_eq!(members.kept, kept.collect());
        assert!(members.proves_deaths);
    }

    #[test]
    fn other_members_keep_calls_to_the_voters_and_the_coordinator() {
        let members = members(&view(500, 600, 3), &voters(), Some(NodeId(9)));
        let kept = [1, 2, 4, 5, 6, 7, 9].map(|id| (NodeId(id), Lane::Calls));
        assert_eq!(members.kept, kept.into());
        assert!(!members.proves_deaths);
    }
}
