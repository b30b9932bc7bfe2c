//! Collections whose length is checked while they are decoded.
//!
//! An announced length allocates nothing: memory grows with the entries that are there, and decoding stops at the first one
//! beyond the limit. Used as `#[serde(deserialize_with = "bounded::list::<LIMIT, _, _>")]`; the wire format is that of the
//! plain collection.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Most entries of a list that the metadata log may hold. It exceeds what a command may have, because a command beyond that
/// is logged before it is refused.
pub const LOGGED_ITEMS_MAX: usize = 65_536;

/// Decodes a list of at most `MAX` entries.
pub fn list<'de, const MAX: usize, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(ListVisitor::<MAX, T>(PhantomData))
}

/// Decodes a list of at most `MAX` entries that may be absent.
pub fn optional_list<'de, const MAX: usize, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let list = Option::<List<MAX, T>>::deserialize(deserializer)?;
    Ok(list.map(|List(list)| list))
}

/// Decodes a map of at most `MAX` entries.
pub fn map<'de, const MAX: usize, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord,
    V: Deserialize<'de>,
{
    deserializer.deserialize_map(EntriesVisitor::<MAX, K, V>(PhantomData))
}

struct List<const MAX: usize, T>(Vec<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Deserialize<'de> for List<MAX, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        list::<MAX, _, _>(deserializer).map(Self)
    }
}

struct ListVisitor<const MAX: usize, T>(PhantomData<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for ListVisitor<MAX, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX} entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
        if let Some(announced) = entries.size_hint().filter(|&announced| announced > MAX) {
            return Err(A::Error::invalid_length(announced, &self));
        }
        let mut list = Vec::new();
        while let Some(entry) = entries.next_element()? {
            if list.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            list.push(entry);
        }
        Ok(list)
    }
}

struct EntriesVisitor<const MAX: usize, K, V>(PhantomData<(K, V)>);

impl<'de, const MAX: usize, K, V> Visitor<'de> for EntriesVisitor<MAX, K, V>
where
    K: Deserialize<'de> + Ord,
    V: Deserialize<'de>,
{
    type Value = BTreeMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map of at most {MAX} entries")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<BTreeMap<K, V>, A::Error> {
        if let Some(announced) = entries.size_hint().filter(|&announced| announced > MAX) {
            return Err(A::Error::invalid_length(announced, &self));
        }
        let mut map = BTreeMap::new();
        let mut count = 0;
        while let Some((key, value)) = entries.next_entry()? {
            if count == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            count += 1;
            map.insert(key, value);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Message {
        #[serde(deserialize_with = "list::<3, _, _>")]
        names: Vec<String>,
        #[serde(default, deserialize_with = "optional_list::<3, _, _>")]
        more: Option<Vec<u64>>,
        #[serde(default, deserialize_with = "map::<3, _, _, _>")]
        map: BTreeMap<u64, u64>,
    }

    fn message(names: usize, more: Option<usize>, map: u64) -> Message {
        Message {
            names: vec![String::from("a"); names],
            more: more.map(|more| vec![1; more]),
            map: (0..map).map(|n| (n, n)).collect(),
        }
    }

    #[test]
    fn collections_within_their_limits_come_back_and_longer_ones_are_refused() {
        let again =
            |message: &Message| rmp_serde::from_slice::<Message>(&rmp_serde::to_vec(message).unwrap());
        for good in [message(0, None, 0), message(3, Some(3), 3), message(1, Some(0), 1)] {
            assert_eq!(again(&good).unwrap(), good);
        }
        for bad in [message(4, None, 0), message(0, Some(4), 0), message(0, None, 4)] {
            let error = again(&bad).unwrap_err().to_string();
            assert!(error.contains("at most 3 entries"), "{error}");
        }
        assert_eq!(
            rmp_serde::from_slice::<Message>(&rmp_serde::to_vec(&(["a"],)).unwrap()).unwrap().more,
            None
        );
    }

    #[test]
    fn an_announced_length_beyond_the_limit_is_refused_at_once() {
        // A list of 4 billion entries, of which none follows.
        let error = rmp_serde::from_slice::<Message>(&[0x91, 0xdd, 0xff, 0xff, 0xff, 0xff]).unwrap_err();
        assert!(error.to_string().contains("at most 3 entries"), "{error}");
    }
}
