//! The name space as it was: the files below a name at the moment when a job was started.
//!
//! A job over a folder keeps no list of its inputs. It keeps a *pin*: the folder's name and a moment, which is a revision of
//! the metadata. A version of a file is visible at a moment from the revision that added it until the one that added its
//! successor or deleted the file. A version that leaves the file table while a pin sees it is *retired*: its blobs stay
//! referenced and its name resolvable until no pin needs it. So the start and the end of a job take the same time whatever
//! the number of its files, and jobs share what they pin.
//!
//! Invariants: at every pinned moment, the files below the pinned name are those of that moment, with the same content;
//! a retired version was visible at some moment, and each of its extents has one reference.
//! Bounds: [`CHECKPOINTS_MAX`] names of [`CHECKPOINT_BYTES_MAX`] bytes per pin; a command looks at no more than
//! [`RELEASED_PER_COMMAND_MAX`] names of retired versions, so what an ended job pinned is released by the commands that
//! follow. A look-up passes over the files that were put into the folder since, up to the next one that it pinned.

use std::iter::Peekable;
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::ops::Range;
use std::sync::Arc;

use idunno_shared::ids::JobId;
use idunno_shared::names::{DatasetName, FileName};
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::control::LABELS_FILE;
use imbl::{OrdMap, OrdSet, Vector};
use serde::{Deserialize, Serialize};

use super::files::FileKey;
use super::{FileRecord, JobRecord, OneOrMany, Query, State};

/// Most checkpoints of a pinned folder. They are committed to the log with the start of the job.
pub const CHECKPOINTS_MAX: u64 = 32_768;
/// Most bytes in the names of all checkpoints: they are part of one command.
pub const CHECKPOINT_BYTES_MAX: usize = 3 << 20;
/// Fewest files from one checkpoint to the next: a look-up passes over half of them on average.
const SPACING_MIN: u64 = 128;
/// Most names whose retired versions one command looks at.
pub const RELEASED_PER_COMMAND_MAX: usize = 64;

/// The files below a dataset's name at a moment, as the queries of a job: a query's number is the file's place in name
/// order, without the label table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedFolder {
    /// The revision of the metadata whose files are meant.
    pub moment: u64,
    /// Where the files are; `None` until they have been counted.
    pub index: Option<FolderIndex>,
}

/// How many files a pinned folder has, and the names by which a query is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderIndex {
    /// The number of files.
    pub count: u64,
    /// Files from one checkpoint to the next.
    pub spacing: u64,
    /// The names of the files 0, `spacing`, 2 x `spacing` and so on.
    pub checkpoints: Vec<Arc<FileName>>,
}

impl FolderIndex {
    /// Indexes names in order.
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a Arc<FileName>>) -> Self {
        let mut index = Self { count: 0, spacing: SPACING_MIN, checkpoints: Vec::new() };
        let mut bytes = 0;
        for name in names {
            if index.count.is_multiple_of(index.spacing) {
                index.checkpoints.push(Arc::clone(name));
                bytes += name.as_str().len();
                while index.checkpoints.len() as u64 > CHECKPOINTS_MAX || bytes > CHECKPOINT_BYTES_MAX {
                    bytes = index.thin_out();
                }
            }
            index.count += 1;
        }
        index
    }

    /// Keeps every second checkpoint. Returns how many bytes their names have.
    fn thin_out(&mut self) -> usize {
        let mut number = 0;
        self.checkpoints.retain(|_| {
            number += 1;
            number % 2 == 1
        });
        self.spacing *= 2;
        self.checkpoints.iter().map(|name| name.as_str().len()).sum()
    }

    /// Whether the checkpoints are as many as the files need, in order and below `prefix`.
    pub(super) fn is_consistent(&self, prefix: &str) -> bool {
        self.spacing > 0
            && self.checkpoints.len() as u64 == self.count.div_ceil(self.spacing)
            && self.checkpoints.len() as u64 <= CHECKPOINTS_MAX
            && self.checkpoints.is_sorted_by(|a, b| a < b)
            && self.checkpoints.iter().all(|name| name.as_str().starts_with(prefix))
    }
}

