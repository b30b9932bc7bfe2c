//! Invariants that hold after every event, checked from outside the scheduler.

use std::collections::BTreeSet;
use std::time::Duration;

use idunno_core::scheduler::{ReplyPlan, Scheduler};
use idunno_core::time::Instant;
use idunno_shared::ids::NodeId;
use idunno_shared::names::ModelName;
use idunno_shared::wire::jobs::{ModelState, ServerState, WorkerReport};

use super::jobs::{model_name, version};
use super::world::World;

impl World {
    /// Grants answer a report that wants them, from a worker that can run them, and cover open queries.
    pub(crate) fn check_grants(&self, node: NodeId, report: &WorkerReport, reply: &ReplyPlan) {
        assert!(reply.grants.len() <= usize::from(report.wanted), "more grants than the report wants");
        for lease in &reply.grants {
            let job = &self.log.jobs[&lease.job];
            let spec = (model_name(job.load.model), ModelState::Ready(version(job.load.model)));
            assert!(
                report.server == ServerState::Ready && report.models.contains(&spec) && !report.draining,
                "{lease:?} is granted to {node}, which cannot run it"
            );
            assert!(job.running, "{lease:?} belongs to a stopped job");
            assert_eq!(lease.term, self.term);
            let open = job.pending();
            assert!(open.contains_all(lease.range.queries()), "{lease:?} covers decided queries");
        }
    }

    pub(crate) fn check(&self) {
        let Some(scheduler) = &self.scheduler else { return };
        scheduler.check().unwrap_or_else(|violation| panic!("{}: {violation}", self.now));
        let trainers: Vec<(&ModelName, NodeId)> = scheduler.trainings().collect();
        let distinct: BTreeSet<NodeId> = trainers.iter().map(|(_, node)| *node).collect();
        assert_eq!(distinct.len(), trainers.len(), "a worker trains two models: {trainers:?}");
        if self.is_strict {
            self.check_work_conserving(scheduler);
        }
    }

    /// Every open query is leased or pending. Called while log and scheduler agree.
    pub(crate) fn check_counts(&self) {
        let Some(scheduler) = &self.scheduler else { return };
        for (id, job) in self.log.jobs.iter().filter(|(_, job)| !job.is_done()) {
            let known = scheduler.leased(*id) + scheduler.pending(*id);
            assert_eq!(known, job.open(), "{}: {id} has {} open queries", self.now, job.open());
        }
    }

    fn check_work_conserving(&self, scheduler: &Scheduler) {
        if self.now < Instant::START + Duration::from_secs(2) {
            return;
        }
        let waiting = self.log.jobs.keys().map(|id| scheduler.pending(*id)).sum::<u64>();
        for (node, report) in &self.unanswered {
            let is_idle = report.wanted > 0 && scheduler.leases(*node).count() == 0;
            let is_being_answered = scheduler.leases(*node).count() > report.leases.len();
            assert!(
                waiting == 0 || !is_idle || is_being_answered,
                "{}: {node} is idle while queries are pending",
                self.now
            );
        }
    }
}
