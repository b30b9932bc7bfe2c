//! `idunnod`: the introducer or a member of an IDunno cluster.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use idunno_daemon::config::{Settings, report};
use idunno_daemon::{introducer, member, recovery};

/// Returns freed memory to the system after ten seconds, in a thread of its own. glibc's and mimalloc's allocators keep what
/// a large job took, in the heaps of threads that have become idle.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A daemon of an IDunno cluster. It runs until SIGTERM or SIGINT, then leaves the cluster gracefully.
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
    Introducer(Run),
    /// Run a member: failure detector, metadata replica, file server and worker of one VM
    Member(Run),
    /// Validate the settings of the introducer or a member, and run nothing
    #[command(subcommand)]
    CheckConfig(Checked),
    /// Print a configuration file that explains every setting and sets none
    PrintReference,
    /// Recover after a majority of the voters is lost permanently, from the data directory of a stopped member
    Recover(recovery::Arguments),
}

#[derive(clap::Args)]
struct Run {
    #[command(flatten)]
    settings: Settings,
    /// Print every setting with its value and its origin, and run nothing
    #[arg(long)]
    print_config: bool,
}

#[derive(Subcommand)]
enum Checked {
    /// The introducer's
    Introducer(Settings),
    /// A member's
    Member(Settings),
}

fn main() -> ExitCode {
    let matches = Arguments::command().get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(arguments.program, &matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not `eprintln`, which panics where standard error cannot be written.
            let _ = writeln!(io::stderr(), "idunnod: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(program: Program, matches: &ArgMatches) -> anyhow::Result<()> {
    let print = |text: &str| io::stdout().write_all(text.as_bytes());
    match program {
        Program::Introducer(Run { print_config: true, .. })
        | Program::Member(Run { print_config: true, .. }) => {
            let (_, settings) = matches.subcommand().unwrap_or(("", matches));
            print(&report::origins(settings)?)?;
        }
        Program::Introducer(Run { settings, .. }) => {
            let config = settings.with_file()?.introducer()?;
            runtime()?.block_on(introducer::run(config))?;
        }
        Program::Member(Run { settings, .. }) => {
            let config = settings.with_file()?.member()?;
            runtime()?.block_on(member::run(config))?;
        }
        Program::CheckConfig(Checked::Introducer(settings)) => {
            settings.with_file()?.introducer()?;
            print("the introducer's settings are valid\n")?;
        }
        Program::CheckConfig(Checked::Member(settings)) => {
            settings.with_file()?.member()?;
            print("the member's settings are valid\n")?;
        }
        Program::PrintReference => print(&report::reference())?,
        Program::Recover(arguments) => recovery::run(&arguments, &mut io::stdout().lock())?,
    }
    Ok(())
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
