//! A run from the first process to the verdict.

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

use crate::check::jobs::{Row, Told};
use crate::check::terms::Claim;
use crate::check::{Violation, jobs as check_jobs, leftovers, registers as check_registers, terms};
use crate::clients::{Means, jobs, registers, watcher};
use crate::cluster::{Parts, World};
use crate::fault::Settle;
use crate::ground::network::Network;
use crate::ground::sandbox::Ground;
use crate::history::{Call, History, Reply, line, summary};
use crate::nemesis::{Nemesis, settle};
use crate::schedule::{Abilities, Schedule};
use crate::wait::{eventually, eventually_every};

/// How long jobs may take to end once nothing is broken any more.
const JOBS_LIMIT: Duration = Duration::from_secs(120);
/// How long what was put must be readable within.
const READING_LIMIT: Duration = Duration::from_secs(30);
/// Files that cannot be read before the others are not tried.
const UNREADABLE_MAX: usize = 3;
/// Between two looks at all disks.
const TIDY_PERIOD: Duration = Duration::from_secs(2);

/// What is to be done.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) duration: Duration,
    /// How long half-written files and blobs that nothing refers to may stay once all is quiet.
    pub(crate) tidy: Duration,
    pub(crate) ground: Ground,
    pub(crate) parts: Parts,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) faults: usize,
    pub(crate) operations: usize,
    pub(crate) violations: Vec<Violation>,
}

/// Runs, judges, and leaves the evidence in the directory of the plan if there is a violation.
pub(crate) async fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    let dir = &plan.parts.dir;
    let abilities = match plan.ground {
        Ground::Namespaces { can_delay } => Abilities { namespaces: true, delay: can_delay },
        Ground::Loopback(_) => Abilities { namespaces: false, delay: false },
    };
    let network =
        abilities.namespaces.then(|| Network::build(plan.parts.members, abilities.delay)).transpose()?;
    let mut world = World::start(&plan.parts, network).await?;
    settle(&mut world, Settle::Healed).await.map_err(|violation| anyhow::anyhow!("{violation:?}"))?;
    let means = means(plan, &world)?;
    jobs::prepare(&means, &plan.parts.python).await.context("the model cannot be trained")?;
    let clean = clean_rows(&means).await?;
    println!("the cluster is up; a job without faults gave {} rows", clean.len());

    let clients = Clients::start(&means);
    let mut outcome = Outcome::default();
    let mut nemesis = Nemesis::new(means.history.clone());
    let (mut schedule, begun) = (Schedule::new(plan.seed, plan.parts.members, abilities), Instant::now());
    while begun.elapsed() < plan.duration && outcome.violations.is_empty() {
        let Some(round) = schedule.next() else { break };
        let broken = nemesis.round(&mut world, &round).await;
        // Whatever it was, the evidence is to be kept.
        outcome.violations.extend(broken.unwrap_or_else(|error| vec![suite_failed(&error)]));
        // What is wrong with the history already is found while its traces are fresh, and told at the end.
        if !check_registers::check(&means.history.snapshot()).is_empty() {
            break;
        }
    }
    let quiet = Instant::now();
    outcome.faults = nemesis.faults;
    means.stop.store(true, Ordering::Relaxed);
    let (told, claims) = clients.finish().await?;
    outcome.violations.extend(aftermath(&mut world, &means, quiet, plan.tidy, &told, &clean).await);
    outcome.violations.extend(terms::check(&world.claims.union(&claims).cloned().collect()));
    outcome.operations = means.history.len() + told.len();
    println!("{}", summary(&means.history.snapshot()));
    if !outcome.violations.is_empty() {
        evidence(&world, &means.history, &outcome, dir)?;
    }
    Ok(outcome)
}

fn suite_failed(error: &anyhow::Error) -> Violation {
    Violation::new("faults can be done and mended, members start again", format!("{error:#}"))
}

fn means(plan: &Plan, world: &World) -> anyhow::Result<Means> {
    let scratch = plan.parts.dir.join("scratch");
    fs::create_dir_all(&scratch)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (addresses, credentials) = (world.addresses(), world.credentials.clone());
    Ok(Means { addresses, credentials, history: History::new(), scratch, seed: plan.seed, stop })
}

