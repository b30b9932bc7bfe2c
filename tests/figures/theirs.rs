//! foca 2, with the timers that its runtime is to keep: as its LAN settings have it, and with our probe times.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use foca::{AccumulatingRuntime, Config, Foca, Identity, Member, OwnedNotification, PostcardCodec, Timer};
use idunno_core::time::Instant;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::cluster::{Detector, Output};

/// The least that stands for a member of ours: its identity, where it listens, and how often it came back. No name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Id {
    node: u64,
    address: [u8; 4],
    port: u16,
    bump: u16,
}

impl Identity for Id {
    type Addr = (u64, u16);

    fn renew(&self) -> Option<Self> {
        Some(Self { bump: self.bump.wrapping_add(1), ..self.clone() })
    }

    fn addr(&self) -> Self::Addr {
        (self.node, self.port)
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.bump > adversary.bump
    }
}

fn id(host: usize) -> Id {
    Id {
        node: (host as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        address: [10, 0, 0, 1],
        port: 7_000 + u16::try_from(host).unwrap_or(0),
        bump: 0,
    }
}

/// foca, whose periods are `OURS` or its own.
pub(crate) struct Theirs<const OURS: bool> {
    foca: Foca<Id, PostcardCodec, ChaCha8Rng, foca::NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Id>,
    timers: BTreeMap<(Instant, u64), Timer<Id>>,
    count: u64,
    now: Instant,
    outputs: Vec<Output<Vec<u8>>>,
}

impl<const OURS: bool> Theirs<OURS> {
    fn drain(&mut self) {
        while let Some((to, bytes)) = self.runtime.to_send() {
            let message = bytes.to_vec();
            let (to, bytes) = (usize::from(to.port - 7_000), message.len());
            self.outputs.push(Output::Send { to, message, bytes, reliable: false });
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.count += 1;
            self.timers.insert((self.now + after, self.count), timer);
        }
        while let Some(notification) = self.runtime.to_notify() {
            if let OwnedNotification::MemberDown(id) = notification {
                self.outputs.push(Output::Dead { host: usize::from(id.port - 7_000) });
            }
        }
    }
}

fn config(hosts: usize, ours: bool) -> Config {
    let size = u32::try_from(hosts).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
    let mut config = Config::new_lan(size);
    if ours {
        let times = idunno_core::membership::SwimConfig::default();
        config.probe_period = times.probe_period;
        config.probe_rtt = times.ping_timeout;
        config.suspect_to_down_after /= 2;
        if let Some(gossip) = &mut config.periodic_gossip {
            gossip.frequency = times.gossip_period;
        }
    }
    config
}

impl<const OURS: bool> Detector for Theirs<OURS> {
    type Message = Vec<u8>;

    fn new(host: usize, hosts: usize, seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let mut foca = Foca::new(id(host), config(hosts, OURS), rng, PostcardCodec);
        let mut runtime = AccumulatingRuntime::new();
        let others = (0..hosts).filter(|&other| other != host).map(|other| Member::alive(id(other)));
        if let Err(error) = foca.apply_many(others, false, &mut runtime) {
            panic!("foca takes no members: {error}");
        }
        let mut theirs = Self {
            foca,
            runtime,
            timers: BTreeMap::new(),
            count: 0,
            now: Instant::START,
            outputs: Vec::new(),
        };
        theirs.drain();
        // Members are not started at one instant: their timers are spread over a period.
        let spread = Duration::from_micros(seed.wrapping_mul(7_919) % 500_000);
        theirs.timers = std::mem::take(&mut theirs.timers)
            .into_iter()
            .map(|((at, count), timer)| ((at + spread, count), timer))
            .collect();
        theirs
    }

    fn receive(&mut self, _from: usize, message: Vec<u8>, now: Instant) {
        self.now = now;
        // foca refuses what it cannot use, which is no fault of the simulation's.
        let _ = self.foca.handle_data(&message, &mut self.runtime);
        self.drain();
    }

    fn wake(&mut self, now: Instant) {
        self.now = now;
        while let Some((&key, _)) = self.timers.first_key_value()
            && key.0 <= now
        {
            let Some(timer) = self.timers.remove(&key) else { break };
            // An incomplete probe cycle, of a process that slept, is reported as an error and made good.
            let _ = self.foca.handle_timer(timer, &mut self.runtime);
            self.drain();
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        self.timers.keys().next().map(|&(due, _)| due)
    }

    fn outputs(&mut self) -> Vec<Output<Vec<u8>>> {
        std::mem::take(&mut self.outputs)
    }
}
