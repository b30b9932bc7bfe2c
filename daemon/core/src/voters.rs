//! The voters of the metadata log: the next change that the coordinator should make to its configuration.
//!
//! Decides, from the failure detector's view and the log's configuration, one step at a time. The failure detector
//! only proposes; the step is a change of the replicated configuration, which needs a majority of it (Ongaro, Raft
//! thesis, section 4.3; Consul and Vault call this an autopilot).
//!
//! Invariants: at most [`VOTERS_MAX`] voters; a step never removes a live voter; a voter is only removed once it has
//! been gone for the whole of [`VoterConfig::stabilisation`], or has left; a member votes only once it has caught up with
//! the log as a learner, because until then its vote would only make a majority harder to reach. Nothing is asked for
//! while there is no quorum.
//!
//! Bounds: [`CATCHING_UP_MAX`] learners that lag; one step at a time.
//!
//! Does not do: the change itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::consensus::VOTERS_MAX;

use crate::invariant::InvariantViolation;
use crate::machine::Machine;
use crate::time::Instant;

/// Learners that may be catching up at once: one that never does must not keep another from voting.
pub const CATCHING_UP_MAX: usize = 2;

/// The log's configuration, and the learners' progress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The voters.
    pub voters: BTreeSet<NodeId>,
    /// The members that receive the log without a vote.
    pub learners: BTreeSet<NodeId>,
    /// The learners that have all but the last few entries.
    pub caught_up: BTreeSet<NodeId>,
}

/// The planner's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoterConfig {
    /// How long a voter must have been dead before it is replaced or removed. Default 2 s.
    pub stabilisation: Duration,
}

impl Default for VoterConfig {
    fn default() -> Self {
        Self { stabilisation: Duration::from_secs(2) }
    }
}

/// A member's state by the failure detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Up, as far as is known.
    Live,
    /// Declared dead.
    Dead,
    /// Left in good order.
    Left,
}

/// What the coordinator sees of members and voters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VoterView {
    /// The coordinator, which always stays a voter.
    pub me: NodeId,
    /// Every known member; one that is missing here counts as dead.
    pub standings: BTreeMap<NodeId, Standing>,
    /// The log's configuration.
    pub log: Configuration,
    /// Whether a change of voters is half done.
    pub is_joint: bool,
    /// Whether a majority of the voters answers.
    pub has_quorum: bool,
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoterEvent {
    /// The members or the configuration may have changed. Also handed in when a step has succeeded or failed, and
    /// when [`Machine::next_deadline`] is due.
    Observed(VoterView),
}

/// One change of the configuration, to be made now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoterStep {
    /// Have this member follow the log.
    AddLearner(NodeId),
    /// Make these, and only these, the voters.
    SetVoters(BTreeSet<NodeId>),
    /// Stop sending the log to this member.
    RemoveLearner(NodeId),
}

/// Plans the steps of one coordinator's term.
#[derive(Clone, Debug, Default)]
pub struct VoterPlanner {
    config: VoterConfig,
    view: VoterView,
    gone_since: BTreeMap<NodeId, Instant>,
    effects: VecDeque<VoterStep>,
}

impl Machine for VoterPlanner {
    type Event = VoterEvent;
    type Effect = VoterStep;

    fn handle(&mut self, event: VoterEvent, now: Instant) {
        let VoterEvent::Observed(view) = event;
        let step = if !view.has_quorum {
            // Nothing can be changed, and members that seem dead may only be out of reach.
            None
        } else if view.is_joint {
            Some(VoterStep::SetVoters(live_voters(&view)))
        } else {
            self.next_step(view.me, &view.standings, &view.log, now)
        };
        self.effects.extend(step);
        self.view = view;
    }

    /// When the voter or learner that has been gone the longest may be removed.
    fn next_deadline(&self) -> Option<Instant> {
        let may_change = self.view.has_quorum && !self.view.is_joint;
        let earliest = self.gone_since.values().min().filter(|_| may_change);
        earliest.map(|&since| since + self.config.stabilisation)
    }

    fn poll_effect(&mut self) -> Option<VoterStep> {
        self.effects.pop_front()
    }

    fn check(&self) -> Result<(), InvariantViolation> {
        InvariantViolation::unless(self.effects.len() <= 1, || {
            format!("{} steps at once", self.effects.len())
        })?;
        let Some(VoterStep::SetVoters(voters)) = self.effects.front() else { return Ok(()) };
        InvariantViolation::unless(voters.len() <= VOTERS_MAX, || format!("{} voters", voters.len()))?;
        let removed = live_voters(&self.view).difference(voters).next().copied();
        InvariantViolation::unless(removed.is_none(), || format!("a live voter is removed: {removed:?}"))
    }
}

