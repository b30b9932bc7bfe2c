//! Bounds on the time to detect deaths and on traffic, and the recovery from a false death.

use std::time::Duration;

use idunno_tests::seeds::for_each_seed;
use rand::RngExt;

use super::world::World;
use crate::network::Quality;

/// Kills one member of `hosts` and returns when the first and the last of the others declared it dead.
fn detection(seed: u64, hosts: usize, powered_off: bool) -> (Duration, Duration) {
    let mut world = World::started(seed, hosts, Quality::LAN);
    let pause = world.network.rng.random_range(500..2_000);
    world.run_for(Duration::from_millis(pause));
    assert_eq!(world.deaths.len(), 0, "no member has died yet");
    let (victim, killed_at) = (world.network.rng.random_range(0..hosts), world.now);
    let id = world.hosts[victim].id;
    world.crash(victim, powered_off);
    world.run_until_converged(Duration::from_secs(20));
    assert!(world.deaths.keys().all(|&(_, dead)| dead == id), "only the killed member is declared dead");
    let times: Vec<_> = world.deaths.values().map(|at| at.since(killed_at)).collect();
    (times.iter().min().copied().unwrap_or_default(), times.iter().max().copied().unwrap_or_default())
}

pub(super) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[test]
fn deaths_are_detected_in_time() {
    for (hosts, silent_bound_ms, refused_bound_ms) in
        [(5, 5_000, 2_500), (7, 5_000, 2_500), (10, 5_500, 2_500), (30, 7_000, 2_500), (100, 9_000, 4_000)]
    {
        for (powered_off, bound_ms) in [(true, silent_bound_ms), (false, refused_bound_ms)] {
            let count = if hosts == 100 { 3 } else { 20 };
            let times = for_each_seed("membership::scenarios::deaths_are_detected_in_time", count, |seed| {
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
fn a_member_wrongly_declared_dead_comes_back() {
    for_each_seed("membership::scenarios::a_member_wrongly_declared_dead_comes_back", 20, |seed| {
        let mut world = World::started(seed, 5, Quality::LAN);
        let id = world.hosts[1].id;
        world.handle(0, idunno_core::membership::SwimEvent::ConnectionRefused { id });
        assert_eq!(world.deaths.keys().next(), Some(&(0, id)));
        world.run_until_converged(Duration::from_secs(3));
    });
}

#[test]
fn a_quiet_cluster_sends_little() {
    for hosts in [5, 7, 10, 30, 100] {
        let mut world = World::started(1, hosts, Quality::LAN);
        world.run_for(Duration::from_secs(20));
        let before = world.datagram_bytes;
        world.run_for(Duration::from_secs(30));
        let bytes = (world.datagram_bytes - before) / 30 / hosts as u64;
        println!("{hosts} members: {bytes} bytes of datagrams per member and second");
        assert!(bytes < 500, "{hosts} members: {bytes} bytes per member and second");
        assert_eq!(world.deaths.len(), 0);
        assert_eq!(world.all_counters().suspicions, 0);
    }
}
