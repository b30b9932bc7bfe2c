//! A host that gets another address while its member runs, and one that is never reached again.

use std::time::Duration;

use idunno_shared::wire::membership::MemberState;
use idunno_tests::seeds::for_each_seed;

use super::world::World;
use crate::network::Quality;

const HOSTS: usize = 5;
const MOVED: usize = 1;

/// Whether every other member lists the moved one as alive at its present address.
fn is_listed(world: &World) -> bool {
    let (id, address) = (world.hosts[MOVED].id, world.address_of(MOVED));
    let others = world.hosts.iter().filter(|host| host.id != id).filter_map(|host| host.swim.as_ref());
    let records =
        others.map(|swim| swim.member(id).map(|member| (member.record.state, member.record.address)));
    records.into_iter().all(|record| record == Some((MemberState::Alive, address)))
}

#[test]
fn a_member_whose_address_changed_is_listed_at_the_new_one_by_all() {
    for_each_seed(
        "membership::moves::a_member_whose_address_changed_is_listed_at_the_new_one_by_all",
        50,
        |seed| {
            let mut world = World::started(seed, HOSTS, Quality::LAN);
            world.move_host(MOVED);
            world.run_for(Duration::from_millis(seed * 97 % 4_000));
            world.tell_move(MOVED);
            let told = world.now;
            while !is_listed(&world) {
                assert!(world.now.since(told) < Duration::from_secs(8), "not listed at its new address");
                world.run_for(Duration::from_millis(100));
            }
            world.run_until_converged(Duration::from_secs(8));
            world.run_for(Duration::from_secs(10));
            let (before, deaths) = (world.changes, world.deaths.len());
            world.run_for(Duration::from_secs(60));
            assert_eq!((world.changes, world.deaths.len()), (before, deaths), "it is stable");
            assert!(is_listed(&world));
        },
    );
}

#[test]
fn a_member_that_is_never_reached_flaps_a_few_times_is_named_and_stays_dead() {
    let name = "membership::moves::a_member_that_is_never_reached_flaps_a_few_times_is_named_and_stays_dead";
    let flaps = for_each_seed(name, 20, |seed| {
        let mut world = World::started(seed, HOSTS, Quality::LAN);
        // Nobody tells it, so that it goes on sending from an address at which nobody looks for it.
        world.move_host(MOVED);
        let before = world.changes;
        world.run_for(Duration::from_secs(40));
        let id = world.hosts[MOVED].id;
        let flaps = (world.changes - before) / (HOSTS as u64 - 1);
        let quiet = world.changes;
        world.run_for(Duration::from_secs(120));
        assert_eq!(world.changes, quiet, "nobody sees it change any more");
        for observer in (0..HOSTS).filter(|&host| host != MOVED) {
            let swim = world.hosts[observer].swim.as_ref();
            let state = swim.and_then(|swim| swim.member(id)).map(|member| member.record.state);
            assert_eq!(state, Some(MemberState::Dead), "{observer} holds it for up");
        }
        // Once it is reached, it is back.
        world.tell_move(MOVED);
        world.run_until_converged(Duration::from_secs(40));
        assert!(is_listed(&world));
        (flaps, world.flapping.len())
    });
    println!("changes seen by each member, and who named it: {flaps:?}");
    let most = flaps.iter().map(|&(flaps, _)| flaps).max().unwrap_or_default();
    assert!(most <= 12, "{most} changes before it was dead to all");
    assert!(flaps.iter().any(|&(_, named)| named > 0), "nobody ever named it");
}
