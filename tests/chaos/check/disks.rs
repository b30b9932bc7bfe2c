//! Checks that the disks hold every blob that the log refers to, in four copies, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use idunno_shared::ids::Digest;

/// Examples shown in an error.
const SHOWN: usize = 3;

/// What one member's data directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) member: String,
    /// Blobs and their sizes.
    pub(crate) blobs: BTreeMap<Digest, u64>,
    /// Blobs whose bytes are not those of their name.
    pub(crate) damaged: Vec<Digest>,
    /// Names of partially written files.
    pub(crate) incoming: Vec<String>,
    /// Names of files put aside as damaged.
    pub(crate) corrupt: Vec<String>,
}

/// What the log refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// Blobs that something refers to.
    pub(crate) blobs: u64,
    /// Their bytes, each counted once.
    pub(crate) bytes: u64,
    /// The holders of those that can be asked for: of files and of results.
    pub(crate) holders: BTreeMap<Digest, BTreeSet<String>>,
}

/// Returns everything that is wrong. `copies` is the number of copies each blob should have.
pub(crate) fn check(disks: &[Disk], recorded: &Recorded, copies: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    for disk in disks {
        let member = &disk.member;
        let mut complain = |what: &str, files: &[String]| {
            if !files.is_empty() {
                wrong.push(format!("{member} has {} files {what}: {}", files.len(), some(files)));
            }
        };
        complain("half written", &disk.incoming);
        complain("put aside as damaged", &disk.corrupt);
        complain("with other bytes than their names say", &names(&disk.damaged));
    }
    let mut held: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
    let mut sizes = BTreeMap::new();
    for disk in disks {
        for (digest, size) in &disk.blobs {
            held.entry(*digest).or_default().insert(disk.member.clone());
            sizes.insert(*digest, *size);
        }
    }
    let (blobs, bytes) = (held.len() as u64, sizes.values().sum::<u64>());
    if (blobs, bytes) != (recorded.blobs, recorded.bytes) {
        wrong.push(format!(
            "the disks hold {blobs} blobs of {bytes} bytes, the log refers to {} of {} bytes",
            recorded.blobs, recorded.bytes
        ));
    }
    let uncopied: Vec<Digest> =
        held.iter().filter(|(_, members)| members.len() != copies).map(|(digest, _)| *digest).collect();
    if let Some(first) = uncopied.first() {
        let on = &held[first];
        wrong.push(format!("{} blobs are not on {copies} disks: {first} is on {on:?}", uncopied.len()));
    }
    let none = BTreeSet::new();
    let differs =
        |(digest, holders): &(&Digest, &BTreeSet<String>)| held.get(digest).unwrap_or(&none) != *holders;
    let differing: Vec<_> = recorded.holders.iter().filter(differs).collect();
    if let Some((digest, holders)) = differing.first() {
        let on = held.get(digest).unwrap_or(&none);
        wrong.push(format!(
            "{} blobs are elsewhere than recorded: {digest} is recorded at {holders:?}, and on {on:?}",
            differing.len()
        ));
    }
    wrong
}

fn names(digests: &[Digest]) -> Vec<String> {
    digests.iter().map(ToString::to_string).collect()
}

fn some(files: &[String]) -> String {
    files[..files.len().min(SHOWN)].join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u8) -> Digest {
        Digest([number; 32])
    }

    /// Two members with both of two blobs.
    fn good() -> (Vec<Disk>, Recorded) {
        let blobs = BTreeMap::from([(digest(1), 10), (digest(2), 20)]);
        let disk = |member: &str| Disk { member: member.to_owned(), blobs: blobs.clone(), ..Disk::default() };
        let both: BTreeSet<String> = ["m1", "m2"].map(String::from).into();
        let recorded = Recorded { blobs: 2, bytes: 30, holders: BTreeMap::from([(digest(1), both)]) };
        (vec![disk("m1"), disk("m2")], recorded)
    }

    /// How many complaints there are once `spoil` has been at it.
    fn complaints(spoil: impl FnOnce(&mut Vec<Disk>, &mut Recorded)) -> usize {
        let (mut disks, mut recorded) = good();
        spoil(&mut disks, &mut recorded);
        check(&disks, &recorded, 2).len()
    }

    #[test]
    fn a_consistent_cluster_passes() {
        assert_eq!(complaints(|_, _| {}), 0);
    }

    #[test]
    fn every_kind_of_inconsistency_is_caught() {
        assert_eq!(complaints(|disks, _| disks[0].incoming.push(String::from("a.1"))), 1);
        assert_eq!(complaints(|disks, _| disks[1].corrupt.push(String::from("a"))), 1);
        assert_eq!(complaints(|disks, _| disks[1].damaged.push(digest(1))), 1);
        // An orphan, on one disk and on as many as a blob should be on.
        let orphan = |disk: &mut Disk| disk.blobs.extend([(digest(9), 1)]);
        assert_eq!(complaints(|disks, _| orphan(&mut disks[0])), 2);
        assert_eq!(complaints(|disks, _| disks.iter_mut().for_each(orphan)), 1);
        // A copy too few; lost altogether; too many.
        let loss = |disk: &mut Disk| disk.blobs.retain(|blob, _| *blob != digest(2));
        assert_eq!(complaints(|disks, _| loss(&mut disks[0])), 1);
        assert_eq!(complaints(|disks, _| disks.iter_mut().for_each(loss)), 1);
        let third =
            |disks: &mut Vec<Disk>| disks.push(Disk { member: String::from("m3"), ..disks[0].clone() });
        assert_eq!(complaints(|disks, _| third(disks)), 2);
        // Recorded where it is not.
        let elsewhere = |recorded: &mut Recorded| {
            recorded.holders.insert(digest(2), ["m1", "m7"].map(String::from).into());
        };
        assert_eq!(complaints(|_, recorded| elsewhere(recorded)), 1);
    }
}
