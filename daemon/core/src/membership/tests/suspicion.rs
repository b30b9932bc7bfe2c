//! How long suspects have to refute, and which messages are sent about them.

use super::*;

/// When member 2 was dead to member 1 of `members`, having been suspected at 0 by these, one after another, all at once.
fn death(members: u64, witnesses: &[u64]) -> Duration {
    let mut swim = knowing(members);
    for &witness in witnesses {
        swim.handle(confirmation(witness, 2, &[witness]), at(1));
    }
    // All others answer, so that this member does not confirm itself and is not in doubt.
    while state_of(&swim, 2) != Some(MemberState::Dead) {
        let due = swim.next_deadline().unwrap();
        swim.handle(SwimEvent::Tick, due);
        let sent = effects(&mut swim);
        for (to, message) in datagrams(&sent) {
            if let DatagramBody::Ping { seq, .. } = message.body {
                let from = u64::from(to.port() - 7_000);
                swim.handle(datagram(from, DatagramBody::Ack { seq }, []), due);
            }
        }
        if due > at(60_000) {
            return Duration::MAX;
        }
    }
    swim.member(NodeId(2)).unwrap().since.since(at(1))
}

#[test]
fn confirmations_shorten_a_suspicion() {
    let config = SwimConfig::default();
    let times: Vec<_> = (1..=5).map(|count| death(9, &[3, 4, 5, 6, 7][..count])).collect();
    let expected = [0, 1, 2, 3, 3].map(|confirmations| config.suspicion_timeout(9, confirmations));
    assert_eq!(times, expected);
    assert_eq!(expected[0], expected[3] * config.suspicion_stretch);
    assert_eq!(death(9, &[3, 3, 3]), expected[0], "one witness is no confirmation of itself");
}

#[test]
fn small_clusters_wait_for_no_more_witnesses_than_survive() {
    for (members, wanted) in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (6, 2), (7, 3), (1_000, 3)] {
        assert_eq!(SwimConfig::confirmations_wanted(members), wanted, "{members} members");
        let config = SwimConfig::default();
        let times: Vec<_> = (0..5).map(|count| config.suspicion_timeout(members, count)).collect();
        assert!(times.is_sorted_by(|earlier, later| earlier >= later), "{times:?}");
        assert!(times[wanted] * config.suspicion_stretch >= times[0]);
        assert_eq!(times[wanted], times[4]);
    }
}

#[test]
fn what_witnesses_say_is_passed_on_and_bounded() {
    let mut swim = knowing(9);
    swim.handle(confirmation(3, 2, &[3]), at(1));
    swim.handle(confirmation(4, 2, &[5, 6]), at(2));
    swim.handle(confirmation(4, 2, &[7, 8]), at(3));
    effects(&mut swim);
    swim.handle(datagram(9, DatagramBody::Ping { seq: 1, target: NodeId(1) }, []), at(4));
    let sent = effects(&mut swim);
    let (_, message) = datagrams(&sent)[0];
    let sent = &message.rumours.as_slice()[0];
    assert_eq!(sent.record, record(2, 0, MemberState::Suspect));
    assert_eq!(sent.witnesses.as_slice(), [3, 5, 6, 7].map(NodeId));
}

#[test]
fn a_message_to_a_suspect_carries_the_suspicion() {
    let mut swim = knowing(4);
    swim.handle(confirmation(3, 2, &[3]), at(1));
    // All rumours have been sent often enough.
    run(&mut swim, at(450));
    let mut sent = |from: u64| {
        swim.handle(datagram(from, DatagramBody::Ping { seq: 1, target: NodeId(1) }, []), at(451));
        let sent = effects(&mut swim);
        let (_, message) = datagrams(&sent)[0];
        message.rumours.as_slice().iter().map(|rumour| rumour.record.clone()).collect::<Vec<_>>()
    };
    assert_eq!(sent(3), []);
    assert_eq!(sent(2), [record(2, 0, MemberState::Suspect)]);
}

#[test]
fn a_suspect_is_told_at_once_over_tcp() {
    let mut swim = knowing(2);
    while swim.counters().suspicions == 0 {
        effects(&mut swim);
        let due = swim.next_deadline().unwrap();
        swim.handle(SwimEvent::Tick, due);
    }
    let sent = effects(&mut swim);
    let Some(accusation) = sent.iter().find_map(|effect| match effect {
        SwimEffect::TcpPing { seq, message, .. } => {
            let state = message.believed.as_ref().map(|believed| believed.state);
            (state == Some(MemberState::Suspect)).then_some((*seq, message.clone()))
        }
        _ => None,
    }) else {
        panic!("the suspect was not notified over TCP")
    };
    let mut suspect = Swim::new(SwimConfig::default(), alive(2), 2, at(0));
    suspect.handle(SwimEvent::TcpPingRequest { exchange: 3, message: accusation.1 }, at(1_450));
    let answer = effects(&mut suspect).into_iter().find_map(|effect| match effect {
        SwimEffect::AnswerTcpPing { exchange: 3, message } => Some(message),
        _ => None,
    });
    let outcome = TcpPingOutcome::Answered { record: answer.unwrap().record };
    swim.handle(SwimEvent::TcpPingResult { seq: accusation.0, target: NodeId(2), outcome }, at(1_450));
    assert_eq!(swim.member(NodeId(2)).unwrap().record, record(2, 1, MemberState::Alive));
}

#[test]
fn a_suspicion_of_the_dead_is_confirmed() {
    let mut swim = knowing(3);
    swim.handle(rumour(3, [record(2, 0, MemberState::Dead)]), at(1));
    effects(&mut swim);
    swim.handle(confirmation(3, 2, &[3]), at(2));
    let sent = effects(&mut swim);
    let (to, message) = datagrams(&sent)[0];
    let sent = &message.rumours.as_slice()[0];
    assert_eq!((to, &sent.record), (address(3), &record(2, 0, MemberState::Suspect)));
    assert_eq!(sent.witnesses.as_slice(), [NodeId(1)]);
    assert_eq!(state_of(&swim, 2), Some(MemberState::Dead));
    // Two members that both know better would else answer each other without end (the simulator's seed 16).
    let remark = Rumour { record: sent.record.clone(), witnesses: Bounded::default() };
    swim.handle(datagram(3, DatagramBody::Remark, [remark]), at(3));
    assert!(datagrams(&effects(&mut swim)).is_empty(), "a remark is not answered");
}

#[test]
fn a_suspicion_that_is_heard_of_is_looked_into_next() {
    // In a cluster of 7 all others do.
    let mut swim = knowing(7);
    swim.handle(confirmation(3, 5, &[3]), at(1));
    let sent = run(&mut swim, at(510));
    let probed = datagrams(&sent).into_iter().find_map(|(_, message)| match message.body {
        DatagramBody::Ping { target, .. } => Some(target),
        _ => None,
    });
    assert_eq!(probed, Some(NodeId(5)));
}
