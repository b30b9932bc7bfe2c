use std::collections::BTreeSet;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

fn set(ranges: &[(u64, u64)]) -> RangeSet {
    ranges.iter().map(|(first, end)| *first..*end).collect()
}

#[test]
fn touching_ranges_merge() {
    let mut ranges = set(&[(0, 10), (20, 30)]);
    assert_eq!(ranges.insert(10..20), 10);
    assert_eq!(ranges, set(&[(0, 30)]));
    assert_eq!(ranges.insert(5..25), 0);
    assert_eq!(ranges.remove(10..20), 10);
    assert_eq!(ranges.iter().collect::<Vec<_>>(), [0..10, 20..30]);
    assert!(ranges.contains(9) && !ranges.contains(10) && ranges.contains(20) && !ranges.contains(30));
    assert!(ranges.contains_all(2..10) && !ranges.contains_all(2..11) && ranges.contains_all(15..15));
}

#[test]
fn parts_are_cut_at_the_requested_numbers() {
    let ranges = set(&[(0, 4), (8, 12), (20, 21)]);
    assert_eq!(ranges.first_range(3), Some(0..3));
    assert_eq!(ranges.first_range(9), Some(0..4));
    assert_eq!(ranges.first_range(0), None);
    assert_eq!(ranges.first_n(6), set(&[(0, 4), (8, 10)]));
    assert_eq!(ranges.first_n(100), ranges);
    assert!(ranges.first_n(0).is_empty());
    assert_eq!(ranges.within(2..9), set(&[(2, 4), (8, 9)]));
    assert_eq!(ranges.missing(2..9), set(&[(4, 8)]));
    assert_eq!(ranges.intersection(&set(&[(3, 21)])), set(&[(3, 4), (8, 12), (20, 21)]));
    assert_eq!((ranges.first(), ranges.end(), ranges.ranges(), ranges.len()), (Some(0), Some(21), 3, 9));
}

#[test]
fn long_ranges_are_split_for_the_wire() {
    let long = u64::from(u32::MAX) + 5;
    let queries: Vec<_> = RangeSet::from(7..7 + long).queries().collect();
    assert_eq!(queries.len(), 2);
    assert_eq!(queries[1], QueryRange { first: 7 + u64::from(u32::MAX), count: 5 });
    assert_eq!(set(&[(1, 3)]).queries().collect::<Vec<_>>(), [QueryRange { first: 1, count: 2 }]);
}

#[test]
fn it_survives_serialisation_and_accepts_ranges_in_any_order() {
    let ranges = set(&[(0, 4), (8, 12)]);
    let bytes = rmp_serde::to_vec(&ranges).unwrap();
    assert_eq!(rmp_serde::from_slice::<RangeSet>(&bytes).unwrap(), ranges);
    let bad = rmp_serde::to_vec(&[(8u64, 12u64), (5, 3), (0, 4), (2, 4)]).unwrap();
    assert_eq!(rmp_serde::from_slice::<RangeSet>(&bad).unwrap(), ranges);
}

#[test]
fn it_behaves_like_a_set_of_numbers() {
    for seed in 0..50 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut ranges = RangeSet::new();
        let mut model = BTreeSet::new();
        for _ in 0..200 {
            let first = rng.random_range(0..100u64);
            let range = first..first + rng.random_range(0..12);
            if rng.next_u32() % 2 == 0 {
                assert_eq!(ranges.insert(range.clone()), range.filter(|n| model.insert(*n)).count() as u64);
            } else {
                assert_eq!(ranges.remove(range.clone()), range.filter(|n| model.remove(n)).count() as u64);
            }
            ranges.check().unwrap();
            assert_eq!(ranges.numbers().collect::<BTreeSet<_>>(), model, "seed {seed}");
            assert_eq!(ranges.len(), model.len() as u64);
            let window = first..first + 20;
            let inside: BTreeSet<u64> = model.range(window.clone()).copied().collect();
            assert_eq!(ranges.within(window.clone()).numbers().collect::<BTreeSet<_>>(), inside);
            let outside: BTreeSet<u64> = window.clone().filter(|n| !model.contains(n)).collect();
            assert_eq!(ranges.missing(window).numbers().collect::<BTreeSet<_>>(), outside);
        }
    }
}
