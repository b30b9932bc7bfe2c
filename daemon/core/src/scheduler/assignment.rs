//! The workers in a line, and the jobs along it: which worker serves which job first.
//!
//! Each worker is as long as it is fast, each job as long as its part of all work, both in order of their numbers. So
//! all but a few workers serve one job, and change their model seldom; a worker on a boundary serves the jobs that meet
//! there, by virtual time. Parts that are measured wrongly, and noise, would drive the rates of whole workers apart:
//! therefore a job that lags by more than a batch is served anywhere, and a worker whose jobs have no work takes any
//! (`fairness.rs`).
//!
//! Not here: when the line is laid, and what people are told of it (`sharing.rs`).

use std::collections::BTreeMap;

use idunno_shared::ids::{JobId, NodeId};

/// Less of a worker is an error of rounding.
const SLIVER: f64 = 1e-6;

/// Each worker's jobs, and the part of the worker that each is due.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct AssignmentLine(BTreeMap<NodeId, Vec<(JobId, f64)>>);

impl AssignmentLine {
    /// Lays the jobs, each with its need, along the workers, each with its speed.
    pub(super) fn lay(workers: &[(NodeId, f64)], jobs: &[(JobId, f64)]) -> Self {
        let length: f64 = workers.iter().map(|(_, speed)| speed).sum();
        let needed = jobs.iter().map(|(_, need)| need).sum::<f64>().max(f64::MIN_POSITIVE);
        let mut jobs = jobs.iter().map(|(job, need)| (*job, need * length / needed));
        let mut next = jobs.next();
        let mut line = BTreeMap::new();
        for (node, speed) in workers {
            let mut served = Vec::new();
            let mut room = *speed;
            while let Some((job, left)) = next.filter(|_| room > speed * SLIVER) {
                let taken = left.min(room);
                room -= taken;
                if taken > speed * SLIVER {
                    served.push((job, taken / speed));
                }
                next = if left > taken { Some((job, left - taken)) } else { jobs.next() };
            }
            line.insert(*node, served);
        }
        Self(line)
    }

    /// Whether the worker is in the line.
    pub(super) fn has(&self, node: NodeId) -> bool {
        self.0.contains_key(&node)
    }

    /// A worker's jobs, and the part of it that each is due.
    pub(super) fn jobs(&self, node: NodeId) -> &[(JobId, f64)] {
        self.0.get(&node).map_or(&[], Vec::as_slice)
    }

    /// Whether the worker is to serve the job before others.
    pub(super) fn assigns(&self, node: NodeId, job: JobId) -> bool {
        self.jobs(node).iter().any(|(assigned, _)| *assigned == job)
    }

    /// The workers whose jobs are others than in `older`, and which they are now.
    pub(super) fn reassigned(&self, older: &Self) -> Vec<(NodeId, Vec<JobId>)> {
        let jobs = |line: &Self, node| line.jobs(node).iter().map(|(job, _)| *job).collect::<Vec<_>>();
        let now = self.0.keys().map(|node| (*node, jobs(self, *node)));
        now.filter(|(node, now)| jobs(older, *node) != *now).collect()
    }

    /// The part of all workers that other jobs are due than in `older`, which has the same workers.
    pub(super) fn moved(&self, older: &Self) -> f64 {
        let moved = self.0.iter().flat_map(|(node, jobs)| {
            jobs.iter().map(move |(job, part)| {
                let before = older.jobs(*node).iter().find(|(other, _)| other == job);
                part - before.map_or(0.0, |(_, part)| *part)
            })
        });
        moved.filter(|part| *part > 0.0).sum::<f64>() / self.0.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(speeds: &[f64], needs: &[f64]) -> Vec<Vec<(u64, f64)>> {
        let workers: Vec<_> = (1..).map(NodeId).zip(speeds.iter().copied()).collect();
        let jobs: Vec<_> = (1..).map(JobId).zip(needs.iter().copied()).collect();
        let line = AssignmentLine::lay(&workers, &jobs);
        let percent = |(job, part): &(JobId, f64)| (job.0, (part * 100.0).round());
        workers.iter().map(|(node, _)| line.jobs(*node).iter().map(percent).collect()).collect()
    }

    #[test]
    fn all_workers_but_those_at_boundaries_have_one_job() {
        assert_eq!(line(&[1.0; 4], &[1.0, 3.0]), [[(1, 100.0)], [(2, 100.0)], [(2, 100.0)], [(2, 100.0)]]);
        assert_eq!(
            line(&[1.0; 3], &[1.0, 1.0]),
            vec![vec![(1, 100.0)], vec![(1, 50.0), (2, 50.0)], vec![(2, 100.0)]]
        );
        assert_eq!(line(&[1.0], &[1.0, 1.0, 2.0]), [[(1, 25.0), (2, 25.0), (3, 50.0)]]);
        assert_eq!(line(&[0.1; 10], &[0.1; 10]), (1..=10).map(|job| vec![(job, 100.0)]).collect::<Vec<_>>());
        assert_eq!(line(&[3.0, 1.0], &[1.0, 1.0]), vec![vec![(1, 67.0), (2, 33.0)], vec![(2, 100.0)]]);
        assert_eq!(line(&[1.0; 2], &[]), [[], []]);
        assert!(line(&[], &[1.0]).is_empty());
    }

    #[test]
    fn what_moves_is_told() {
        let workers: Vec<_> = (1..=2).map(|node| (NodeId(node), 1.0)).collect();
        let of =
            |needs: [f64; 2]| AssignmentLine::lay(&workers, &[(JobId(1), needs[0]), (JobId(2), needs[1])]);
        let (even, uneven) = (of([1.0, 1.0]), of([1.0, 3.0]));
        assert_eq!(uneven.reassigned(&even), [(NodeId(1), vec![JobId(1), JobId(2)])]);
        assert!((uneven.moved(&even) - 0.25).abs() < 1e-9, "half of one of two");
        assert_eq!((even.reassigned(&even), even.moved(&even)), (Vec::new(), 0.0));
    }
}
