//! A list that nearly always has one item, which then needs no memory of its own: there may be millions of files.

use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One item in place, or any other number of them, shared between clones. Serialised as the list of the items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany<T>(Items<T>);

/// A list of one item is always `One`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Items<T> {
    One(T),
    Many(Arc<[T]>),
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Items::Many(Arc::default()))
    }
}

impl<T> Deref for OneOrMany<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Items::One(item) => std::slice::from_ref(item),
            Items::Many(items) => items,
        }
    }
}

impl<T> FromIterator<T> for OneOrMany<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self::from(Vec::from_iter(items))
    }
}

impl<T> From<Vec<T>> for OneOrMany<T> {
    fn from(mut items: Vec<T>) -> Self {
        match (items.pop(), items.is_empty()) {
            (Some(item), true) => Self(Items::One(item)),
            (last, _) => {
                items.extend(last);
                Self(Items::Many(items.into()))
            }
        }
    }
}

impl<T: Serialize> Serialize for OneOrMany<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_it_was_written_and_one_item_lies_in_place() {
        for count in 0..4_u64 {
            let (plain, list) = ((0..count).collect::<Vec<_>>(), (0..count).collect::<OneOrMany<_>>());
            assert_eq!((*list).to_vec(), plain);
            assert_eq!(matches!(list.0, Items::One(_)), count == 1);
            let bytes = rmp_serde::to_vec(&plain).unwrap();
            assert_eq!(rmp_serde::to_vec(&list).unwrap(), bytes);
            assert_eq!(rmp_serde::from_slice::<OneOrMany<u64>>(&bytes).unwrap(), list);
        }
    }
}
