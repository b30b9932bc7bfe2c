//! What people are told when workers are assigned anew.

use idunno_core::scheduler::RebalanceReason;
use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::wire::jobs::Policy;

/// Workers that are named one by one.
const NAMED_MAX: usize = 8;

/// One line: why, each job's share of the workers, and who serves other jobs than before.
pub fn told(
    name: impl Fn(NodeId) -> String,
    reason: RebalanceReason,
    shares: &[(JobId, Option<u32>)],
    reassigned: &[(NodeId, Vec<JobId>)],
) -> String {
    let shares: Vec<String> = shares.iter().map(share).collect();
    let shares = if shares.is_empty() { String::from("no job runs") } else { shares.join(", ") };
    let workers = reassigned.iter().take(NAMED_MAX).map(|(node, jobs)| worker(&name(*node), jobs));
    let mut parts = vec![format!("{}: {shares}", because(&name, reason))];
    parts.extend(workers);
    if reassigned.len() > NAMED_MAX {
        parts.push(format!("{} more are assigned anew", reassigned.len() - NAMED_MAX));
    }
    parts.join("; ")
}

fn because(name: impl Fn(NodeId) -> String, reason: RebalanceReason) -> String {
    match reason {
        RebalanceReason::TermStarted => String::from("a term has begun"),
        RebalanceReason::WorkerJoined(node) => format!("{} takes batches", name(node)),
        RebalanceReason::WorkerLost(node) => format!("{} takes no more batches", name(node)),
        RebalanceReason::JobStarted(job) => format!("{job} runs"),
        RebalanceReason::JobStopped(job) => format!("{job} does not run any more"),
        RebalanceReason::JobEnded(job) => format!("{job} is done"),
        RebalanceReason::PolicyChanged(Policy::Rate) => String::from("jobs get equal rates now"),
        RebalanceReason::PolicyChanged(Policy::Time) => String::from("jobs get equal time now"),
        RebalanceReason::PolicyChanged(Policy::Fifo) => String::from("jobs run one after the other now"),
        RebalanceReason::RatesChanged => String::from("the measured rates have moved"),
    }
}

fn share((job, percent): &(JobId, Option<u32>)) -> String {
    match percent {
        Some(percent) => format!("{job} {percent} %"),
        None => format!("{job} not measured yet"),
    }
}

fn worker(name: &str, jobs: &[JobId]) -> String {
    let jobs: Vec<String> = jobs.iter().map(ToString::to_string).collect();
    let jobs = if jobs.is_empty() { String::from("nothing") } else { jobs.join(" and ") };
    format!("{name} serves {jobs}")
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
            told(name, RebalanceReason::JobStarted(JobId(2)), &shares, &reassigned),
            "job-2 runs: job-1 25 %, job-2 not measured yet; m1 serves job-1 and job-2; m2 serves nothing"
        );
        let many: Vec<_> = (0..20).map(|node| (NodeId(node), vec![JobId(1)])).collect();
        let text = told(name, RebalanceReason::WorkerLost(NodeId(7)), &[], &many);
        assert!(text.starts_with("m7 takes no more batches: no job runs; m0 serves job-1; "), "{text}");
        assert!(text.ends_with("; 12 more are assigned anew"), "{text}");
    }
}
