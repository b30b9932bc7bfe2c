//! Views for consoles: the metadata joined with what the failure detector, the scheduler and the repair know.

use std::collections::BTreeMap;
use std::sync::Arc;

use idunno_core::metadata::State;
use idunno_core::placement::Holdings;
use idunno_shared::ids::{Digest, JobId, NodeId};
use idunno_shared::wire::control::{
    AssignmentView, ClusterView, ControlReply, LeaseStage, LeaseView, Liveness, LoadView, LogRole,
    MemberDoubts, MemberView, ModelView, StoreView, WorkerView,
};
use idunno_shared::wire::frame::Reply;
use idunno_shared::wire::jobs::{ModelState, WorkerReport};
use idunno_shared::wire::membership::MemberState;
use tokio::sync::mpsc;

use super::scheduling::SchedulerView;
use super::view_publisher::Built;
use super::{LeaderTerm, job_pages};
use crate::membership::{ListedMember, MembershipView};
use idunno_consensus::Leadership;

/// The jobs of each live worker that has reported.
pub fn assignments(view: &MembershipView, scheduler: &SchedulerView) -> Vec<AssignmentView> {
    let row = |assignment: &idunno_core::scheduler::Assignment| AssignmentView {
        node: assignment.worker,
        name: view.name(assignment.worker),
        shares: assignment.shares.clone(),
        current: assignment.current.clone(),
        target_shares: assignment.due.clone(),
    };
    scheduler.assignments.iter().filter(|assignment| view.is_live(assignment.worker)).map(row).collect()
}

/// All leases held by live workers.
pub fn leases(view: &MembershipView, scheduler: &SchedulerView) -> Vec<LeaseView> {
    let mut rows = Vec::new();
    for (&node, report) in scheduler.reports.iter().filter(|(node, _)| view.is_live(**node)) {
        let (name, finished) = (view.name(node), usize::from(report.awaiting_commit));
        rows.extend(report.leases.iter().enumerate().map(|(index, &lease)| {
            let stage = match report.running_ms {
                _ if index < finished => LeaseStage::AwaitingCommit,
                Some(ms) if index == finished => LeaseStage::Running { ms },
                _ => LeaseStage::Waiting,
            };
            LeaseView { node, name: name.clone(), lease, stage }
        }));
    }
    rows
}

/// The leases of one job, of one worker, or of both.
pub fn filtered(mut rows: Vec<LeaseView>, job: Option<JobId>, worker: Option<NodeId>) -> Vec<LeaseView> {
    rows.retain(|row| {
        job.is_none_or(|job| row.lease.job == job) && worker.is_none_or(|worker| row.node == worker)
    });
    rows
}

/// At most `max` leases, and whether more exist. Leases that only await their commit are dropped first: every worker has
/// at most two others.
pub fn bounded(mut rows: Vec<LeaseView>, max: usize) -> (Vec<LeaseView>, bool) {
    let more = rows.len() > max;
    if more {
        rows.retain(|row| row.stage != LeaseStage::AwaitingCommit);
        rows.truncate(max);
    }
    (rows, more)
}

/// Which of a model's states at a worker is shown: the highest. An older version, with which jobs may run, is not.
fn rank(state: &ModelState, newest: Option<Digest>) -> u8 {
    match state {
        ModelState::Training => 4,
        ModelState::Ready(version) if newest == Some(*version) => 3,
        ModelState::Loading => 2,
        ModelState::Failed(_) => 1,
        ModelState::Ready(_) => 0,
    }
}

/// Views of all models, with their state at each worker.
pub fn models(state: &State, scheduler: &SchedulerView) -> Vec<ModelView> {
    let mut models = state.model_views();
    for model in &mut models {
        let states = scheduler.reports.iter().filter_map(|(&worker, report)| {
            let states = report.models.iter().filter(|(name, _)| *name == model.model);
            let state = states.map(|(_, state)| state).max_by_key(|state| rank(state, model.version))?;
            Some((worker, state.clone())).filter(|(_, state)| rank(state, model.version) > 0)
        });
        model.workers = states.collect();
        let trainings = scheduler.reports.iter().filter_map(|(&worker, report)| {
            let (_, progress) = report.trainings.iter().find(|(name, _)| *name == model.model)?;
            Some((worker, progress.clone()))
        });
        model.progress = trainings.collect();
    }
    models
}

