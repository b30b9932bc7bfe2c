//! The thin shell around [`idunno_core`]: it feeds the pure machines with messages and time, and obeys their effects.

pub mod belonging;
pub mod clock;
pub mod config;
pub mod consensus;
pub mod control;
pub mod coordinator;
pub mod crash;
pub mod data_dir;
pub mod election;
pub mod introducer;
pub mod joining;
pub mod log_files;
pub mod member;
pub mod membership;
pub mod metrics;
pub mod net;
pub mod process;
pub mod records;
pub mod recovery;
pub mod sdfs;
pub mod secret_file;
pub mod telemetry;
pub mod vitals;
pub mod worker;
