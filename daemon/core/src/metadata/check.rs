//! The invariants of the metadata, recomputed from scratch: for tests, simulations and recovery, because it reads
//! everything.

use std::collections::BTreeMap;

use idunno_shared::ids::Digest;
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::control::{JobState, VERSIONS_KEPT};

use super::pins::Pins;
use super::{DeadLetterRecord, FileRecord, HOLDERS_PER_BLOB_MAX, JobRecord, State};
use crate::invariant::InvariantViolation;
use crate::ranges::RangeSet;

/// Of each referenced blob, its size and how often it is referenced.
type References = BTreeMap<Digest, (u64, u64)>;

impl FileRecord {
    fn check(&self) -> Result<(), InvariantViolation> {
        let numbers: Vec<u64> = self.versions.iter().map(|version| version.number).collect();
        let is_ordered = numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        let is_valid = is_ordered && !numbers.is_empty() && numbers.len() <= VERSIONS_KEPT && numbers[0] > 0;
        InvariantViolation::unless(is_valid, || format!("its versions are {numbers:?}"))?;
        for version in self.versions.iter() {
            let sum: u64 = version.extents.iter().map(|blob| blob.size).sum();
            let size = version.size();
            InvariantViolation::unless(sum == size, || {
                format!("its extents have {sum} bytes, its size is {size}")
            })?;
        }
        Ok(())
    }
}

impl JobRecord {
    fn check(&self) -> Result<(), InvariantViolation> {
        self.check_queries()?;
        self.check_state()?;
        self.check_inputs()
    }

    /// Every query is pending, answered once, or dead.
    fn check_queries(&self) -> Result<(), InvariantViolation> {
        let Self { submitted, done, dead, held, .. } = self;
        for set in [done, dead, held] {
            set.check()?;
            InvariantViolation::unless(set.end().unwrap_or(0) <= *submitted, || {
                format!("it has {submitted} queries, and {set:?} contains more")
            })?;
        }
        InvariantViolation::unless(done.intersection(dead).is_empty(), || {
            String::from("queries are both done and dead")
        })?;
        InvariantViolation::unless(self.pending().len() + done.len() + dead.len() == *submitted, || {
            String::from("queries are neither pending, done nor dead")
        })?;
        let mut answered = RangeSet::new();
        for range in self.segments.iter().flat_map(|segment| &segment.ranges) {
            let new = answered.insert(range.queries());
            InvariantViolation::unless(new == u64::from(range.count), || {
                format!("queries of {range:?} are answered twice")
            })?;
        }
        InvariantViolation::unless(answered == *done, || {
            format!("the segments answer {answered:?}, done are {done:?}")
        })?;
        InvariantViolation::unless(self.statistics.count() == done.len(), || {
            format!("{:?}", self.statistics)
        })?;
        self.statistics.check()?;
        let dead_letters: RangeSet = self.dead_letters.keys().map(|index| *index..index + 1).collect();
        InvariantViolation::unless(dead_letters == *dead, || {
            format!("the dead letters are {dead_letters:?}, dead are {dead:?}")
        })
    }

    fn check_state(&self) -> Result<(), InvariantViolation> {
        let Self { submitted, done, dead, state, .. } = self;
        let is_cancelled = *state == JobState::Cancelled;
        let is_decided = done.len() + dead.len() == *submitted && *submitted > 0;
        InvariantViolation::unless(is_cancelled || (*state == JobState::Done) == is_decided, || {
            format!("it is {state:?} with {} of {submitted} queries decided", done.len() + dead.len())
        })?;
        InvariantViolation::unless(is_cancelled || (*state == JobState::Added) == (*submitted == 0), || {
            format!("it is {state:?} with {submitted} queries")
        })?;
        InvariantViolation::unless((*state == JobState::Running) == self.running_since_ms.is_some(), || {
            format!("it is {state:?}, running since {:?}", self.running_since_ms)
        })?;
        InvariantViolation::unless(state.is_over() == self.finished_ms.is_some(), || {
            format!("it is {state:?}, finished at {:?}", self.finished_ms)
        })?;
        let is_end = matches!(state, JobState::Done | JobState::Cancelled | JobState::Paused(_));
        InvariantViolation::unless(is_end || self.webhook_due_ms().is_none(), || {
            format!("it is {state:?}, and an end of it is to be told")
        })?;
        InvariantViolation::unless(!self.filed || *state == JobState::Done, || {
            format!("it is {state:?}, and its results are in a file")
        })
    }

