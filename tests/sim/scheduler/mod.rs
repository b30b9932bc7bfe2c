//! The scheduler over virtual workers and a model of the log: under faults, and for fairness.

mod acts;
mod checks;
mod evidence;
mod fairness;
mod load;
mod locality;
mod log;
mod policies;
mod sizes;
mod table;
mod tail;
mod worker;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use idunno_core::time::Instant;
use idunno_shared::ids::NodeId;
use idunno_tests::seeds::{for_each_seed, is_replay};
use rand::RngExt;

use load::Load;
use worker::SimWorker;
use world::{Happening, Totals, World};

const FAULTS: Duration = Duration::from_secs(15);
const HEALING: Duration = Duration::from_secs(300);

/// Workers with every model, numbered from 1.
pub(crate) fn workers(count: u64, models: u8) -> Vec<SimWorker> {
    (1..=count).map(|n| SimWorker::new(NodeId(n), (0..models).collect())).collect()
}

fn random_load(world: &mut World, model: u8) -> Load {
    let queries = world.rng.random_range(20..500);
    let mut load = Load::plain(model, queries, world.rng.random_range(500..40_000));
    let mut some = |limit: u64| -> BTreeSet<u64> {
        let count = world.rng.random_range(0..=limit);
        (0..count).map(|_| world.rng.random_range(0..queries)).collect()
    };
    load.bad = some(4);
    load.poison = some(2);
    load.flaky = some(4).into_iter().map(|index| (index, 2)).collect::<BTreeMap<_, _>>();
    load.unreadable = some(4).into_iter().map(|index| (index, 2)).collect();
    load
}

/// Everything at once for a while, then peace: every job ends, and only the hopeless queries are dead.
fn survives(seed: u64) -> Totals {
    let mut world = World::new(seed, Vec::new());
    let (count, models) = (world.rng.random_range(2..7), 3);
    world = World::new(seed, workers(count, models));
    for node in 1..=count {
        // Not everybody has every model; the first worker has all.
        let lacks = world.rng.random_range(0..models);
        if node > 2 {
            world.workers.get_mut(&NodeId(node)).expect("a known worker").models.remove(&lacks);
        }
    }
    for _ in 0..world.rng.random_range(1..5) {
        let model = world.rng.random_range(0..models);
        let load = random_load(&mut world, model);
        let size = world.rng.random_range(0..65);
        let weight = world.rng.random_range(1..4);
        world.log.add(load, size, weight);
    }
    world.wanted_models = BTreeSet::from([100, 101]);
    world.loss_per_mille = if world.chance(500) { 30 } else { 0 };
    world.are_faults_on = true;
    world.at(Duration::from_millis(500), Happening::Fault);
    world.run_until(Instant::START + FAULTS);
    world.heal();
    let end = Instant::START + FAULTS + HEALING;
    while !world.is_finished() && world.step(end) {}
    for (id, job) in &world.log.jobs {
        assert!(job.is_done(), "{id} has {} open queries at {}", job.open(), world.now);
        let hopeless = job.load.hopeless();
        assert!(job.dead.is_superset(&hopeless), "{id}: of {hopeless:?} only {:?} are dead", job.dead);
        let innocent: Vec<_> = job.dead.iter().filter(|query| !job.may_die(**query)).collect();
        assert!(innocent.is_empty(), "{id}: {innocent:?} are dead letters");
        world.totals.duplicates += job.duplicates;
    }
    assert!(world.wanted_models.is_empty(), "not trained: {:?}", world.wanted_models);
    if let Some(statistics) = world.scheduler.as_ref().map(idunno_core::scheduler::Scheduler::statistics) {
        world.totals.add(statistics);
    }
    world.totals
}

impl World {
    fn is_finished(&self) -> bool {
        self.wanted_models.is_empty() && self.log.jobs.values().all(log::LoggedJob::is_done)
    }
}

/// Seed 661: two failures of the batch of sixteen that a query was in counted as its own.
#[test]
fn a_query_is_not_dead_for_failures_of_the_batch_that_it_was_in() {
    survives(661);
}

/// Seed 6103: a grant of an older term came so late that its worker had its fill of the new one.
#[test]
fn what_comes_late_of_an_older_term_overfills_no_worker() {
    survives(6103);
}

#[test]
fn survives_random_faults() {
    let runs = for_each_seed("scheduler::survives_random_faults", 250, survives);
    let sum = |part: fn(&Totals) -> u64| runs.iter().map(part).sum::<u64>();
    println!(
        "events {} elections {} pauses {} duplicates {} marked_dead {} trained {}",
        sum(|t| t.events),
        sum(|t| t.elections),
        sum(|t| t.pauses),
        sum(|t| t.duplicates),
        sum(|t| t.marked_dead),
        sum(|t| t.trained)
    );
    let mechanisms = [
        ("granted", sum(|t| t.scheduler.granted)),
        ("adopted", sum(|t| t.scheduler.adopted)),
        ("cancelled", sum(|t| t.scheduler.cancelled)),
        ("expired", sum(|t| t.scheduler.expired)),
        ("absent", sum(|t| t.scheduler.absent)),
        ("failures", sum(|t| t.scheduler.failures)),
        ("dead letters", sum(|t| t.scheduler.dead_letters)),
        ("hung", sum(|t| t.scheduler.hung)),
        ("copied", sum(|t| t.scheduler.copied)),
        ("copies won", sum(|t| t.scheduler.copies_won)),
        ("promoted", sum(|t| t.scheduler.promoted)),
        ("duplicates", sum(|t| t.duplicates)),
    ];
    println!("{mechanisms:?}");
    for (mechanism, count) in mechanisms {
        assert!(is_replay() || count > 0, "{mechanism}: never happened, so it was not tested");
    }
}
