//! A set of `u64` numbers stored as disjoint ranges: which queries of a job are done, dead, pending or leased.
//!
//! Invariants: the ranges are in order and not empty, and neither overlap nor touch; `len` is the sum of their lengths.
//! Bounds: a clone costs O(1) and shares memory; insertion, removal and look-up cost O(log n) plus the ranges that they
//! replace, for n ranges. The set cannot contain `u64::MAX`.

use std::ops::Range;

use idunno_shared::wire::jobs::QueryRange;
use imbl::OrdMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::invariant::InvariantViolation;

#[cfg(test)]
mod tests;

/// A set of numbers stored as ranges. Serialised as the list of its ranges; a list in any order is accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// The first number of each range, and the number after its last.
    ranges: OrdMap<u64, u64>,
    len: u64,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many numbers it contains.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it contains no number.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many ranges store it.
    pub fn ranges(&self) -> usize {
        self.ranges.len()
    }

    /// The lowest number.
    pub fn first(&self) -> Option<u64> {
        self.ranges.get_min().map(|(first, _)| *first)
    }

    /// The number after the highest.
    pub fn end(&self) -> Option<u64> {
        self.ranges.get_max().map(|(_, end)| *end)
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.ranges.iter().map(|(first, end)| *first..*end)
    }

    /// The numbers in order.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        self.iter().flatten()
    }

    /// The ranges in order, in the form of the wire: those longer than `u32::MAX` are split.
    pub fn queries(&self) -> impl Iterator<Item = QueryRange> {
        self.iter().flat_map(|range| {
            let step = u64::from(u32::MAX);
            let starts = (0..(range.end - range.start).div_ceil(step)).map(move |n| range.start + n * step);
            starts.map(move |first| {
                let count = u32::try_from(range.end - first).unwrap_or(u32::MAX);
                QueryRange { first, count }
            })
        })
    }

    /// Whether `number` is in the set.
    pub fn contains(&self, number: u64) -> bool {
        self.ranges.get_prev(&number).is_some_and(|(_, end)| number < *end)
    }

    /// Whether all of `range` is in the set; true of an empty range.
    pub fn contains_all(&self, range: Range<u64>) -> bool {
        range.is_empty() || self.ranges.get_prev(&range.start).is_some_and(|(_, end)| range.end <= *end)
    }

    /// Adds `range`. Returns how many of its numbers are new.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let Range { start: mut first, mut end } = range;
        let mut absorbed = 0;
        // From the right: absorb the last range that starts inside the new one or right after it, while the two touch.
        while let Some((old_first, old_end)) = self.ranges.get_prev(&end).map(|(f, e)| (*f, *e)) {
            if old_end < first {
                break;
            }
            first = first.min(old_first);
            end = end.max(old_end);
            absorbed += old_end - old_first;
            self.ranges.remove(&old_first);
        }
        self.ranges.insert(first, end);
        let added = end - first - absorbed;
        self.len += added;
        added
    }

    /// Removes `range`. Returns how many of its numbers were in the set.
    pub fn remove(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let mut removed = 0;
        while let Some((old_first, old_end)) = self.ranges.get_prev(&(range.end - 1)).map(|(f, e)| (*f, *e)) {
            if old_end <= range.start {
                break;
            }
            self.ranges.remove(&old_first);
            if old_end > range.end {
                self.ranges.insert(range.end, old_end);
            }
            removed += old_end.min(range.end) - old_first.max(range.start);
            if old_first < range.start {
                self.ranges.insert(old_first, range.start);
                break;
            }
        }
        self.len -= removed;
        removed
    }

    /// Adds all of `other`. Returns how many of its numbers are new.
    pub fn merge(&mut self, other: &Self) -> u64 {
        other.iter().map(|range| self.insert(range)).sum()
    }

    /// Removes all of `other`. Returns how many of its numbers were in the set.
    pub fn subtract(&mut self, other: &Self) -> u64 {
        let (Some(first), Some(end)) = (self.first(), self.end()) else { return 0 };
        other.overlap(first..end).map(|range| self.remove(range)).sum()
    }

    /// The part of the set inside `range`.
    #[must_use]
    pub fn within(&self, range: Range<u64>) -> Self {
        self.overlap(range).collect()
    }

    /// The parts of the set's ranges inside `range`.
    fn overlap(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let from = self.ranges.get_prev(&range.start).map_or(range.start, |(first, _)| *first);
        let to = if range.is_empty() { from } else { range.end };
        let touched = self.ranges.range(from..to).map(|(first, end)| *first..*end);
        touched
            .map(move |part| part.start.max(range.start)..part.end.min(range.end))
            .filter(|part| !part.is_empty())
    }

    /// The numbers of `range` that are not in the set.
    #[must_use]
    pub fn missing(&self, range: Range<u64>) -> Self {
        let mut part = Self::from(range.clone());
        part.subtract(&self.within(range));
        part
    }

    /// The numbers in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (small, large) = if self.ranges() <= other.ranges() { (self, other) } else { (other, self) };
        small.iter().flat_map(|range| large.within(range).iter().collect::<Vec<_>>()).collect()
    }

    /// The lowest range, cut to at most `count` numbers; `None` if the set is empty or `count` is 0.
    pub fn first_range(&self, count: u64) -> Option<Range<u64>> {
        let (first, end) = self.ranges.get_min()?;
        (count > 0).then(|| *first..(*end).min(first.saturating_add(count)))
    }

    /// The `count` lowest numbers, or all if there are fewer.
    #[must_use]
    pub fn first_n(&self, count: u64) -> Self {
        let mut left = count;
        let mut part = Self::new();
        for range in self.iter() {
            let end = range.end.min(range.start.saturating_add(left));
            left -= part.insert(range.start..end);
            if left == 0 {
                break;
            }
        }
        part
    }

    /// Fails with the first violated invariant.
    pub fn check(&self) -> Result<(), InvariantViolation> {
        let mut last_end = None;
        for (first, end) in &self.ranges {
            InvariantViolation::unless(first < end && last_end.is_none_or(|last| last < *first), || {
                format!("range {first}..{end} after {last_end:?} is empty, out of order or adjacent")
            })?;
            last_end = Some(*end);
        }
        let len: u64 = self.ranges.iter().map(|(first, end)| end - first).sum();
        InvariantViolation::unless(len == self.len, || {
            format!("the ranges have {len} numbers, the recorded length is {}", self.len)
        })
    }
}

impl From<Range<u64>> for RangeSet {
    fn from(range: Range<u64>) -> Self {
        Self::from_iter([range])
    }
}

impl From<QueryRange> for RangeSet {
    fn from(range: QueryRange) -> Self {
        Self::from(range.queries())
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

impl Serialize for RangeSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.ranges.iter())
    }
}

impl<'de> Deserialize<'de> for RangeSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ranges = Vec::<(u64, u64)>::deserialize(deserializer)?;
        Ok(ranges.into_iter().map(|(first, end)| first..end).collect())
    }
}
