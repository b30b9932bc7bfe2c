//! The console and the command line of an IDunno cluster.
//!
//! One grammar ([`command`]) and one executor ([`execute`]) serve both: the command line prints the [`answer::Answer`],
//! the [`console`] shows it in a pane. [`local`] runs a cluster on this machine; it alone knows operating systems.

#![allow(missing_docs, reason = "documentation is required of shared and core, which other crates build on")]

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

pub mod answer;
pub mod cli;
pub mod command;
pub mod console;
pub mod execute;
pub mod local;
pub mod package;
pub mod session;
pub mod settings;
pub mod tail;

/// Runs the program with its arguments, its own name first.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    ExitCode::from(run(arguments))
}

/// The same for a program of another language, which gets the exit code's number. Nothing but the arguments says what runs:
/// the process may be an interpreter.
pub fn run(arguments: Vec<OsString>) -> u8 {
    // If the shell asks for completions, this prints them.
    let completer = clap_complete::CompleteEnv::with_factory(cli::complete::command);
    let directory = std::env::current_dir().ok();
    match completer.try_complete(arguments.iter().cloned(), directory.as_deref()) {
        Ok(false) => {}
        Ok(true) => {
            // The process may end without Rust's own clean-up.
            let _ = std::io::stdout().flush();
            return 0;
        }
        Err(error) => error.exit(),
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: cannot start threads: {error}");
            return 1;
        }
    };
    let code = runtime.block_on(cli::run(arguments));
    // A pending read from a dead disk must not delay the exit, so that threads may still be writing files.
    idunno_shared::client::files::atomic_file::discard_unfinished();
    runtime.shutdown_background();
    code
}
