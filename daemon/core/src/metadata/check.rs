//! The invariants of the metadata, recomputed from scratch. For tests, simulations and debug builds: it reads all.

use std::collections::BTreeMap;

use idunno_shared::ids::Digest;
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::control::{JobState, VERSIONS_KEPT};

use super::{HOLDERS_PER_BLOB_MAX, Job, State};
use crate::ranges::RangeSet;

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

impl Job {
    fn check(&self) -> Result<(), String> {
        let Self { id, submitted, done, dead, held, .. } = self;
        for set in [done, dead, held] {
            set.check().map_err(|error| format!("{id}: {error}"))?;
            ensure(set.end().unwrap_or(0) <= *submitted, || {
                format!("{id}: a query beyond {submitted}: {set:?}")
            })?;
        }
        ensure(done.intersection(dead).is_empty(), || format!("{id}: queries both done and dead"))?;
        ensure(self.pending().len() + done.len() + dead.len() == *submitted, || {
            format!("{id}: queries lost")
        })?;
        let mut answered = RangeSet::new();
        for range in self.segments.iter().flat_map(|segment| &segment.ranges) {
            let new = answered.insert(range.first..range.end());
            ensure(new == u64::from(range.count), || format!("{id}: answered twice within {range:?}"))?;
        }
        ensure(answered == *done, || format!("{id}: segments answer {answered:?}, done are {done:?}"))?;
        ensure(self.statistics.count() == done.len(), || format!("{id}: {:?}", self.statistics))?;
        self.statistics.check().map_err(|error| format!("{id}: {error}"))?;
        let marked_dead: RangeSet = self.dead_letters.keys().map(|index| *index..index + 1).collect();
        ensure(marked_dead == *dead, || format!("{id}: dead_letters of {marked_dead:?}, dead are {dead:?}"))?;

        let all_decided = done.len() + dead.len() == *submitted;
        let cancelled = self.state == JobState::Cancelled;
        ensure(cancelled || (self.state == JobState::Done) == (all_decided && *submitted > 0), || {
            format!("{id}: {:?}", self.state)
        })?;
        ensure(cancelled || (self.state == JobState::Added) == (*submitted == 0), || {
            format!("{id}: {:?}", self.state)
        })?;
        let running = self.state == JobState::Running;
        ensure(running == self.running_since_ms.is_some(), || {
            format!("{id}: its running time does not fit its state")
        })?;
        ensure(self.state.is_over() == self.finished_ms.is_some(), || {
            format!("{id}: finished at {:?}", self.finished_ms)
        })?;
        ensure(self.has_inputs() != (held.is_empty() && dead.is_empty()), || {
            format!("{id}: names that nobody needs, or none")
        })?;
        let needed = cancelled || self.pending().iter().all(|range| held.contains_all(range));
        ensure(needed, || format!("{id}: queries that may be run are not held: {held:?}"))?;
        ensure(!self.state.is_over() || held.intersection(dead) == *held, || {
            format!("{id}: inputs that nobody needs are held: {held:?}")
        })?;
        ensure(!self.filed || self.state == JobState::Done, || format!("{id}: filed, and not done"))?;
        let records = self.records.as_ref().map_or(*submitted, |records| records.count);
        let queries = self.manifest.as_ref().map_or(records, |manifest| manifest.queries.len() as u64);
        ensure(queries == *submitted, || {
            format!("{id}: {queries} queries in the manifest, {submitted} submitted")
        })
    }

    /// All that this job keeps from being collected.
    fn referenced(&self) -> impl Iterator<Item = &BlobRef> {
        let manifest = self.manifest.iter();
        let inputs = manifest.flat_map(|manifest| {
            self.held
                .iter()
                .flat_map(|range| manifest.slice(range.start, range.end))
                .flat_map(|(_, query)| &*query.extents)
        });
        let held = !self.held.is_empty();
        let labels = self.labels.iter().filter(move |_| held).flat_map(|extents| &**extents);
        let artefact = self.artefact.iter().filter(move |_| held).flat_map(|artefact| &*artefact.extents);
        let records = self.records.iter().filter(move |_| held).flat_map(|records| &*records.extents);
        inputs
            .chain(records)
            .chain(labels)
            .chain(artefact)
            .chain(self.segments.iter().map(|segment| &segment.blob))
    }
}

impl State {
    /// Whether every invariant of the module holds: what is wrong otherwise.
    pub fn check(&self) -> Result<(), String> {
        let mut references: BTreeMap<Digest, (u64, u64)> = BTreeMap::new();
        let mut count = |blob: &BlobRef| references.entry(blob.digest).or_insert((blob.size, 0)).1 += 1;
        for (key, file) in &self.files {
            let numbers: Vec<u64> = file.versions.iter().map(|version| version.number).collect();
            let ordered = numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]);
            let well = ordered && !numbers.is_empty() && numbers.len() <= VERSIONS_KEPT && numbers[0] > 0;
            ensure(well, || format!("file '{}' has versions {numbers:?}", key.0))?;
            for version in &file.versions {
                version.extents.iter().for_each(&mut count);
                let sum: u64 = version.extents.iter().map(|blob| blob.size).sum();
                ensure(sum == version.size, || {
                    format!("file '{}' has {sum} bytes, says {}", key.0, version.size)
                })?;
            }
        }
        for (id, job) in &self.jobs {
            ensure(job.id == *id, || format!("{id} is kept as {}", job.id))?;
            job.check()?;
            job.referenced().for_each(&mut count);
        }
        let artefacts = self.models.values().filter_map(|model| model.artefact.as_ref());
        artefacts.flat_map(|artefact| &*artefact.extents).for_each(&mut count);
        self.check_blobs(&references)?;
        self.operations.check()
    }

    fn check_blobs(&self, references: &BTreeMap<Digest, (u64, u64)>) -> Result<(), String> {
        for (digest, (size, _)) in references {
            let known = self.blobs.get(digest).map(|blob| blob.size);
            ensure(known == Some(*size), || format!("blob {digest} of {size} bytes is kept with {known:?}"))?;
        }
        for (digest, blob) in &self.blobs {
            let counted = references.get(digest).map_or(0, |(_, count)| *count);
            let kept = blob.references;
            ensure(counted == kept, || format!("blob {digest} has {counted} references, {kept} are kept"))?;
            let ordered =
                blob.holders.is_sorted_by(|a, b| a < b) && blob.holders.len() <= HOLDERS_PER_BLOB_MAX;
            ensure(ordered, || format!("blob {digest} has holders {:?}", blob.holders))?;
        }
        Ok(())
    }
}