/// Consecutive files of a job's folder: found together, at the cost of one.
#[derive(Clone, Debug)]
pub struct FolderPart {
    /// The job.
    pub job: JobId,
    /// The moment at which its folder is pinned.
    pub moment: u64,
    /// The number of the first file.
    pub first: u64,
    /// The files, as the inputs of queries.
    pub files: Vec<Query>,
}

/// A version that has left the file table while a pin sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RetiredVersion {
    /// The revision that added it.
    pub(super) born: u64,
    /// The first revision at which it was no longer visible.
    pub(super) until: u64,
    pub(super) extents: OneOrMany<BlobRef>,
}

/// The retired versions of each name, and how far their release has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RetiredVersions {
    versions: OrdMap<FileKey, Arc<Vec<RetiredVersion>>>,
    /// The folders from which a pin was removed, each to be looked through once.
    sweeps: Vector<Sweep>,
}

/// A look through the retired versions of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sweep {
    /// What their names begin with.
    prefix: Arc<str>,
    /// The name that was looked at last.
    after: Option<Arc<FileName>>,
}

impl RetiredVersions {
    /// All retired versions.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&FileName, &RetiredVersion)> {
        self.versions.iter().flat_map(|(key, versions)| versions.iter().map(|version| (&*key.0, version)))
    }

    /// Whether a name is still to be looked at.
    pub(super) fn is_unchecked(&self, name: &FileName) -> bool {
        self.sweeps.iter().any(|sweep| {
            name.as_str().starts_with(&*sweep.prefix)
                && sweep.after.as_ref().is_none_or(|after| **after < *name)
        })
    }

    /// The next name that starts with `prefix` and follows `after`.
    fn next(&self, prefix: &str, after: Option<&FileName>) -> Option<(FileKey, Arc<Vec<RetiredVersion>>)> {
        let from = after.map_or(Included(prefix), |after| Excluded(after.as_str()));
        let (key, versions) = self.versions.range::<_, str>((from, Unbounded)).next()?;
        key.0.as_str().starts_with(prefix).then(|| (key.clone(), Arc::clone(versions)))
    }

    /// Has the retired versions of a folder looked through, unless that is about to begin.
    fn sweep(&mut self, dataset: &DatasetName) {
        let prefix = format!("{dataset}/");
        let is_waiting = |sweep: &Sweep| *sweep.prefix == *prefix && sweep.after.is_none();
        if self.next(&prefix, None).is_some() && !self.sweeps.iter().any(is_waiting) {
            self.sweeps.push_back(Sweep { prefix: prefix.into(), after: None });
        }
    }
}

/// The pinned moments by dataset. Derived from the jobs, so it is not stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pins(OrdMap<Arc<str>, OrdSet<(u64, JobId)>>);

impl Pins {
    /// The pins of these jobs.
    pub(super) fn of<'a>(jobs: impl Iterator<Item = &'a Arc<JobRecord>>) -> Self {
        let mut pins = Self::default();
        for job in jobs {
            if let Some(folder) = &job.folder {
                pins.insert(&job.dataset, folder.moment, job.id);
            }
        }
        pins
    }

    fn insert(&mut self, dataset: &DatasetName, moment: u64, job: JobId) {
        let mut moments = self.0.get(dataset.as_str()).cloned().unwrap_or_default();
        moments.insert((moment, job));
        self.0.insert(Arc::from(dataset.as_str()), moments);
    }

    fn remove(&mut self, dataset: &DatasetName, moment: u64, job: JobId) {
        let Some(mut moments) = self.0.get(dataset.as_str()).cloned() else { return };
        moments.remove(&(moment, job));
        if moments.is_empty() {
            self.0.remove(dataset.as_str());
        } else {
            self.0.insert(Arc::from(dataset.as_str()), moments);
        }
    }

    /// Whether a pin of a folder that contains `name` has its moment in `born..until`.
    pub(super) fn see(&self, name: &FileName, born: u64, until: u64) -> bool {
        let name = name.as_str();
        !self.0.is_empty()
            && name.match_indices('/').any(|(at, _)| {
                let moments = self.0.get(&name[..at]);
                moments.is_some_and(|moments| {
                    moments.range((born, JobId(0))..(until, JobId(0))).next().is_some()
                })
            })
    }
}

/// Two sequences without a common name, each in name order, as one.
struct InNameOrder<A: Iterator, B: Iterator>(Peekable<A>, Peekable<B>);

