//! One rule at a time; how they work together is the simulator's subject.

use std::net::SocketAddr;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{
    Datagram, DatagramBody, Generation, Incarnation, MemberRecord, MemberState, PushPull, Records,
};

use super::*;

fn address(id: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 7_000 + u16::try_from(id).unwrap()))
}

fn record(id: u64, incarnation: u64, state: MemberState) -> MemberRecord {
    MemberRecord {
        id: NodeId(id),
        name: format!("vm{id}").parse().unwrap(),
        address: address(id),
        generation: Generation(1),
        incarnation: Incarnation(incarnation),
        state,
    }
}

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1_000)
}

fn swim(id: u64) -> Swim {
    Swim::new(Config::default(), record(id, 0, MemberState::Alive), id, Instant::START)
}

fn rumour(from: u64, records: impl IntoIterator<Item = MemberRecord>) -> Event {
    let message =
        Datagram { from: NodeId(from), body: DatagramBody::Gossip, rumours: Records::bounded(records) };
    Event::Datagram { from: address(from), message }
}

fn list(from: u64, records: impl IntoIterator<Item = MemberRecord>) -> PushPull {
    PushPull { from: record(from, 0, MemberState::Alive), members: Records::bounded(records) }
}

fn effects(swim: &mut Swim) -> Vec<Effect> {
    std::iter::from_fn(|| swim.poll_effect()).collect()
}

/// Drives `swim` by its own deadlines, nobody answering, until `until`; returns all effects.
fn run(swim: &mut Swim, until: Instant) -> Vec<Effect> {
    let mut all = effects(swim);
    while let Some(due) = swim.next_deadline().filter(|&due| due <= until) {
        swim.handle(Event::Tick, due);
        all.extend(effects(swim));
    }
    all
}

fn state_of(swim: &Swim, id: u64) -> Option<MemberState> {
    swim.member(NodeId(id)).map(|member| member.record.state)
}

#[test]
fn the_greater_record_wins_in_any_order() {
    let records = [
        record(2, 0, MemberState::Alive),
        record(2, 0, MemberState::Suspect),
        record(2, 0, MemberState::Dead),
        record(2, 1, MemberState::Alive),
    ];
    for first in 0..records.len() {
        let mut swim = swim(1);
        for place in 0..records.len() {
            swim.handle(rumour(3, [records[(first + place) % records.len()].clone()]), at(1));
        }
        assert_eq!(swim.member(NodeId(2)).unwrap().record, records[3]);
    }
}

#[test]
fn a_member_contradicts_what_is_false_of_it() {
    let mut swim = swim(1);
    swim.handle(rumour(2, [record(2, 0, MemberState::Alive), record(1, 4, MemberState::Dead)]), at(1));
    assert_eq!(swim.self_record().incarnation, Incarnation(5));
    let told = effects(&mut swim).into_iter().any(|effect| {
        matches!(effect, Effect::SendDatagram { message, .. }
            if message.rumours.as_slice().contains(&record(1, 5, MemberState::Alive)))
    });
    assert!(told, "the contradiction is gossiped at once");
    swim.handle(rumour(2, [record(1, 4, MemberState::Suspect)]), at(2));
    assert_eq!(swim.self_record().incarnation, Incarnation(5), "old news needs no contradiction");
}

#[test]
fn a_silent_member_is_suspected_then_dead_and_a_refused_one_dead_at_once() {
    let mut swim = swim(1);
    swim.handle(rumour(2, [record(2, 0, MemberState::Alive), record(3, 0, MemberState::Alive)]), at(1));
    let tried = run(&mut swim, at(600));
    assert!(tried.iter().any(|effect| matches!(effect, Effect::TcpPing { .. })));
    run(&mut swim, at(1_700));
    assert_eq!(state_of(&swim, 2), Some(MemberState::Suspect));
    swim.handle(Event::ConnectionRefused { id: NodeId(3) }, at(1_700));
    assert_eq!(state_of(&swim, 3), Some(MemberState::Dead));
    run(&mut swim, at(4_000));
    assert_eq!(state_of(&swim, 2), Some(MemberState::Dead));
    swim.handle(rumour(2, [record(2, 1, MemberState::Alive)]), at(4_100));
    assert_eq!(state_of(&swim, 2), Some(MemberState::Alive), "a higher incarnation brings it back");
}

