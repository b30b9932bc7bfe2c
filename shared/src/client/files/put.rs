//! Stores files: reads and hashes them ahead, sends and commits them in batches.
//!
//! Decides what is read, sent and committed when. If the upload is over before all is committed (the coordinator
//! changed), what is not committed is sent again under a new one; holders that have a blob already do not rewrite it.
//! A commit that is under way then is waited for first: sent again, its files would get a second version.
//!
//! Bounds: [`MEMORY_BYTES_MAX`] of file bytes; [`BATCHES_IN_FLIGHT`] batches being stored; one commit of at most
//! [`COMMIT_FILES_MAX`] files under way.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;

use super::put_error::PutError;
use super::source::{self, Piece, Wanted};
use super::upload::{BATCH_BLOBS_MAX, Loaded, PlaceError, UPLOADS_MAX};
use super::{Files, Progress};
use crate::client::cluster::ClusterError;
use crate::ids::{Digest, NodeId, UploadId};
use crate::names::FileName;
use crate::wire::blobs::{BlobRef, PlacedBlob};
use crate::wire::control::{Change, Changed, ControlReply, ControlRequest, EXTENTS_PER_FILE_MAX, NewFile};
use crate::wire::refusal::Refusal;

/// File bytes that one put holds in memory at most.
pub const MEMORY_BYTES_MAX: usize = 192 << 20;
/// Batches of blobs that are being stored at once.
pub const BATCHES_IN_FLIGHT: usize = 4;
/// Most files in one commit.
pub const COMMIT_FILES_MAX: usize = 256;
const LOCATE_NAMES_MAX: usize = 256;
const PIECES_QUEUED_MAX: usize = 256;
/// A quarter of the time after which the coordinator gives an idle upload up.
const KEEP_ALIVE_PERIOD: Duration = Duration::from_secs(10);

/// A local file and the name it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutItem {
    /// Its name in the store.
    pub name: FileName,
    /// The local file.
    pub path: PathBuf,
}

/// How to put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutOptions {
    /// Leave out files whose newest version has the same size and digest.
    pub skip_unchanged: bool,
    /// Blobs under way at once, 1 to 1024.
    pub in_flight: usize,
}

impl Default for PutOptions {
    fn default() -> Self {
        Self { skip_unchanged: false, in_flight: 512 }
    }
}

/// What a put did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutReport {
    /// Files of which a new version was committed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files left out because the store has them already.
    pub skipped: u64,
    /// Durable copies of the extent that has the fewest; equal to `copies_wanted` if nothing was sent.
    pub copies_min: u32,
    /// Copies each extent should have with the members there are: say "copies 3 of 4" where `copies_min` is less. 0 if
    /// there was no extent to send: nothing new, or empty files.
    pub copies_wanted: u32,
    /// The new version of each item, in the order given; `None` for those left out.
    pub versions: Vec<Option<u64>>,
}

impl Files {
    /// Puts local files as new versions. Each is visible only when all its bytes are durable on their holders.
    pub async fn put_files(
        &self,
        items: Vec<PutItem>,
        options: PutOptions,
        progress: &dyn Progress,
    ) -> Result<PutReport, PutError> {
        let mut put = Put::new(self, items, options, progress);
        for _ in 0..UPLOADS_MAX {
            match put.attempt().await {
                Err(PlaceError::Over) => tracing::debug!("the upload ended before its commit, starting over"),
                Err(PlaceError::Failed(error)) => return Err(error),
                Ok(_) => return Ok(put.into_report()),
            }
        }
        Err(PutError::UploadOver { tries: UPLOADS_MAX })
    }
}

/// Files that are stored, and not committed yet.
#[derive(Clone, Debug)]
pub struct StoredFiles {
    /// The upload under which they were stored. It is open: commit what was stored, then end it.
    pub upload: UploadId,
    /// The files, in the order given.
    pub files: Vec<NewFile>,
}

