//! Slow workers at the end of a job: the time they cost compared with a healthy run, and the use of copies.

use std::time::Duration;

use idunno_core::time::Instant;
use idunno_shared::ids::NodeId;
use idunno_tests::seeds::{for_each_seed, is_replay};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::jobs::Load;
use super::workers;
use super::world::{Totals, World};

const BATCH: u32 = 32;
const SLOW_PERCENT: u64 = 1000;
const TOO_LONG: Duration = Duration::from_secs(3600);

/// A cluster in which one worker in ten, and at least one, may be slow.
struct Case {
    workers: u64,
    slow: Vec<NodeId>,
    query_us: u64,
    queries: u64,
}

impl Case {
    fn random(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let workers = rng.random_range(6..=20);
        let slow = (0..(workers / 10).max(1)).map(|_| NodeId(rng.random_range(1..=workers))).collect();
        let batch_us = rng.random_range(200_000..1_000_000);
        let queries = workers * rng.random_range(20..40) * u64::from(BATCH);
        Self { workers, slow, query_us: batch_us / u64::from(BATCH), queries }
    }

    /// The duration of the job, with these workers slow.
    fn run(&self, seed: u64, slow: &[NodeId]) -> (Duration, Totals) {
        let mut world = World::new(seed, workers(self.workers, 1));
        for node in slow {
            world.workers.get_mut(node).expect("a known worker").slowness = SLOW_PERCENT;
        }
        world.log.add(Load::plain(0, self.queries, self.query_us), BATCH, 1);
        while !world.is_finished() && world.step(Instant::START + TOO_LONG) {}
        assert!(world.is_finished(), "the job is not done");
        if let Some(scheduler) = &world.scheduler {
            world.totals.add(scheduler.statistics());
        }
        (world.now.since(Instant::START), world.totals)
    }
}

/// The duration with slow workers as a multiple of the healthy run, and the totals.
fn slowed(seed: u64) -> (f64, Totals) {
    let case = Case::random(seed);
    let (healthy, _) = case.run(seed, &[]);
    let (slow, totals) = case.run(seed, &case.slow);
    let times = slow.as_secs_f64() / healthy.as_secs_f64();
    assert!(times <= 1.3, "{slow:?} instead of {healthy:?}: {times:.2} times the healthy run");
    (times, totals)
}

#[test]
fn workers_ten_times_slower_cost_at_most_30_percent() {
    let runs =
        for_each_seed("scheduler::stragglers::workers_ten_times_slower_cost_at_most_30_percent", 100, slowed);
    let times = runs.iter().map(|(times, _)| *times);
    let (worst, mean) = (times.clone().fold(0.0, f64::max), times.sum::<f64>() / runs.len() as f64);
    let sum = |part: fn(&Totals) -> u64| runs.iter().map(|(_, totals)| part(totals)).sum::<u64>();
    let (copied, won) = (sum(|t| t.scheduler.copied), sum(|t| t.scheduler.copies_won));
    println!("with slow workers: {mean:.2} times the healthy run on average, {worst:.2} at most");
    println!("{copied} copies, {won} of them committed first");
    assert!(is_replay() || won * 2 > copied, "only {won} of {copied} copies committed first");
}
