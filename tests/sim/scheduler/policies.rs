//! What the policies make of two jobs of which one costs three times as much.

use std::time::Duration;

use idunno_core::scheduler::SchedulerEvent;
use idunno_core::time::Instant;
use idunno_shared::wire::jobs::Policy;

use super::load::Load;
use super::workers;
use super::world::World;

/// Answers of each job in the second half of two minutes.
fn answers(policy: Policy, weight: u32) -> [f64; 2] {
    let mut world = World::new(1, workers(4, 2));
    world.log.add(Load::plain(0, 10_000_000, 10_000), 16, 1);
    world.log.add(Load::plain(1, 10_000_000, 30_000), 16, weight);
    world.run_until(Instant::START + Duration::from_secs(1));
    world.tell(SchedulerEvent::Policy(policy));
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
fn each_policy_shares_what_it_names() {
    let [cheap, dear] = answers(Policy::Rate, 1);
    assert!((cheap / dear - 1.0).abs() < 0.05, "rate: {cheap} and {dear}");
    let [cheap, dear] = answers(Policy::Rate, 2);
    assert!((dear / cheap - 2.0).abs() < 0.1, "rate by weight: {cheap} and {dear}");
    let [cheap, dear] = answers(Policy::Time, 1);
    assert!((cheap / dear - 3.0).abs() < 0.15, "time: {cheap} and {dear}");
    let [cheap, dear] = answers(Policy::Time, 3);
    assert!((cheap / dear - 1.0).abs() < 0.05, "time by weight: {cheap} and {dear}");
    let [first, second] = answers(Policy::Fifo, 1);
    assert!(first > 20_000.0 && second == 0.0, "fifo: {first} and {second}");
}