/// The view of one member.
pub fn member(id: NodeId, peer: &ListedMember, leadership: &Leadership) -> MemberView {
    let record = &peer.record;
    let live = record.state.is_live();
    MemberView {
        id,
        name: record.name.clone(),
        address: record.address,
        generation: record.generation.into(),
        incarnation: record.incarnation.into(),
        liveness: match record.state {
            MemberState::Alive => Liveness::Alive,
            MemberState::Suspect => Liveness::Suspect,
            MemberState::Dead => Liveness::Dead,
            MemberState::Left => Liveness::Left,
        },
        udp_blocked: peer.udp_blocked,
        since_ms: peer.since_ms,
        doubts: live.then(|| doubts(peer)).flatten(),
        role: if leadership.leader == Some(id) && live {
            LogRole::Coordinator
        } else if leadership.voters.contains(&id) {
            LogRole::Voter
        } else if leadership.learners.contains(&id) {
            LogRole::Learner
        } else {
            LogRole::Spare
        },
    }
}

/// What is wrong with a member that is up, if anything.
fn doubts(peer: &ListedMember) -> Option<MemberDoubts> {
    let doubts = MemberDoubts { clock_ahead_s: peer.clock_ahead_s, disk_hung: false };
    (doubts != MemberDoubts::default()).then_some(doubts)
}

/// Views of all members, as this member sees them.
pub fn members(view: &MembershipView, leadership: &Leadership) -> Vec<MemberView> {
    view.members.iter().map(|(&id, peer)| member(id, peer, leadership)).collect()
}

impl LeaderTerm {
    /// Pushes a view to a watcher whenever something changed, until the watcher disconnects or the term ends.
    pub fn watch(self: Arc<Self>) -> mpsc::Receiver<Reply> {
        let (pushes, views) = mpsc::channel(1);
        tokio::spawn(async move {
            let closed = self.closed.clone();
            tokio::select! {
                () = self.push_views(&pushes) => {}
                () = closed.cancelled() => {}
                () = pushes.closed() => {}
            }
        });
        views
    }

    /// Builds the views of all watchers until the term is over.
    pub(super) fn publish_views(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let (leader_term, views) = (Arc::downgrade(self), self.views.clone());
        async move {
            views.run(|| Self::build_view(leader_term.upgrade())).await;
        }
    }

    /// Views built for watchers in this term.
    pub fn views_built(&self) -> u64 {
        self.views.built()
    }

    async fn build_view(leader_term: Option<Arc<Self>>) -> Built {
        let Some(leader_term) = leader_term else { return Built::Over };
        if leader_term.may_decide().is_err() {
            // Without a majority the view may be outdated. The watchers notice the silence and ask.
            return Built::Nothing;
        }
        leader_term.cluster_view().await.map_or(Built::Over, Built::View)
    }

    async fn push_views(&self, pushes: &mpsc::Sender<Reply>) {
        let (mut views, mut sent_step) = (self.views.follow(), None);
        while let Some(view) = views.next().await {
            let mut view = ClusterView::clone(&view);
            // Rate histories advance once a step: they are sent only then.
            if let Some(rates) = self.rates.since(sent_step, view.at_ms).await {
                (sent_step, view.rates) = (Some(rates.step), Some(rates.view));
            }
            if pushes.send(Reply::Control(Box::new(ControlReply::View(view)))).await.is_err() {
                return;
            }
        }
    }

    /// The view of the whole cluster; `None` once the term is over.
    pub async fn cluster_view(&self) -> Option<ClusterView> {
        let (state, view) = (self.state(), self.deps.membership.current());
        let scheduler = self.scheduler_view().await.ok()?;
        let leadership = self.deps.consensus.leadership().borrow().clone();
        let now_ms = self.time.now_ms();
        let jobs = job_pages::shown(&state, &scheduler, now_ms);
        let worker = |(&node, report): (&NodeId, &Arc<WorkerReport>)| WorkerView {
            node,
            server: report.server.clone(),
            models: report.models.clone(),
            resources: report.resources.clone(),
        };
        Some(ClusterView {
            term: self.term,
            coordinator: self.deps.me,
            at_ms: now_ms,
            revision: state.revision(),
            members: self.members(&view, &leadership),
            workers: scheduler.reports.iter().map(worker).collect(),
            models: models(&state, &scheduler),
            jobs_left_out: state.job_count().saturating_sub(jobs.len() as u64),
            jobs,
            assignments: assignments(&view, &scheduler),
            store: self.store_view(&state),
            loads: loads(&self.repairs.borrow().holdings, &scheduler),
            policy: state.policy(),
            rebalances: scheduler.rebalances.into_iter().collect(),
            rates: None,
        })
    }

