//! Joining, leaving, and reconnects to the lost.

use super::*;

#[test]
fn joining_is_retried_until_a_seed_answers() {
    let mut swim = alone();
    swim.handle(SwimEvent::Join { seeds: vec![address(1), address(2)] }, at(0));
    let tried = run(&mut swim, at(20_000));
    let attempts = reconnects(&tried, address(2)).len();
    assert!((10..40).contains(&attempts), "{attempts} attempts in 20 s");
    assert!(!swim.has_joined());
    swim.handle(SwimEvent::PushPullReply { from: address(2), message: list(2, []) }, at(20_000));
    assert!(swim.has_joined());
    assert_eq!(swim.live_len(), 1);
}

#[test]
fn leaving_is_announced_and_a_new_join_comes_back() {
    let mut swim = knowing(2);
    swim.handle(SwimEvent::Leave, at(10));
    let sent = run(&mut swim, at(1_000));
    assert!(sent.contains(&SwimEffect::LeaveDone) && swim.has_left() && swim.next_deadline().is_none());
    swim.handle(SwimEvent::PushPullRequest { exchange: 1, message: list(2, []) }, at(2_000));
    let reply = PushPull {
        from: record(1, 0, MemberState::Left),
        members: Bounded::default(),
        founder: None,
        sent_ms: None,
    };
    assert_eq!(effects(&mut swim), [SwimEffect::ReplyPushPull { exchange: 1, message: reply }]);
    swim.handle(SwimEvent::Join { seeds: vec![address(2)] }, at(5_000));
    assert_eq!(*swim.self_record(), record(1, 1, MemberState::Alive));
    // The simulator's seed 125: what others had forgotten meanwhile came back to life through its old list.
    assert_eq!(swim.live_len(), 0, "it learns the members again");
    let mut lonely = alone();
    lonely.handle(SwimEvent::Leave, at(1));
    assert_eq!(effects(&mut lonely), [SwimEffect::LeaveDone]);
}

/// How many lists went to `to`.
fn reconnects(effects: &[SwimEffect], address: SocketAddr) -> Vec<&SwimEffect> {
    effects
        .iter()
        .filter(|effect| matches!(effect, SwimEffect::StartPushPull { to, .. } if *to == address))
        .collect()
}

/// The reconnects to `to` in each of the next seconds.
fn offers_a_second(swim: &mut Swim, from_s: u64, to_s: u64, to: SocketAddr) -> Vec<usize> {
    (from_s..to_s).map(|second| reconnects(&run(swim, at((second + 1) * 1_000)), to).len()).collect()
}

#[test]
fn the_dead_are_offered_the_list_with_back_off_and_without_end() {
    let mut swim = alone();
    swim.handle(
        SwimEvent::PushPullReply { from: address(2), message: list(2, [record(3, 0, MemberState::Dead)]) },
        at(0),
    );
    swim.handle(SwimEvent::ConnectionRefused { id: NodeId(2) }, at(1));
    let counts = offers_a_second(&mut swim, 0, 600, address(3));
    let waits: Vec<_> =
        counts.iter().enumerate().filter(|&(_, &count)| count > 0).map(|(second, _)| second).collect();
    assert!(waits.len() >= 15, "it goes on: {waits:?}");
    let gaps: Vec<_> = waits.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps[..3].iter().sum::<usize>() <= 10, "soon at first: {gaps:?}");
    assert!(gaps.iter().skip(6).all(|&gap| (20..45).contains(&gap)), "then seldom: {gaps:?}");
    assert!(counts.iter().all(|&count| count <= 2));
}

#[test]
fn lists_are_exchanged_with_an_unknown_sender() {
    let mut swim = knowing(2);
    for ms in [1, 2, 900] {
        swim.handle(datagram(9, DatagramBody::Ping { seq: 1, target: NodeId(1) }, []), at(ms));
    }
    assert_eq!(reconnects(&effects(&mut swim), address(9)).len(), 1, "now and then");
    assert_eq!(
        reconnects(&run(&mut swim, at(1_001)), address(2)).len(),
        1,
        "and once more with one who is known"
    );
    swim.handle(SwimEvent::PushPullReply { from: address(9), message: list(9, [alive(7)]) }, at(1_100));
    assert_eq!([9, 7].map(|id| state_of(&swim, id)), [Some(MemberState::Alive); 2]);
    effects(&mut swim);
    swim.handle(datagram(9, DatagramBody::Ping { seq: 2, target: NodeId(1) }, []), at(2_100));
    assert!(reconnects(&effects(&mut swim), address(9)).is_empty(), "it is none any more");
}

#[test]
fn addresses_that_the_introducer_names_are_reconnected_to_unless_a_live_member_is_there() {
    let mut swim = knowing(2);
    swim.handle(SwimEvent::Introduced { addresses: vec![address(1), address(2), address(9)] }, at(1));
    let offered = run(&mut swim, at(1_500));
    let to = |id| reconnects(&offered, address(id)).len();
    assert_eq!((to(1), to(2)), (0, 0));
    assert!(to(9) >= 1);
    let many = (0..500).map(address).collect();
    swim.handle(SwimEvent::Introduced { addresses: many }, at(1_500));
    run(&mut swim, at(60_000));
    swim.handle(SwimEvent::Introduced { addresses: Vec::new() }, at(60_000));
    run(&mut swim, at(62_000));
    assert!(reconnects(&run(&mut swim, at(120_000)), address(9)).is_empty(), "the last word counts");
}
