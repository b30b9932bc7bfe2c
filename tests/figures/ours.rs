//! The machine of `idunno-core`, with a shell that carries its pings and lists over TCP.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use idunno_core::machine::Machine;
use idunno_core::membership::{Swim, SwimConfig, SwimEffect, SwimEvent, TcpPingOutcome};
use idunno_core::time::Instant;
use idunno_shared::ids::NodeId;
use idunno_shared::wire::membership::{
    Bounded, Datagram, Generation, Incarnation, Listed, MemberRecord, MemberState, PushPull, TcpPing, TcpPong,
};
use serde::Serialize;

use crate::cluster::{Detector, Output};

/// Exchanges are named by who asked and its number.
const NUMBER_BITS: u32 = 40;

#[derive(Clone)]
pub(crate) enum Message {
    Datagram(Datagram),
    List { list: PushPull, is_reply: bool },
    Ping { seq: u64, ping: TcpPing },
    Pong { seq: u64, pong: TcpPong },
}

pub(crate) struct Ours {
    swim: Swim,
    /// Pings over TCP under way: by when they are given up, their number and target.
    pings: BTreeMap<(Instant, u64), NodeId>,
    now: Instant,
}

fn address(host: usize) -> SocketAddr {
    let host = u16::try_from(host).unwrap_or(u16::MAX);
    SocketAddr::from(([10, 0, 0, 1], 7_000 + host))
}

fn host_at(address: SocketAddr) -> usize {
    usize::from(address.port() - 7_000)
}

/// Identities are random 64-bit numbers, as minted by the daemon.
fn record(host: usize) -> MemberRecord {
    let Ok(name) = format!("vm{host}").parse() else { panic!("a host's name is a member's name") };
    MemberRecord {
        id: NodeId((host as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        name,
        address: address(host),
        generation: Generation(1),
        incarnation: Incarnation(0),
        state: MemberState::Alive,
    }
}

fn size(message: &impl Serialize) -> usize {
    rmp_serde::to_vec(message).map_or(0, |bytes| bytes.len())
}

impl Ours {
    fn handle(&mut self, event: SwimEvent) {
        self.swim.handle(event, self.now);
    }

    fn output(&mut self, effect: SwimEffect) -> Option<Output<Message>> {
        let (to, bytes, message) = match effect {
            SwimEffect::SendDatagram { to, message } => {
                let bytes = size(&message);
                let message = Message::Datagram(message);
                return Some(Output::Send { to: host_at(to), message, bytes, reliable: false });
            }
            SwimEffect::StartPushPull { to, message, .. } => {
                (host_at(to), size(&message), Message::List { list: message, is_reply: false })
            }
            SwimEffect::ReplyPushPull { exchange, message } => {
                (requester(exchange), size(&message), Message::List { list: message, is_reply: true })
            }
            SwimEffect::TcpPing { seq, to, message, timeout } => {
                self.pings.insert((self.now + timeout, seq), message.target);
                (host_at(to), size(&message), Message::Ping { seq, ping: message })
            }
            SwimEffect::AnswerTcpPing { exchange, message } => {
                let seq = exchange & ((1 << NUMBER_BITS) - 1);
                (requester(exchange), size(&message), Message::Pong { seq, pong: message })
            }
            SwimEffect::Changed(change) if change.record.state == MemberState::Dead => {
                return Some(Output::Dead { host: host_at(change.record.address) });
            }
            _ => return None,
        };
        Some(Output::Send { to, message, bytes, reliable: true })
    }
}

fn exchange(from: usize, seq: u64) -> u64 {
    (from as u64) << NUMBER_BITS | seq
}

fn requester(exchange: u64) -> usize {
    usize::try_from(exchange >> NUMBER_BITS).unwrap_or(0)
}

impl Detector for Ours {
    type Message = Message;

    fn new(host: usize, hosts: usize, seed: u64) -> Self {
        let now = Instant::START;
        let mut swim = Swim::new(SwimConfig::default(), record(host), seed, now);
        let mut others = (0..hosts).filter(|&other| other != host);
        if let Some(first) = others.next() {
            let members =
                Bounded::first_of(others.map(|other| Listed { record: record(other), forget_in_s: 0 }));
            let message = PushPull { from: record(first), members, founder: None, sent_ms: None };
            swim.handle(SwimEvent::PushPullReply { from: address(first), message }, now);
        }
        Self { swim, pings: BTreeMap::new(), now }
    }

    fn receive(&mut self, from: usize, message: Message, now: Instant) {
        self.now = now;
        match message {
            Message::Datagram(message) => self.handle(SwimEvent::Datagram { from: address(from), message }),
            Message::List { list, is_reply: false } => {
                self.handle(SwimEvent::PushPullRequest { exchange: exchange(from, 0), message: list });
            }
            Message::List { list, is_reply: true } => {
                self.handle(SwimEvent::PushPullReply { from: address(from), message: list });
            }
            Message::Ping { seq, ping } => {
                self.handle(SwimEvent::TcpPingRequest { exchange: exchange(from, seq), message: ping });
            }
            Message::Pong { seq, pong } => {
                let ping = self.pings.iter().find(|((_, number), _)| *number == seq);
                if let Some((&key, &target)) = ping {
                    self.pings.remove(&key);
                    let outcome = TcpPingOutcome::Answered { record: pong.record };
                    self.handle(SwimEvent::TcpPingResult { seq, target, outcome });
                }
            }
        }
    }

    fn wake(&mut self, now: Instant) {
        self.now = now;
        while let Some((&(due, seq), &target)) = self.pings.first_key_value()
            && due <= now
        {
            self.pings.remove(&(due, seq));
            self.handle(SwimEvent::TcpPingResult { seq, target, outcome: TcpPingOutcome::TimedOut });
        }
        self.handle(SwimEvent::Tick);
    }

    fn next_wake(&self) -> Option<Instant> {
        let ping = self.pings.keys().next().map(|&(due, _)| due);
        self.swim.next_deadline().into_iter().chain(ping).min()
    }

    fn outputs(&mut self) -> Vec<Output<Message>> {
        let effects: Vec<_> = std::iter::from_fn(|| self.swim.poll_effect()).collect();
        effects.into_iter().filter_map(|effect| self.output(effect)).collect()
    }
}
