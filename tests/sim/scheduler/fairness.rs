//! Query rates of unequal jobs, measured over moving windows of the answers in the log: equal under the default policy,
//! as named under the others, and equal in random clusters, with the cost of fairness.
//!
//! The random cases repeat the measurement that decided for virtual time per pull: batches of 8 to 64 queries that take
//! 50 ms to 1 s, with noise. A test run measures ten per cluster size; `IDUNNO_SIM_SEEDS=150` the whole table.

use std::time::Duration;

use idunno_core::scheduler::SchedulerEvent;
use idunno_core::time::Instant;
use idunno_shared::ids::JobId;
use idunno_shared::wire::jobs::Policy;
use idunno_tests::seeds::for_each_seed;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::jobs::Load;
use super::worker::SimWorker;
use super::workers;
use super::world::World;

const SECOND: u64 = 1_000_000;

/// Answers per job, sampled every second.
struct Rates {
    samples: Vec<Vec<u64>>,
}

impl Rates {
    /// Runs for `seconds`, and adds the jobs of `joins` at their seconds.
    fn measure(world: &mut World, seconds: u64, joins: &[(u64, Load)]) -> Self {
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

    /// The largest and the mean gap over all windows of `length` seconds in `first..end`, where a gap is
    /// (max - min) / max of the jobs' weighted answers.
    fn gaps(&self, first: usize, end: usize, length: usize, weights: &[u64]) -> (f64, f64) {
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

/// Endless jobs, each with its milliseconds per query, batch size and weight.
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
    // With batches of at most a quarter of a second; above, the remaining gap is one batch of a second.
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

/// A new job gets its share from its first seconds, and no more.
#[test]
fn a_new_job_does_not_monopolise() {
    let mut world = world_of(4, 4, &[(10, 32, 1), (30, 32, 1)]);
    let rates = Rates::measure(&mut world, 60, &[(30, Load::plain(2, 10_000_000, 20_000))]);
    let answered = |job: usize, second: usize| rates.samples[second].get(job).copied().unwrap_or(0);
    let after: Vec<u64> = (0..3).map(|job| answered(job, 42) - answered(job, 32)).collect();
    println!("new job: answers in 10 s, from 2 s after its start: {after:?}");
    let (max, min) = (after.iter().max().expect("three"), after.iter().min().expect("three"));
    assert!((max - min) * 5 <= *max, "{after:?}");
}

/// Job 1 gets no service for 40 seconds. Then it gets its share again, not what it missed.
fn assert_no_catching_up(seed: u64, withdraw: impl Fn(&mut World), restore: impl Fn(&mut World)) {
    let mut world = world_of(seed, 4, &[(10, 32, 1), (30, 32, 1)]);
    world.is_strict = false;
    world.run_until(Instant::from_micros(20 * SECOND));
    withdraw(&mut world);
    world.run_until(Instant::from_micros(60 * SECOND));
    restore(&mut world);
    world.run_until(world.now + Duration::from_secs(3));
    let answered = |world: &World| world.log.jobs.values().map(|job| job.answered.len()).collect::<Vec<_>>();
    let before = answered(&world);
    world.run_until(world.now + Duration::from_secs(10));
    let gained: Vec<u64> = answered(&world).iter().zip(&before).map(|(now, then)| now - then).collect();
    println!("after 40 s without service: answers in 10 s {gained:?}");
    assert!(gained[0].abs_diff(gained[1]) * 5 <= gained[0].max(gained[1]), "{gained:?}");
}

#[test]
fn a_resumed_job_does_not_catch_up() {
    let run =
        |is_running: bool| move |world: &mut World| world.change(JobId(1), |job| job.running = is_running);
    assert_no_catching_up(5, run(false), run(true));
}

#[test]
fn a_job_whose_model_no_worker_had_loaded_does_not_catch_up() {
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

/// Answers of a cheap job and one three times as expensive, in the second of two minutes.
fn answers_under(policy: Policy, weight: u32) -> [f64; 2] {
    let mut world = World::new(1, workers(4, 2));
    world.log.add(Load::plain(0, 10_000_000, 10_000), 16, 1);
    world.log.add(Load::plain(1, 10_000_000, 30_000), 16, weight);
    world.run_until(Instant::START + Duration::from_secs(1));
    world.handle(SchedulerEvent::Policy(policy));
    let count = |world: &World| {
        let answered: Vec<u64> = world.log.jobs.values().map(|job| job.answered.len()).collect();
        [answered[0], answered[1]]
    };
    world.run_until(Instant::START + Duration::from_secs(60));
    let before = count(&world);
    world.run_until(Instant::START + Duration::from_secs(120));
    let after = count(&world);
    [0, 1].map(|job| (after[job] - before[job]) as f64)
}

#[test]
fn each_policy_equalises_its_own_measure() {
    let [cheap, expensive] = answers_under(Policy::Rate, 1);
    assert!((cheap / expensive - 1.0).abs() < 0.05, "rate: {cheap} and {expensive}");
    let [cheap, expensive] = answers_under(Policy::Rate, 2);
    assert!((expensive / cheap - 2.0).abs() < 0.1, "rate by weight: {cheap} and {expensive}");
    let [cheap, expensive] = answers_under(Policy::Time, 1);
    assert!((cheap / expensive - 3.0).abs() < 0.15, "time: {cheap} and {expensive}");
    let [cheap, expensive] = answers_under(Policy::Time, 3);
    assert!((cheap / expensive - 1.0).abs() < 0.05, "time by weight: {cheap} and {expensive}");
    let [first, second] = answers_under(Policy::Fifo, 1);
    assert!(first > 20_000.0 && second == 0.0, "fifo: {first} and {second}");
}

const ROWS: [(u64, u8); 6] = [(4, 2), (8, 3), (10, 2), (10, 3), (10, 5), (20, 4)];
const CASES: u64 = 10;
const SECONDS: u64 = 100;
/// Seconds from the start of the jobs to the first window.
const SETTLING_S: usize = 10;

#[derive(Clone, Copy)]
struct Case {
    gap_10s: f64,
    gap_60s: f64,
    /// The fraction of the best unfair schedule, in which every worker is always busy.
    throughput: f64,
    /// The fraction of the batches whose worker ran another job before.
    switches: f64,
}

fn random_case(seed: u64, count: u64, jobs: u8) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut world = World::new(seed, workers(count, jobs));
    world.is_checked = false;
    for model in 0..jobs {
        let batch: u32 = [8, 16, 32, 64][rng.random_range(0..4)];
        let query_us = rng.random_range(50_000..1_000_000) / u64::from(batch);
        world.log.add(Load::plain(model, 10_000_000, query_us), batch, 1);
    }
    let rates = Rates::measure(&mut world, SECONDS, &[]);
    let weights = vec![1; jobs.into()];
    let end = rates.samples.len() - 1;
    let (_, gap_10s) = rates.gaps(SETTLING_S, end, 10, &weights);
    let (_, gap_60s) = rates.gaps(SETTLING_S, end, 60, &weights);
    let busy_us: u64 = world.workers.values().map(|worker| worker.busy_us).sum();
    let sum = |part: fn(&SimWorker) -> u64| world.workers.values().map(part).sum::<u64>() as f64;
    let switches = sum(|worker| worker.switches) / sum(|worker| worker.batches);
    Case { gap_10s, gap_60s, throughput: busy_us as f64 / (SECONDS * count * 1_000_000) as f64, switches }
}

/// The median and the 95th percentile, in percent.
fn spread(cases: &[Case], part: impl Fn(&Case) -> f64) -> (f64, f64) {
    let mut values: Vec<f64> = cases.iter().map(|case| part(case) * 100.0).collect();
    values.sort_unstable_by(f64::total_cmp);
    (values[values.len() / 2], values[(values.len() * 95 / 100).min(values.len() - 1)])
}

#[test]
fn rates_are_equal_in_random_clusters() {
    println!(
        "workers, jobs | gap over 10 s: median, 95 % | over 60 s: median, 95 % | throughput: median | model switches"
    );
    for (workers, jobs) in ROWS {
        let name = "scheduler::fairness::rates_are_equal_in_random_clusters";
        let cases = for_each_seed(name, CASES, |seed| random_case(seed, workers, jobs));
        let (short, short_most) = spread(&cases, |case| case.gap_10s);
        let (long, long_most) = spread(&cases, |case| case.gap_60s);
        let (throughput, _) = spread(&cases, |case| case.throughput);
        let gaps = format!("{short:19.1} %, {short_most:4.1} % | {long:15.2} %, {long_most:4.2} %");
        let (switches, _) = spread(&cases, |case| case.switches);
        println!("{workers:7}, {jobs:4} | {gaps} | {throughput:16.1} % | {switches:12.1} %");
        assert!(throughput >= 97.0, "fairness costs {:.1} % of the work", 100.0 - throughput);
        assert!(short <= 10.0 && long <= 5.0, "{workers} workers, {jobs} jobs: {short} % and {long} %");
        assert!(short_most <= 20.0 && long_most <= 5.0, "the worst: {short_most} % and {long_most} %");
    }
}
