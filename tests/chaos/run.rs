//! One run, from starting the cluster to the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use idunno_shared::client::files::Files;
use idunno_shared::names::FileName;
use idunno_shared::wire::blobs::COPIES;
use tokio::task::{JoinHandle, JoinSet};

use crate::check::jobs::{Observation, Row};
use crate::check::terms::Claim;
use crate::check::{Violation, disks, jobs as check_jobs, registers as check_registers, terms};
use crate::clients::{ClientContext, jobs, registers, watcher};
use crate::cluster::{Parts, World};
use crate::fault::Settle;
use crate::history::{Call, History, Reply, line, summary};
use crate::nemesis::{Nemesis, settle};
use crate::sandbox::namespaces::Sandbox;
use crate::sandbox::network::Network;
use crate::schedule::{Abilities, INJECTION, Schedule};
use crate::wait::{eventually, eventually_every};

/// How long jobs may take to end after the last fault.
const JOBS_LIMIT: Duration = Duration::from_secs(120);
/// How long reading one file may take.
const READING_LIMIT: Duration = Duration::from_secs(30);
/// Unreadable files after which the others are not tried.
const UNREADABLE_MAX: usize = 3;
/// Pause between two checks of all disks.
const TIDY_PERIOD: Duration = Duration::from_secs(2);

/// The parameters of a run.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) duration: Duration,
    /// How long partial files and unreferenced blobs may remain after the last fault.
    pub(crate) tidy: Duration,
    pub(crate) sandbox: Sandbox,
    pub(crate) parts: Parts,
}

/// The result of a run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) faults: usize,
    pub(crate) operations: usize,
    pub(crate) violations: Vec<Violation>,
}

/// Runs and checks; keeps the evidence in the plan's directory if there is a violation.
pub(crate) async fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    let dir = &plan.parts.dir;
    let injection = INJECTION;
    let abilities = match plan.sandbox {
        Sandbox::Namespaces { can_delay } => Abilities { namespaces: true, delay: can_delay, injection },
        Sandbox::Loopback(_) => Abilities { namespaces: false, delay: false, injection },
    };
    let network =
        abilities.namespaces.then(|| Network::build(plan.parts.members, abilities.delay)).transpose()?;
    let mut world = World::start(&plan.parts, network).await?;
    settle(&mut world, Settle::Healed).await.map_err(|violation| anyhow::anyhow!("{violation:?}"))?;
    let context = client_context(plan, &world)?;
    jobs::prepare(&context, &plan.parts.python).await.context("the model cannot be trained")?;
    let clean = clean_rows(&context).await?;
    println!("the cluster is up; a job without faults gave {} rows", clean.len());

    let clients = Clients::start(&context);
    let mut outcome = Outcome::default();
    let mut nemesis = Nemesis::new(context.history.clone());
    let (mut schedule, begun) = (Schedule::new(plan.seed, plan.parts.members, abilities), Instant::now());
    while begun.elapsed() < plan.duration && outcome.violations.is_empty() {
        let Some(round) = schedule.next() else { break };
        let broken = nemesis.round(&mut world, &round).await;
        // A failure of the suite is reported like a violation, so that the evidence is kept.
        outcome.violations.extend(broken.unwrap_or_else(|error| vec![suite_failed(&error)]));
        // Stops at the first violation, while its traces are fresh; the final check reports it.
        if !check_registers::check(&context.history.snapshot()).is_empty() {
            break;
        }
    }
    let quiet = Instant::now();
    outcome.faults = nemesis.faults;
    context.stop.store(true, Ordering::Relaxed);
    let (observed, claims) = clients.finish().await?;
    outcome.violations.extend(aftermath(&mut world, &context, quiet, plan.tidy, &observed, &clean).await);
    outcome.violations.extend(terms::check(&world.claims.union(&claims).cloned().collect()));
    outcome.operations = context.history.len() + observed.len();
    println!("{}", summary(&context.history.snapshot()));
    if !outcome.violations.is_empty() {
        evidence(&world, &context.history, &outcome, dir)?;
    }
    Ok(outcome)
}

fn suite_failed(error: &anyhow::Error) -> Violation {
    Violation::new("faults can be done and mended, members start again", format!("{error:#}"))
}

fn client_context(plan: &Plan, world: &World) -> anyhow::Result<ClientContext> {
    let scratch = plan.parts.dir.join("scratch");
    fs::create_dir_all(&scratch)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (addresses, credentials) = (world.addresses(), world.credentials.clone());
    Ok(ClientContext { addresses, credentials, history: History::new(), scratch, seed: plan.seed, stop })
}

/// The rows of a job without faults.
async fn clean_rows(context: &ClientContext) -> anyhow::Result<BTreeMap<u64, Row>> {
    jobs::Client::new(context.clone()).one_job().await?;
    let finished = jobs::finish(&context.client(), JOBS_LIMIT).await;
    let finished = finished.map_err(anyhow::Error::msg)?;
    let rows = finished.iter().flat_map(|job| &job.segments).flat_map(|segment| &segment.rows);
    Ok(rows.map(|row| (row.query, row.clone())).collect())
}

