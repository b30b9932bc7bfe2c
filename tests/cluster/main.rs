//! Clusters of real processes on this machine: each test proves one promise of the design.
//!
//! A test starts its own introducer and members on free ports, injects faults, and observes the cluster through the client
//! library. Heavy tests run alone, light ones concurrently ([`harness::heavy`], [`harness::light`]). When a test
//! fails it prints the last log lines of every member and keeps their directories.
//!
//! Needs `idunnod` beside the test's own folder (`cargo build -p idunno-daemon`) and a Python with the model server
//! (`scripts/setup_python.sh`, or `IDUNNO_TEST_PYTHON`).

#[cfg(test)]
mod backup;
#[cfg(test)]
mod clocks;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod datasets;
#[cfg(test)]
mod disks;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod fairness;
#[cfg(test)]
mod figures;
#[cfg(test)]
mod files;
#[cfg(test)]
mod format_1;
#[cfg(test)]
mod forming;
#[cfg(test)]
mod frozen;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod leaving;
#[cfg(test)]
mod logging;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod minority;
#[cfg(test)]
mod model_servers;
#[cfg(test)]
mod only_new;
#[cfg(test)]
mod orphans;
#[cfg(test)]
mod packages;
#[cfg(test)]
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(test)]
mod power_cut;
#[cfg(test)]
mod recipes;
#[cfg(test)]
mod recovery;
#[cfg(test)]
#[cfg(feature = "references")]
mod references;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod repair_figures;
#[cfg(test)]
mod restart_all;
#[cfg(test)]
mod runners;
#[cfg(test)]
mod scopes;
#[cfg(test)]
mod security;
#[cfg(test)]
mod training;
#[cfg(test)]
mod unauthenticated;
#[cfg(test)]
mod webhooks;