impl Files {
    /// Stores local files as [`Files::put_files`] does, but leaves the commit to the caller: nothing is visible before.
    pub async fn store_files(
        &self,
        items: Vec<PutItem>,
        progress: &dyn Progress,
    ) -> Result<StoredFiles, PutError> {
        let mut put = Put { commits: false, ..Put::new(self, items, PutOptions::default(), progress) };
        for _ in 0..UPLOADS_MAX {
            match put.attempt().await {
                Err(PlaceError::Over) => {
                    tracing::debug!("the upload ended while files were stored, starting over");
                }
                Err(PlaceError::Failed(error)) => return Err(error),
                Ok(upload) => return Ok(StoredFiles { upload, files: put.into_stored() }),
            }
        }
        Err(PutError::UploadOver { tries: UPLOADS_MAX })
    }
}

/// Where a file of the list stands.
enum Stage {
    /// Its bytes are being stored: what is known of its extents, and its size and digest once it was read whole.
    Storing {
        extents: Vec<Option<PlacedBlob>>,
        end: Option<(u64, Digest, usize)>,
    },
    /// In a commit, or waiting for one.
    Committing,
    Committed(u64),
    Skipped,
}

impl Stage {
    fn start() -> Self {
        Self::Storing { extents: Vec::new(), end: None }
    }
}

/// An extent of a batch: whose it is, and the room its bytes take.
struct Part {
    item: usize,
    index: usize,
    _room: OwnedSemaphorePermit,
}

enum Event {
    Placed { parts: Vec<Part>, result: Result<(Vec<PlacedBlob>, u32), PlaceError> },
    Committed { items: Vec<usize>, result: Result<Changed, ClusterError> },
}

struct Put<'a> {
    files: &'a Files,
    items: Vec<PutItem>,
    options: PutOptions,
    progress: &'a dyn Progress,
    /// Whether files are committed as soon as they are stored.
    commits: bool,
    stages: Vec<Stage>,
    /// Bytes of each file stored in this attempt, and shown so far in all attempts.
    counted: Vec<(u64, u64)>,
    ready: VecDeque<(usize, NewFile)>,
    report: PutReport,
    copies_min: Option<u32>,
}

impl<'a> Put<'a> {
    fn new(files: &'a Files, items: Vec<PutItem>, options: PutOptions, progress: &'a dyn Progress) -> Self {
        let stages = items.iter().map(|_| Stage::start()).collect();
        let counted = vec![(0, 0); items.len()];
        let (ready, report) = (VecDeque::new(), PutReport::default());
        Self {
            files,
            items,
            options,
            progress,
            commits: true,
            stages,
            counted,
            ready,
            report,
            copies_min: None,
        }
    }

    fn into_report(self) -> PutReport {
        let mut report = self.report;
        report.copies_min = self.copies_min.unwrap_or(report.copies_wanted);
        report.versions = self
            .stages
            .iter()
            .map(|stage| match stage {
                Stage::Committed(version) => Some(*version),
                _ => None,
            })
            .collect();
        report
    }

    fn into_stored(self) -> Vec<NewFile> {
        let mut stored = Vec::from(self.ready);
        stored.sort_by_key(|(item, _)| *item);
        stored.into_iter().map(|(_, file)| file).collect()
    }

    /// Puts what is not committed, under one upload, which is then over unless the caller commits.
    async fn attempt(&mut self) -> Result<UploadId, PlaceError> {
        let wanted = self.begin().await?;
        let plan = self.files.plan(None, Vec::new(), BTreeSet::new()).await?;
        let upload = plan.upload;
        let done = self.run(upload, wanted).await;
        if matches!(done, Err(PlaceError::Failed(_))) || (done.is_ok() && self.commits) {
            self.files.end_upload(upload).await;
        }
        done.map(|()| upload)
    }