    /// Inputs and their names are kept as long as a query may need them, and no longer.
    fn check_inputs(&self) -> Result<(), InvariantViolation> {
        let Self { submitted, dead, held, .. } = self;
        let are_found = self.records.as_ref().is_some_and(|records| records.has_places());
        let is_listed = self.manifest.is_some() || are_found;
        InvariantViolation::unless(!is_listed || !held.is_empty() || !dead.is_empty(), || {
            String::from("input names are kept for no query")
        })?;
        InvariantViolation::unless(
            self.folder.is_none() || !held.is_empty() || self.state == JobState::Added,
            || String::from("a folder is pinned for no query"),
        )?;
        let folder = self.folder.as_ref().and_then(|folder| folder.index.as_ref());
        InvariantViolation::unless(held.is_empty() || is_listed || folder.is_some(), || {
            String::from("inputs are missing")
        })?;
        let is_named = |letter: &DeadLetterRecord| is_listed || letter.name.is_some();
        InvariantViolation::unless(self.dead_letters.values().all(|letter| is_named(letter)), || {
            String::from("names of dead queries are missing")
        })?;
        let is_cancelled = self.state == JobState::Cancelled;
        let has_needed = is_cancelled || self.pending().iter().all(|range| held.contains_all(range));
        InvariantViolation::unless(has_needed, || {
            format!("inputs of pending queries are not held: {held:?}")
        })?;
        InvariantViolation::unless(!self.state.is_over() || held.intersection(dead) == *held, || {
            format!("inputs are held for queries that cannot run again: {held:?}")
        })?;
        let listed = self.manifest.as_ref().map(|manifest| manifest.queries.len() as u64);
        let records = self.records.as_ref().map(|records| records.count);
        let inputs = records.or_else(|| folder.map(|index| index.count));
        let selected = inputs.map(|inputs| self.terms.start.selection.count(inputs));
        let queries = listed.or(selected).unwrap_or(*submitted);
        InvariantViolation::unless(queries == *submitted, || {
            format!("it has {queries} queries in the manifest, {submitted} submitted")
        })
    }

    /// The blobs that this job keeps from being collected, once per reference.
    fn referenced(&self) -> impl Iterator<Item = &BlobRef> {
        let manifest = self.manifest.iter();
        let inputs = manifest.flat_map(|manifest| {
            self.held
                .iter()
                .flat_map(|range| manifest.slice(range.start, range.end))
                .flat_map(|(_, query)| &*query.extents)
        });
        let is_held = !self.held.is_empty();
        let labels = self.labels.iter().filter(move |_| is_held).flat_map(|extents| &**extents);
        let artefact = self.artefact.iter().filter(move |_| is_held).flat_map(|artefact| &*artefact.extents);
        let records = self.records.iter().filter(move |_| is_held).flat_map(|records| &*records.extents);
        inputs
            .chain(records)
            .chain(labels)
            .chain(artefact)
            .chain(self.segments.iter().map(|segment| &segment.blob))
    }
}

