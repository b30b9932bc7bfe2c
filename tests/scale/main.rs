//! Scale: the number of connections, the work and the time to detect deaths in clusters of many members.
//!
//! The figures are printed (`--nocapture`); the tests fail beyond bounds that are wide enough for a busy machine.

#[cfg(test)]
use peak_alloc::PeakAlloc;

#[cfg(test)]
mod crowd;
#[cfg(test)]
mod failovers;
#[cfg(test)]
mod fake_member;
#[cfg(test)]
#[path = "../cluster/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the cluster tests use the rest of it")]
mod harness;
#[cfg(test)]
mod large_records;
#[cfg(test)]
mod many_files;
#[cfg(test)]
mod many_jobs;
#[cfg(test)]
mod many_members;
#[cfg(test)]
mod many_queries;
#[cfg(test)]
mod many_watchers;
#[cfg(test)]
mod metadata;
#[cfg(test)]
mod no_op_cluster;
#[cfg(test)]
mod process_figures;
#[cfg(test)]
mod size;

/// Counts what this process allocates: tests that look at it hold `heavy()`.
#[cfg(test)]
#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;
