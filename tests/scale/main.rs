//! Scale: the number of connections, the work and the time to detect deaths in clusters of many members.
//!
//! The figures are printed (`--nocapture`); the tests fail beyond bounds that are wide enough for a busy machine.

#[cfg(test)]
mod crowd;
#[cfg(test)]
mod fake_member;
#[cfg(test)]
#[path = "../cluster/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the cluster tests use the rest of it")]
mod harness;
#[cfg(test)]
mod many_members;
#[cfg(test)]
mod process_figures;
