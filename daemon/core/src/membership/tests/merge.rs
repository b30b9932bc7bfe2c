//! Which records count, and what this member publishes of itself.

use super::*;

#[test]
fn the_greater_record_wins_in_any_order() {
    let records = [
        record(2, 0, MemberState::Alive),
        record(2, 0, MemberState::Suspect),
        record(2, 0, MemberState::Dead),
        record(2, 1, MemberState::Alive),
    ];
    for first in 0..records.len() {
        let mut swim = knowing(3);
        for place in 0..records.len() {
            swim.handle(rumour(3, [records[(first + place) % records.len()].clone()]), at(1));
        }
        assert_eq!(swim.member(NodeId(2)).unwrap().record, records[3]);
    }
}

#[test]
fn a_later_generation_beats_any_state_of_an_older_one() {
    for state in [MemberState::Alive, MemberState::Suspect, MemberState::Dead, MemberState::Left] {
        let mut swim = knowing(3);
        swim.handle(rumour(3, [record(2, 9, state)]), at(1));
        assert_eq!(state_of(&swim, 2), Some(state));
        let restarted = MemberRecord { generation: Generation(2), ..alive(2) };
        swim.handle(rumour(3, [restarted.clone()]), at(2));
        assert_eq!(swim.member(NodeId(2)).unwrap().record, restarted, "after {state:?}");
        swim.handle(rumour(3, [record(2, 10, MemberState::Left)]), at(3));
        assert_eq!(state_of(&swim, 2), Some(MemberState::Alive), "old news of the boot before");
    }
}

#[test]
fn a_member_refutes_what_is_false_of_it() {
    let mut swim = knowing(2);
    swim.handle(rumour(2, [record(1, 4, MemberState::Dead)]), at(1));
    assert_eq!(swim.self_record().incarnation, Incarnation(5));
    assert_eq!(swim.local_health(), 1, "a suspected member may have been slow");
    let sent = run(&mut swim, at(150));
    let refutation = record(1, 5, MemberState::Alive);
    let is_gossiped = datagrams(&sent)
        .into_iter()
        .any(|(_, message)| message.rumours.as_slice().iter().any(|rumour| rumour.record == refutation));
    assert!(is_gossiped, "the refutation is gossiped at once");
    swim.handle(rumour(2, [record(1, 4, MemberState::Suspect)]), at(151));
    assert_eq!(swim.self_record().incarnation, Incarnation(5), "old news needs no further one");
    // But a member that has only old news gets it (found by the simulator: a member died because one other missed its refutation).
    let remarks = effects(&mut swim);
    let (to, message) = datagrams(&remarks)[0];
    assert_eq!((to, message.body), (address(2), DatagramBody::Remark));
    assert_eq!(message.rumours.as_slice()[0].record, refutation);
}

#[test]
fn a_new_identity_at_an_address_ends_the_old_one() {
    let mut swim = knowing(3);
    swim.handle(rumour(3, [MemberRecord { address: address(2), ..alive(9) }]), at(2));
    assert_eq!(state_of(&swim, 2), Some(MemberState::Dead));
    assert_eq!(state_of(&swim, 9), Some(MemberState::Alive));
    swim.handle(rumour(9, [MemberRecord { address: address(1), ..alive(8) }]), at(3));
    assert_eq!(state_of(&swim, 8), Some(MemberState::Dead), "this process listens there");
}

#[test]
fn a_death_in_a_list_is_a_suspicion() {
    let mut swim = knowing(3);
    let message = list(
        3,
        [record(2, 0, MemberState::Dead), record(4, 0, MemberState::Dead), record(5, 0, MemberState::Left)],
    );
    swim.handle(SwimEvent::PushPullRequest { exchange: 7, message }, at(2));
    let states = [2, 3, 4, 5].map(|id| state_of(&swim, id).unwrap());
    assert_eq!(states, [MemberState::Suspect, MemberState::Alive, MemberState::Dead, MemberState::Left]);
    let reply = effects(&mut swim).into_iter().find_map(|effect| match effect {
        SwimEffect::ReplyPushPull { exchange: 7, message } => Some(message),
        _ => None,
    });
    assert_eq!(reply.unwrap().members.as_slice().len(), 4);
}

#[test]
fn the_list_of_the_gone_is_bounded() {
    let mut swim = knowing(2);
    for id in 3..=(MAX_GONE as u64 + 53) {
        swim.handle(rumour(2, [record(id, 0, MemberState::Dead)]), at(id));
    }
    assert_eq!(swim.members().count(), 1 + MAX_GONE);
    assert_eq!(state_of(&swim, 3), None, "the longest gone is forgotten");
}

#[test]
fn memory_of_a_name_is_bounded() {
    let mut swim = knowing(2);
    for id in 3..50 {
        let wiped = MemberRecord { name: "vm9".parse().unwrap(), address: address(3), ..alive(id) };
        swim.handle(rumour(2, [wiped]), at(id));
    }
    let gone = swim.members().filter(|member| !member.record.state.is_live());
    let gone: Vec<_> = gone.map(|member| member.record.id.0).collect();
    assert_eq!(gone, [47, 48], "the last two identities of that name");
    assert_eq!(state_of(&swim, 49), Some(MemberState::Alive));
}

#[test]
fn the_gone_are_forgotten_everywhere_at_one_time() {
    let day = SwimConfig::default().forget_after;
    let mut swim = knowing(2);
    swim.handle(rumour(2, [record(3, 0, MemberState::Dead)]), at(0));
    let mut later = Swim::new(SwimConfig::default(), alive(4), 4, at(0));
    let half = at(0) + day / 2;
    swim.handle(SwimEvent::PushPullRequest { exchange: 1, message: list(2, []) }, half);
    let reply = effects(&mut swim).into_iter().find_map(|effect| match effect {
        SwimEffect::ReplyPushPull { message, .. } => Some(message),
        _ => None,
    });
    later.handle(SwimEvent::PushPullReply { from: address(1), message: reply.unwrap() }, half);
    assert_eq!(state_of(&later, 3), Some(MemberState::Dead), "who joins later learns of it");
    for swim in [&mut swim, &mut later] {
        swim.handle(SwimEvent::Tick, at(0) + day.mul_f64(0.99));
        assert_eq!(state_of(swim, 3), Some(MemberState::Dead));
        swim.handle(SwimEvent::Tick, at(0) + day + Duration::from_secs(5));
        assert_eq!(state_of(swim, 3), None, "it does not go round for ever");
    }
}
