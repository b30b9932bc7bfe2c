use super::super::slot::Slot;
use super::super::table::{
    BACK_OFF_MAX, BACK_OFF_MIN, BLOB_BACK_OFF, ConnectionTable, Effect, Event, PROBES_MAX, REFUSED_PAUSE,
    REOPEN_MIN, Reason, SWEEP_PERIOD, Usage, spread,
};
use super::super::{BlobLane, Lane, Limits, LiveMember, Members};
use crate::client::link::DialError;
use crate::ids::NodeId;

use std::net::SocketAddr;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn address(number: u64) -> SocketAddr {
    ([127, 0, 0, 1], 7_000 + u16::try_from(number).unwrap()).into()
}

pub(super) fn calls(number: u64) -> Slot {
    Slot::of_member(NodeId(number), Lane::Calls)
}

pub(super) fn members(
    numbers: impl IntoIterator<Item = u64>,
    kept: &[(u64, Lane)],
    proves_deaths: bool,
) -> Event {
    let live = numbers
        .into_iter()
        .map(|number| (NodeId(number), LiveMember { address: address(number), generation: 1 }));
    let kept = kept.iter().map(|&(number, lane)| (NodeId(number), lane)).collect();
    Event::Members(Members { live: live.collect(), kept, proves_deaths })
}

fn dial_failed(slot: Slot, refused: bool) -> Event {
    let address = address(0);
    let error = if refused { DialError::Refused { address } } else { DialError::TimedOut { address } };
    Event::DialFailed { slot, error: error.into() }
}

/// A table and its clock.
pub(super) struct Test {
    pub(super) table: ConnectionTable,
    pub(super) now: Duration,
}

impl Test {
    pub(super) fn new(limits: Limits, seed: u64) -> Self {
        Self { table: ConnectionTable::new(limits, seed, Duration::ZERO), now: Duration::ZERO }
    }

    pub(super) fn handle(&mut self, event: Event) -> Vec<Effect> {
        self.table.handle(event, self.now);
        std::iter::from_fn(|| self.table.poll_effect()).collect()
    }

    /// Lets time pass; returns what happened when. Idle connections are not looked for.
    fn pass(&mut self, span: Duration) -> Vec<(Duration, Effect)> {
        let (end, mut happened) = (self.now + span, Vec::new());
        while self.table.next_deadline() <= end {
            self.now = self.now.max(self.table.next_deadline());
            if self.table.needs_usage(None, self.now) {
                let all = self.table.open().map(|slot| Usage { slot, used_at: self.now, in_use: true });
                let all = all.collect();
                self.handle(Event::Usage(all));
            }
            let now = self.now;
            happened.extend(self.handle(Event::Tick).into_iter().map(|effect| (now, effect)));
        }
        self.now = end;
        happened
    }

    pub(super) fn ask(&mut self, slot: Slot, number: u64) -> Vec<Effect> {
        self.handle(Event::Asked { slot, address: address(number) })
    }

    pub(super) fn open(&mut self, number: u64) {
        let slot = calls(number);
        assert_eq!(self.ask(slot, number), [Effect::Dial { slot, address: address(number) }]);
        let adopted = self.handle(Event::Dialled { slot, node: Some(NodeId(number)) });
        assert_eq!(adopted, [Effect::Adopt { slot, under: slot, address: address(number) }]);
    }

    pub(super) fn use_all(&mut self, used_at: Duration, in_use: bool) -> Vec<Effect> {
        let all = self.table.open().map(|slot| Usage { slot, used_at, in_use }).collect();
        self.handle(Event::Usage(all))
    }
}

