//! The text of a reassignment of workers.

use idunno_core::scheduler::RebalanceReason;
use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::Policy;

/// Workers that are named; the others are counted.
const NAMED_MAX: usize = 8;

/// One line: the reason, each job's share of the workers, and the workers that now serve other jobs.
pub fn describe(
    name: impl Fn(NodeId) -> String,
    reason: RebalanceReason,
    shares: &[(JobId, Option<u32>)],
    reassigned: &[(NodeId, Vec<JobId>)],
) -> String {
    let shares: Vec<String> = shares.iter().map(share).collect();
    let shares = if shares.is_empty() { String::from("no job is running") } else { shares.join(", ") };
    let workers = reassigned.iter().take(NAMED_MAX).map(|(node, jobs)| worker(&name(*node), jobs));
    let mut parts = vec![format!("{}: {shares}", because(&name, reason))];
    parts.extend(workers);
    if reassigned.len() > NAMED_MAX {
        parts.push(format!("{} more are reassigned", reassigned.len() - NAMED_MAX));
    }
    parts.join("; ")
}

fn because(name: impl Fn(NodeId) -> String, reason: RebalanceReason) -> String {
    match reason {
        RebalanceReason::TermStarted => String::from("a new term has begun"),
        RebalanceReason::WorkerJoined(node) => format!("{} is available", name(node)),
        RebalanceReason::WorkerLost(node) => format!("{} is no longer available", name(node)),
        RebalanceReason::JobStarted(job) => format!("{job} is running"),
        RebalanceReason::JobStopped(job) => format!("{job} has stopped"),
        RebalanceReason::JobEnded(job) => format!("{job} is done"),
        RebalanceReason::PolicyChanged(Policy::Rate) => String::from("policy: equal rates"),
        RebalanceReason::PolicyChanged(Policy::Time) => String::from("policy: equal time"),
        RebalanceReason::PolicyChanged(Policy::Fifo) => String::from("policy: first in, first out"),
        RebalanceReason::RatesChanged => String::from("rebalanced"),
    }
}

fn share((job, percent): &(JobId, Option<u32>)) -> String {
    match percent {
        Some(percent) => format!("{job} {percent} % of workers"),
        None => format!("{job} not measured yet"),
    }
}

fn worker(name: &str, jobs: &[JobId]) -> String {
    let jobs: Vec<String> = jobs.iter().map(ToString::to_string).collect();
    let jobs = if jobs.is_empty() { String::from("nothing") } else { jobs.join(" and ") };
    format!("{name} now serves {jobs}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reassignment_is_one_line_with_its_reason() {
        let name = |node: NodeId| format!("m{}", node.0);
        let shares = [(JobId(1), Some(25)), (JobId(2), None)];
        let reassigned = [(NodeId(1), vec![JobId(1), JobId(2)]), (NodeId(2), vec![])];
        assert_eq!(
            describe(name, RebalanceReason::JobStarted(JobId(2)), &shares, &reassigned),
            "job-2 is running: job-1 25 % of workers, job-2 not measured yet; m1 now serves job-1 and job-2; m2 now serves nothing"
        );
        let many: Vec<_> = (0..20).map(|node| (NodeId(node), vec![JobId(1)])).collect();
        let text = describe(name, RebalanceReason::WorkerLost(NodeId(7)), &[], &many);
        assert!(
            text.starts_with("m7 is no longer available: no job is running; m0 now serves job-1; "),
            "{text}"
        );
        assert!(text.ends_with("; 12 more are reassigned"), "{text}");
    }
}