    /// Starts over with every file that is not done, and finds out which are unchanged.
    async fn begin(&mut self) -> Result<Vec<Wanted>, PlaceError> {
        self.ready.clear();
        let mut wanted = Vec::new();
        for (item, stage) in self.stages.iter_mut().enumerate() {
            if matches!(stage, Stage::Committed(_) | Stage::Skipped) {
                continue;
            }
            *stage = Stage::start();
            self.counted[item].0 = 0;
            wanted.push(Wanted { item, path: self.items[item].path.clone(), known: None });
        }
        if self.options.skip_unchanged {
            for part in wanted.chunks_mut(LOCATE_NAMES_MAX) {
                let names = part.iter().map(|file| self.items[file.item].name.clone()).collect();
                let located =
                    self.files.cluster.control(ControlRequest::Locate { names, version: None }).await?;
                let ControlReply::Located(versions) = located else { continue };
                for (file, version) in part.iter_mut().zip(versions) {
                    file.known = version.map(|version| (version.size, version.digest));
                }
            }
        }
        Ok(wanted)
    }

    async fn run(&mut self, upload: UploadId, wanted: Vec<Wanted>) -> Result<(), PlaceError> {
        let (sender, mut pieces) = mpsc::channel(PIECES_QUEUED_MAX);
        let room = Arc::new(Semaphore::new(MEMORY_BYTES_MAX));
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || source::read(wanted, &room, &runtime, &sender));
        let batch_max = (self.options.in_flight / BATCHES_IN_FLIGHT).clamp(1, BATCH_BLOBS_MAX);
        let mut under_way: FuturesUnordered<BoxFuture<'a, Event>> = FuturesUnordered::new();
        let mut idle = std::pin::pin!(keep_alive(self.files, upload));
        let (mut placing, mut committing, mut ended, mut over) = (0, false, false, false);
        let mut stalled = std::pin::pin!(stalled(self.files.put_limit));
        loop {
            if over && !committing {
                return Err(PlaceError::Over);
            }
            // While files are only read, nothing is expected of the cluster.
            if under_way.is_empty() {
                stalled.set(self::stalled(self.files.put_limit));
            }
            if self.commits
                && !committing
                && let Some(commit) = self.next_commit(upload)
            {
                under_way.push(commit);
                committing = true;
            }
            if ended && under_way.is_empty() {
                return Ok(());
            }
            tokio::select! {
                piece = pieces.recv(), if !over && !ended && placing < BATCHES_IN_FLIGHT => {
                    let Some(piece) = piece else { ended = true; continue };
                    if let Some(batch) = self.take_pieces(piece, &mut pieces, batch_max, upload)? {
                        if under_way.is_empty() {
                            stalled.set(self::stalled(self.files.put_limit));
                        }
                        under_way.push(batch);
                        placing += 1;
                    }
                }
                Some(event) = under_way.next() => {
                    stalled.set(self::stalled(self.files.put_limit));
                    match event {
                        Event::Placed { parts, result } => {
                            placing -= 1;
                            match result {
                                Err(PlaceError::Over) => over = true,
                                result => self.placed(&parts, result?),
                            }
                        }
                        Event::Committed { items, result } => {
                            committing = false;
                            match result.map_err(PlaceError::from) {
                                Err(PlaceError::Over) => over = true,
                                result => self.committed(&items, result?)?,
                            }
                        }
                    }
                }
                error = &mut stalled, if !under_way.is_empty() => return Err(PlaceError::Failed(error)),
                () = &mut idle, if !over => over = true,
            }
        }
    }

    /// Takes what has been read, and makes a batch of the extents among it.
    fn take_pieces(
        &mut self,
        first: Piece,
        pieces: &mut mpsc::Receiver<Piece>,
        batch_max: usize,
        upload: UploadId,
    ) -> Result<Option<BoxFuture<'a, Event>>, PlaceError> {
        let (mut parts, mut batch): (Vec<Part>, Vec<Loaded>) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(piece) = next {
            match piece {
                Piece::Extent { item, index, blob, bytes, room } => {
                    parts.push(Part { item, index, _room: room });
                    batch.push((blob, bytes));
                }
                Piece::End { item, size, digest, extents } => {
                    if let Stage::Storing { end, .. } = &mut self.stages[item] {
                        *end = Some((size, digest, extents));
                    }
                    self.check_complete(item);
                }
                Piece::Unchanged { item, size } => {
                    self.stages[item] = Stage::Skipped;
                    self.report.skipped += 1;
                    self.count(item, size);
                    self.progress.file();
                }
                Piece::Failed(error) => return Err(PlaceError::Failed(error)),
            }
            next = if batch.len() < batch_max { pieces.try_recv().ok() } else { None };
        }
        if batch.is_empty() {
            return Ok(None);
        }
        let files = self.files;
        let place = async move {
            let result = files.place(upload, &batch).await;
            Event::Placed { parts, result }
        };
        Ok(Some(place.boxed()))
    }

    fn placed(&mut self, parts: &[Part], (blobs, wanted): (Vec<PlacedBlob>, u32)) {
        self.report.copies_wanted = wanted;
        for (part, placed) in parts.iter().zip(blobs) {
            self.count(part.item, placed.blob.size);
            if let Stage::Storing { extents, .. } = &mut self.stages[part.item] {
                if extents.len() <= part.index {
                    extents.resize(part.index + 1, None);
                }
                extents[part.index] = Some(placed);
            }
            self.check_complete(part.item);
        }
    }

    /// Queues a file for commit, if all of it is stored.
    fn check_complete(&mut self, item: usize) {
        let Stage::Storing { extents, end: Some((size, digest, count)) } = &self.stages[item] else { return };
        let stored: Vec<PlacedBlob> = extents.iter().flatten().cloned().collect();
        if stored.len() != *count {
            return;
        }
        let copies =
            stored.iter().map(|placed| u32::try_from(placed.holders.len()).unwrap_or(u32::MAX)).min();
        self.copies_min = [self.copies_min, copies].into_iter().flatten().min();
        let nodes = |placed: PlacedBlob| -> (BlobRef, Vec<NodeId>) {
            (placed.blob, placed.holders.iter().map(|holder| holder.node).collect())
        };
        let extents = stored.into_iter().map(nodes).collect();
        let name = self.items[item].name.clone();
        let file = NewFile { name, size: *size, digest: *digest, extents };
        self.stages[item] = Stage::Committing;
        self.ready.push_back((item, file));
    }

    /// A commit of all files that are complete.
    fn next_commit(&mut self, upload: UploadId) -> Option<BoxFuture<'a, Event>> {
        let (mut items, mut files, mut extents) = (Vec::new(), Vec::new(), 0);
        while let Some((item, file)) = self.ready.pop_front() {
            extents += file.extents.len();
            items.push(item);
            files.push(file);
            if files.len() == COMMIT_FILES_MAX || extents >= EXTENTS_PER_FILE_MAX {
                break;
            }
        }
        if files.is_empty() {
            return None;
        }
        let cluster = self.files.cluster.clone();
        let commit = async move {
            let result = cluster.change(Change::CommitFiles { upload, files }).await;
            Event::Committed { items, result }
        };
        Some(commit.boxed())
    }

    fn committed(&mut self, items: &[usize], changed: Changed) -> Result<(), PlaceError> {
        let Changed::Files(versions) = changed else {
            let refusal = Refusal::internal("unexpected reply of the coordinator to a commit");
            return Err(ClusterError::from(refusal).into());
        };
        for (&item, (version, _)) in items.iter().zip(versions) {
            self.stages[item] = Stage::Committed(version);
            self.report.files += 1;
            self.report.bytes += self.counted[item].0;
            self.progress.file();
        }
        Ok(())
    }

    /// Shows bytes that were not shown before: an attempt that is begun again shows nothing twice.
    fn count(&mut self, item: usize, bytes: u64) {
        let (stored, shown) = &mut self.counted[item];
        *stored += bytes;
        if *stored > *shown {
            self.progress.bytes(*stored - *shown);
            *shown = *stored;
        }
    }
}

/// Returns once `limit` is over, if there is one.
async fn stalled(limit: Option<Duration>) -> PutError {
    let Some(limit) = limit else { return std::future::pending().await };
    sleep(limit).await;
    PutError::Stalled(limit)
}

/// Keeps an upload from idling; returns when it is over.
async fn keep_alive(files: &Files, upload: UploadId) {
    loop {
        sleep(KEEP_ALIVE_PERIOD).await;
        if let Err(PlaceError::Over) = files.plan(Some(upload), Vec::new(), BTreeSet::new()).await {
            return;
        }
    }
}
