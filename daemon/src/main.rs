//! `idunnod`: the introducer or a member of an IDunno cluster.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use idunno_daemon::audit::verify;
use idunno_daemon::config::{Settings, check, report};
use idunno_daemon::runtime::{failure, secret_file};
use idunno_daemon::{introducer, member, recovery};
use rustix::fs::Mode;

/// How long the end of the process waits for operations of the disk that nobody waits for any more.
const DISK_WAIT_MAX: Duration = Duration::from_secs(5);

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
    /// Validate the settings of the introducer or a member, with the secret and the addresses that they name, and run nothing
    #[command(subcommand)]
    CheckConfig(Checked),
    /// Check that a cluster's secret is usable and that only root can read it, as the service manager's copy cannot tell
    CheckSecret {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Verify that a member's audit is whole: no event was changed, removed or inserted since it was written
    VerifyAudit(verify::Arguments),
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
    // Before anything is written, also where no service manager does it: what a daemon writes is its user's alone.
    rustix::process::umask(Mode::from_raw_mode(0o077));
    // The process of a model may have the same user: it reads neither this one's memory nor its environment.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
    {
        let _ = writeln!(
            io::stderr(),
            "warning: other processes of this user may read this one's memory: {error}"
        );
    }
    let matches = Arguments::command().get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(arguments.program, &matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not `eprintln`, which panics where standard error cannot be written.
            let _ = writeln!(io::stderr(), "idunnod: {}", failure::text(&error));
            ExitCode::from(failure::exit_status(&error))
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
            run_async(introducer::run(config))?;
        }
        Program::Member(Run { settings, .. }) => {
            let config = settings.with_file()?.member()?;
            run_async(member::run(config))?;
        }
        Program::CheckConfig(Checked::Introducer(settings)) => {
            let remarks = check::introducer(&settings.with_file()?.introducer()?)?;
            print(&checked("the introducer's", &remarks))?;
        }
        Program::CheckConfig(Checked::Member(settings)) => {
            let remarks = check::member(&settings.with_file()?.member()?)?;
            print(&checked("the member's", &remarks))?;
        }
        Program::CheckSecret { file } => secret_file::check(&file)?,
        Program::VerifyAudit(arguments) => verify::run(&arguments, &mut io::stdout().lock())?,
        Program::PrintReference => print(&report::reference())?,
        Program::Recover(arguments) => recovery::run(&arguments, &mut io::stdout().lock())?,
    }
    Ok(())
}

fn checked(whose: &str, remarks: &[String]) -> String {
    let mut text = format!("{whose} settings are valid\n");
    for remark in remarks {
        text.push_str("check: ");
        text.push_str(remark);
        text.push('\n');
    }
    text
}

fn run_async(program: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(program);
    // Without a limit, a thread that waits for a disk that hangs would keep the process for ever.
    runtime.shutdown_timeout(DISK_WAIT_MAX);
    ended
}
