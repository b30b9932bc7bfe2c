//! Logs: daily files of bounded count under the data directory, and warnings on standard error for whoever watches.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling::{InitError, RollingFileAppender, Rotation};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::config::LogFormat;

/// The first part of a log file's name; the date follows.
pub const LOG_PREFIX: &str = "idunnod";

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
        source: InitError,
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

/// Starts logging into `dir`. Log lines are written until the guard is dropped.
pub fn start(
    dir: &Path,
    filter: &str,
    files: usize,
    format: LogFormat,
) -> Result<WorkerGuard, TelemetryError> {
    fs::create_dir_all(dir)
        .map_err(|source| TelemetryError::Directory { path: dir.to_path_buf(), source })?;
    let appender = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix(LOG_PREFIX)
        .max_log_files(files)
        .build(dir)
        .map_err(|source| TelemetryError::File { path: dir.to_path_buf(), source })?;
    let (writer, guard) = tracing_appender::non_blocking(appender);
    // The consensus library complains of a dead peer many times a second; what matters of it the daemon logs itself.
    let directives = format!("openraft=off,{filter}");
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
    let errors = Targets::new().with_default(LevelFilter::ERROR).with_target("openraft", LevelFilter::OFF);
    let (file, watchers) = (file.with_filter(filter), watchers.with_filter(errors));
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
