//! The bytes that were used last, by key, up to a total. What is dropped is freed at once, which a concurrent cache with
//! deferred reclamation does not promise.

use std::hash::Hash;

use lru::LruCache;

use super::traits::FetchedBytes;

pub(super) struct RecentBytes<K: Hash + Eq> {
    by_key: LruCache<K, FetchedBytes>,
    bytes: u64,
    bytes_max: u64,
}

impl<K: Hash + Eq> RecentBytes<K> {
    /// Keeps at most so many bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { by_key: LruCache::unbounded(), bytes: 0, bytes_max }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<FetchedBytes> {
        self.by_key.get(key).cloned()
    }

    /// Adds bytes, and drops those that were not used for longest.
    pub(super) fn add(&mut self, key: K, added: FetchedBytes) {
        self.bytes += added.bytes.len() as u64;
        let replaced = self.by_key.push(key, added);
        self.bytes -= replaced.map_or(0, |(_, old)| old.bytes.len() as u64);
        while self.bytes > self.bytes_max
            && let Some((_, oldest)) = self.by_key.pop_lru()
        {
            self.bytes -= oldest.bytes.len() as u64;
        }
    }

    pub(super) fn clear(&mut self) {
        self.by_key.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_is_dropped_first() {
        let bytes = |count| FetchedBytes { bytes: vec![0; count].into(), is_local: true };
        let mut recent = RecentBytes::new(10);
        recent.add("a", bytes(4));
        recent.add("b", bytes(4));
        recent.add("a", bytes(5));
        assert!(recent.get(&"a").is_some_and(|kept| kept.bytes.len() == 5), "the newer one");
        assert!(recent.get(&"b").is_some() && recent.get(&"a").is_some());
        recent.add("c", bytes(2));
        assert!(recent.get(&"b").is_none() && recent.get(&"a").is_some() && recent.get(&"c").is_some());
        recent.add("d", bytes(11));
        assert!(recent.get(&"d").is_none(), "it is larger than all that is kept");
    }
}