/// The rows of a job that nothing disturbs.
async fn clean_rows(means: &Means) -> anyhow::Result<BTreeMap<u64, Row>> {
    jobs::Client::new(means.clone()).one_job().await?;
    let finished = jobs::finish(&means.client(), JOBS_LIMIT).await;
    let finished = finished.map_err(anyhow::Error::msg)?;
    let rows = finished.iter().flat_map(|job| &job.segments).flat_map(|segment| &segment.rows);
    Ok(rows.map(|row| (row.query, row.clone())).collect())
}

/// All clients at work.
struct Clients {
    registers: JoinSet<anyhow::Result<()>>,
    jobs: JoinHandle<anyhow::Result<Vec<Told>>>,
    watcher: JoinHandle<BTreeSet<Claim>>,
}

impl Clients {
    fn start(means: &Means) -> Self {
        let client = |number| registers::Client::new(means.clone(), number).run();
        Self {
            registers: (0..registers::CLIENTS).map(client).collect(),
            jobs: tokio::spawn(jobs::Client::new(means.clone()).run()),
            watcher: tokio::spawn(watcher::run(means.clone())),
        }
    }

    /// Waits until they have finished what they are at.
    async fn finish(mut self) -> anyhow::Result<(Vec<Told>, BTreeSet<Claim>)> {
        while let Some(ended) = self.registers.join_next().await {
            ended??;
        }
        Ok((self.jobs.await??, self.watcher.await?))
    }
}

/// What must hold once nothing is broken any more.
async fn aftermath(
    world: &mut World,
    means: &Means,
    quiet: Instant,
    tidy: Duration,
    told: &[Told],
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
            violations.extend(check_jobs::check_told(told, &finished));
        }
        Err(missing) => violations.push(Violation::new("every job ends", missing)),
    }
    violations.extend(read_all(world, means).await);
    violations.extend(check_registers::check(&means.history.snapshot()));
    if let Err(missing) = eventually_every(TIDY_PERIOD, tidy, async || tidied(world).await).await {
        violations.push(Violation::new("the disks hold what the log says and nothing else", missing));
    }
    world.note_ends();
    world.harvest_all();
    violations.append(&mut world.offences);
    violations
}

/// Reads every version of every file that was ever put; their numbers and bytes go on the record too. Gives up when
/// several cannot be read: waiting for each of them would take for ever.
async fn read_all(world: &World, means: &Means) -> Vec<Violation> {
    let files = Files::new(world.client());
    let names: BTreeSet<String> =
        means.history.snapshot().into_iter().map(|operation| operation.name).collect();
    let (mut violations, mut count) = (Vec::new(), 0);
    for name in names {
        match read_file(&files, means, &name).await {
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
async fn read_file(files: &Files, means: &Means, name: &str) -> Result<usize, String> {
    let file: FileName = name.parse().map_err(|error| format!("{error}"))?;
    let kept = eventually(READING_LIMIT, async || {
        let number = means.history.begin("reader", name, Call::Versions);
        let kept = registers::kept(files.cluster(), file.clone()).await;
        means.history.end(number, kept.clone());
        kept
    });
    let Reply::Kept(versions) = kept.await? else { return Ok(0) };
    for &(version, bytes) in &versions {
        let target = means.scratch.join("read");
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

/// Whether the disks are in good order.
async fn tidied(world: &World) -> Result<(), String> {
    let recorded = world.recorded().await?;
    let wrong = leftovers::check(&world.disks(), &recorded, COPIES.min(world.members.len()));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

fn evidence(world: &World, history: &History, outcome: &Outcome, dir: &Path) -> anyhow::Result<()> {
    world.keep()?;
    let lines: Vec<String> = history.snapshot().iter().map(line).collect();
    fs::write(dir.join("history.txt"), lines.join("\n"))?;
    fs::write(dir.join("violations.txt"), format!("{:#?}\n", outcome.violations))?;
    Ok(())
}
