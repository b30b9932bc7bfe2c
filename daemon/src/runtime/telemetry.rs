//! Logging: to files of bounded count and size ([`crate::runtime::log_files`]); start, stop, errors and the audit also go to
//! standard error, for systemd's journal.

use std::fs;
use std::io;
use std::path::PathBuf;

use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::config::{Common, LogFormat};
use crate::runtime::log_files::LogFiles;

/// The log target of start and stop.
const LIFECYCLE: &str = "idunno_daemon::runtime::process";

/// Logging cannot start.
#[derive(Debug, Error)]
pub enum TelemetryError {
    #[error("cannot create the log directory {path}: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot open a log file in {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    /// The filter is not valid.
    #[error("'log' = {filter:?} is not a valid tracing filter: {source}")]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("logging has already been started: {0}")]
    Twice(#[from] TryInitError),
}

/// Starts logging as configured. Lines are written until the guard is dropped.
pub fn start(config: &Common) -> Result<WorkerGuard, TelemetryError> {
    let dir = &config.log_dir;
    fs::create_dir_all(dir).map_err(|source| TelemetryError::Directory { path: dir.clone(), source })?;
    let files = LogFiles::open(dir, config.log_files, config.log_day_bytes)
        .map_err(|source| TelemetryError::File { path: dir.clone(), source })?;
    let (writer, guard) = tracing_appender::non_blocking(files);
    // openraft reports a dead peer many times a second; the daemon logs what matters of that itself. The audit trail is
    // always logged, unless the user's filter names it.
    let directives = format!("openraft=off,audit=info,{}", config.log);
    let filter = EnvFilter::try_new(&directives)
        .map_err(|source| TelemetryError::Filter { filter: config.log.clone(), source })?;
    // With `log_internal_errors`, a line that cannot be written would panic if standard error cannot be written either.
    let file = fmt::layer().with_ansi(false).log_internal_errors(false).with_writer(writer);
    let file = match config.log_format {
        LogFormat::Human => file.boxed(),
        LogFormat::Json => file.json().boxed(),
    };
    let stderr = fmt::layer().with_ansi(false).log_internal_errors(false).with_writer(io::stderr);
    // Without openraft here too: many lines that it logs as errors are none.
    // Only the journal bounds what it keeps: a file that standard error is redirected to would grow for ever.
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let audit = if is_journal { LevelFilter::INFO } else { LevelFilter::ERROR };
    let important = Targets::new()
        .with_default(LevelFilter::ERROR)
        .with_target(LIFECYCLE, LevelFilter::INFO)
        .with_target("audit", audit)
        .with_target("openraft", LevelFilter::OFF);
    let (file, stderr) = (file.with_filter(filter), stderr.with_filter(important));
    tracing_subscriber::registry().with(file).with(stderr).try_init()?;
    log_panics();
    Ok(guard)
}

/// Logs panics of all tasks: standard error may not be kept.
fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(%panic, "a task panicked");
        before(panic);
    }));
}
