//! A file of which only some bytes are in memory.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Some bytes of a file, by where they lie in it.
#[derive(Clone, Debug, Default)]
pub struct FileParts {
    bytes: u64,
    by_start: BTreeMap<u64, Bytes>,
}

impl FileParts {
    /// Nothing of a file of so many bytes.
    pub fn of_file(bytes: u64) -> Self {
        Self { bytes, by_start: BTreeMap::new() }
    }

    /// Adds what the file has from `start` on.
    pub fn add(&mut self, start: u64, part: Bytes) {
        self.by_start.insert(start, part);
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.bytes
    }

    /// What the file has from `start` on, as far as the part goes in which that lies: nothing at a part's end. `None` if it
    /// lies in none.
    pub fn from(&self, start: u64) -> Option<Bytes> {
        let (at, part) = self.by_start.range(..=start).next_back()?;
        let skipped = usize::try_from(start - at).ok().filter(|skipped| *skipped <= part.len())?;
        Some(part.slice(skipped..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_where_they_lie() {
        let mut file = FileParts::of_file(100);
        file.add(10, Bytes::from_static(b"abc"));
        file.add(20, Bytes::from_static(b"xyz"));
        let from = |start| file.from(start).map(|found| String::from_utf8(found.to_vec()).unwrap());
        assert_eq!((from(9), from(14), from(24)), (None, None, None));
        assert_eq!([10, 12, 13, 20, 21].map(|start| from(start).unwrap()), ["abc", "c", "", "xyz", "yz"]);
        assert_eq!(file.file_bytes(), 100);
    }
}
