//! The ring election under loss, stale views, partitions, crashes and restarts.

mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use idunno_core::election::RingCounters;
use idunno_tests::seeds::{for_each_seed, is_replay};
use rand::RngExt;

use self::world::{World, add};
use crate::network::{Quality, Trace};

/// With a connected majority there is a leader within this time.
const LEADER_BOUND: Duration = Duration::from_secs(15);

struct Life {
    trace: Trace,
    counters: RingCounters,
    /// From the death of a leader on a quiet network to the next one, if a majority was left.
    failover: Option<Duration>,
}

/// One random life of the voters, ended by a failover on a quiet network.
fn live(seed: u64) -> Life {
    let voters = 1 + usize::try_from(seed % 7).unwrap_or(0);
    let mut world = World::new(seed, voters, Quality::LAN);
    for _ in 0..world.network.rng.random_range(5..25) {
        let pause = world.network.rng.random_range(0..3_000);
        world.run_for(Duration::from_millis(pause));
        disturb(&mut world);
    }
    world.network.heal();
    world.network.quality = Quality::LAN;
    (0..voters)
        .filter(|&voter| !world.is_up(voter))
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|voter| world.start(voter));
    world.noticed_soon();
    world.run_for(Duration::from_secs(1));
    world.run_until_led(LEADER_BOUND);
    // Earlier rounds time out, and followers catch up.
    world.run_for(Duration::from_secs(5));
    let leader = world.run_until_led(LEADER_BOUND);
    let failover = fail_over(&mut world, leader);
    Life { trace: world.trace, counters: world.all_counters(), failover }
}

/// Kills the leader on a quiet network: only the voter with the longest log stands, and leads.
fn fail_over(world: &mut World, leader: usize) -> Option<Duration> {
    let entries = world.network.rng.random_range(1..10);
    for _ in 0..entries {
        world.append(leader, 1);
    }
    let powered_off = world.network.chance(500);
    world.crash(leader, powered_off);
    let up = world.up();
    if !world.is_majority(up.len()) {
        world.run_for(Duration::from_secs(10));
        assert_eq!(world.leader(), None, "a minority has no leader");
        return None;
    }
    let fittest = up.into_iter().max_by_key(|&voter| (world.voters[voter].log, world.voters[voter].id));
    world.stood.clear();
    let (killed_at, before) = (world.now, world.all_counters());
    let next = world.run_until_led(LEADER_BOUND);
    assert_eq!(Some(next), fittest, "the voter with the longest log leads");
    assert_eq!(world.stood, BTreeSet::from([next]), "and only it stood");
    assert_eq!(world.all_counters().fallbacks, before.fallbacks);
    Some(world.now.since(killed_at))
}

/// One random fault, or the end of one.
fn disturb(world: &mut World) {
    let voters = world.voters.len();
    let voter = world.network.rng.random_range(0..voters);
    match world.network.rng.random_range(0..12) {
        0 | 1 => {
            let powered_off = world.network.chance(500);
            world.crash(voter, powered_off);
        }
        2 | 3 if !world.is_up(voter) => world.start(voter),
        4 => {
            let other = world.network.rng.random_range(0..voters);
            world.network.cut_one_way(voter, other);
            world.noticed_soon();
        }
        5 => {
            let border = world.network.rng.random_range(0..voters);
            world.network.partition(voters, |voter| voter < border);
            world.noticed_soon();
        }
        6 | 7 => {
            world.network.heal();
            world.noticed_soon();
        }
        8 => {
            let loss_per_mille = world.network.rng.random_range(0..500);
            let latency_max = Duration::from_millis(world.network.rng.random_range(2..200));
            world.network.quality =
                Quality { loss_per_mille, latency_max, duplicate_per_mille: 50, ..Quality::LAN };
        }
        9 => {
            if let Some(leader) =
                world.up().into_iter().find(|&voter| world.voters[voter].leader == Some(voter))
            {
                world.crash(leader, false);
            }
        }
        _ => {
            let leaders: Vec<_> =
                world.up().into_iter().filter(|&voter| world.voters[voter].leader == Some(voter)).collect();
            for leader in leaders {
                world.append(leader, 1);
            }
        }
    }
}

#[test]
fn random_faults() {
    let lives = for_each_seed("election::random_faults", 1_000, live);
    if is_replay() {
        return;
    }
    let mut all = RingCounters::default();
    for life in &lives {
        add(&mut all, &life.counters);
    }
    let mut failovers: Vec<_> = lives.iter().filter_map(|life| life.failover).collect();
    failovers.sort_unstable();
    println!("{all:?}");
    println!("failover p50 {:?}, worst {:?}", failovers[failovers.len() / 2], failovers[failovers.len() - 1]);
    for (mechanism, fired) in [
        ("rounds completed", all.completed),
        ("hops skipped", all.skipped),
        ("swallowed nominations", all.swallowed),
        ("stale messages", all.stale),
        ("declined messages", all.declined),
        ("failed rounds", all.failed),
        ("fallbacks", all.fallbacks),
    ] {
        assert!(fired >= 20, "{mechanism} fired {fired} times over all seeds: the faults do not reach it");
    }
}

#[test]
fn unnoticed_dead_successors_are_skipped() {
    for_each_seed("election::unnoticed_dead_successors_are_skipped", 100, |seed| {
        let mut world = World::new(seed, 7, Quality::LAN);
        let leader = world.run_until_led(LEADER_BOUND);
        let dead = [(leader + 1) % 7, (leader + 3) % 7];
        world.run_for(Duration::from_secs(3));
        let before = world.all_counters();
        world.unnoticed.extend(dead);
        for voter in dead {
            world.crash(voter, true);
        }
        world.crash(leader, false);
        world.run_until_led(Duration::from_secs(4));
        let after = world.all_counters();
        assert!(after.skipped > before.skipped);
        assert_eq!(after.failed, before.failed, "no round failed because of the dead voters");
    });
}

#[test]
fn a_leader_that_is_alive_for_membership_but_silent_in_the_log_is_succeeded() {
    for_each_seed(
        "election::a_leader_that_is_alive_for_membership_but_silent_in_the_log_is_succeeded",
        100,
        |seed| {
            let mut world = World::new(seed, 7, Quality::LAN);
            let leader = world.run_until_led(LEADER_BOUND);
            world.run_for(Duration::from_secs(3));
            let term = world.term();
            world.deaf = (0..7).collect();
            world.update_views();
            world.run_until_term_above(term, Duration::from_secs(4));
            assert_ne!(world.leader(), Some(leader));
        },
    );
}

#[test]
fn a_voter_that_alone_does_not_hear_the_leader_never_stands() {
    for_each_seed("election::a_voter_that_alone_does_not_hear_the_leader_never_stands", 100, |seed| {
        let mut world = World::new(seed, 7, Quality::LAN);
        let leader = world.run_until_led(LEADER_BOUND);
        world.run_for(Duration::from_secs(5));
        let deaf = (leader + 1 + usize::try_from(seed % 6).unwrap_or(0)) % 7;
        world.deaf.insert(deaf);
        world.update_views();
        world.stood.clear();
        let before = world.all_counters();
        world.run_for(Duration::from_secs(60));
        assert_eq!(world.stood, BTreeSet::new(), "it would depose a leader that all others follow");
        assert!(world.all_counters().declined > before.declined);
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [5, 6] {
        assert_eq!(live(seed).trace, live(seed).trace, "seed {seed}");
    }
}