    /// Views of all members, with what repair knows of their disks.
    fn members(&self, view: &MembershipView, leadership: &Leadership) -> Vec<MemberView> {
        let mut members = members(view, leadership);
        let repairs = self.repairs.borrow();
        for member in members.iter_mut().filter(|member| repairs.hung.contains(&member.id)) {
            member.doubts.get_or_insert_default().disk_hung = true;
        }
        members
    }

    fn store_view(&self, state: &State) -> StoreView {
        StoreView { files: state.file_count(), ..self.repairs.borrow().store }
    }
}

/// What each member stores and which leases it holds.
fn loads(holdings: &BTreeMap<NodeId, Holdings>, scheduler: &SchedulerView) -> Vec<LoadView> {
    let held = holdings.iter().map(|(&node, &Holdings { blobs, bytes })| {
        (node, LoadView { node, blobs, bytes, ..LoadView::default() })
    });
    let mut loads: BTreeMap<NodeId, LoadView> = held.collect();
    for (&node, report) in &scheduler.reports {
        let load = loads.entry(node).or_insert_with(|| LoadView { node, ..LoadView::default() });
        load.batches = u32::try_from(report.leases.len()).unwrap_or(u32::MAX);
        load.queries = report.leases.iter().map(|lease| u64::from(lease.range.count)).sum();
    }
    loads.into_values().collect()
}

#[cfg(test)]
mod tests {
    use idunno_shared::ids::Term;
    use idunno_shared::names::LABEL_BYTES_MAX;
    use idunno_shared::wire::control::{ControlReply, LEASES_SHOWN_MAX};
    use idunno_shared::wire::frame::encode_frame;
    use idunno_shared::wire::jobs::{Lease, QueryRange};

    use super::*;

    fn row((first, stage): (u64, LeaseStage)) -> LeaseView {
        let range = QueryRange { first, count: u32::MAX };
        let lease = Lease { job: JobId(u64::MAX), range, attempt: u32::MAX, term: Term(u64::MAX) };
        LeaseView { node: NodeId(u64::MAX), name: "n".repeat(LABEL_BYTES_MAX), lease, stage }
    }

    #[test]
    fn leases_are_filtered_by_job_and_worker() {
        let of = |job, node| {
            let row = row((0, LeaseStage::Waiting));
            let lease = Lease { job: JobId(job), ..row.lease };
            LeaseView { node: NodeId(node), lease, ..row }
        };
        let rows = vec![of(1, 1), of(2, 1), of(1, 2)];
        assert_eq!(filtered(rows.clone(), None, None), rows);
        assert_eq!(filtered(rows.clone(), Some(JobId(1)), None), [of(1, 1), of(1, 2)]);
        assert_eq!(filtered(rows.clone(), None, Some(NodeId(1))), [of(1, 1), of(2, 1)]);
        assert_eq!(filtered(rows, Some(JobId(2)), Some(NodeId(2))), []);
    }

    #[test]
    fn leases_that_await_their_commit_are_dropped_first() {
        let stages = [
            LeaseStage::AwaitingCommit,
            LeaseStage::AwaitingCommit,
            LeaseStage::Running { ms: 5 },
            LeaseStage::Waiting,
        ];
        let rows: Vec<_> = (0..).zip(stages).map(row).collect();
        assert_eq!(bounded(rows.clone(), 4), (rows.clone(), false));
        assert_eq!(bounded(rows.clone(), 3), (rows[2..].to_vec(), true));
        assert_eq!(bounded(rows.clone(), 1), (rows[2..3].to_vec(), true), "a report cannot exceed the bound");
    }

    #[test]
    fn the_largest_lease_view_fits_into_a_frame() {
        let stage = LeaseStage::Running { ms: u32::MAX };
        let leases = vec![row((u64::MAX - u64::from(u32::MAX), stage)); LEASES_SHOWN_MAX];
        encode_frame(&ControlReply::Leases { leases, more: true }, &mut Vec::new()).unwrap();
    }
}