impl State {
    /// Fails with the first violated invariant.
    pub fn check(&self) -> Result<(), InvariantViolation> {
        let mut references = References::new();
        let mut count = |blob: &BlobRef| references.entry(blob.digest).or_insert((blob.size, 0)).1 += 1;
        for (key, file) in &self.files {
            file.check().map_err(|violation| violation.of(format_args!("file '{}'", key.0)))?;
            file.versions.iter().flat_map(|version| &*version.extents).for_each(&mut count);
        }
        for (id, job) in &self.jobs {
            InvariantViolation::unless(job.id == *id, || format!("{} is stored as {id}", job.id))?;
            job.check().map_err(|violation| violation.of(id))?;
            job.referenced().for_each(&mut count);
            self.check_folder_of(job).map_err(|violation| violation.of(id))?;
            self.check_waiting(job).map_err(|violation| violation.of(id))?;
        }
        let untold = self.jobs.values().filter(|job| job.webhook_due_ms().is_some()).map(|job| job.id);
        InvariantViolation::unless(self.untold.iter().copied().eq(untold), || {
            format!("untold are {:?}", self.untold)
        })?;
        let unsettled = self.jobs.values().filter(|job| job.is_unsettled()).map(|job| job.id);
        InvariantViolation::unless(self.unsettled.iter().copied().eq(unsettled), || {
            format!("unsettled are {:?}", self.unsettled)
        })?;
        self.check_retired()?;
        self.retired.iter().flat_map(|(_, version)| &*version.extents).for_each(&mut count);
        let artefacts = self.models.values().filter_map(|model| model.artefact.as_ref());
        artefacts.flat_map(|artefact| &*artefact.extents).for_each(&mut count);
        self.folded.iter().for_each(|segment| count(&segment.blob));
        self.check_blobs(&references)?;
        self.identities.check()?;
        self.operations.check()
    }

    /// The job before a waiting one is not over, and no chain of waiting jobs is a circle.
    fn check_waiting(&self, job: &JobRecord) -> Result<(), InvariantViolation> {
        let mut state = &job.state;
        for _ in 0..self.jobs.len() {
            let JobState::Waiting(before) = state else { return Ok(()) };
            let found = self.jobs.get(before).filter(|before| !before.state.is_over());
            let Some(found) = found else { break };
            state = &found.state;
        }
        InvariantViolation::unless(!matches!(state, JobState::Waiting(_)), || {
            format!("it is {:?}, whose end will not come", job.state)
        })
    }

    /// A pinned folder has the files that it had when it was indexed.
    fn check_folder_of(&self, job: &JobRecord) -> Result<(), InvariantViolation> {
        let Some(folder) = job.folder.as_deref().filter(|folder| folder.index.is_some()) else {
            return Ok(());
        };
        let found = self.index_folder(job);
        InvariantViolation::unless(found == folder.index, || {
            format!("its folder is {found:?}, it pinned {:?}", folder.index)
        })
    }

    /// The pins are those of the jobs, and a version is retired only while a pin sees it or it waits for its release.
    fn check_retired(&self) -> Result<(), InvariantViolation> {
        let pins = Pins::of(self.jobs.values());
        InvariantViolation::unless(pins == self.pins, || {
            format!("the pins are {:?}, those of the jobs {pins:?}", self.pins)
        })?;
        for (name, version) in self.retired.iter() {
            let is_seen = pins.see(name, version.born, version.until);
            InvariantViolation::unless(is_seen || self.retired.is_unchecked(name), || {
                format!("a retired version of '{name}' is not released: {version:?}")
            })?;
        }
        Ok(())
    }

    fn check_blobs(&self, references: &References) -> Result<(), InvariantViolation> {
        for (digest, (size, _)) in references {
            let known = self.blobs.get(digest).map(|blob| blob.size);
            InvariantViolation::unless(known == Some(*size), || {
                format!("blob {digest} of {size} bytes is stored with {known:?}")
            })?;
        }
        for (digest, blob) in &self.blobs {
            let counted = references.get(digest).map_or(0, |(_, count)| *count);
            let stored = blob.references;
            InvariantViolation::unless(counted == stored, || {
                format!("blob {digest} has {counted} references, {stored} are stored")
            })?;
            let holders = &blob.holders;
            let is_valid = holders.is_sorted_by(|a, b| a < b) && holders.len() <= HOLDERS_PER_BLOB_MAX;
            InvariantViolation::unless(is_valid, || format!("blob {digest} has holders {holders:?}"))?;
        }
        Ok(())
    }
}
