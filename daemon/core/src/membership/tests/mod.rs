//! One rule at a time; how they work together is the simulator's subject.

mod dial_back;
mod merge;
mod probe;
mod push_pull;
mod suspicion;

use std::net::SocketAddr;

use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{
    Bounded, Datagram, DatagramBody, Generation, Incarnation, Listed, MemberRecord, MemberState, PushPull,
    Rumour,
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

fn alive(id: u64) -> MemberRecord {
    record(id, 0, MemberState::Alive)
}

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1_000)
}

/// Member 1, which knows nobody.
fn alone() -> Swim {
    Swim::new(SwimConfig::default(), alive(1), 1, Instant::START)
}

/// Member 1, with members 2 to `last` on its list since the start.
fn knowing(last: u64) -> Swim {
    let mut swim = alone();
    swim.handle(
        SwimEvent::PushPullReply { from: address(2), message: list(2, (3..=last).map(alive)) },
        at(0),
    );
    effects(&mut swim);
    swim
}

fn datagram(from: u64, body: DatagramBody, rumours: impl IntoIterator<Item = Rumour>) -> SwimEvent {
    let message = Datagram { from: NodeId(from), body, rumours: Bounded::first_of(rumours) };
    SwimEvent::Datagram { from: address(from), message }
}

fn rumour(from: u64, records: impl IntoIterator<Item = MemberRecord>) -> SwimEvent {
    let rumours = records.into_iter().map(|record| Rumour { record, witnesses: Bounded::default() });
    datagram(from, DatagramBody::Gossip, rumours)
}

/// `from` confirms a suspicion: the probes of these failed.
fn confirmation(from: u64, suspect: u64, witnesses: &[u64]) -> SwimEvent {
    let witnesses = Bounded::first_of(witnesses.iter().map(|&id| NodeId(id)));
    let record = record(suspect, 0, MemberState::Suspect);
    datagram(from, DatagramBody::Gossip, [Rumour { record, witnesses }])
}

fn list(from: u64, records: impl IntoIterator<Item = MemberRecord>) -> PushPull {
    let listed = records.into_iter().map(|record| Listed { record, forget_in_s: 3_600 });
    PushPull { from: alive(from), members: Bounded::first_of(listed), founder: None, sent_ms: None }
}

fn effects(swim: &mut Swim) -> Vec<SwimEffect> {
    std::iter::from_fn(|| swim.poll_effect()).collect()
}

/// Drives `swim` by its own deadlines, nobody answering, until `until`; returns all effects.
fn run(swim: &mut Swim, until: Instant) -> Vec<SwimEffect> {
    let mut all = effects(swim);
    while let Some(due) = swim.next_deadline().filter(|&due| due <= until) {
        swim.handle(SwimEvent::Tick, due);
        all.extend(effects(swim));
    }
    all
}

fn state_of(swim: &Swim, id: u64) -> Option<MemberState> {
    swim.member(NodeId(id)).map(|member| member.record.state)
}

/// The datagrams among `effects`, with where they went.
fn datagrams(effects: &[SwimEffect]) -> Vec<(SocketAddr, &Datagram)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            SwimEffect::SendDatagram { to, message } => Some((*to, message)),
            _ => None,
        })
        .collect()
}

/// The pings over TCP among `effects`: number, address, target and whether the target's record went along.
fn tcp_pings(effects: &[SwimEffect]) -> Vec<(u64, SocketAddr, NodeId, bool)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            SwimEffect::TcpPing { seq, to, message, .. } => {
                Some((*seq, *to, message.target, message.believed.is_some()))
            }
            _ => None,
        })
        .collect()
}
