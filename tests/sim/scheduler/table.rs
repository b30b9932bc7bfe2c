//! The table of fairness: random clusters and jobs, with the gaps of the jobs' rates and what fairness costs.
//!
//! The cases are those of the measurement that decided for virtual time per pull: batches of 8 to 64 queries that take
//! 50 ms to 1 s, with noise. Ten a row in a test run; `IDUNNO_SIM_SEEDS=150` makes the whole table.

use idunno_tests::seeds::for_each_seed;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::fairness::Rates;
use super::load::Load;
use super::worker::SimWorker;
use super::workers;
use super::world::World;

const ROWS: [(u64, u8); 6] = [(4, 2), (8, 3), (10, 2), (10, 3), (10, 5), (20, 4)];
const CASES: u64 = 10;
const SECONDS: u64 = 100;
/// From the start of the jobs to the first window.
const SETTLING_S: usize = 10;

#[derive(Clone, Copy)]
struct Case {
    gap_10s: f64,
    gap_60s: f64,
    /// Of the best unfair schedule, in which every worker is always busy.
    throughput: f64,
    /// Of the batches, the part that followed on one of another job.
    switches: f64,
}

fn run(seed: u64, count: u64, jobs: u8) -> Case {
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

/// The median and the worst of all but a twentieth.
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
        let name = "scheduler::table::rates_are_equal_in_random_clusters";
        let cases = for_each_seed(name, CASES, |seed| run(seed, workers, jobs));
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
