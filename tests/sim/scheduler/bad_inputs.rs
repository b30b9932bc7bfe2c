//! The cost of a few bad inputs among many: additional executions compared with a job without them.

use std::collections::BTreeSet;
use std::time::Duration;

use idunno_core::time::Instant;
use idunno_shared::ids::JobId;

use super::jobs::Load;
use super::workers;
use super::world::World;

const QUERIES: u64 = 10_000;
const BATCH: u32 = 64;
/// Additional executions: 3 log2(batch) + 3.
const EXTRA_MAX: u64 = 3 * 6 + 3;

/// Batches started and batches failed until the job ends, with exactly its hopeless queries dead.
fn executions(load: &Load) -> (u64, u64) {
    let mut world = World::new(1, workers(4, 1));
    world.log.add(load.clone(), BATCH, 1);
    world.run_until(Instant::START + Duration::from_secs(600));
    let job = &world.log.jobs[&JobId(1)];
    assert!(job.is_done(), "{} queries are open", job.open());
    assert_eq!((job.dead.clone(), job.duplicates), (load.hopeless(), 0));
    let failed = world.scheduler.as_ref().map_or(0, |scheduler| scheduler.statistics().failures);
    (world.workers.values().map(|worker| worker.batches).sum(), failed)
}

#[test]
fn bad_inputs_cost_few_executions() {
    let clean = Load::plain(0, QUERIES, 1_000);
    let (ideal, _) = executions(&clean);
    let (one, ten) = (BTreeSet::from([5_000]), (6_400..6_460).step_by(6).collect::<BTreeSet<u64>>());
    for (name, queries) in [("one", one.clone()), ("ten in one batch", ten)] {
        let (all, _) = executions(&Load { bad: queries, ..clean.clone() });
        println!("{name}, each answered with an error: {} executions more than {ideal}", all - ideal);
        assert!(all - ideal <= EXTRA_MAX, "{name}: {}", all - ideal);
    }
    let (all, failed) = executions(&Load { poison: one, ..clean });
    println!(
        "one that fails its whole batch: {failed} executions fail, {} more than {ideal} in total",
        all - ideal
    );
    assert!(failed <= EXTRA_MAX, "{failed} executions failed");
}