/// Completes a change that an earlier coordinator left half done: the voters that are up, this coordinator first.
fn live_voters(view: &VoterView) -> BTreeSet<NodeId> {
    let is_up = |id: &NodeId| *id != view.me && view.standings.get(id) == Some(&Standing::Live);
    let others = view.log.voters.iter().copied().filter(is_up);
    std::iter::once(view.me).chain(others).take(VOTERS_MAX).collect()
}

impl VoterPlanner {
    /// A planner that has seen nothing yet.
    pub fn new(config: VoterConfig) -> Self {
        Self { config, ..Self::default() }
    }

    fn next_step(
        &mut self,
        me: NodeId,
        standings: &BTreeMap<NodeId, Standing>,
        log: &Configuration,
        now: Instant,
    ) -> Option<VoterStep> {
        let Configuration { voters, learners, caught_up } = log;
        let standing = |id: NodeId| {
            if id == me { Standing::Live } else { *standings.get(&id).unwrap_or(&Standing::Dead) }
        };
        self.gone_since.retain(|id, _| {
            (voters.contains(id) || learners.contains(id)) && standing(*id) != Standing::Live
        });
        for &gone in voters.union(learners).filter(|&&id| standing(id) != Standing::Live) {
            self.gone_since.entry(gone).or_insert(now);
        }
        let is_gone_long_enough = |id: &NodeId| {
            let since = self.gone_since.get(id);
            standing(*id) == Standing::Left
                || since.is_some_and(|&since| now.since(since) >= self.config.stabilisation)
        };
        let gone =
            voters.iter().copied().find(|id| standing(*id) != Standing::Live && is_gone_long_enough(id));
        let lost =
            learners.iter().copied().find(|id| standing(*id) != Standing::Live && is_gone_long_enough(id));
        if let Some(lost) = lost {
            return Some(VoterStep::RemoveLearner(lost));
        }
        let is_wanted = voters.len() < VOTERS_MAX || gone.is_some();
        let live = |id: &NodeId| standing(*id) == Standing::Live;
        let ready = learners.intersection(caught_up).copied().find(live).filter(|_| is_wanted);
        let lagging = learners.difference(caught_up).filter(|id| live(id)).count();
        let mut spares =
            standings.keys().filter(|id| live(id) && !voters.contains(id) && !learners.contains(id));
        if ready.is_none()
            && is_wanted
            && lagging < CATCHING_UP_MAX
            && let Some(spare) = spares.next()
        {
            return Some(VoterStep::AddLearner(*spare));
        }
        // A dead voter without a replacement is removed too: fewer voters need a smaller majority.
        (ready.is_some() || gone.is_some()).then(|| {
            let kept = voters.iter().copied().filter(|&voter| Some(voter) != gone);
            VoterStep::SetVoters(kept.chain(ready).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::RangeInclusive<u64>) -> BTreeSet<NodeId> {
        range.map(NodeId).collect()
    }

    fn standings(live: &BTreeSet<NodeId>, all: u64) -> BTreeMap<NodeId, Standing> {
        let of = |id| if live.contains(&id) { Standing::Live } else { Standing::Dead };
        ids(1..=all).into_iter().map(|id| (id, of(id))).collect()
    }

    fn voting(voters: BTreeSet<NodeId>) -> Configuration {
        Configuration { voters, ..Configuration::default() }
    }

    #[test]
    fn a_learner_votes_only_once_it_has_caught_up() {
        let mut planner = VoterPlanner::default();
        let mut log = Configuration { learners: ids(4..=4), ..voting(ids(1..=3)) };
        let mut step = |live: &BTreeSet<NodeId>, log: &Configuration, second: u64| {
            let now = Instant::from_micros(second * 1_000_000);
            planner.next_step(NodeId(1), &standings(live, 5), log, now)
        };
        assert_eq!(step(&ids(1..=4), &log, 0), None, "it lags");
        assert_eq!(
            step(&ids(1..=5), &log, 1),
            Some(VoterStep::AddLearner(NodeId(5))),
            "another may be faster"
        );
        log.learners = ids(4..=5);
        assert_eq!(step(&ids(1..=5), &log, 2), None);
        log.caught_up = ids(5..=5);
        assert_eq!(step(&ids(1..=5), &log, 3), Some(VoterStep::SetVoters([1, 2, 3, 5].map(NodeId).into())));
        // The replacement of a dead voter does not wait for it.
        log.caught_up = BTreeSet::new();
        let without_3 = [1, 2, 4, 5].map(NodeId).into();
        assert_eq!(step(&without_3, &log, 4), None);
        assert_eq!(step(&without_3, &log, 7), Some(VoterStep::SetVoters(ids(1..=2))));
    }

    /// Takes every step at once, as a log with a majority would, and returns the voters in the end.
    fn settle(
        planner: &mut VoterPlanner,
        voters: BTreeSet<NodeId>,
        live: &BTreeSet<NodeId>,
        all: u64,
    ) -> BTreeSet<NodeId> {
        let (mut voters, mut learners) = (voters, BTreeSet::new());
        let log = |voters: &BTreeSet<_>, learners: &BTreeSet<_>| Configuration {
            voters: voters.clone(),
            learners: learners.clone(),
            caught_up: learners.clone(),
        };
        let me = *live.first().unwrap();
        for second in 0..100 {
            let now = Instant::from_micros(second * 1_000_000);
            match planner.next_step(me, &standings(live, all), &log(&voters, &learners), now) {
                Some(VoterStep::AddLearner(id)) => assert!(learners.insert(id) && live.contains(&id)),
                Some(VoterStep::RemoveLearner(id)) => assert!(learners.remove(&id) && !live.contains(&id)),
                Some(VoterStep::SetVoters(next)) => {
                    assert!(next.len() <= VOTERS_MAX);
                    assert!(
                        voters.intersection(live).all(|id| next.contains(id)),
                        "a live voter was removed"
                    );
                    assert!(next.difference(&voters).count() + voters.difference(&next).count() <= 2);
                    assert!(next.difference(&voters).all(|id| learners.contains(id)));
                    learners.retain(|id| !next.contains(id));
                    voters = next;
                }
                None => {}
            }
        }
        voters
    }

    #[test]
    fn a_cluster_grows_to_seven_voters() {
        let planner = &mut VoterPlanner::default();
        assert_eq!(settle(planner, ids(1..=1), &ids(1..=3), 3), ids(1..=3));
        assert_eq!(settle(planner, ids(1..=1), &ids(1..=12), 12).len(), VOTERS_MAX);
    }

    #[test]
    fn dead_voters_are_replaced_by_spares_or_removed_where_there_are_none() {
        let planner = &mut VoterPlanner::default();
        let live: BTreeSet<_> = ids(4..=10);
        assert_eq!(settle(planner, ids(1..=7), &live, 10), live);
        assert_eq!(settle(planner, ids(1..=7), &ids(4..=7), 7), ids(4..=7));
    }

    #[test]
    fn a_voter_that_is_gone_for_a_moment_stays() {
        let mut planner = VoterPlanner::default();
        let mut step = |live: &BTreeSet<NodeId>, second: u64| {
            let now = Instant::from_micros(second * 1_000_000);
            planner.next_step(NodeId(1), &standings(live, 3), &voting(ids(1..=3)), now)
        };
        assert_eq!(step(&ids(1..=2), 0), None);
        assert_eq!(step(&ids(1..=2), 1), None);
        assert_eq!(step(&ids(1..=3), 2), None);
        assert_eq!(step(&ids(1..=2), 3), None);
        assert_eq!(step(&ids(1..=2), 5), Some(VoterStep::SetVoters(ids(1..=2))));
    }

    #[test]
    fn a_half_done_change_is_completed_and_nothing_is_changed_without_a_quorum() {
        let mut planner = VoterPlanner::default();
        let standings = standings(&ids(1..=2), 3);
        let view = VoterView { me: NodeId(1), standings, log: voting(ids(1..=3)), ..VoterView::default() };
        let mut step = |is_joint: bool, has_quorum: bool, second: u64| {
            let view = VoterView { is_joint, has_quorum, ..view.clone() };
            planner.handle(VoterEvent::Observed(view), Instant::from_micros(second * 1_000_000));
            planner.check().unwrap();
            (planner.poll_effect(), planner.next_deadline())
        };
        assert_eq!(step(true, true, 0), (Some(VoterStep::SetVoters(ids(1..=2))), None));
        assert_eq!(step(false, false, 9), (None, None));
        let due = Instant::from_micros(12_000_000);
        assert_eq!(step(false, true, 10), (None, Some(due)), "it counts as gone from here on");
        assert_eq!(step(false, true, 12), (Some(VoterStep::SetVoters(ids(1..=2))), Some(due)));
    }

    #[test]
    fn a_voter_that_left_is_removed_at_once() {
        let mut planner = VoterPlanner::default();
        let mut known = standings(&ids(1..=3), 3);
        known.insert(NodeId(3), Standing::Left);
        let step = planner.next_step(NodeId(1), &known, &voting(ids(1..=3)), Instant::START);
        assert_eq!(step, Some(VoterStep::SetVoters(ids(1..=2))));
    }
}
