//! Starved members, and members that cannot be reached.

use std::time::Duration;

use idunno_core::membership::{AdmissionError, Swim, SwimConfig};
use idunno_tests::seeds::for_each_seed;
use rand::RngExt;

use super::world::{World, address};
use crate::network::Quality;

#[test]
fn a_member_with_pauses_is_not_declared_dead() {
    for_each_seed("membership::local_health::a_member_with_pauses_is_not_declared_dead", 20, |seed| {
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

/// Starves one of `hosts` for two minutes. Returns how often others were declared dead, and its worst health score.
fn starve(seed: u64, hosts: usize, config: SwimConfig) -> (usize, u32) {
    // Enough loss that its few probes fail, so that it suspects others.
    let quality = Quality { loss_per_mille: 150, ..Quality::LAN };
    let mut world = World::started_with(seed, hosts, config, quality);
    let starved = world.hosts[0].id;
    let until = world.now + Duration::from_secs(120);
    let mut local_health_max = 0;
    while world.now < until {
        let (asleep, awake) =
            (world.network.rng.random_range(500..3_000), world.network.rng.random_range(10..800));
        world.freeze(0, Duration::from_millis(asleep));
        world.run_for(Duration::from_millis(asleep + awake));
        let health = world.hosts[0].swim.as_ref().map_or(0, Swim::local_health);
        local_health_max = local_health_max.max(health);
    }
    (world.deaths.keys().filter(|&&(_, id)| id != starved).count(), local_health_max)
}

#[test]
fn a_starved_member_causes_no_false_deaths_of_healthy_ones() {
    let name = "membership::local_health::a_starved_member_causes_no_false_deaths_of_healthy_ones";
    for hosts in [5, 10] {
        for_each_seed(name, 20, |seed| {
            let (false_deaths, health) = starve(seed, hosts, SwimConfig::default());
            assert_eq!(false_deaths, 0, "{hosts} members");
            assert!(health >= 2, "its health score rose to only {health}");
        });
    }
}

#[test]
fn an_unreachable_newcomer_is_refused_with_the_reason() {
    let name = "membership::local_health::an_unreachable_newcomer_is_refused_with_the_reason";
    for_each_seed(name, 20, |seed| {
        let mut world = World::started(seed, 6, Quality::LAN);
        world.wipe(5);
        world.run_until_converged(Duration::from_secs(10));
        let (id, refused_before) = (world.hosts[5].id, world.refusals.len());
        // First at an unused address, then at another member's.
        for wrong in [90, 2] {
            world.hosts[5].advertises = Some(address(wrong));
            world.start(5, &[0, 1]);
            world.run_for(Duration::from_secs(20));
            for host in 0..5 {
                let known = world.hosts[host].swim.as_ref().and_then(|swim| swim.member(id));
                assert!(known.is_none_or(|member| !member.record.state.is_live()), "{host}: {known:?}");
            }
            let (newcomer, _, error) = world.refusals.last().unwrap();
            assert_eq!(*newcomer, 5);
            let expected = match error {
                AdmissionError::NoAnswer { address: named, .. } => wrong == 90 && *named == address(90),
                AdmissionError::NotListening { address: named, .. } => wrong == 2 && *named == address(2),
                AdmissionError::Busy => false,
            };
            assert!(expected, "{error}");
            world.crash(5, false);
        }
        assert!(world.refusals.len() >= refused_before + 4);
        world.hosts[5].advertises = None;
        world.start(5, &[0]);
        world.run_until_converged(Duration::from_secs(20));
    });
}
