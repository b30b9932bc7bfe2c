//! `idunnod`: the introducer, or one member, of an `IDunno` cluster.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use idunno_daemon::config::Settings;
use idunno_daemon::{introducer, member, recovery};

/// A daemon of an IDunno cluster. It runs until SIGTERM or SIGINT, and leaves the cluster in good order.
///
/// Every setting can also come from the environment or from a TOML file; a flag wins over the environment, the
/// environment over the file.
#[derive(Parser)]
#[command(name = "idunnod", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    program: Program,
}

#[derive(Subcommand)]
enum Program {
    /// Run the introducer: the well-known process through which new members find the cluster
    Introducer(Settings),
    /// Run a member: failure detector, metadata replica, file server and worker of one VM
    Member(Settings),
    /// Go on after a majority of the voters is lost for ever, on the data directory of a member that is stopped
    Recover(recovery::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not `eprintln`, which panics where standard error cannot be written.
            let _ = writeln!(io::stderr(), "idunnod: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(program: Program) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match program {
        Program::Introducer(settings) => {
            let config = settings.with_file()?.introducer()?;
            runtime.block_on(introducer::run(config))
        }
        Program::Member(settings) => {
            let config = settings.with_file()?.member()?;
            runtime.block_on(member::run(config))
        }
        Program::Recover(arguments) => recovery::run(&arguments, &mut io::stdout().lock()),
    }
}
