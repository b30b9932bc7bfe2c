//! Sums over the last seconds.

use crate::time::Instant;

/// Sums amounts over the last `N` seconds, in buckets of one second.
#[derive(Clone, Debug)]
pub(super) struct Window<const N: usize> {
    amounts: [u64; N],
    second: u64,
}

impl<const N: usize> Window<N> {
    pub(super) fn new() -> Self {
        Self { amounts: [0; N], second: 0 }
    }

    pub(super) fn add(&mut self, amount: u64, now: Instant) {
        self.advance(now);
        let bucket = self.bucket(self.second);
        *bucket = bucket.saturating_add(amount);
    }

    /// The sum over the window that ends at `now`.
    pub(super) fn sum(&self, now: Instant) -> u64 {
        let mut copy = self.clone();
        copy.advance(now);
        // Times come from workers and may be arbitrarily large.
        copy.amounts.iter().fold(0, |sum, amount| sum.saturating_add(*amount))
    }

    fn advance(&mut self, now: Instant) {
        let second = now.as_micros() / 1_000_000;
        let first_stale = (self.second + 1).max(second.saturating_sub(N as u64 - 1));
        for stale in first_stale..=second {
            *self.bucket(stale) = 0;
        }
        self.second = self.second.max(second);
    }

    fn bucket(&mut self, second: u64) -> &mut u64 {
        let index = usize::try_from(second % N as u64).unwrap_or(0);
        &mut self.amounts[index]
    }
}
