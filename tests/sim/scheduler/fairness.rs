//! Equal rates for unequal jobs, measured over moving windows of the answers in the log.

use std::time::Duration;

use idunno_core::time::Instant;
use idunno_shared::ids::JobId;

use super::load::Load;
use super::workers;
use super::world::World;

const SECOND: u64 = 1_000_000;

/// Answers per job, sampled each second.
pub(crate) struct Rates {
    pub(crate) samples: Vec<Vec<u64>>,
}

impl Rates {
    /// Runs for so many seconds; at second `.0` of `joins` its job is added.
    pub(crate) fn measure(world: &mut World, seconds: u64, joins: &[(u64, Load)]) -> Self {
        let mut samples = Vec::new();
        for second in 0..=seconds {
            world.run_until(Instant::from_micros(second * SECOND));
            for (_, load) in joins.iter().filter(|(at, _)| *at == second) {
                let id = world.log.add(load.clone(), 32, 1);
                world.change(id, |_| {});
            }
            samples.push(world.log.jobs.values().map(|job| job.answered.len()).collect());
        }
        Self { samples }
    }

    /// The gaps, (max - min) / max of the jobs' weighted answers, of all windows of `length` seconds in
    /// `first..end`: the largest and the mean.
    pub(crate) fn gaps(&self, first: usize, end: usize, length: usize, weights: &[u64]) -> (f64, f64) {
        let gap = |start: usize| {
            let rates: Vec<f64> = (0..weights.len())
                .map(|job| {
                    let answers = self.samples[start + length][job] - self.samples[start][job];
                    answers as f64 / weights[job] as f64
                })
                .collect();
            let max = rates.iter().copied().fold(0.0, f64::max);
            let min = rates.iter().copied().fold(f64::INFINITY, f64::min);
            (max - min) / max
        };
        let gaps: Vec<f64> = (first..=end - length).map(gap).collect();
        (gaps.iter().copied().fold(0.0, f64::max), gaps.iter().sum::<f64>() / gaps.len() as f64)
    }
}

/// Endless jobs of these costs, in milliseconds a query, at these batch sizes and weights.
fn world_of(seed: u64, count: u64, jobs: &[(u64, u32, u32)]) -> World {
    let mut world = World::new(seed, workers(count, 4));
    for (model, (query_ms, batch, weight)) in (0u8..).zip(jobs) {
        world.log.add(Load::plain(model, 10_000_000, query_ms * 1000), *batch, *weight);
    }
    world.is_strict = true;
    world
}

fn gaps(name: &str, seed: u64, count: u64, jobs: &[(u64, u32, u32)]) -> (f64, f64) {
    let mut world = world_of(seed, count, jobs);
    let rates = Rates::measure(&mut world, 140, &[]);
    let weights: Vec<u64> = jobs.iter().map(|(.., weight)| u64::from(*weight)).collect();
    let (short, short_mean) = rates.gaps(10, 140, 10, &weights);
    let (long, long_mean) = rates.gaps(10, 140, 60, &weights);
    let busy_us: u64 = world.workers.values().map(|worker| worker.busy_us).sum();
    let busy = busy_us as f64 / (140 * SECOND * count) as f64;
    let percent = |part: f64| format!("{:.1} %", part * 100.0);
    println!(
        "{name}: gap over 10 s {} at most, {} mean; over 60 s {} at most, {} mean; busy {}",
        percent(short),
        percent(short_mean),
        percent(long),
        percent(long_mean),
        percent(busy)
    );
    assert!(busy > 0.97, "workers are busy {busy}");
    (short, long)
}

#[test]
fn two_jobs_of_unequal_cost_get_equal_rates() {
    for seed in 0..5 {
        let (short, long) = gaps("1:3 on 4 workers", seed, 4, &[(10, 32, 1), (30, 32, 1)]);
        assert!(short <= 0.20 && long <= 0.05, "{short} {long}");
    }
    // Batches of a quarter second or less: what is left above is the size of a batch of one second.
    let (short, long) = gaps("1:3 in short batches", 5, 4, &[(10, 8, 1), (30, 8, 1)]);
    assert!(short <= 0.10 && long <= 0.02, "{short} {long}");
}

#[test]
fn three_jobs_and_other_batch_sizes_get_equal_rates() {
    let (short, long) = gaps("1:2:5 on 5 workers", 1, 5, &[(10, 32, 1), (20, 16, 1), (50, 8, 1)]);
    assert!(short <= 0.20 && long <= 0.05, "{short} {long}");
    let (short, long) = gaps("batches 16 and 64 on 7 workers", 2, 7, &[(10, 64, 1), (40, 16, 1)]);
    assert!(short <= 0.20 && long <= 0.05, "{short} {long}");
}

#[test]
fn weights_are_kept() {
    let (short, long) = gaps("weights 1:3 on 4 workers", 3, 4, &[(10, 16, 1), (20, 16, 3)]);
    assert!(short <= 0.20 && long <= 0.05, "{short} {long}");
}

/// A newcomer shares from its first seconds, and takes no more than its share.
#[test]
fn a_newcomer_does_not_monopolise() {
    let mut world = world_of(4, 4, &[(10, 32, 1), (30, 32, 1)]);
    let rates = Rates::measure(&mut world, 60, &[(30, Load::plain(2, 10_000_000, 20_000))]);
    let answered = |job: usize, second: usize| rates.samples[second].get(job).copied().unwrap_or(0);
    let after: Vec<u64> = (0..3).map(|job| answered(job, 42) - answered(job, 32)).collect();
    println!("newcomer: answers of 10 s, from 2 s after its start: {after:?}");
    let (max, min) = (after.iter().max().expect("three"), after.iter().min().expect("three"));
    assert!((max - min) * 5 <= *max, "{after:?}");
}

/// Job 1 serves nobody for 40 seconds, for whatever reason, and comes back: to its share, not to what it missed.
fn assert_no_catching_up(seed: u64, take: impl Fn(&mut World), give_back: impl Fn(&mut World)) {
    let mut world = world_of(seed, 4, &[(10, 32, 1), (30, 32, 1)]);
    world.is_strict = false;
    world.run_until(Instant::from_micros(20 * SECOND));
    take(&mut world);
    world.run_until(Instant::from_micros(60 * SECOND));
    give_back(&mut world);
    world.run_until(world.now + Duration::from_secs(3));
    let answered = |world: &World| world.log.jobs.values().map(|job| job.answered.len()).collect::<Vec<_>>();
    let before = answered(&world);
    world.run_until(world.now + Duration::from_secs(10));
    let gained: Vec<u64> = answered(&world).iter().zip(&before).map(|(now, then)| now - then).collect();
    println!("after an absence of 40 s: answers of 10 s {gained:?}");
    assert!(gained[0].abs_diff(gained[1]) * 5 <= gained[0].max(gained[1]), "{gained:?}");
}

#[test]
fn a_resumed_job_does_not_catch_up() {
    let run =
        |is_running: bool| move |world: &mut World| world.change(JobId(1), |job| job.running = is_running);
    assert_no_catching_up(5, run(false), run(true));
}

#[test]
fn a_job_whose_model_was_nowhere_loaded_does_not_catch_up() {
    let unload = |world: &mut World| {
        for worker in world.workers.values_mut() {
            worker.models.remove(&0);
        }
    };
    let load = |world: &mut World| {
        for worker in world.workers.values_mut() {
            worker.models.insert(0);
        }
    };
    assert_no_catching_up(6, unload, load);
}
