//! The table's limits, and which connections close.

use std::time::Duration;

use super::super::slot::Slot;
use super::super::table::{Effect, Event, IDLE_MAX, Limits, Reason, Usage};
use super::super::{BlobLane, Lane};
use super::table::{SECOND, Test, address, calls, members};
use crate::ids::NodeId;

#[test]
fn idle_connections_are_closed_unless_they_are_kept_or_in_use() {
    let mut test = Test::new(Limits::default(), 1);
    test.handle(members([1, 2], &[(2, Lane::Calls)], false));
    test.open(1);
    test.open(2);
    test.now = IDLE_MAX;
    assert_eq!(test.use_all(Duration::ZERO, true), []);
    assert_eq!(test.use_all(SECOND, false), []);
    assert_eq!(test.use_all(Duration::ZERO, false), [Effect::Close { slot: calls(1) }]);
    assert!(test.table.is_open(&calls(2)), "it is kept");
}

#[test]
fn the_least_recently_used_connection_makes_room() {
    let mut test = Test::new(Limits { calls: 3, ..Limits::default() }, 1);
    test.handle(members([1, 2, 3, 4], &[(1, Lane::Calls)], false));
    for number in [1, 2, 3] {
        test.open(number);
    }
    assert!(test.table.needs_usage(Some(calls(4)), test.now));
    let usage = |number, used_at, in_use| Usage { slot: calls(number), used_at, in_use };
    let all = |in_use| {
        vec![usage(1, Duration::ZERO, false), usage(2, Duration::ZERO, true), usage(3, SECOND, in_use)]
    };
    test.now = SECOND;
    test.handle(Event::Usage(all(true)));
    assert_eq!(test.ask(calls(4), 4), [Effect::Refuse { slot: calls(4), reason: Reason::Full }]);
    test.handle(Event::Usage(all(false)));
    let dial = Effect::Dial { slot: calls(4), address: address(4) };
    assert_eq!(test.ask(calls(4), 4), [Effect::Close { slot: calls(3) }, dial]);
    // Another lane has a limit of its own.
    let puts = Slot::of_member(NodeId(4), Lane::Blobs(BlobLane::Puts));
    assert_eq!(test.ask(puts, 4), [Effect::Dial { slot: puts, address: address(4) }]);
}

#[test]
fn the_lanes_of_blobs_share_one_limit() {
    let mut test = Test::new(Limits { blobs: 2, ..Limits::default() }, 1);
    let blobs = |lane| Slot::of_member(NodeId(1), Lane::Blobs(lane));
    let dial = |lane| Effect::Dial { slot: blobs(lane), address: address(1) };
    for lane in [BlobLane::Gets, BlobLane::Puts] {
        assert_eq!(test.ask(blobs(lane), 1), [dial(lane)]);
        test.handle(Event::Dialled { slot: blobs(lane), node: Some(NodeId(1)) });
    }
    let full = Effect::Refuse { slot: blobs(BlobLane::Large(0)), reason: Reason::Full };
    assert_eq!(test.ask(blobs(BlobLane::Large(0)), 1), [full]);
    test.open(1);
    test.handle(Event::Usage(vec![Usage { slot: blobs(BlobLane::Gets), used_at: SECOND, in_use: false }]));
    let made = [Effect::Close { slot: blobs(BlobLane::Gets) }, dial(BlobLane::Large(0))];
    assert_eq!(test.ask(blobs(BlobLane::Large(0)), 1), made);
}
