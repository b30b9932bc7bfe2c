//! The scheduler's invariants as code.

use std::collections::BTreeMap;

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::LEASES_HELD_MAX;

use super::Scheduler;
use super::job::Job;
use super::worker::{HeldLease, Worker};
use crate::invariant::InvariantViolation;
use crate::ranges::RangeSet;

/// The open queries of all leases by job: those of first leases and those of copies.
#[derive(Default)]
struct LeasedQueries {
    first: BTreeMap<JobId, RangeSet>,
    copies: BTreeMap<JobId, RangeSet>,
}

impl Scheduler {
    /// Fails with the first violated invariant. Valid between events, whether effects are drained or not.
    pub fn check(&self) -> Result<(), InvariantViolation> {
        let mut held = LeasedQueries::default();
        for (node, worker) in self.workers.iter() {
            self.check_worker(*node, worker, &mut held)?;
        }
        for (id, job) in &self.jobs {
            let first = held.first.remove(id).unwrap_or_default();
            let copies = held.copies.remove(id).unwrap_or_default();
            check_job(job, &first, &copies).map_err(|violation| violation.of(id))?;
        }
        let unknown = held.first.keys().next();
        unknown.map_or(Ok(()), |id| Err(InvariantViolation::new(format!("{id} has leases and is not known"))))
    }

    fn check_worker(
        &self,
        node: NodeId,
        worker: &Worker,
        held: &mut LeasedQueries,
    ) -> Result<(), InvariantViolation> {
        let count = worker.leases.len();
        InvariantViolation::unless(count <= LEASES_HELD_MAX, || {
            format!("worker {node} holds {count} leases")
        })?;
        let uncompleted = worker.uncompleted().count();
        InvariantViolation::unless(uncompleted <= self.config.leases_per_worker, || {
            format!("worker {node} has {uncompleted} uncompleted leases")
        })?;
        InvariantViolation::unless(self.workers.is_in_time(node, self.now, &self.config), || {
            format!("worker {node} needs attention earlier than is noted")
        })?;
        self.check_backends(worker)?;
        InvariantViolation::unless(worker.reply.is_empty(), || {
            format!("worker {node} has orders that were not sent")
        })?;
        for lease in &worker.leases {
            let range = lease.lease.range.queries();
            let is_within = !lease.open.is_empty() && lease.open.within(range) == lease.open;
            InvariantViolation::unless(is_within, || {
                format!("lease {:?} of worker {node} has the open queries {:?}", lease.lease, lease.open)
            })?;
            InvariantViolation::unless(
                !lease.history.is_quarantined() || lease.lease.range.count == 1,
                || format!("{:?} of worker {node} has queries in quarantine beside others", lease.lease),
            )?;
            let by_kind = if lease.is_copy { &mut held.copies } else { &mut held.first };
            let of_job = by_kind.entry(lease.lease.job).or_default();
            InvariantViolation::unless(of_job.merge(&lease.open) == lease.open.len(), || {
                format!("{:?} of worker {node} is leased twice", lease.lease)
            })?;
            if lease.is_copy {
                self.check_copy(node, lease)?;
            }
        }
        Ok(())
    }

    /// The open queries of a copy are open in one first lease of another worker.
    fn check_copy(&self, node: NodeId, copy: &HeldLease) -> Result<(), InvariantViolation> {
        let others = self.workers.iter().filter(|(other, _)| **other != node);
        let is_original = |held: &HeldLease| {
            let is_same_job = !held.is_copy && held.lease.job == copy.lease.job;
            is_same_job && held.open.intersection(&copy.open) == copy.open
        };
        let has_original = others.flat_map(|(_, other)| &other.leases).any(is_original);
        InvariantViolation::unless(has_original, || {
            format!(
                "worker {node}'s copy {:?} has the open queries {:?} of no first lease",
                copy.lease, copy.open
            )
        })
    }
}

fn check_job(job: &Job, leased: &RangeSet, copied: &RangeSet) -> Result<(), InvariantViolation> {
    InvariantViolation::unless(job.leased == *leased && job.copied == *copied, || {
        let recorded = (&job.leased, &job.copied);
        format!("leased and copied are {recorded:?}, workers hold {leased:?} and {copied:?}")
    })?;
    let mut all = job.fresh.clone();
    let mut count = all.len();
    InvariantViolation::unless(job.chunks.is_consistent(), || {
        "the chunks differ from their order of time".to_owned()
    })?;
    for (first, chunk) in job.chunks.iter() {
        InvariantViolation::unless(*first == chunk.range.start && !chunk.range.is_empty(), || {
            format!("chunk {:?} is filed under {first}", chunk.range)
        })?;
        count += chunk.range.end - chunk.range.start;
        all.insert(chunk.range.clone());
    }
    count += job.leased.len() + job.uncommitted_dead.len();
    all.merge(&job.leased);
    all.merge(&job.uncommitted_dead);
    // A query in two places makes the sum of the parts exceed their union.
    InvariantViolation::unless(all == job.open && count == job.open.len(), || {
        format!("open is {:?}, its parts are {all:?} with {count} queries", job.open)
    })
}
