//! The benefit of leasing batches to workers that have the inputs on disk.

use std::cmp::Reverse;
use std::time::Duration;

use idunno_core::time::Instant;
use idunno_shared::ids::NodeId;
use idunno_shared::wire::jobs::Lease;
use rand::RngExt;

use super::jobs::Load;
use super::workers;
use super::world::World;

const COPIES: usize = 4;

/// Where the inputs are: each on four members, by a hash of its number.
pub(crate) struct Copies {
    members: u64,
    /// Whether batches are moved to local inputs.
    moves_batches: bool,
    /// Inputs leased to a worker that has them.
    local: u64,
    /// All inputs leased.
    all: u64,
}

fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

impl Copies {
    fn has(&self, node: NodeId, query: u64) -> bool {
        let rank = |member: u64| mix(mix(query) ^ member);
        (1..=self.members).filter(|member| rank(*member) < rank(node.0)).count() < COPIES
    }

    fn local(&self, node: NodeId, lease: &Lease) -> usize {
        lease.range.queries().filter(|query| self.has(node, *query)).count()
    }
}

impl World {
    /// The batch sent in place of a granted one: the alternative with the most local inputs, or, under faults, a random
    /// one.
    pub(crate) fn relocate(&mut self, node: NodeId, lease: Lease) -> Lease {
        let is_random = self.are_faults_on && self.chance(300);
        let Some(scheduler) = self.scheduler.as_mut() else { return lease };
        let others = scheduler.alternatives(lease);
        let random = self.rng.random_range(0..100);
        let chosen = match &self.copies {
            Some(copies) if copies.moves_batches => {
                let local = |lease: &Lease| copies.local(node, lease);
                let best = others.into_iter().max_by_key(|other| (local(other), Reverse(other.range.first)));
                best.filter(|best| local(best) > local(&lease))
            }
            _ => others.get(random).copied().filter(|_| is_random),
        };
        if let Some(other) = chosen {
            assert!(scheduler.move_batch(node, lease, other), "{lease:?} cannot move to {other:?}");
            scheduler.check().unwrap_or_else(|violation| panic!("after a move: {violation}"));
        }
        let lease = chosen.unwrap_or(lease);
        if let Some(copies) = &mut self.copies {
            copies.all += u64::from(lease.range.count);
            copies.local += copies.local(node, &lease) as u64;
        }
        lease
    }
}

/// The fraction of the inputs leased to a worker that has them.
fn local_fraction(members: u64, batch: u32, moves_batches: bool) -> f64 {
    let mut world = World::new(1, workers(members, 1));
    world.is_checked = false;
    world.copies = Some(Copies { members, moves_batches, local: 0, all: 0 });
    let queries = members * 200 * u64::from(batch);
    world.log.add(Load::plain(0, queries, 320_000 / u64::from(batch)), batch, 1);
    world.run_until(Instant::START + Duration::from_secs(300));
    assert!(world.log.jobs.values().all(super::jobs::LoggedJob::is_done), "the job is not done");
    world.copies.map_or(0.0, |copies| copies.local as f64 / copies.all as f64)
}

#[test]
fn batches_go_to_workers_with_their_inputs() {
    println!("members, batch | local inputs by chance | with batches moved");
    for (members, batch, least) in [
        (4, 32, 1.0),
        (7, 1, 0.85),
        (10, 1, 0.75),
        (10, 8, 0.5),
        (10, 32, 0.44),
        (20, 1, 0.5),
        (20, 32, 0.22),
    ] {
        let (chance, near) = (local_fraction(members, batch, false), local_fraction(members, batch, true));
        println!("{members:7}, {batch:5} | {:22.1} % | {:15.1} %", chance * 100.0, near * 100.0);
        assert!(near >= least, "{members} members, batches of {batch}: {near}");
    }
}
