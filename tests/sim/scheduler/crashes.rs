//! What queries cost that end the process of their model: few crashes, the other queries first, and nothing of other jobs.

use std::collections::BTreeSet;
use std::time::Duration;

use idunno_core::scheduler::Scheduler;
use idunno_core::time::Instant;
use idunno_shared::ids::JobId;

use super::jobs::Load;
use super::workers;
use super::world::World;

const TOO_LONG: Duration = Duration::from_secs(3600);
/// Crashes that a query costs: two beside others, and one at each of three workers.
const CRASHES_PER_QUERY: u64 = 5;

impl World {
    fn crashes(&self) -> u64 {
        self.scheduler.as_ref().map(Scheduler::statistics).map_or(0, |statistics| statistics.crashes)
    }

    fn has_answered(&self, id: JobId, answers: u64) -> bool {
        let job = &self.log.jobs[&id];
        job.answered.len() >= answers || job.is_done()
    }

    /// Runs until the job has so many answers or is done. Returns the time.
    fn run_until_answered(&mut self, id: JobId, answers: u64) -> Instant {
        while !self.has_answered(id, answers) && self.step(Instant::START + TOO_LONG) {}
        assert!(
            self.has_answered(id, answers),
            "{} answers after an hour",
            self.log.jobs[&id].answered.len()
        );
        self.now
    }
}

/// Crashes until all other queries are answered but those that may be in quarantine, and until the end. Exactly the crashing
/// queries are dead then.
fn crashes(queries: u64, batch: u32, crashing: BTreeSet<u64>) -> (u64, u64) {
    let suspects = crashing.len() as u64 * u64::from(batch.div_ceil(2));
    let mut world = World::new(1, workers(4, 1));
    let load = Load { crashing: crashing.clone(), ..Load::plain(0, queries, 1_000) };
    let id = world.log.add(load, batch, 1);
    world.run_until_answered(id, queries - suspects);
    let first = world.crashes();
    world.run_until_answered(id, queries);
    let job = &world.log.jobs[&id];
    assert_eq!((job.dead.clone(), job.duplicates, job.is_done()), (crashing, 0, true));
    (first, world.crashes())
}

#[test]
fn a_crashing_query_costs_a_few_crashes_whatever_its_batch() {
    for batch in [2, 16, 64, 1_024] {
        let (_, all) = crashes(10_240, batch, BTreeSet::from([5_000]));
        println!("one query in batches of {batch}: {all} crashes");
        assert!(all <= CRASHES_PER_QUERY, "{all} crashes in batches of {batch}");
    }
}

#[test]
fn the_other_queries_are_answered_before_a_query_crashes_alone() {
    let crashing: BTreeSet<u64> = (0..20).map(|n| 37 + n * 499).collect();
    let count = crashing.len() as u64;
    let (first, all) = crashes(10_000, 64, crashing);
    println!("{count} queries of 10,000: {first} crashes until the others are answered, {all} in all");
    // A batch that runs on two workers crashes on both.
    assert!(all <= CRASHES_PER_QUERY * count + 4, "{all} crashes");
    // A worker that would be idle while others run the last batches takes what is in quarantine.
    assert!(first <= 2 * count + 4, "{first} crashes before the others were answered");
}

/// When a job is done beside one of the same model with these crashing queries, in seconds.
fn done_beside(count: u64, crashing: BTreeSet<u64>) -> f64 {
    let mut world = World::new(7, workers(count, 1));
    let queries = 20_000 * count;
    let healthy = world.log.add(Load::plain(0, queries, 1_000), 32, 1);
    world.log.add(Load { crashing, ..Load::plain(0, queries, 1_000) }, 32, 1);
    world.run_until_answered(healthy, queries).as_micros() as f64 / 1e6
}

#[test]
fn crashes_take_no_worker_from_another_job_of_the_model_for_longer_than_the_jobs_share() {
    for count in [1, 4] {
        let crashing: BTreeSet<u64> = (0..20).map(|n| 100 + n * 49).collect();
        let (alone, beside) = (done_beside(count, BTreeSet::new()), done_beside(count, crashing));
        println!("{count} workers: the other job takes {beside:.1} s beside crashes, {alone:.1} s without");
        assert!(beside <= 1.1 * alone, "{beside} s instead of {alone} s on {count} workers");
    }
}