#[test]
fn an_answer_over_tcp_names_the_blocked_datagrams() {
    let mut swim = swim(1);
    swim.handle(rumour(2, [record(2, 0, MemberState::Alive)]), at(1));
    while let Some(due) = swim.next_deadline().filter(|&due| due < at(2_000)) {
        swim.handle(Event::Tick, due);
        for effect in effects(&mut swim) {
            if let Effect::TcpPing { seq, target, .. } = effect {
                swim.handle(Event::TcpPingResult { seq, target, outcome: TcpPingOutcome::Answered }, due);
            }
        }
    }
    assert_eq!(state_of(&swim, 2), Some(MemberState::Alive));
    assert!(swim.member(NodeId(2)).unwrap().udp_blocked);
}

#[test]
fn a_new_identity_at_an_address_ends_the_old_one() {
    let mut swim = swim(1);
    let newcomer = MemberRecord { address: address(2), ..record(9, 0, MemberState::Alive) };
    swim.handle(rumour(2, [record(2, 0, MemberState::Alive)]), at(1));
    swim.handle(rumour(9, [newcomer]), at(2));
    assert_eq!(state_of(&swim, 2), Some(MemberState::Dead));
    assert_eq!(state_of(&swim, 9), Some(MemberState::Alive));
    let ghost = MemberRecord { address: address(1), ..record(8, 0, MemberState::Alive) };
    swim.handle(rumour(9, [ghost]), at(3));
    assert_eq!(state_of(&swim, 8), Some(MemberState::Dead), "this process listens there");
}

#[test]
fn a_starved_member_distrusts_its_own_probes() {
    let mut swim = swim(1);
    swim.handle(rumour(2, [record(2, 0, MemberState::Alive), record(3, 0, MemberState::Suspect)]), at(1));
    run(&mut swim, at(1_100));
    let before = swim.counters().suspicions;
    swim.handle(Event::Tick, at(3_000));
    assert_eq!(swim.counters().stalls, 1);
    assert_eq!(swim.counters().suspicions, before);
    assert_eq!(state_of(&swim, 3), Some(MemberState::Suspect), "it gets the lost time back");
}

#[test]
fn a_death_in_a_list_is_a_suspicion() {
    let mut swim = swim(1);
    swim.handle(rumour(2, [record(2, 0, MemberState::Alive)]), at(1));
    let message = list(
        3,
        [record(2, 0, MemberState::Dead), record(4, 0, MemberState::Dead), record(5, 0, MemberState::Left)],
    );
    swim.handle(Event::PushPullRequest { exchange: 7, message }, at(2));
    let states = [2, 3, 4, 5].map(|id| state_of(&swim, id).unwrap());
    assert_eq!(states, [MemberState::Suspect, MemberState::Alive, MemberState::Dead, MemberState::Left]);
    let reply = effects(&mut swim).into_iter().find_map(|effect| match effect {
        Effect::ReplyPushPull { exchange: 7, message } => Some(message),
        _ => None,
    });
    assert_eq!(reply.unwrap().members.as_slice().len(), 4);
}

#[test]
fn joining_is_retried_until_somebody_answers() {
    let mut swim = swim(1);
    swim.handle(Event::Join { seeds: vec![address(1), address(2)] }, at(0));
    let tried = run(&mut swim, at(20_000));
    let attempts = tried.iter().filter(|effect| matches!(effect, Effect::StartPushPull { .. })).count();
    assert!((10..25).contains(&attempts), "{attempts} attempts in 20 s");
    assert!(!swim.has_joined());
    swim.handle(Event::PushPullReply { message: list(2, []) }, at(20_000));
    assert!(swim.has_joined());
    assert_eq!(swim.live_len(), 1);
}

#[test]
fn leaving_is_announced_and_a_new_join_comes_back() {
    let mut swim = swim(1);
    swim.handle(rumour(2, [record(2, 0, MemberState::Alive)]), at(1));
    swim.handle(Event::Leave, at(10));
    let said = run(&mut swim, at(1_000));
    assert!(said.contains(&Effect::LeaveDone) && swim.has_left() && swim.next_deadline().is_none());
    swim.handle(Event::Join { seeds: vec![address(2)] }, at(5_000));
    assert_eq!(*swim.self_record(), record(1, 1, MemberState::Alive));
    let mut alone = Swim::new(Config::default(), record(3, 0, MemberState::Alive), 3, at(0));
    alone.handle(Event::Leave, at(1));
    assert_eq!(effects(&mut alone), [Effect::LeaveDone]);
}

#[test]
fn the_list_of_the_gone_is_bounded() {
    let mut swim = swim(1);
    for id in 2..=(MAX_GONE as u64 + 52) {
        swim.handle(rumour(2, [record(id, 0, MemberState::Dead)]), at(id));
    }
    assert_eq!(swim.members().count(), MAX_GONE);
    assert_eq!(state_of(&swim, 2), None, "the longest gone is forgotten");
}