#[test]
fn dials_in_progress_are_bounded_and_consensus_goes_first() {
    let mut test = Test::new(Limits { dials: 2, ..Limits::default() }, 1);
    assert_eq!(test.ask(calls(1), 1).len(), 1);
    assert_eq!(test.ask(calls(2), 2).len(), 1);
    let consensus = Slot::of_member(NodeId(4), Lane::Consensus);
    assert_eq!(test.ask(calls(3), 3), []);
    assert_eq!(test.ask(consensus, 4), []);
    let next = test.handle(dial_failed(calls(1), true));
    let failed = Effect::Refuse { slot: calls(1), reason: Reason::Failed };
    assert_eq!(next, [failed, Effect::Dial { slot: consensus, address: address(4) }]);
    let next = test.handle(Event::Dialled { slot: calls(2), node: Some(NodeId(2)) });
    assert_eq!(next[1], Effect::Dial { slot: calls(3), address: address(3) });
}

#[test]
fn pauses_between_dials_grow_within_bounds_and_end_when_the_members_change() {
    let mut test = Test::new(Limits::default(), 1);
    test.handle(members([1], &[], false));
    let mut pauses = Vec::new();
    for _ in 0..50 {
        assert_eq!(test.ask(calls(1), 1).len(), 1);
        test.handle(dial_failed(calls(1), false));
        let failed = test.now;
        while test.ask(calls(1), 1) == [Effect::Refuse { slot: calls(1), reason: Reason::BackOff }] {
            test.now += Duration::from_millis(1);
        }
        // That ask started a dial.
        test.handle(dial_failed(calls(1), false));
        pauses.push(test.now.abs_diff(failed));
        test.now += BACK_OFF_MAX;
    }
    let slack = Duration::from_millis(1);
    assert!(pauses.iter().all(|&pause| BACK_OFF_MIN <= pause && pause <= BACK_OFF_MAX + slack), "{pauses:?}");
    assert!(pauses[0] <= 3 * BACK_OFF_MIN + slack && pauses.iter().any(|&pause| pause > BACK_OFF_MAX / 2));

    let blobs = Slot::of_member(NodeId(1), Lane::Blobs(BlobLane::Gets));
    assert_eq!(
        test.ask(blobs, 1),
        [Effect::Refuse { slot: blobs, reason: Reason::BackOff }],
        "{BLOB_BACK_OFF:?}"
    );
    // The member was started again.
    let live = [(NodeId(1), LiveMember { address: address(1), generation: 2 })].into();
    test.handle(Event::Members(Members { live, ..Members::default() }));
    assert_eq!(test.ask(blobs, 1), [Effect::Dial { slot: blobs, address: address(1) }]);
}

#[test]
fn an_address_is_known_by_its_member_after_the_hello() {
    let mut test = Test::new(Limits::default(), 1);
    let seed = Slot::of_address(address(1), Lane::Calls);
    test.ask(seed, 1);
    let adopted = test.handle(Event::Dialled { slot: seed, node: Some(NodeId(1)) });
    assert_eq!(adopted, [Effect::Adopt { slot: seed, under: calls(1), address: address(1) }]);
    // A caller that asks for the address meanwhile gets the same connection.
    test.ask(seed, 1);
    let reused = test.handle(Event::Dialled { slot: seed, node: Some(NodeId(1)) });
    assert_eq!(reused, [Effect::Reuse { slot: seed, open: calls(1) }]);
    // An introducer stays under its address.
    let introducer = Slot::of_address(address(9), Lane::Calls);
    test.ask(introducer, 9);
    let adopted = test.handle(Event::Dialled { slot: introducer, node: None });
    assert_eq!(adopted, [Effect::Adopt { slot: introducer, under: introducer, address: address(9) }]);
}

#[test]
fn another_process_at_a_members_address_is_not_the_member() {
    let mut test = Test::new(Limits::default(), 1);
    test.ask(calls(1), 1);
    let refused = test.handle(Event::Dialled { slot: calls(1), node: Some(NodeId(2)) });
    assert_eq!(refused, [Effect::Refuse { slot: calls(1), reason: Reason::Stranger }]);
    assert!(!test.table.is_taken(&calls(1)) && !test.table.is_taken(&calls(2)));
}