impl<'a, T, A, B> Iterator for InNameOrder<A, B>
where
    A: Iterator<Item = (&'a Arc<FileName>, T)>,
    B: Iterator<Item = (&'a Arc<FileName>, T)>,
{
    type Item = (&'a Arc<FileName>, T);

    fn next(&mut self) -> Option<Self::Item> {
        match (self.0.peek(), self.1.peek()) {
            (Some((a, _)), Some((b, _))) if b < a => self.1.next(),
            (Some(_), _) => self.0.next(),
            (None, _) => self.1.next(),
        }
    }
}

impl State {
    /// The revision that a command which is being applied will make.
    pub(super) fn next_revision(&self) -> u64 {
        self.revision + 1
    }

    /// The files that were visible at `moment`, start with `prefix` and follow `from`, in name order.
    fn visible_at<'a>(
        &'a self,
        moment: u64,
        prefix: &'a str,
        from: Bound<&'a str>,
    ) -> impl Iterator<Item = (&'a Arc<FileName>, &'a OneOrMany<BlobRef>)> {
        let below = move |key: &FileKey| key.0.as_str().starts_with(prefix);
        let live = self.files.range::<_, str>((from, Unbounded)).take_while(move |(key, _)| below(key));
        let live = live.filter_map(move |(key, file)| Some((&key.0, file.visible_at(moment)?)));
        let retired = &self.retired.versions;
        let retired = retired.range::<_, str>((from, Unbounded)).take_while(move |(key, _)| below(key));
        let retired = retired.filter_map(move |(key, versions)| {
            let visible = versions.iter().find(|version| version.born <= moment && moment < version.until)?;
            Some((&key.0, &visible.extents))
        });
        InNameOrder(live.peekable(), retired.peekable())
    }

    /// The files of a pinned folder, from the one named `from` on.
    fn pinned_files<'a>(
        &'a self,
        pin: &PinnedFolder,
        prefix: &'a str,
        from: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<FileName>, &'a OneOrMany<BlobRef>)> {
        let is_label_table = move |name: &FileName| name.as_str().strip_prefix(prefix) == Some(LABELS_FILE);
        self.visible_at(pin.moment, prefix, Included(from)).filter(move |(name, _)| !is_label_table(name))
    }

    /// The label table of a folder at `moment`.
    pub(super) fn label_table_at(&self, dataset: &DatasetName, moment: u64) -> Option<OneOrMany<BlobRef>> {
        let name = format!("{dataset}/{LABELS_FILE}");
        let (found, extents) = self.visible_at(moment, &name, Included(&name)).next()?;
        (found.as_str() == name).then(|| extents.clone())
    }

    /// Whether the dataset is a folder with a file other than its label table.
    pub fn has_folder(&self, dataset: &DatasetName) -> bool {
        let prefix = format!("{dataset}/");
        let mut files = self.files(&prefix, None);
        files.any(|(name, _)| name.as_str().strip_prefix(prefix.as_str()) != Some(LABELS_FILE))
    }

    /// Counts the files that a job has pinned. Reads all their names: not for the task that applies the log.
    pub fn index_folder(&self, job: &JobRecord) -> Option<FolderIndex> {
        let prefix = format!("{}/", job.dataset);
        let pin = job.folder.as_deref()?;
        Some(FolderIndex::new(self.pinned_files(pin, &prefix, &prefix).map(|(name, _)| name)))
    }

    /// The part of a job's folder, from one checkpoint to the next, that contains a file.
    pub fn folder_part(&self, job: &JobRecord, file: u64) -> Option<FolderPart> {
        let pin = job.folder.as_deref()?;
        let spacing = pin.index.as_ref()?.spacing;
        let first = file - file % spacing;
        let files = self.folder_files(job, first, first.saturating_add(spacing));
        Some(FolderPart { job: job.id, moment: pin.moment, first, files })
    }

    /// Queries of a job over a folder with their numbers, without those beyond the last.
    pub(super) fn folder_queries(&self, job: &JobRecord, queries: Range<u64>) -> Vec<(u64, Query)> {
        let end = queries.end.min(job.submitted);
        if !job.terms.start.selection.has_gaps() {
            return (queries.start..end).zip(self.folder_files(job, queries.start, end)).collect();
        }
        let file = |query: u64| {
            let number = job.input_of(query);
            Some((query, self.folder_files(job, number, number + 1).pop()?))
        };
        (queries.start..end).filter_map(file).collect()
    }

    /// The files `first..end` of a job's folder, without those beyond the last.
    fn folder_files(&self, job: &JobRecord, first: u64, end: u64) -> Vec<Query> {
        let Some(pin) = job.folder.as_deref() else { return Vec::new() };
        let Some(index) = pin.index.as_ref().filter(|index| first < index.count.min(end)) else {
            return Vec::new();
        };
        let count = index.count.min(end) - first;
        let at = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let Some(checkpoint) = index.checkpoints.get(at(first / index.spacing)) else { return Vec::new() };
        let prefix = format!("{}/", job.dataset);
        let files = self.pinned_files(pin, &prefix, checkpoint.as_str()).skip(at(first % index.spacing));
        let query =
            |(name, extents): (_, &OneOrMany<_>)| Query { name: Arc::clone(name), extents: extents.clone() };
        files.map(query).take(at(count)).collect()
    }

    /// Pins the folder of a job's dataset as it is after this command. Replaces an earlier pin of the job.
    pub(super) fn pin(&mut self, job: &mut JobRecord) {
        self.unpin(job);
        let moment = self.next_revision();
        self.pins.insert(&job.dataset, moment, job.id);
        job.folder = Some(Arc::new(PinnedFolder { moment, index: None }));
    }

    /// Removes a job's pin, if it has one.
    pub(super) fn unpin(&mut self, job: &mut JobRecord) {
        let Some(folder) = job.folder.take() else { return };
        self.pins.remove(&job.dataset, folder.moment, job.id);
        self.retired.sweep(&job.dataset);
    }

    /// Gives up versions of a file that leave the file table: releases those that no pin sees. `superseded` is the revision
    /// that added the version after them, or that deletes the file.
    pub(super) fn retire(
        &mut self,
        name: &Arc<FileName>,
        file: &FileRecord,
        leaving: usize,
        superseded: u64,
    ) {
        for (number, version) in file.versions.iter().take(leaving).enumerate() {
            let until = file.versions.get(number + 1).map_or(superseded, |next| next.born);
            if !self.pins.see(name, version.born, until) {
                self.release(&version.extents);
                continue;
            }
            let key = FileKey(Arc::clone(name));
            let mut versions =
                self.retired.versions.get(&key).map_or_else(Vec::new, |known| (**known).clone());
            let extents = version.extents.clone();
            versions.push(RetiredVersion { born: version.born, until, extents });
            self.retired.versions.insert(key, Arc::new(versions));
        }
    }

    /// Whether retired versions or folded segments may be waiting for their release: the commands that follow release them.
    pub fn has_unreleased(&self) -> bool {
        !self.retired.sweeps.is_empty() || !self.folded.is_empty()
    }

    /// Releases the retired versions of the next few names that no pin sees any more.
    pub(super) fn release_retired(&mut self) {
        for _ in 0..RELEASED_PER_COMMAND_MAX {
            let Some(mut sweep) = self.retired.sweeps.pop_front() else { return };
            let Some((key, versions)) = self.retired.next(&sweep.prefix, sweep.after.as_deref()) else {
                continue;
            };
            self.release_unseen(&key, &versions);
            sweep.after = Some(Arc::clone(&key.0));
            self.retired.sweeps.push_front(sweep);
        }
    }

    fn release_unseen(&mut self, key: &FileKey, versions: &[RetiredVersion]) {
        let is_seen = |version: &RetiredVersion| self.pins.see(&key.0, version.born, version.until);
        let (seen, unseen): (Vec<_>, Vec<_>) = versions.iter().cloned().partition(is_seen);
        for version in &unseen {
            self.release(&version.extents);
        }
        if seen.is_empty() {
            self.retired.versions.remove(key);
        } else if !unseen.is_empty() {
            self.retired.versions.insert(key.clone(), Arc::new(seen));
        }
    }
}

impl FileRecord {
    /// The extents of the version that was the newest at `moment`; `None` if it was not there or is no longer kept.
    fn visible_at(&self, moment: u64) -> Option<&OneOrMany<BlobRef>> {
        self.versions().find(|version| version.born <= moment).map(|version| &version.extents)
    }
}
