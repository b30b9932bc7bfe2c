//! Wall clocks: whose is off, by the members' median, and the time that a coordinator stamps on the log.
//!
//! Nothing about safety depends on wall clocks. People read them, as times of files and jobs, so one member's wrong clock
//! must neither set these nor stop them.
//!
//! Source: the median of all as in the Berkeley algorithm (Gusella and Zatti 1989), but nobody's clock is set; slewing as in
//! `adjtime`.
//!
//! Bounds: an offset for each live member.

use std::collections::BTreeMap;
use std::time::Duration;

use idunno_shared::ids::NodeId;

use crate::time::Instant;

/// Smaller offsets may be a message's delay, and nobody is told. Above the time-out of the messages that carry the time.
pub const OFFSET_TOLD_MIN_MS: i64 = 5_000;
/// So many clocks make a median that corrects one of them. Of two that differ, nobody knows which one is wrong.
const CLOCKS_MIN: usize = 3;
/// Log time that is ahead runs slower by a tenth, until the clocks have caught up: this many tenths.
const SLEW_TENTHS: u32 = 9;
/// How long a coordinator with a wrong clock waits for another one.
pub const GIVE_WAY_MAX: Duration = Duration::from_secs(30);

/// How far the other members' clocks are ahead of this one's.
#[derive(Debug, Default)]
pub struct ClockOffsets {
    ahead_ms: BTreeMap<NodeId, i64>,
}

impl ClockOffsets {
    /// A message of `member` that it sent at `theirs_ms` arrived at `ours_ms`.
    pub fn note(&mut self, member: NodeId, theirs_ms: u64, ours_ms: u64) {
        let ahead = i128::from(theirs_ms) - i128::from(ours_ms);
        let ahead = ahead.clamp(i128::from(i64::MIN / 4), i128::from(i64::MAX / 4));
        self.ahead_ms.insert(member, i64::try_from(ahead).unwrap_or_default());
    }

    /// Keeps only these members.
    pub fn retain(&mut self, is_live: impl Fn(NodeId) -> bool) {
        self.ahead_ms.retain(|&member, _| is_live(member));
    }

    /// How far the median of all clocks, this one's included, is ahead of this one. Between two, the nearer to this one.
    pub fn median_ms(&self) -> i64 {
        let mut all: Vec<i64> = self.ahead_ms.values().copied().chain([0]).collect();
        if all.len() < CLOCKS_MIN {
            return 0;
        }
        all.sort_unstable();
        let middle = [all[(all.len() - 1) / 2], all[all.len() / 2]];
        middle.into_iter().min_by_key(|offset| offset.unsigned_abs()).unwrap_or_default()
    }

    /// How far this clock is ahead of the median, if that is worth telling.
    pub fn own_off_ms(&self) -> Option<i64> {
        told(-self.median_ms())
    }

    /// How far `member`'s clock is ahead of the median, if that is worth telling.
    pub fn off_ms(&self, member: NodeId) -> Option<i64> {
        told(self.ahead_ms.get(&member)? - self.median_ms())
    }
}

fn told(off_ms: i64) -> Option<i64> {
    (off_ms.abs() >= OFFSET_TOLD_MIN_MS).then_some(off_ms)
}

/// The time of the log in one term: never back, never still, and ahead of the clocks for no longer than it takes to slew.
#[derive(Debug)]
pub struct LogClock {
    at_ms: u64,
    read_at: Instant,
    /// A part of a millisecond that has passed since.
    rest: Duration,
}

impl LogClock {
    /// Starts from the log's last time, or from the wall clock if that is later.
    pub fn new(log_ms: u64, wall_ms: u64, now: Instant) -> Self {
        Self { at_ms: log_ms.max(wall_ms), read_at: now, rest: Duration::ZERO }
    }

    /// The log's time now, by a wall clock that shows `wall_ms`.
    pub fn now_ms(&mut self, wall_ms: u64, now: Instant) -> u64 {
        let passed = now.since(self.read_at);
        self.read_at = now;
        let pending = self.rest + passed.saturating_mul(SLEW_TENTHS) / 10;
        let whole_ms = u64::try_from(pending.as_millis()).unwrap_or(u64::MAX);
        self.rest = pending.saturating_sub(Duration::from_millis(whole_ms));
        // A clock that is in order is faster, and so is one that goes on after its machine slept.
        self.at_ms = self.at_ms.saturating_add(whole_ms).max(wall_ms);
        self.at_ms
    }
}

/// Whether a coordinator with a wrong clock lets the others elect one of them. Clients refuse a certificate from the future,
/// and a member whose clock is behind refuses theirs, so it would stay in office without anybody to serve.
#[derive(Debug, Default)]
pub struct GivingWay {
    since: Option<Instant>,
}

