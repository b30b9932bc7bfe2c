//! Automatic batch sizes: their throughput compared with the best fixed size, and the time of their batches.

use std::time::Duration;

use idunno_core::time::Instant;
use idunno_shared::ids::{JobId, NodeId};
use idunno_tests::seeds::for_each_seed;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::jobs::Load;
use super::workers;
use super::world::World;

const AUTO: u32 = 0;
const WORKERS: u64 = 2;
const SETTLING: Duration = Duration::from_secs(45);
const MEASURED: Duration = Duration::from_secs(30);
/// The fixed sizes to compare with, where the time of their batches is within these limits.
const SIZES: [u32; 8] = [2, 8, 16, 32, 64, 128, 512, 2048];
const SHORTEST_US: u64 = 5_000;
const LONGEST_US: u64 = 1_000_000;

fn load(seed: u64) -> Load {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (query_us, call_us) = (rng.random_range(100..20_000), rng.random_range(1_000..50_000));
    let call_max = [0, rng.random_range(10..400)][rng.random_range(0..2)];
    Load { call_us, call_max, ..Load::plain(0, u64::MAX >> 24, query_us) }
}

/// Answers in [`MEASURED`] once the sizes have settled, and the world.
fn answers(seed: u64, load: Load, size: u32) -> (f64, World) {
    let mut world = World::new(seed, workers(WORKERS, 1));
    world.is_checked = false;
    world.log.add(load, size, 1);
    world.run_until(Instant::START + SETTLING);
    let before = world.log.jobs[&JobId(1)].answered.len();
    world.run_until(Instant::START + SETTLING + MEASURED);
    ((world.log.jobs[&JobId(1)].answered.len() - before) as f64, world)
}

/// The answers of automatic sizes as a fraction of those of the best fixed size, and the time of the largest batch at
/// the end in microseconds.
fn compared(seed: u64) -> (f64, u64) {
    let load = load(seed);
    let best = SIZES
        .into_iter()
        .filter(|size| (SHORTEST_US..=LONGEST_US).contains(&load.cost(*size).0))
        .map(|size| answers(seed, load.clone(), size).0)
        .fold(0.0, f64::max);
    let (auto, world) = answers(seed, load.clone(), AUTO);
    let leases = world.workers.values().flat_map(|worker| &worker.leases);
    let longest = leases.map(|(lease, _)| load.cost(lease.range.count).0).max().unwrap_or(0);
    (auto / best, longest)
}

#[test]
fn automatic_sizes_are_nearly_as_good_as_the_best_fixed_size() {
    let name = "scheduler::sizing::automatic_sizes_are_nearly_as_good_as_the_best_fixed_size";
    let runs = for_each_seed(name, 12, compared);
    let mut parts: Vec<f64> = runs.iter().map(|(part, _)| *part).collect();
    parts.sort_unstable_by(f64::total_cmp);
    let longest_us = runs.iter().map(|(_, longest)| *longest).max().unwrap_or(0);
    println!(
        "automatic sizes compared with the best fixed size: median {:.3}, least {:.3}; longest batch {} ms",
        parts[parts.len() / 2],
        parts[0],
        longest_us / 1000
    );
    assert!(parts[parts.len() / 2] >= 0.95 && parts[0] >= 0.8, "{parts:?}");
    assert!(longest_us <= LONGEST_US, "a batch of {longest_us} us");
}

#[test]
fn each_worker_gets_its_own_size() {
    let mut world = World::new(1, workers(3, 1));
    world.workers.get_mut(&NodeId(2)).expect("a worker").slowness = 1_000;
    world.log.add(Load { call_us: 20_000, ..Load::plain(0, u64::MAX >> 24, 1_000) }, AUTO, 1);
    world.run_until(Instant::START + SETTLING);
    let largest = |world: &World, node| {
        let leases = world.workers[&NodeId(node)].leases.iter();
        leases.map(|(lease, _)| lease.range.count).max().unwrap_or(0)
    };
    let sizes = [1, 2, 3].map(|node| largest(&world, node));
    println!("sizes of a fast, a ten times slower and a fast worker: {sizes:?}");
    assert!(sizes[0] >= 64 && sizes[2] >= 64 && sizes[1] * 4 <= sizes[0], "{sizes:?}");
}
