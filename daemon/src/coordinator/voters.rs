//! The task that keeps the voters in step with the members: carries out the voter planner's steps, one at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use idunno_consensus::Leadership;
use idunno_core::voters::{
    Configuration, Standing, VoterConfig, VoterEvent, VoterPlanner, VoterStep, VoterView,
};
use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::MemberState;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Deps;
use crate::membership::MembershipView;
use crate::runtime::driver::{Driver, Shell, Turn};

const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Membership or the log's configuration may have changed.
pub(super) struct Observe;

/// Watches members and voters, and changes the log's configuration.
pub(super) struct VoterTask {
    deps: Deps,
    view: watch::Receiver<Arc<MembershipView>>,
    leadership: watch::Receiver<Leadership>,
}

impl VoterTask {
    /// Starts the task of a term.
    pub(super) fn spawn(deps: Deps, closed: &CancellationToken) {
        let (clock, monitor) = (deps.clock, deps.monitor.clone());
        let shell = Self { view: deps.membership.view(), leadership: deps.consensus.leadership(), deps };
        let machine = VoterPlanner::new(VoterConfig::default());
        let (_, inputs) = mpsc::channel(1);
        Driver { machine, shell, clock, inputs }.spawn("voter planner", &monitor, closed);
    }
}

impl Shell for VoterTask {
    type Machine = VoterPlanner;
    type Input = Observe;

    fn begin(&mut self, turn: &mut Turn<Self>) {
        turn.input(Observe);
    }

    async fn next_input(&mut self) -> Option<Observe> {
        tokio::select! {
            changed = self.view.changed() => changed.ok().map(|()| Observe),
            changed = self.leadership.changed() => changed.ok().map(|()| Observe),
        }
    }

    fn on_deadline(&mut self, turn: &mut Turn<Self>) {
        turn.input(Observe);
    }

    async fn translate(&mut self, Observe: Observe, turn: &mut Turn<Self>) {
        let standings = standings(&self.view.borrow_and_update());
        let Leadership { voters, learners, caught_up, joint, has_quorum, .. } =
            self.leadership.borrow_and_update().clone();
        turn.event(VoterEvent::Observed(VoterView {
            me: self.deps.me,
            standings,
            log: Configuration { voters, learners, caught_up },
            is_joint: joint,
            has_quorum,
        }));
    }

    async fn carry_out(&mut self, step: VoterStep, turn: &mut Turn<Self>) {
        info!(?step, "changing the voters");
        let done = match step {
            VoterStep::AddLearner(node) => self.deps.consensus.add_learner(node).await,
            VoterStep::SetVoters(voters) => self.deps.consensus.set_voters(voters).await,
            VoterStep::RemoveLearner(node) => self.deps.consensus.remove_learner(node).await,
        };
        if let Err(error) = done {
            warn!(%error, "cannot change the voters, retrying");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        turn.input(Observe);
    }
}

fn standings(view: &MembershipView) -> BTreeMap<NodeId, Standing> {
    let standing = |state| match state {
        MemberState::Alive | MemberState::Suspect => Standing::Live,
        MemberState::Dead => Standing::Dead,
        MemberState::Left => Standing::Left,
    };
    view.members.iter().map(|(&id, member)| (id, standing(member.record.state))).collect()
}
