//! What every daemon process uses, whatever its role: its clock, data directory, logs, secret and start-up.

pub mod clock;
pub mod data_dir;
pub mod driver;
pub mod failure;
pub mod interfaces;
pub mod log_files;
pub mod process;
pub mod secret_file;
pub mod task_monitor;
pub mod telemetry;
