//! One rule at a time; how voters work together is the simulator's subject.

use idunno_shared::wire::consensus::LogPosition;

use super::*;

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1_000)
}

fn view(voters: impl IntoIterator<Item = u64>, voter_count: usize) -> RingEvent {
    let live_voters = voters.into_iter().map(NodeId).collect();
    RingEvent::RingView(RingView { live_voters, voter_count, ..RingView::default() })
}

fn ring(id: u64) -> Ring {
    Ring::new(RingConfig::default(), NodeId(id), id)
}

fn effects(ring: &mut Ring) -> Vec<RingEffect> {
    std::iter::from_fn(|| ring.poll_effect()).collect()
}

/// Drives `ring` by its own deadlines, nobody answering, until `until`; returns all effects.
fn run(ring: &mut Ring, until: Instant) -> Vec<RingEffect> {
    let mut all = effects(ring);
    while let Some(due) = ring.next_deadline().filter(|&due| due <= until) {
        ring.handle(RingEvent::Tick, due);
        all.extend(effects(ring));
    }
    all
}

#[test]
fn a_single_voter_elects_itself() {
    let mut ring = ring(1);
    ring.handle(view([1], 1), at(0));
    assert_eq!(run(&mut ring, at(30)), [RingEffect::MayStand(true)]);
    ring.handle(RingEvent::LeaderObserved { term: Term(1), id: NodeId(1) }, at(40));
    assert_eq!(effects(&mut ring), [RingEffect::MayStand(false)]);
    assert_eq!(ring.next_deadline(), None);
}

#[test]
fn without_a_live_majority_or_a_vote_nothing_starts() {
    for (voters, count) in [(vec![1, 2], 4), (vec![2, 3], 2)] {
        let mut ring = ring(1);
        ring.handle(view(voters, count), at(0));
        assert_eq!(run(&mut ring, at(10_000)), []);
    }
}

#[test]
fn a_silent_successor_is_tried_twice_then_skipped_and_a_refused_one_at_once() {
    let mut ring = ring(1);
    ring.handle(view([1, 2, 3], 3), at(0));
    let to = |effects: &[RingEffect]| -> Vec<u64> {
        effects
            .iter()
            .filter_map(|effect| if let RingEffect::Send { to, .. } = effect { Some(to.0) } else { None })
            .collect()
    };
    assert_eq!(to(&run(&mut ring, at(330))), [2, 2, 3]);
    ring.handle(RingEvent::HopFailed { to: NodeId(3), hop: 2 }, at(335));
    assert_eq!(effects(&mut ring), [], "alone it is no majority and names nobody");
    assert_eq!(ring.counters().skipped, 2);
}

#[test]
fn after_three_failed_rounds_all_may_stand_until_there_is_a_leader() {
    let mut ring = ring(1);
    ring.handle(view([1, 2, 3], 3), at(0));
    assert!(!run(&mut ring, at(4_500)).contains(&RingEffect::MayStand(true)));
    assert!(run(&mut ring, at(4_700)).contains(&RingEffect::MayStand(true)));
    assert!(ring.is_fallback());
    ring.handle(RingEvent::LeaderObserved { term: Term(2), id: NodeId(3) }, at(5_000));
    assert!(effects(&mut ring).contains(&RingEffect::MayStand(false)));
    ring.handle(RingEvent::LeaderObserved { term: Term(1), id: NodeId(2) }, at(5_001));
    assert_eq!(ring.next_deadline(), None, "an old leader is no news");
}

