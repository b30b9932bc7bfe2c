//! Executes the schedule: injects faults, waits, repairs them, and checks that the cluster recovers.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::check::Violation;
use crate::cluster::World;
use crate::fault::{Fault, Round, Settle};
use crate::history::{History, longest_pause};
use crate::sandbox::links::{Broken, Damage, Direction, Endpoint, between};
use crate::wait::eventually;

/// How long the cluster may take to recover after the last fault was repaired.
pub(crate) const HEALING_LIMIT: Duration = Duration::from_secs(60);
/// How long to look for the coordinator before a fault aimed at it.
const AIMING_LIMIT: Duration = Duration::from_secs(5);

/// Injects faults in rounds.
pub(crate) struct Nemesis {
    history: History,
    started: Instant,
    rounds: usize,
    /// Faults injected so far.
    pub(crate) faults: usize,
}

impl Nemesis {
    pub(crate) fn new(history: History) -> Self {
        Self { history, started: Instant::now(), rounds: 0, faults: 0 }
    }

    /// Runs one round, including the waits before and after it. An error is a failure of the suite itself.
    pub(crate) async fn round(&mut self, world: &mut World, round: &Round) -> anyhow::Result<Vec<Violation>> {
        self.rounds += 1;
        if let Err(violation) = settle(world, round.before).await {
            return Ok(vec![violation]);
        }
        println!("{:6.1} s  round {}: {round}", self.started.elapsed().as_secs_f64(), self.rounds);
        let faults = aimed(world, round).await;
        self.faults += faults.len();
        let struck = self.history.now();
        let broken: Vec<Broken> =
            faults.iter().flat_map(|fault| broken_links(fault, world.members.len())).collect();
        world.set_links(&broken)?;
        faults.iter().try_for_each(|fault| strike(world, fault))?;
        tokio::time::sleep(round.hold).await;
        world.set_links(&[])?;
        for fault in &faults {
            mend(world, fault).await?;
        }
        let mended = Instant::now();
        let settled = settle(world, round.after).await;
        let pause = longest_pause(&self.history.snapshot(), struck, self.history.now());
        let recovered = match (&settled, round.after) {
            (Ok(()), Settle::Ready | Settle::Healed) => {
                format!("recovered within {:.1} s, ", mended.elapsed().as_secs_f64())
            }
            _ => String::new(),
        };
        println!("            {recovered}the longest pause of all clients was {:.1} s", seconds(pause));
        world.note_ends();
        Ok(settled.err().into_iter().chain(world.violations_seen.drain(..)).collect())
    }
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

/// Waits until the cluster has recovered as far as `wanted`.
pub(crate) async fn settle(world: &mut World, wanted: Settle) -> Result<(), Violation> {
    let settled = eventually(HEALING_LIMIT, async || {
        world.tend().await.map_err(|error| format!("{error:#}"))?;
        match wanted {
            Settle::Not => Ok(()),
            Settle::Ready => world.ready().await,
            Settle::Healed => world.healed().await,
        }
    });
    settled.await.map_err(|missing| Violation::new("the cluster heals within 60 s", missing))
}

/// The faults of a round, aimed at the coordinator of this moment where they are to be.
async fn aimed(world: &World, round: &Round) -> Vec<Fault> {
    let mut faults: Vec<Fault> = round.faults.iter().map(|planned| planned.fault.clone()).collect();
    if round.faults.iter().all(|planned| !planned.at_coordinator) {
        return faults;
    }
    let Ok(coordinator) = eventually(AIMING_LIMIT, async || world.coordinator().await).await else {
        println!("            no coordinator found: the faults keep their drawn victims");
        return faults;
    };
    println!("            m{} coordinates", coordinator + 1);
    for index in (0..faults.len()).filter(|&index| round.faults[index].at_coordinator) {
        let others = faults.iter().enumerate().filter(|(other, _)| *other != index);
        let spared: Vec<usize> = others.flat_map(|(_, fault)| fault.victims()).copied().collect();
        faults[index].aim(coordinator, &spared);
    }
    faults
}

fn broken_links(fault: &Fault, members: usize) -> Vec<Broken> {
    let side = |side: &[usize]| side.iter().copied().map(Endpoint::Member).collect::<Vec<_>>();
    let all = || (0..members).map(Endpoint::Member).chain([Endpoint::Introducer]);
    match fault {
        Fault::CutOff { side: cut, direction, from_clients } => {
            let inner = side(cut);
            let mut rest: Vec<Endpoint> = all().filter(|endpoint| !inner.contains(endpoint)).collect();
            rest.extend(from_clients.then_some(Endpoint::Client));
            between(&inner, &rest, *direction, Damage::Cut)
        }
        Fault::CutLink { ends: [one, other], direction } => {
            between(&side(&[*one]), &side(&[*other]), *direction, Damage::Cut)
        }
        Fault::Loss { side: lossy, percent } => {
            let rest: Vec<Endpoint> = all().chain([Endpoint::Client]).collect();
            lost(between(&side(lossy), &rest, Direction::Both, Damage::Loss(*percent)))
        }
        Fault::BlockUdp(blocked) => {
            let rest: Vec<Endpoint> = all().collect();
            lost(between(&side(blocked), &rest, Direction::Both, Damage::NoUdp))
        }
        _ => Vec::new(),
    }
}

/// Removes duplicates: a link between two members of one side was added for each of them.
fn lost(mut broken: Vec<Broken>) -> Vec<Broken> {
    broken.sort_by_key(|broken| (broken.from, broken.to));
    broken.dedup();
    broken
}

fn strike(world: &mut World, fault: &Fault) -> anyhow::Result<()> {
    match fault {
        Fault::Kill(side) => world.kill(side),
        Fault::Freeze(side) => world.signal(side, Signal::STOP),
        Fault::Wipe(side) => world.wipe(side),
        Fault::FillDisk(side) => world.fill_disks(side),
        Fault::HangRenames(side) => world.hang_renames(side, true),
        Fault::StepClocks { side, ahead_s } => world.step_clocks(side, *ahead_s),
        Fault::Delay { side, ms } => world.delay(side, *ms),
        Fault::KillModelServers(side) => world.kill_model_servers(side),
        Fault::KillIntroducer => world.kill_introducer(),
        Fault::CutOff { .. } | Fault::CutLink { .. } | Fault::Loss { .. } | Fault::BlockUdp(_) => Ok(()),
    }
}

async fn mend(world: &mut World, fault: &Fault) -> anyhow::Result<()> {
    match fault {
        Fault::Kill(side) | Fault::Wipe(side) => world.start_members(side).await,
        Fault::Freeze(side) => world.signal(side, Signal::CONT),
        Fault::FillDisk(side) => world.relieve_disks(side),
        Fault::HangRenames(side) => world.hang_renames(side, false),
        Fault::StepClocks { side, .. } => world.step_clocks(side, 0),
        Fault::Delay { side, .. } => world.delay(side, 0),
        Fault::KillIntroducer => world.start_introducer().await,
        Fault::KillModelServers(_)
        | Fault::CutOff { .. }
        | Fault::CutLink { .. }
        | Fault::Loss { .. }
        | Fault::BlockUdp(_) => Ok(()),
    }
}
