//! A model server that all workers call: it gets as many batches as it takes, and no work is lost or starved.

use std::time::Duration;

use idunno_core::time::Instant;
use idunno_shared::wire::resources::SharedBackend;
use idunno_tests::seeds::for_each_seed;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::jobs::{Load, model_name};
use super::worker::Stage;
use super::world::World;
use super::{survives_sharing, workers};

const SHARED_MODEL: u8 = 0;
const TOO_LONG: Duration = Duration::from_secs(3600);

fn backend(in_flight: u16) -> SharedBackend {
    SharedBackend { id: "triton".to_owned(), in_flight, models: vec![model_name(SHARED_MODEL)] }
}

impl World {
    /// How many batches of the backend's model run now or wait at their workers.
    fn batches_of_backend(&self) -> usize {
        let leases = self.workers.values().flat_map(|worker| &worker.leases);
        let of_backend = leases.filter(|(lease, stage)| {
            let has_run = matches!(stage, Stage::Completed { .. });
            !has_run && self.log.jobs[&lease.job].load.model == SHARED_MODEL
        });
        of_backend.count()
    }
}

/// Without faults: the most batches that the backend had at once, and what it takes.
fn fills(seed: u64) -> (usize, usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (count, in_flight) = (rng.random_range(3..9), rng.random_range(1..5));
    let mut world = World::new(seed, workers(count, 2));
    for worker in world.workers.values_mut() {
        worker.shared = vec![backend(in_flight)];
    }
    world.log.add(Load::plain(SHARED_MODEL, 2_000, rng.random_range(1_000..20_000)), 32, 1);
    world.log.add(Load::plain(1, 2_000, rng.random_range(1_000..20_000)), 32, 1);
    let mut most = 0;
    while !world.is_finished() && world.step(Instant::START + TOO_LONG) {
        most = most.max(world.batches_of_backend());
    }
    assert!(world.is_finished(), "a job is starved");
    (most, usize::from(in_flight))
}

#[test]
fn a_shared_backend_gets_as_many_batches_as_it_takes() {
    let runs = for_each_seed(
        "scheduler::shared_backends::a_shared_backend_gets_as_many_batches_as_it_takes",
        50,
        fills,
    );
    for (most, in_flight) in runs {
        assert_eq!(most, in_flight, "the most batches at once");
    }
}

/// The invariant is the scheduler's own, checked after every event.
#[test]
fn survives_random_faults_with_a_shared_backend() {
    let name = "scheduler::shared_backends::survives_random_faults_with_a_shared_backend";
    for_each_seed(name, 60, |seed| survives_sharing(seed, &[backend(2)]));
}
