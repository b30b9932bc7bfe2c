//! Logs: files of bounded count and size ([`crate::runtime::log_files`]), and start, stop and errors on standard error for whoever
//! watches, as systemd's journal does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::config::LogFormat;
use crate::runtime::log_files::LogFiles;

/// Who tells of start and stop.
const LIFE: &str = "idunno_daemon::process";

/// Why logging cannot start.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The directory cannot be made.
    #[error("cannot make the log directory {path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The first file cannot be opened.
    #[error("cannot open a log file in {path}: {source}")]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The filter is not valid.
    #[error("'log' = {filter:?} is not a filter: {source}")]
    Filter {
        /// The filter.
        filter: String,
        /// Why.
        source: tracing_subscriber::filter::ParseError,
    },
    /// There is logging already.
    #[error("logging was started twice: {0}")]
    Twice(#[from] TryInitError),
}

/// Starts logging into `dir`, of so many days, and so many bytes of each. Log lines are written until the guard is dropped.
pub fn start(
    dir: &Path,
    filter: &str,
    (days, day_bytes): (usize, u64),
    format: LogFormat,
) -> Result<WorkerGuard, TelemetryError> {
    fs::create_dir_all(dir)
        .map_err(|source| TelemetryError::Directory { path: dir.to_path_buf(), source })?;
    let files = LogFiles::open(dir, days, day_bytes)
        .map_err(|source| TelemetryError::File { path: dir.to_path_buf(), source })?;
    let (writer, guard) = tracing_appender::non_blocking(files);
    // The consensus library complains of a dead peer many times a second; what matters of it the daemon logs itself.
    // The audit is told whatever else is not, unless it is named itself.
    let directives = format!("openraft=off,audit=info,{filter}");
    let filter = EnvFilter::try_new(&directives)
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    // What complains of a line that cannot be written panics when standard error cannot be written either.
    let file = fmt::layer().with_ansi(false).log_internal_errors(false).with_writer(writer);
    let file = match format {
        LogFormat::Human => file.boxed(),
        LogFormat::Json => file.json().boxed(),
    };
    let watchers = fmt::layer().with_ansi(false).log_internal_errors(false).with_writer(io::stderr);
    // Without the consensus library here too: what it calls an error is often none.
    let told = Targets::new()
        .with_default(LevelFilter::ERROR)
        .with_target(LIFE, LevelFilter::INFO)
        .with_target("openraft", LevelFilter::OFF);
    let (file, watchers) = (file.with_filter(filter), watchers.with_filter(told));
    tracing_subscriber::registry().with(file).with(watchers).try_init()?;
    log_panics();
    Ok(guard)
}

/// A panic in any task is in the log, not only on a terminal that nobody sees.
fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(%panic, "a task panicked");
        before(panic);
    }));
}