#[test]
fn members_that_leave_or_move_lose_their_connections() {
    let mut test = Test::new(Limits::default(), 1);
    let kept = [(1, Lane::Calls), (2, Lane::Calls)];
    test.handle(members([1, 2, 3], &kept, false));
    let opened = test.pass(SECOND);
    assert_eq!(opened.len(), 2, "those that are kept, unasked");
    for number in [1, 2] {
        test.handle(Event::Dialled { slot: calls(number), node: Some(NodeId(number)) });
    }
    test.open(3);
    let moved = LiveMember { address: address(20), generation: 1 };
    let live = [(NodeId(2), moved), (NodeId(3), LiveMember { address: address(3), generation: 1 })].into();
    let closed = test.handle(Event::Members(Members {
        live,
        kept: [(NodeId(2), Lane::Calls)].into(),
        proves_deaths: false,
    }));
    assert_eq!(closed, [Effect::Close { slot: calls(1) }, Effect::Close { slot: calls(2) }]);
    let opened: Vec<_> = test.pass(SECOND).into_iter().map(|(_, effect)| effect).collect();
    assert_eq!(opened, [Effect::Dial { slot: calls(2), address: address(20) }]);
    assert!(test.table.is_open(&calls(3)));
}

#[test]
fn a_kept_connection_is_reopened_until_a_refusal_proves_a_death() {
    let mut test = Test::new(Limits::default(), 1);
    test.handle(members([1], &[(1, Lane::Calls)], true));
    assert_eq!(test.pass(SECOND).len(), 1);
    test.handle(Event::Dialled { slot: calls(1), node: Some(NodeId(1)) });
    let opened = test.now;
    test.handle(Event::Ended { slot: calls(1) });
    let again = test.pass(SECOND);
    assert!(again.len() == 1 && again[0].0 >= opened + REOPEN_MIN, "{again:?}");
    // A dying process's host may still take a connection: that proves nothing.
    test.handle(dial_failed(calls(1), false));
    assert_eq!(test.pass(2 * BACK_OFF_MAX).len(), 1);
    test.handle(dial_failed(calls(1), true));
    assert_eq!(test.pass(REFUSED_PAUSE), [], "membership decides now");
    assert_eq!(test.handle(members([], &[], true)), []);
    assert_eq!(test.pass(10 * REFUSED_PAUSE), []);
}

#[test]
fn only_a_voter_dials_a_member_that_hung_up() {
    for proves_deaths in [false, true] {
        let mut test = Test::new(Limits::default(), 1);
        test.handle(members([1, 2], &[], proves_deaths));
        // A member that is not listed is not dialled.
        test.handle(Event::HungUp { node: NodeId(7) });
        test.handle(Event::HungUp { node: NodeId(1) });
        test.open(2);
        test.handle(Event::Ended { slot: calls(2) });
        let mut dials = 0;
        for _ in 0..20 {
            for (_, effect) in test.pass(SECOND) {
                if let Effect::Dial { slot, .. } = effect {
                    dials += 1;
                    test.handle(dial_failed(slot, false));
                }
            }
        }
        assert_eq!(dials, if proves_deaths { 2 * u32::from(PROBES_MAX) } else { 0 });
    }
}

#[test]
fn a_member_that_is_reached_again_has_all_its_dials_when_it_ends_again() {
    let mut test = Test::new(Limits::default(), 1);
    test.handle(members([1], &[], true));
    test.handle(Event::HungUp { node: NodeId(1) });
    for _ in 1..PROBES_MAX {
        assert_eq!(test.pass(SECOND).len(), 1);
        test.handle(dial_failed(calls(1), false));
    }
    assert_eq!(test.pass(SECOND).len(), 1);
    test.handle(Event::Dialled { slot: calls(1), node: Some(NodeId(1)) });
    test.handle(Event::Ended { slot: calls(1) });
    for _ in 0..PROBES_MAX {
        assert_eq!(test.pass(SECOND).len(), 1);
        test.handle(dial_failed(calls(1), false));
    }
    assert_eq!(test.pass(10 * SECOND), []);
}