/// The running clients.
struct Clients {
    registers: JoinSet<anyhow::Result<()>>,
    jobs: JoinHandle<anyhow::Result<Vec<Observation>>>,
    watcher: JoinHandle<BTreeSet<Claim>>,
}

impl Clients {
    fn start(context: &ClientContext) -> Self {
        let client = |number| registers::Client::new(context.clone(), number).run();
        Self {
            registers: (0..registers::CLIENTS).map(client).collect(),
            jobs: tokio::spawn(jobs::Client::new(context.clone()).run()),
            watcher: tokio::spawn(watcher::run(context.clone())),
        }
    }

    /// Waits until they have finished their current operation.
    async fn finish(mut self) -> anyhow::Result<(Vec<Observation>, BTreeSet<Claim>)> {
        while let Some(ended) = self.registers.join_next().await {
            ended??;
        }
        Ok((self.jobs.await??, self.watcher.await?))
    }
}

/// Checks what must hold after the last fault.
async fn aftermath(
    world: &mut World,
    context: &ClientContext,
    quiet: Instant,
    tidy: Duration,
    observed: &[Observation],
    clean: &BTreeMap<u64, Row>,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    match settle(world, Settle::Healed).await {
        Ok(()) => println!("healed {:.1} s after the last fault", quiet.elapsed().as_secs_f64()),
        Err(violation) => violations.push(violation),
    }
    match jobs::finish(&world.client(), JOBS_LIMIT).await {
        Ok(finished) => {
            println!("{} jobs have ended", finished.len());
            violations.extend(finished.iter().flat_map(|job| check_jobs::check(job, clean)));
            violations.extend(check_jobs::check_observations(observed, &finished));
        }
        Err(missing) => violations.push(Violation::new("every job ends", missing)),
    }
    violations.extend(read_all(world, context).await);
    violations.extend(check_registers::check(&context.history.snapshot()));
    if let Err(missing) = eventually_every(TIDY_PERIOD, tidy, async || tidied(world).await).await {
        violations.push(Violation::new("the disks hold what the log says and nothing else", missing));
    }
    world.note_ends();
    world.harvest_all();
    violations.append(&mut world.violations_seen);
    violations
}

/// Reads every version of every file that was ever put, and records these reads too. Stops after [`UNREADABLE_MAX`]
/// unreadable files, because waiting for each would take too long.
async fn read_all(world: &World, context: &ClientContext) -> Vec<Violation> {
    let files = Files::new(world.client());
    let names: BTreeSet<String> =
        context.history.snapshot().into_iter().map(|operation| operation.name).collect();
    let (mut violations, mut count) = (Vec::new(), 0);
    for name in names {
        match read_file(&files, context, &name).await {
            Ok(versions) => count += versions,
            Err(missing) => {
                let detail = format!("'{name}': {missing}");
                violations.push(Violation::new("every kept version can be read with its bytes", detail));
            }
        }
        if violations.len() >= UNREADABLE_MAX {
            break;
        }
    }
    println!("{count} kept versions were read");
    violations
}

/// Reads all versions of one file; returns how many.
async fn read_file(files: &Files, context: &ClientContext, name: &str) -> Result<usize, String> {
    let file: FileName = name.parse().map_err(|error| format!("{error}"))?;
    let kept = eventually(READING_LIMIT, async || {
        let number = context.history.begin("reader", name, Call::Versions);
        let kept = registers::kept(files.cluster(), file.clone()).await;
        context.history.end(number, kept.clone());
        kept
    });
    let Reply::Kept(versions) = kept.await? else { return Ok(0) };
    for &(version, bytes) in &versions {
        let target = context.scratch.join("read");
        let read = eventually(READING_LIMIT, async || {
            registers::get(files, &file, Some(version), target.clone()).await
        });
        let (found, wanted) = (read.await?, Reply::Found { version, bytes });
        if found != wanted {
            return Err(format!("{found:?}, not {wanted:?}"));
        }
    }
    Ok(versions.len())
}

/// Checks that the disks hold what the log refers to, and nothing else.
async fn tidied(world: &World) -> Result<(), String> {
    let recorded = world.recorded().await?;
    let wrong = disks::check(&world.disks(), &recorded, COPIES.min(world.members.len()));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

fn evidence(world: &World, history: &History, outcome: &Outcome, dir: &Path) -> anyhow::Result<()> {
    fs::write(dir.join("violations.txt"), format!("{:#?}\n", outcome.violations))?;
    let lines: Vec<String> = history.snapshot().iter().map(line).collect();
    fs::write(dir.join("history.txt"), lines.join("\n"))?;
    world.keep()
}