#[test]
fn a_voter_that_hears_the_leader_takes_no_part_in_a_round() {
    let mut ring = ring(2);
    let led = |hears| {
        let live_voters = [1, 2, 3].map(NodeId).into();
        RingEvent::RingView(RingView {
            live_voters,
            voter_count: 3,
            coordinator: Some(NodeId(3)),
            hears_leader: hears,
            ..RingView::default()
        })
    };
    let nominate = || {
        let round = ElectionId { number: 1, initiator: NodeId(1), nonce: 0 };
        let best = Candidate { log: LogPosition::default(), id: NodeId(1) };
        let visited = Visited::try_from(vec![NodeId(1)]).unwrap();
        let body = RingBody::Nominate { round, best, visited };
        RingEvent::Message { from: NodeId(1), message: RingMessage { hop: 1, term: Term(0), body } }
    };
    ring.handle(led(true), at(0));
    ring.handle(nominate(), at(1));
    assert_eq!(effects(&mut ring), [], "the sender is to skip it");
    assert_eq!(ring.counters().declined, 1);
    ring.handle(led(false), at(2));
    ring.handle(nominate(), at(3));
    assert_eq!(effects(&mut ring).len(), 2, "it acknowledges and passes on");
}

#[test]
fn while_the_leader_is_only_silent_nobody_stands_without_a_round() {
    let mut ring = ring(1);
    let live_voters = [1, 2, 3].map(NodeId).into();
    let silent = RingView { live_voters, voter_count: 3, is_silent: true, ..RingView::default() };
    ring.handle(RingEvent::RingView(silent.clone()), at(0));
    assert!(!run(&mut ring, at(60_000)).contains(&RingEffect::MayStand(true)));
    ring.handle(RingEvent::RingView(RingView { is_silent: false, ..silent }), at(60_000));
    assert!(run(&mut ring, at(65_000)).contains(&RingEffect::MayStand(true)));
}

#[test]
fn an_overtaken_round_is_acknowledged_and_ignored() {
    let mut ring = ring(2);
    ring.handle(view([1, 2, 3], 3), at(0));
    ring.handle(RingEvent::LeaderObserved { term: Term(5), id: NodeId(3) }, at(1));
    effects(&mut ring);
    let round = ElectionId { number: 9, initiator: NodeId(1), nonce: 0 };
    let winner = Candidate { log: LogPosition::default(), id: NodeId(2) };
    let message = RingMessage { hop: 4, term: Term(4), body: RingBody::Elected { round, winner } };
    ring.handle(RingEvent::Message { from: NodeId(1), message }, at(2));
    let ack = RingMessage { hop: 4, term: Term(5), body: RingBody::Ack };
    assert_eq!(effects(&mut ring), [RingEffect::Send { to: NodeId(1), message: ack }]);
    assert_eq!(ring.counters().stale, 1);
}

#[test]
fn the_greater_round_swallows_the_lesser() {
    let mut ring = ring(2);
    ring.handle(view([1, 2, 3], 3), at(0));
    let nominate = |number, initiator| {
        let round = ElectionId { number, initiator: NodeId(initiator), nonce: 0 };
        let best = Candidate { log: LogPosition::default(), id: NodeId(initiator) };
        let visited = Visited::try_from(vec![NodeId(initiator)]).unwrap();
        let body = RingBody::Nominate { round, best, visited };
        RingEvent::Message { from: NodeId(initiator), message: RingMessage { hop: 1, term: Term(0), body } }
    };
    ring.handle(nominate(7, 3), at(0));
    ring.handle(nominate(7, 1), at(1));
    ring.handle(nominate(7, 3), at(1));
    assert_eq!(ring.round().unwrap().initiator, NodeId(3));
    assert_eq!(ring.counters().swallowed, 1);
    ring.handle(nominate(8, 1), at(2));
    assert_eq!(ring.round().unwrap().initiator, NodeId(1), "a later round passes");
}

#[test]
fn who_lost_a_round_stands_no_longer() {
    let mut ring = ring(1);
    ring.handle(view([1, 2, 3], 3), at(0));
    let mut elected = |number, winner| {
        let round = ElectionId { number, initiator: NodeId(2), nonce: 0 };
        let winner = Candidate { log: LogPosition { term: Term(1), index: 1 }, id: NodeId(winner) };
        let message = RingMessage { hop: number, term: Term(0), body: RingBody::Elected { round, winner } };
        ring.handle(RingEvent::Message { from: NodeId(2), message }, at(number));
        effects(&mut ring)
    };
    assert!(elected(8, 1).contains(&RingEffect::MayStand(true)));
    assert!(elected(9, 3).contains(&RingEffect::MayStand(false)));
}