#[test]
fn a_caller_that_repeats_soon_reaches_a_peer_that_is_back() {
    for seed in 0..50 {
        let mut test = Test::new(Limits::default(), seed);
        let mut failed = test.now;
        for _ in 0..1_000 {
            if matches!(test.ask(calls(1), 1)[..], [Effect::Dial { .. }]) {
                failed = test.now;
                test.handle(dial_failed(calls(1), true));
            }
            test.now += SECOND / 100;
        }
        while !matches!(test.ask(calls(1), 1)[..], [Effect::Dial { .. }]) {
            test.now += SECOND / 100;
        }
        assert!(test.now <= failed + SECOND / 4 + SECOND / 100, "{:?}", test.now.abs_diff(failed));
    }
}

/// When each of `count` members dials again after the same voter's death.
fn redials(count: u64) -> Vec<Duration> {
    let mut redials = Vec::new();
    for seed in 0..count {
        let mut test = Test::new(Limits::default(), seed);
        test.handle(members(0..count, &[(1, Lane::Calls)], false));
        let opened = test.pass(3 * SECOND);
        assert_eq!(opened.len(), 1);
        test.handle(Event::Dialled { slot: calls(1), node: Some(NodeId(1)) });
        test.pass(SECOND);
        let died = test.now;
        test.handle(Event::Ended { slot: calls(1) });
        let again = test.pass(REFUSED_PAUSE / 2);
        assert_eq!(again.len(), 1);
        redials.push(again[0].0.abs_diff(died));
        test.handle(dial_failed(calls(1), true));
        assert_eq!(test.pass(REFUSED_PAUSE / 2), [], "one dial a member, for seconds");
    }
    redials.sort();
    redials
}

#[test]
fn many_members_that_lose_one_voter_spread_their_redials() {
    let redials = redials(600);
    let busiest = redials.iter().map(|&start| {
        redials.iter().filter(|&&at| at >= start && at < start + Duration::from_millis(100)).count()
    });
    assert!(busiest.max().unwrap() <= 100, "{redials:?}");
    assert!(redials.iter().all(|&at| at <= spread(600)));
    assert!(spread(7) < Duration::from_millis(20), "a small cluster waits for nothing");
}

#[test]
fn no_sequence_of_events_breaks_the_table() {
    for seed in 0..200 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let limits = Limits { consensus: 2, calls: 3, blobs: 2, dials: 2 };
        let (mut test, mut dials) = (Test::new(limits, seed), Vec::new());
        let lanes = [Lane::Calls, Lane::Consensus, Lane::Blobs(BlobLane::Gets)];
        for _ in 0..300 {
            let number = random.random_range(1..6);
            let lane = lanes[random.random_range(0..lanes.len())];
            let slot = if random.random_range(0..2) == 0 {
                Slot::of_member(NodeId(number), lane)
            } else {
                Slot::of_address(address(number), lane)
            };
            let event = match random.random_range(0..8) {
                0 | 1 => Event::Asked { slot, address: address(number) },
                2 | 3 if !dials.is_empty() => {
                    let slot = dials.swap_remove(random.random_range(0..dials.len()));
                    Event::Dialled { slot, node: (number > 1).then_some(NodeId(number)) }
                }
                4 if !dials.is_empty() => dial_failed(dials.swap_remove(0), number == 1),
                5 => Event::Ended { slot },
                6 => members(1..number, &[(number, lane), (1, lane)], number > 2),
                _ => Event::HungUp { node: NodeId(number) },
            };
            test.now += Duration::from_millis(random.random_range(0..500));
            let mut effects = test.handle(event);
            if random.random_range(0..10) == 0 {
                effects.extend(test.use_all(Duration::ZERO, number == 2));
            }
            dials.extend(effects.iter().filter_map(|effect| match effect {
                Effect::Dial { slot, .. } => Some(*slot),
                _ => None,
            }));
            test.table.check().unwrap();
            assert!(test.table.next_deadline() <= test.now + SWEEP_PERIOD.max(REFUSED_PAUSE) + 3 * SECOND);
            let count = |lane| test.table.open().filter(|slot| slot.lane == lane).count();
            assert!(count(Lane::Calls) <= limits.calls && count(Lane::Consensus) <= limits.consensus);
        }
    }
}
