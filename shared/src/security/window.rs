//! Which numbers of a sender came already: a sliding window, as in IPsec (RFC 6479).

const WORD_BITS: u64 = 64;
const WORDS: usize = 17;
/// How far a number may lie behind the highest one: what is older counts as seen. One word more is being filled.
pub(super) const WINDOW: u64 = (WORDS as u64 - 1) * WORD_BITS;

/// The window of one sender: [`WINDOW`] numbers in 144 bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    highest: u64,
    seen: [u64; WORDS],
}

impl Window {
    /// Whether `number` is new; from now on it is not.
    pub(super) fn take(&mut self, number: u64) -> bool {
        if number.saturating_add(WINDOW) <= self.highest {
            return false;
        }
        if number > self.highest {
            let (from, to) = (self.highest / WORD_BITS, number / WORD_BITS);
            for word in (from + 1..=to).take(WORDS) {
                self.seen[slot(word)] = 0;
            }
            self.highest = number;
        }
        let (word, bit) = (&mut self.seen[slot(number / WORD_BITS)], 1 << (number % WORD_BITS));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

fn slot(word: u64) -> usize {
    usize::try_from(word % WORDS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_number_is_taken_once_and_an_old_one_never() {
        let (mut window, mut taken) = (Window::default(), BTreeSet::new());
        let mut number = 1_u64;
        for step in 0..200_000_u64 {
            // Forth by up to 300, back by up to 3,000, a jump now and then.
            number = match step % 7 {
                0 => number.saturating_sub(step * 31 % 3_000).max(1),
                6 if step % 1_001 == 6 => number + 100_000,
                _ => number + step * 17 % 300,
            };
            let highest = taken.last().copied().unwrap_or(0);
            let is_old = number.saturating_add(WINDOW) <= highest;
            let is_new = taken.insert(number) && !is_old;
            assert_eq!(window.take(number), is_new, "{number} behind {highest}");
        }
        assert!(window.take(u64::MAX) && !window.take(u64::MAX) && !window.take(1));
    }
}
