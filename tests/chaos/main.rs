//! The chaos suite: a cluster of real daemons that is broken in every way the promises allow, while clients use it and
//! everything they see goes on record for the judges. See `tests/README.md`; `scripts/chaos.sh` builds and starts it.

mod check;
mod clients;
mod cluster;
mod fault;
mod ground;
mod history;
mod nemesis;
mod run;
mod schedule;
mod wait;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::Parts;
use crate::ground::sandbox::{Ground, enter};
use crate::run::{Outcome, Plan};
use crate::schedule::{Abilities, Schedule};

const INTERRUPTED: u8 = 130;
const ROUNDS_SHOWN: usize = 40;

/// Breaks a cluster in every way the promises allow, and judges what clients saw.
///
/// The last line is "chaos: seed S, N faults, M operations, V violations"; the exit code is 0 only without violations.
#[derive(Parser)]
#[command(name = "chaos", max_term_width = 100)]
struct Arguments {
    /// Decides which faults come in which order, and what clients do; drawn if it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults go on
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Members of the cluster
    #[arg(long, default_value_t = 7)]
    members: usize,
    /// How long files half written and blobs that nothing refers to may stay once all is quiet
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    tidy: u64,
    /// Stay on loopback: no fault of the network or the disk
    #[arg(long)]
    loopback: bool,
    /// Print the first rounds of the seed's schedule and end
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

/// Everything that a run needs; nothing if no run was asked for.
fn prepare(arguments: &Arguments) -> anyhow::Result<Option<Plan>> {
    let seed = arguments.seed.unwrap_or_else(rand_seed);
    if arguments.plan {
        let abilities = Abilities { namespaces: !arguments.loopback, delay: false };
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
    let ground =
        if arguments.loopback { Ground::Loopback(String::from("it was asked for")) } else { enter() };
    let dir = tempfile::Builder::new().prefix(&format!("idunno-chaos-{seed}-")).tempdir()?.keep();
    let parts = Parts { members: arguments.members, idunnod, python, dir };
    let duration = Duration::try_from_secs_f64(arguments.minutes * 60.0)?;
    Ok(Some(Plan { seed, duration, tidy: Duration::from_secs(arguments.tidy), ground, parts }))
}

fn rand_seed() -> u64 {
    // Any number will do that differs from run to run.
    std::time::UNIX_EPOCH.elapsed().map_or(1, |elapsed| u64::from(elapsed.subsec_micros()))
}

/// Runs the plan, or until somebody interrupts, and says what came of it.
fn conduct(plan: &Plan) -> anyhow::Result<ExitCode> {
    let (seed, minutes, dir) = (plan.seed, plan.duration.as_secs_f64() / 60.0, &plan.parts.dir);
    let form = match &plan.ground {
        Ground::Namespaces { can_delay: true } => String::from("in namespaces"),
        Ground::Namespaces { can_delay: false } => {
            String::from("in namespaces, without delays (no netem here)")
        }
        Ground::Loopback(why) => {
            format!("ON LOOPBACK, without faults of the network and of disks, because: {why}")
        }
    };
    let members = plan.parts.members;
    println!("chaos: seed {seed}, {minutes} minutes of faults, {members} members, {form}");
    let form = if matches!(plan.ground, Ground::Loopback(_)) { " --loopback" } else { "" };
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
    // Clients that were interrupted must not hold the end up.
    runtime.shutdown_background();
    match ended {
        Ok(Some(outcome)) => Ok(verdict(plan, &outcome)),
        Ok(None) => {
            println!("chaos: interrupted");
            remove(dir);
            Ok(ExitCode::from(INTERRUPTED))
        }
        Err(error) => {
            println!("what there is of it is in {}", dir.display());
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
        println!("directories, logs and the history stay in {}", dir.display());
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
        eprintln!("{} stays: {error}", dir.display());
    }
}