impl GivingWay {
    /// `is_refused` if this member's clock is off by more than clients tolerate, `leads` if it coordinates, and
    /// `can_be_replaced` if the voters without it that are up and have right clocks are a majority. It gives way for
    /// [`GIVE_WAY_MAX`]: if they elect nobody until then, a coordinator with a wrong clock is better than none.
    pub fn gives_way(&mut self, is_refused: bool, leads: bool, can_be_replaced: bool, now: Instant) -> bool {
        if !is_refused || !leads {
            self.since = None;
        } else if can_be_replaced {
            self.since.get_or_insert(now);
        }
        self.since.is_some_and(|since| now.since(since) < GIVE_WAY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;
    const NOON: u64 = 1_795_000_000_000;

    fn offsets(ahead_s: &[i64]) -> ClockOffsets {
        let mut offsets = ClockOffsets::default();
        for (member, ahead_s) in (1..).zip(ahead_s) {
            offsets.note(NodeId(member), NOON.checked_add_signed(ahead_s * 1_000).unwrap(), NOON);
        }
        offsets
    }

    #[test]
    fn the_one_clock_that_is_off_is_found_by_itself_and_by_the_others() {
        let others = offsets(&[1_200, 0, 1]);
        assert_eq!(others.off_ms(NodeId(1)), Some(1_200_000));
        assert_eq!((others.off_ms(NodeId(2)), others.own_off_ms()), (None, None));
        let itself = offsets(&[-1_200, -1_200, -1_201]);
        assert_eq!(itself.own_off_ms(), Some(1_200_000));
        assert_eq!(itself.off_ms(NodeId(1)), None, "the others are right");
    }

    #[test]
    fn of_two_clocks_nobody_knows_which_one_is_wrong() {
        let two = offsets(&[1_200]);
        assert_eq!((two.median_ms(), two.own_off_ms()), (0, None));
        assert_eq!(two.off_ms(NodeId(1)), Some(1_200_000), "but they differ");
        let even = offsets(&[1_200, 1_200, 0]);
        assert_eq!(even.median_ms(), 0, "between two and two, this clock counts");
    }

    #[test]
    fn members_that_are_gone_do_not_count() {
        let mut offsets = offsets(&[1_200, 1_200, 0]);
        offsets.retain(|member| member == NodeId(3));
        assert_eq!((offsets.median_ms(), offsets.off_ms(NodeId(1))), (0, None));
        offsets.note(NodeId(3), u64::MAX, 0);
        assert!(offsets.off_ms(NodeId(3)).is_some(), "any time from the network is taken");
    }

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    #[test]
    fn log_time_goes_on_after_a_coordinator_whose_clock_was_ahead_and_comes_back_to_the_clocks() {
        // The log's last time is 20 minutes ahead.
        let mut clock = LogClock::new(NOON + 20 * MINUTE, NOON, at(0));
        let after_a_minute = clock.now_ms(NOON + MINUTE, at(MINUTE));
        assert_eq!(after_a_minute, NOON + 20 * MINUTE + 54_000, "a tenth slower, and never still");
        let mut last = after_a_minute;
        for minute in 2..=200 {
            let now = clock.now_ms(NOON + minute * MINUTE, at(minute * MINUTE));
            assert!(now > last);
            last = now;
        }
        assert_eq!(last, NOON + 200 * MINUTE, "it is the wall clock's again");
    }

    #[test]
    fn log_time_is_not_set_back_and_follows_a_clock_that_slept() {
        let mut clock = LogClock::new(0, NOON, at(0));
        assert_eq!(clock.now_ms(NOON - 5 * MINUTE, at(1_000)), NOON + 900, "set back, and goes on");
        assert_eq!(clock.now_ms(NOON + 9 * MINUTE, at(2_000)), NOON + 9 * MINUTE, "the machine slept");
        let mut fine = LogClock::new(0, NOON, at(0));
        for micros in 1..=10_000 {
            fine.now_ms(0, Instant::from_micros(micros));
        }
        assert_eq!(fine.now_ms(0, at(10)), NOON + 9, "reading it often loses nothing");
    }

    #[test]
    fn a_coordinator_whose_clock_is_wrong_gives_way_once_if_others_can_take_its_place() {
        let end = 100 + u64::try_from(GIVE_WAY_MAX.as_millis()).unwrap();
        let mut giving_way = GivingWay::default();
        assert!(!giving_way.gives_way(false, true, true, at(1)), "its clock is right");
        assert!(!giving_way.gives_way(true, false, true, at(2)), "another one coordinates");
        assert!(!giving_way.gives_way(true, true, false, at(3)), "the others are no majority");
        assert!(giving_way.gives_way(true, true, true, at(100)));
        assert!(giving_way.gives_way(true, true, false, at(end - 1)));
        assert!(!giving_way.gives_way(true, true, true, at(end)), "nobody was elected");
        assert!(!giving_way.gives_way(true, false, true, at(end + 1)), "somebody is");
        assert!(giving_way.gives_way(true, true, true, at(end + 2)), "it was elected again");
    }
}
