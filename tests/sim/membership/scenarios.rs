//! One mechanism at a time, each with a figure that it must reach.

use std::time::Duration;

use idunno_tests::seeds::for_each_seed;
use rand::RngExt;

use super::world::World;
use crate::network::Quality;

/// Kills one member of `hosts` and returns when the first and the last of the others held it dead.
fn detection(seed: u64, hosts: usize, powered_off: bool) -> (Duration, Duration) {
    let mut world = World::started(seed, hosts, Quality::LAN);
    let pause = world.network.rng.random_range(500..2_000);
    world.run_for(Duration::from_millis(pause));
    assert_eq!(world.deaths.len(), 0, "nobody died yet");
    let (victim, killed_at) = (world.network.rng.random_range(0..hosts), world.now);
    let id = world.hosts[victim].id;
    world.crash(victim, powered_off);
    world.run_until_converged(Duration::from_secs(20));
    assert!(world.deaths.keys().all(|&(_, dead)| dead == id), "only the killed member is held dead");
    let times: Vec<_> = world.deaths.values().map(|at| at.since(killed_at)).collect();
    (times.iter().min().copied().unwrap_or_default(), times.iter().max().copied().unwrap_or_default())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[test]
fn death_is_known_in_time() {
    for (hosts, silent_bound_ms, refused_bound_ms) in
        [(5, 4_000, 1_500), (7, 4_000, 1_500), (10, 4_500, 2_000), (30, 6_000, 2_500), (100, 9_000, 4_000)]
    {
        for (powered_off, bound_ms) in [(true, silent_bound_ms), (false, refused_bound_ms)] {
            let count = if hosts == 100 { 3 } else { 20 };
            let times = for_each_seed("membership::scenarios::death_is_known_in_time", count, |seed| {
                detection(seed, hosts, powered_off)
            });
            let worst = times.iter().map(|&(_, last)| last).max().unwrap_or_default();
            println!(
                "{hosts} members, {}: first p50 {:?}, all p50 {:?}, all worst {worst:?}",
                if powered_off { "host silent" } else { "connection refused" },
                median(times.iter().map(|&(first, _)| first).collect()),
                median(times.iter().map(|&(_, last)| last).collect()),
            );
            assert!(worst <= Duration::from_millis(bound_ms), "{hosts} members: {worst:?}");
        }
    }
}

#[test]
fn a_cut_between_two_members_raises_no_suspicion() {
    for_each_seed("membership::scenarios::a_cut_between_two_members_raises_no_suspicion", 20, |seed| {
        let mut world = World::started(seed, 7, Quality::LAN);
        world.network.cut_one_way(0, 1);
        world.network.cut_one_way(1, 0);
        world.run_for(Duration::from_secs(30));
        let counters = world.all_counters();
        assert!(counters.indirect_acks > 0, "others were asked");
        assert_eq!(counters.suspicions, 0);
    });
}

#[test]
fn blocked_datagrams_are_named_and_kill_nobody() {
    for_each_seed("membership::scenarios::blocked_datagrams_are_named_and_kill_nobody", 20, |seed| {
        let mut world = World::started(seed, 7, Quality::LAN);
        world.hosts[3].udp_blocked = true;
        world.run_for(Duration::from_secs(30));
        assert_eq!(world.deaths.len(), 0);
        let id = world.hosts[3].id;
        let named = |world: &World, host: usize| {
            let swim = world.hosts[host].swim.as_ref();
            swim.and_then(|swim| swim.member(id)).is_some_and(|member| member.udp_blocked)
        };
        assert!(named(&world, 0) && named(&world, 6));
        world.hosts[3].udp_blocked = false;
        world.run_for(Duration::from_secs(10));
        assert!(!named(&world, 0) && !named(&world, 6));
    });
}

#[test]
fn the_halves_of_a_long_partition_find_each_other() {
    let times =
        for_each_seed("membership::scenarios::the_halves_of_a_long_partition_find_each_other", 20, |seed| {
            let mut world = World::started(seed, 8, Quality::LAN);
            world.network.partition(8, |host| host < 4);
            world.run_for(Duration::from_secs(60));
            assert_eq!(world.deaths.len(), 2 * 4 * 4, "each half holds the other dead");
            world.network.heal();
            world.deaths.clear();
            let time = world.run_until_converged(Duration::from_secs(30));
            assert_eq!(world.deaths.len(), 0, "what the halves held of each other killed nobody again");
            world.run_for(Duration::from_secs(10));
            assert_eq!(world.converged(), Ok(()));
            time
        });
    println!("agreement after a healed partition: p50 {:?}", median(times));
}

#[test]
fn a_starved_member_is_not_held_dead() {
    for_each_seed("membership::scenarios::a_starved_member_is_not_held_dead", 20, |seed| {
        let mut world = World::started(seed, 7, Quality::LAN);
        for _ in 0..20 {
            world.freeze(2, Duration::from_secs(1));
            world.freeze(5, Duration::from_millis(700));
            world.run_for(Duration::from_millis(1_300));
        }
        assert_eq!(world.deaths.len(), 0, "{:?}", world.deaths);
        assert!(world.all_counters().stalls > 0);
    });
}

#[test]
fn a_member_wrongly_held_dead_comes_back() {
    for_each_seed("membership::scenarios::a_member_wrongly_held_dead_comes_back", 20, |seed| {
        let mut world = World::started(seed, 5, Quality::LAN);
        let id = world.hosts[1].id;
        world.handle(0, idunno_core::membership::Event::ConnectionRefused { id });
        assert_eq!(world.deaths.keys().next(), Some(&(0, id)));
        world.run_until_converged(Duration::from_secs(3));
    });
}

#[test]
fn a_quiet_cluster_is_cheap() {
    for hosts in [5, 7, 10, 30, 100] {
        let mut world = World::started(1, hosts, Quality::LAN);
        world.run_for(Duration::from_secs(20));
        let before = world.datagram_bytes;
        world.run_for(Duration::from_secs(30));
        let bytes = (world.datagram_bytes - before) / 30 / hosts as u64;
        println!("{hosts} members: {bytes} bytes of datagrams a member and second");
        assert!(bytes < 500, "{hosts} members: {bytes} bytes a member and second, whatever their number");
        assert_eq!(world.deaths.len(), 0);
        assert_eq!(world.all_counters().suspicions, 0);
    }
}
