//! Carries out the voter planner's steps, one at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use idunno_core::voters::{Configuration, Standing, Step, VOTERS_MAX, VoterConfig, VoterPlanner};
use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::MemberState;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Deps;
use crate::membership::MembershipView;

const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Keeps the voters in step with who is there, until the term is over.
pub async fn run(deps: Deps, closed: CancellationToken) {
    tokio::select! {
        () = keep(deps) => {}
        () = closed.cancelled() => {}
    }
}

async fn keep(deps: Deps) {
    let mut planner = VoterPlanner::new(VoterConfig::default());
    let (mut view, mut leadership) = (deps.membership.view(), deps.consensus.leadership());
    loop {
        let standings = standings(&view.borrow_and_update());
        let log = leadership.borrow_and_update().clone();
        if !log.has_quorum {
            // Nothing can be changed, and who seems dead may only be out of reach.
            if leadership.changed().await.is_err() {
                return;
            }
            continue;
        }
        let now = deps.clock.now();
        let step = if log.joint {
            // A change of an earlier coordinator is half done: finish it with the voters that are up, this one first.
            let up = |id: &NodeId| *id != deps.me && standings.get(id) == Some(&Standing::Live);
            let others = log.voters.iter().copied().filter(up);
            Some(Step::SetVoters(std::iter::once(deps.me).chain(others).take(VOTERS_MAX).collect()))
        } else {
            let (voters, learners, caught_up) = (log.voters, log.learners, log.caught_up);
            planner.next_step(deps.me, &standings, &Configuration { voters, learners, caught_up }, now)
        };
        let Some(step) = step else {
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                changed = leadership.changed() => if changed.is_err() { return },
                () = deps.clock.sleep_until(planner.next_deadline()) => {}
            }
            continue;
        };
        info!(?step, "changing who votes");
        let done = match step {
            Step::AddLearner(node) => deps.consensus.add_learner(node).await,
            Step::SetVoters(voters) => deps.consensus.set_voters(voters).await,
            Step::RemoveLearner(node) => deps.consensus.remove_learner(node).await,
        };
        if let Err(error) = done {
            warn!(%error, "who votes is unchanged");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

fn standings(view: &MembershipView) -> BTreeMap<NodeId, Standing> {
    let standing = |state| match state {
        MemberState::Alive | MemberState::Suspect => Standing::Live,
        MemberState::Dead => Standing::Dead,
        MemberState::Left => Standing::Left,
    };
    view.members.iter().map(|(&id, peer)| (id, standing(peer.record.state))).collect()
}
