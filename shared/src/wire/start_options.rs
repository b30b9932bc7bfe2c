//! What a job runs of its dataset, and when it gives up: chosen at its start.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::JobId;

/// Which of a dataset's inputs are the queries of a job. Queries are in the order of their inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selection {
    /// All.
    #[default]
    All,
    /// The first so many, or all if there are fewer.
    First(NonZeroU64),
    /// So many drawn at random, or all if there are fewer. The same number of the same dataset gives the same sample.
    ///
    /// The sample is stratified: the dataset is cut into as many equal parts, and one input of each is drawn.
    Sample(NonZeroU64),
}

impl Selection {
    /// How many queries `inputs` inputs make.
    pub fn count(self, inputs: u64) -> u64 {
        match self {
            Self::All => inputs,
            Self::First(count) | Self::Sample(count) => inputs.min(count.get()),
        }
    }

    /// The number of the input that a query has, both from 0. Grows with the query.
    pub fn input_of(self, query: u64, inputs: u64) -> u64 {
        let Self::Sample(count) = self else { return query };
        if count.get() >= inputs || query >= count.get() {
            return query;
        }
        let start = |part: u64| {
            let start = u128::from(part) * u128::from(inputs) / u128::from(count.get());
            u64::try_from(start).unwrap_or(u64::MAX)
        };
        let (first, end) = (start(query), start(query + 1));
        first + scramble(query) % (end - first).max(1)
    }

    /// Whether inputs are left out between those of two queries.
    pub const fn has_gaps(self) -> bool {
        matches!(self, Self::Sample(_))
    }
}

/// A number that looks random: the finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
/// generators, 2014).
const fn scramble(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// How many queries of a job may fail before it is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailedMax {
    /// So many.
    Queries(u64),
    /// This part of all its queries, in percent: 0 to 100.
    Percent(u8),
}

impl FailedMax {
    /// Whether more than that have failed.
    pub fn is_exceeded(self, failed: u64, queries: u64) -> bool {
        match self {
            Self::Queries(max) => failed > max,
            Self::Percent(max) => u128::from(failed) * 100 > u128::from(queries) * u128::from(max),
        }
    }
}

impl fmt::Display for FailedMax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queries(1) => write!(f, "1 query"),
            Self::Queries(max) => write!(f, "{max} queries"),
            Self::Percent(max) => write!(f, "{max} % of its queries"),
        }
    }
}

/// The text is not a number of queries, nor a part of them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("write a number of queries, such as 100, or a part of them, such as 5%")]
pub struct FailedMaxError;

impl FromStr for FailedMax {
    type Err = FailedMaxError;

    fn from_str(text: &str) -> Result<Self, FailedMaxError> {
        let Some(percent) = text.strip_suffix('%') else {
            return text.parse().map(Self::Queries).map_err(|_not_a_number| FailedMaxError);
        };
        percent.parse().ok().filter(|percent| *percent <= 100).map(Self::Percent).ok_or(FailedMaxError)
    }
}

/// Whether a job takes answers over from an earlier one instead of asking its model again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reuse {
    /// No: all its queries are run, and its rows cannot be taken over.
    #[default]
    Off,
    /// Yes, but there is no earlier job to take them from. Its own rows can be taken over: they have the digest of their input.
    On,
    /// Yes, from this job.
    From(JobId),
}

impl Reuse {
    /// Whether it is off.
    pub fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

/// What a person chooses when a job starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartOptions {
    /// Which inputs it runs: for the first start only.
    pub selection: Selection,
    /// How many of its queries may fail before it is paused; `None` for any number. A job that is resumed has the limit that
    /// its last start gave.
    pub failed_max: Option<FailedMax>,
    /// The job that must be done before it runs.
    pub after: Option<JobId>,
    /// Whether it runs only what is new: for the first start only. The log chooses the job that it takes answers from.
    #[serde(default, skip_serializing_if = "Reuse::is_off")]
    pub reuse: Reuse,
}

impl StartOptions {
    /// Whether nothing is chosen.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: u64) -> NonZeroU64 {
        NonZeroU64::new(number).unwrap()
    }

    #[test]
    fn a_sample_has_one_input_of_each_equal_part() {
        for (inputs, count) in [(10, 3), (1_000, 999), (1_000_000_000, 7), (64, 64), (5, 9), (u64::MAX, 3)] {
            let sample = Selection::Sample(number(count));
            let picked: Vec<u64> =
                (0..sample.count(inputs)).map(|query| sample.input_of(query, inputs)).collect();
            assert_eq!(picked.len() as u64, count.min(inputs));
            assert!(
                picked.is_sorted_by(|a, b| a < b) && picked.iter().all(|input| *input < inputs),
                "{picked:?}"
            );
        }
        // Over many samples each input of a part is drawn as often as any other.
        let mut drawn = [0_u32; 10];
        let sample = Selection::Sample(number(1_000));
        (0..1_000)
            .for_each(|query| drawn[usize::try_from(sample.input_of(query, 10_000) % 10).unwrap()] += 1);
        assert!(drawn.iter().all(|times| (70..130).contains(times)), "{drawn:?}");
    }

    #[test]
    fn the_first_inputs_are_queries_of_the_same_numbers() {
        let first = Selection::First(number(3));
        assert_eq!((first.count(10), first.count(2), first.input_of(2, 10)), (3, 2, 2));
        assert_eq!((Selection::All.count(10), Selection::All.input_of(9, 10)), (10, 9));
    }

    #[test]
    fn a_limit_of_failures_is_a_number_or_a_part() {
        let limit = |text: &str| text.parse::<FailedMax>();
        assert_eq!((limit("0"), limit("5%")), (Ok(FailedMax::Queries(0)), Ok(FailedMax::Percent(5))));
        for wrong in ["", "%", "101%", "-1", "5 %", "many"] {
            assert_eq!(limit(wrong), Err(FailedMaxError), "{wrong}");
        }
        assert!(FailedMax::Queries(0).is_exceeded(1, 10) && !FailedMax::Queries(1).is_exceeded(1, 10));
        assert!(FailedMax::Percent(5).is_exceeded(6, 100) && !FailedMax::Percent(5).is_exceeded(5, 100));
        assert!(
            !FailedMax::Percent(100).is_exceeded(10, 10) && FailedMax::Percent(0).is_exceeded(1, u64::MAX)
        );
    }
}
