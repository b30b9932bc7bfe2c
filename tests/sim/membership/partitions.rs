//! Partitions and blocked datagrams: their effects on a cluster, and its recovery.

use std::time::Duration;

use idunno_core::membership::SwimConfig;
use idunno_tests::seeds::for_each_seed;

use super::scenarios::median;
use super::world::World;
use crate::network::Quality;

#[test]
fn the_halves_of_a_long_partition_find_each_other() {
    let name = "membership::partitions::the_halves_of_a_long_partition_find_each_other";
    let times = for_each_seed(name, 20, |seed| {
        let mut world = World::started(seed, 8, Quality::LAN);
        world.network.partition(8, |host| host < 4);
        world.run_for(Duration::from_secs(60));
        assert_eq!(world.deaths.len(), 2 * 4 * 4, "each half declares the other dead");
        world.network.heal();
        world.deaths.clear();
        let time = world.run_until_converged(Duration::from_secs(30));
        assert_eq!(world.deaths.len(), 0, "healing causes no further deaths");
        world.run_for(Duration::from_secs(10));
        assert_eq!(world.converged(), Ok(()));
        time
    });
    println!("agreement after a healed partition: p50 {:?}", median(times));
}

#[test]
fn a_partition_longer_than_memory_heals_through_the_introducer() {
    let name = "membership::partitions::a_partition_longer_than_memory_heals_through_the_introducer";
    let times = for_each_seed(name, 20, |seed| {
        let config = SwimConfig { forget_after: Duration::from_secs(20), ..SwimConfig::default() };
        let mut world = World::started_with(seed, 8, config, Quality::LAN);
        // All were started with seeds of the first half, so its members know the second half only from their lists.
        world.network.partition(9, |host| host < 4);
        world.run_for(Duration::from_secs(120));
        for host in 0..8 {
            let Some(swim) = &world.hosts[host].swim else { panic!("{host} is up") };
            assert_eq!(swim.members().count(), 3, "host {host} has forgotten the other half");
            // The second half's seeds are its own members only, as after restarts with remembered addresses.
            let seeds = (4..8).map(super::world::address).collect();
            world.handle(host, idunno_core::membership::SwimEvent::Join { seeds });
        }
        let before = world.all_counters().forgotten;
        assert!(before >= 8 * 4);
        world.network.heal();
        let time = world.run_until_converged(Duration::from_secs(60));
        world.run_for(Duration::from_secs(10));
        assert_eq!(world.converged(), Ok(()));
        time
    });
    println!("agreement after a forgotten partition: p50 {:?}", median(times));
}

#[test]
fn a_cut_between_two_members_raises_no_suspicion() {
    for_each_seed("membership::partitions::a_cut_between_two_members_raises_no_suspicion", 20, |seed| {
        let mut world = World::started(seed, 7, Quality::LAN);
        world.network.cut_one_way(0, 1);
        world.network.cut_one_way(1, 0);
        world.run_for(Duration::from_secs(30));
        let counters = world.all_counters();
        assert!(counters.indirect_acks > 0, "others were asked");
        assert_eq!(counters.suspicions, 0);
    });
}

/// Blocks UDP of one of seven, and returns which members report it and which it reports, before and after the block.
fn blocked(seed: u64, inward: bool, outward: bool) {
    let mut world = World::started(seed, 7, Quality::LAN);
    let named = |world: &World, by: usize, host: usize| {
        let swim = world.hosts[by].swim.as_ref();
        swim.and_then(|swim| swim.member(world.hosts[host].id)).is_some_and(|member| member.udp_blocked)
    };
    world.hosts[3].udp_in_blocked = inward;
    world.hosts[3].udp_out_blocked = outward;
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.deaths.len(), 0, "it answers over TCP");
    for other in [0, 6] {
        assert!(named(&world, other, 3), "{other} names it");
        assert!(named(&world, 3, other), "it names {other}");
        assert!(!named(&world, other, 1));
    }
    // It still learns of a death among the others.
    let dead = world.hosts[5].id;
    world.crash(5, true);
    world.run_for(Duration::from_secs(40));
    assert!(world.deaths.contains_key(&(3, dead)));
    assert!(world.deaths.keys().all(|&(_, id)| id == dead), "no other member is declared dead");
    world.hosts[3].udp_in_blocked = false;
    world.hosts[3].udp_out_blocked = false;
    world.run_for(Duration::from_secs(20));
    assert!(!named(&world, 0, 3) && !named(&world, 3, 6));
}

#[test]
fn datagrams_blocked_both_ways_are_reported_and_cause_no_death() {
    let name = "membership::partitions::datagrams_blocked_both_ways_are_reported_and_cause_no_death";
    for_each_seed(name, 20, |seed| blocked(seed, true, true));
}

#[test]
fn datagrams_blocked_one_way_are_reported_and_cause_no_death() {
    let name = "membership::partitions::datagrams_blocked_one_way_are_reported_and_cause_no_death";
    for_each_seed(name, 20, |seed| blocked(seed, seed % 2 == 0, seed % 2 == 1));
}
