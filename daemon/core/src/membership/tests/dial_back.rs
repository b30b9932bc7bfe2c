//! Admission: which newcomers are listed.

use super::*;

fn join(id: u64) -> SwimEvent {
    SwimEvent::PushPullRequest { exchange: id, message: list(id, [alive(id + 50)]) }
}

fn answered(seq: u64, target: u64, record: MemberRecord) -> SwimEvent {
    SwimEvent::TcpPingResult { seq, target: NodeId(target), outcome: TcpPingOutcome::Answered { record } }
}

#[test]
fn a_newcomer_is_dialled_back_before_it_is_listed() {
    let mut swim = knowing(2);
    swim.handle(join(7), at(1));
    let asked = effects(&mut swim);
    let pings = tcp_pings(&asked);
    assert_eq!(pings.len(), 1);
    let (seq, to, target, _) = pings[0];
    assert_eq!((to, target), (address(7), NodeId(7)));
    assert_eq!((state_of(&swim, 7), state_of(&swim, 57)), (None, None));
    assert!(!asked.iter().any(|effect| matches!(effect, SwimEffect::ReplyPushPull { .. })));
    swim.handle(answered(seq, 7, alive(7)), at(2));
    assert_eq!(state_of(&swim, 7), Some(MemberState::Alive));
    assert_eq!(state_of(&swim, 57), Some(MemberState::Alive), "and the members that it knows");
    let reply = effects(&mut swim);
    assert!(reply.iter().any(|effect| matches!(effect, SwimEffect::ReplyPushPull { exchange: 7, .. })));
}

#[test]
fn a_newcomer_that_does_not_answer_at_its_address_is_refused_with_the_reason() {
    let elsewhere = MemberRecord { address: address(8), ..alive(7) };
    for (outcome, words) in [
        (TcpPingOutcome::Refused, ["vm7", "10.0.0.1:7007", "listen"]),
        (TcpPingOutcome::TimedOut, ["vm7", "10.0.0.1:7007", "2000 ms"]),
        (TcpPingOutcome::Answered { record: alive(8) }, ["vm7", "10.0.0.1:7007", "does not listen"]),
        (TcpPingOutcome::Answered { record: elsewhere }, ["vm7", "10.0.0.1:7007", "does not listen"]),
    ] {
        let mut swim = knowing(2);
        swim.handle(join(7), at(1));
        let seq = tcp_pings(&effects(&mut swim))[0].0;
        swim.handle(SwimEvent::TcpPingResult { seq, target: NodeId(7), outcome: outcome.clone() }, at(2));
        assert_eq!((state_of(&swim, 7), state_of(&swim, 57)), (None, None), "{outcome:?}");
        let refusals: Vec<_> = effects(&mut swim)
            .into_iter()
            .filter_map(|effect| match effect {
                SwimEffect::RefusePushPull { exchange: 7, error } => Some(error.to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(refusals.len(), 1);
        assert!(words.iter().all(|word| refusals[0].contains(word)), "{}", refusals[0]);
    }
}

#[test]
fn gossip_of_unknown_senders_counts_only_about_themselves_and_once_dialled() {
    let mut swim = knowing(2);
    swim.handle(rumour(7, [alive(7), alive(8), record(2, 0, MemberState::Dead)]), at(1));
    assert_eq!([2, 7, 8].map(|id| state_of(&swim, id)), [Some(MemberState::Alive), None, None]);
    assert_eq!(swim.counters().ignored_rumours, 2);
    swim.handle(rumour(7, [alive(7)]), at(1));
    let pings = tcp_pings(&effects(&mut swim));
    assert_eq!(pings.len(), 1, "it is dialled once at a time");
    swim.handle(
        SwimEvent::TcpPingResult { seq: pings[0].0, target: NodeId(7), outcome: TcpPingOutcome::TimedOut },
        at(2_100),
    );
    swim.handle(rumour(7, [alive(7)]), at(2_200));
    assert!(tcp_pings(&effects(&mut swim)).iter().all(|ping| ping.2 != NodeId(7)), "and then left alone");
    swim.handle(rumour(7, [alive(7)]), at(7_200));
    let pings = tcp_pings(&effects(&mut swim));
    let ping = pings.iter().find(|ping| ping.2 == NodeId(7)).unwrap();
    swim.handle(answered(ping.0, 7, alive(7)), at(7_300));
    assert_eq!(state_of(&swim, 7), Some(MemberState::Alive));
}

#[test]
fn a_member_that_moves_is_dialled_where_it_moved() {
    let mut swim = knowing(3);
    let moved = MemberRecord { address: address(9), generation: Generation(2), ..alive(2) };
    swim.handle(rumour(2, [moved.clone()]), at(1));
    assert_eq!(swim.member(NodeId(2)).unwrap().record, alive(2));
    let (seq, to, ..) = tcp_pings(&effects(&mut swim))[0];
    assert_eq!(to, address(9));
    swim.handle(SwimEvent::TcpPingResult { seq, target: NodeId(2), outcome: TcpPingOutcome::Refused }, at(2));
    assert_eq!(state_of(&swim, 2), Some(MemberState::Alive), "a move that fails is no death");
    swim.handle(rumour(3, [moved.clone()]), at(3));
    assert_eq!(swim.member(NodeId(2)).unwrap().record, moved, "what members say of each other counts");
}

#[test]
fn a_suspect_that_answers_from_elsewhere_is_dialled_there() {
    let mut swim = knowing(3);
    swim.handle(rumour(3, [record(2, 0, MemberState::Suspect)]), at(1));
    effects(&mut swim);
    let moved = MemberRecord { address: address(9), ..record(2, 1, MemberState::Alive) };
    swim.handle(answered(999, 2, moved.clone()), at(2));
    assert_eq!(state_of(&swim, 2), Some(MemberState::Suspect), "its word alone does not count");
    let (seq, to, ..) = tcp_pings(&effects(&mut swim))[0];
    assert_eq!(to, address(9));
    swim.handle(answered(seq, 2, moved.clone()), at(3));
    assert_eq!(swim.member(NodeId(2)).unwrap().record, moved);
}

#[test]
fn newcomers_under_way_are_bounded() {
    let mut swim = knowing(2);
    for id in 100..100 + MAX_DIAL_BACKS as u64 + 3 {
        swim.handle(join(id), at(1));
    }
    let refused = effects(&mut swim);
    let busy = |effect: &&SwimEffect| {
        matches!(effect, SwimEffect::RefusePushPull { error: AdmissionError::Busy, .. })
    };
    assert_eq!(refused.iter().filter(busy).count(), 3);
}
