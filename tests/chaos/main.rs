//! The chaos suite: faults are injected into a cluster of real daemons while clients use it. Checkers then verify every
//! reply that the clients received. See `tests/README.md`; `scripts/chaos.sh` builds and starts it.

mod check;
mod clients;
mod cluster;
mod fault;
mod history;
mod nemesis;
mod run;
mod sandbox;
mod schedule;
mod wait;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::Parts;
use crate::run::{Outcome, Plan};
use crate::sandbox::namespaces::{Sandbox, enter};
use crate::schedule::{Abilities, INJECTION, Schedule};

const INTERRUPTED: u8 = 130;
const ROUNDS_SHOWN: usize = 40;

/// Injects every fault that the cluster promises to survive, and checks what clients observed.
///
/// The last line is "chaos: seed S, N faults, M operations, V violations"; the exit code is 0 only without violations.
#[derive(Parser)]
#[command(name = "chaos", max_term_width = 100)]
struct Arguments {
    /// Determines the order of the faults and what clients do [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// For how long faults are injected
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Members of the cluster
    #[arg(long, default_value_t = 7)]
    members: usize,
    /// How long partial files and unreferenced blobs may remain after the last fault
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    tidy: u64,
    /// Stay on loopback, without network and disk faults
    #[arg(long)]
    loopback: bool,
    /// Print the first rounds of the schedule and exit
    #[arg(long)]
    plan: bool,
    /// The daemon under test [default: beside this program]
    #[arg(long, value_name = "FILE")]
    idunnod: Option<PathBuf>,
    /// A Python with the model server
    #[arg(long, value_name = "FILE", env = "IDUNNO_TEST_PYTHON")]
    python: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match prepare(&arguments).and_then(|plan| plan.map_or(Ok(ExitCode::SUCCESS), |plan| conduct(&plan))) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prepares a run; `None` if only the schedule was asked for.
fn prepare(arguments: &Arguments) -> anyhow::Result<Option<Plan>> {
    let seed = arguments.seed.unwrap_or_else(rand_seed);
    if arguments.plan {
        let abilities = Abilities { namespaces: !arguments.loopback, delay: false, injection: INJECTION };
        for (round, number) in Schedule::new(seed, arguments.members, abilities).take(ROUNDS_SHOWN).zip(1..) {
            println!("round {number}: {round}");
        }
        return Ok(None);
    }
    if !(3..=50).contains(&arguments.members) {
        bail!("{} members: give 3 to 50", arguments.members);
    }
    let program = std::env::current_exe()?;
    let beside = || program.parent().map(|dir| dir.join("idunnod"));
    let idunnod = arguments.idunnod.clone().or_else(beside).context("there is no idunnod")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests have no workspace")?;
    let python = arguments.python.clone().unwrap_or_else(|| root.join(".venv/bin/python"));
    for (file, remedy) in [(&idunnod, "cargo build -p idunno-daemon"), (&python, "scripts/setup_python.sh")] {
        if !file.is_file() {
            bail!("{} is missing: run {remedy} first", file.display());
        }
    }
    let sandbox =
        if arguments.loopback { Sandbox::Loopback(String::from("it was asked for")) } else { enter() };
    let dir = tempfile::Builder::new().prefix(&format!("idunno-chaos-{seed}-")).tempdir()?.keep();
    let parts = Parts { members: arguments.members, idunnod, python, dir };
    let duration = Duration::try_from_secs_f64(arguments.minutes * 60.0)?;
    Ok(Some(Plan { seed, duration, tidy: Duration::from_secs(arguments.tidy), sandbox, parts }))
}

fn rand_seed() -> u64 {
    // Any number that differs between runs will do.
    std::time::UNIX_EPOCH.elapsed().map_or(1, |elapsed| u64::from(elapsed.subsec_micros()))
}

/// Runs the plan until it ends or is interrupted, and prints the result.
fn conduct(plan: &Plan) -> anyhow::Result<ExitCode> {
    let (seed, minutes, dir) = (plan.seed, plan.duration.as_secs_f64() / 60.0, &plan.parts.dir);
    let form = match &plan.sandbox {
        Sandbox::Namespaces { can_delay: true } => String::from("in namespaces"),
        Sandbox::Namespaces { can_delay: false } => {
            String::from("in namespaces, without delays (no netem here)")
        }
        Sandbox::Loopback(why) => {
            format!("ON LOOPBACK, without network and disk faults, because: {why}")
        }
    };
    let members = plan.parts.members;
    println!("chaos: seed {seed}, {minutes} minutes of faults, {members} members, {form}");
    let form = if matches!(plan.sandbox, Sandbox::Loopback(_)) { " --loopback" } else { "" };
    let tidy = plan.tidy.as_secs();
    println!(
        "replay: scripts/chaos.sh --seed {seed} --minutes {minutes} --members {members} --tidy {tidy}{form}"
    );
    println!("everything is in {}", dir.display());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            outcome = run::run(plan) => outcome.map(Some),
            _ = interrupt.recv() => Ok(None),
            _ = terminate.recv() => Ok(None),
        }
    });
    // Interrupted clients must not delay the exit.
    runtime.shutdown_background();
    match ended {
        Ok(Some(outcome)) => Ok(verdict(plan, &outcome)),
        Ok(None) => {
            println!("chaos: interrupted");
            remove(dir);
            Ok(ExitCode::from(INTERRUPTED))
        }
        Err(error) => {
            println!("the incomplete evidence is in {}", dir.display());
            Err(error)
        }
    }
}

fn verdict(plan: &Plan, outcome: &Outcome) -> ExitCode {
    let Outcome { faults, operations, violations } = outcome;
    for violation in violations {
        println!("VIOLATION of \"{}\":\n    {}", violation.promise, violation.detail);
    }
    let dir = &plan.parts.dir;
    if violations.is_empty() {
        remove(dir);
    } else {
        println!("data directories, logs and the history are kept in {}", dir.display());
    }
    println!(
        "chaos: seed {}, {faults} faults, {operations} operations, {} violations",
        plan.seed,
        violations.len()
    );
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn remove(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir) {
        eprintln!("cannot remove {}: {error}", dir.display());
    }
}
