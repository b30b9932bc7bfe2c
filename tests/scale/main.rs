//! How far a cluster goes: how many connections, how much work and how long to notice deaths when members are many.
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
