//! Answers that an earlier job gave to the same inputs.
//!
//! The rows of a job that runs only what is new say the digest of each input. [`EarlierAnswers`] finds the rows of such a
//! job by these digests; [`BatchReuse`] is what a batch takes over from them.
//!
//! Invariant: an answer is taken over only if the whole digest is that of the input. What cannot be read is no fault: the
//! model answers instead.
//! Bounds: an index has at most [`ROWS_MAX`] rows, 16 bytes each, and two are kept; so are [`ROWS_BYTES_KEPT`] of rows.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use idunno_shared::client::results::segment;
use idunno_shared::ids::{Digest, JobId};
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::control::Reuse;
use idunno_shared::wire::jobs::QueryRange;
use lru::LruCache;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::recent_bytes::RecentBytes;
use super::traits::{FetchedBytes, FileStore, FileStoreError};

/// Most rows of an earlier job that are looked at.
const ROWS_MAX: usize = 20_000_000;
const ROWS_BYTES_KEPT: u64 = 64 << 20;
const INDEXES_KEPT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a job whose rows could not be read is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// What is read of a row.
#[derive(Deserialize)]
struct EarlierRow<'a> {
    query: u64,
    #[serde(borrow)]
    digest: Option<&'a str>,
    #[serde(borrow)]
    output: Option<&'a RawValue>,
}

/// Where a row is: by the first bytes of its input's digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RowPlace {
    key: u64,
    /// Index of the segment.
    segment: u32,
    /// Where the row begins in the segment's rows.
    at: u32,
}

fn key_of(digest: &Digest) -> u64 {
    digest.0.iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte))
}

/// An index over the rows of one job.
struct EarlierAnswers {
    segments: Vec<PlacedBlob>,
    /// In order.
    places: Vec<RowPlace>,
    recent: Mutex<RecentBytes<Digest>>,
}

impl EarlierAnswers {
    /// Reads all rows of a job. A segment that cannot be read is left out.
    async fn read(store: &dyn FileStore, job: JobId) -> Result<Self, FileStoreError> {
        let listed = timeout(FETCH_TIMEOUT, store.segments(job)).await;
        let listed = listed.map_err(|_| FileStoreError::timed_out(FETCH_TIMEOUT))??;
        let (mut segments, mut places) = (Vec::with_capacity(listed.len()), Vec::new());
        for view in listed {
            let number = u32::try_from(segments.len()).unwrap_or(u32::MAX);
            match fetch_rows(store, &view.segment).await {
                Ok(rows) => {
                    let found = spawn_blocking(move || places_of(&rows, number, &view.ranges)).await;
                    places.extend(found.map_err(FileStoreError::failed)?);
                }
                Err(error) => {
                    warn!(%job, segment = %view.segment.blob.digest, %error, "cannot read earlier rows: models answer their queries");
                }
            }
            segments.push(view.segment);
            if places.len() > ROWS_MAX {
                warn!(%job, rows = ROWS_MAX, "further rows of the earlier job are not looked at");
                places.truncate(ROWS_MAX);
                break;
            }
        }
        places.sort_unstable();
        info!(%job, rows = places.len(), "answers of an earlier job can be taken over");
        Ok(Self { segments, places, recent: Mutex::new(RecentBytes::new(ROWS_BYTES_KEPT)) })
    }

    /// The answer to the input with this digest.
    async fn answer(&self, store: &dyn FileStore, digest: &Digest) -> Result<Option<Bytes>, FileStoreError> {
        let key = key_of(digest);
        let first = self.places.partition_point(|place| place.key < key);
        for place in self.places.iter().skip(first).take_while(|place| place.key == key) {
            let rows = self.rows(store, place.segment).await?;
            let row = rows.get(place.at as usize..).and_then(|rows| rows.split(|&byte| byte == b'\n').next());
            let row = row.and_then(|row| serde_json::from_slice::<EarlierRow<'_>>(row).ok());
            let Some(EarlierRow { digest: Some(of), output: Some(output), .. }) = row else { continue };
            if of.parse() == Ok(*digest) {
                return Ok(Some(Bytes::copy_from_slice(output.get().as_bytes())));
            }
        }
        Ok(None)
    }

    async fn rows(&self, store: &dyn FileStore, segment: u32) -> Result<Bytes, FileStoreError> {
        let placed = self.segments.get(segment as usize).ok_or(FileStoreError::NoBlob)?;
        let mut recent = self.recent.lock().await;
        if let Some(rows) = recent.get(&placed.blob.digest) {
            return Ok(rows.bytes);
        }
        let rows = fetch_rows(store, placed).await?;
        recent.add(placed.blob.digest, FetchedBytes { bytes: rows.clone(), is_local: false });
        Ok(rows)
    }
}

async fn fetch_rows(store: &dyn FileStore, placed: &PlacedBlob) -> Result<Bytes, FileStoreError> {
    let fetched = timeout(FETCH_TIMEOUT, store.fetch(std::slice::from_ref(placed))).await;
    let fetched = fetched.map_err(|_| FileStoreError::timed_out(FETCH_TIMEOUT))?.pop();
    let bytes = fetched.ok_or(FileStoreError::NoBlob)??.bytes;
    spawn_blocking(move || segment::unpack(bytes))
        .await
        .map_err(FileStoreError::failed)?
        .map_err(FileStoreError::failed)
}

/// The rows of a segment that count and say the digests of their inputs.
fn places_of(rows: &[u8], segment: u32, ranges: &[QueryRange]) -> Vec<RowPlace> {
    let counts = |query: u64| {
        let range = ranges.get(ranges.partition_point(|range| range.end() <= query));
        range.is_some_and(|range| range.queries().contains(&query))
    };
    let mut places = Vec::new();
    let mut at = 0;
    for line in rows.split_inclusive(|&byte| byte == b'\n') {
        if let Ok(EarlierRow { query, digest: Some(digest), output: Some(_) }) = serde_json::from_slice(line)
            && let Ok(digest) = digest.parse()
            && counts(query)
        {
            let place = u32::try_from(at).ok().map(|at| RowPlace { key: key_of(&digest), segment, at });
            places.extend(place);
        }
        at += line.len();
    }
    places
}

/// The jobs that were read last.
pub(super) struct EarlierJobs {
    /// Locked while a job is read: concurrent batches need the same one.
    known: Mutex<LruCache<JobId, EarlierJob>>,
}

#[derive(Clone)]
enum EarlierJob {
    Read(Arc<EarlierAnswers>),
    /// It could not be read, and is not tried again before.
    Failed {
        retry_at: Instant,
    },
}

impl Default for EarlierJobs {
    fn default() -> Self {
        Self { known: Mutex::new(LruCache::new(INDEXES_KEPT)) }
    }
}

impl EarlierJobs {
    async fn get(&self, store: &dyn FileStore, job: JobId) -> Option<Arc<EarlierAnswers>> {
        let mut known = self.known.lock().await;
        match known.get(&job) {
            Some(EarlierJob::Read(answers)) => return Some(Arc::clone(answers)),
            Some(EarlierJob::Failed { retry_at }) if Instant::now() < *retry_at => return None,
            _ => {}
        }
        match EarlierAnswers::read(store, job).await {
            Ok(answers) => {
                let answers = Arc::new(answers);
                known.put(job, EarlierJob::Read(Arc::clone(&answers)));
                Some(answers)
            }
            Err(error) => {
                known.put(job, failed(job, &error));
                None
            }
        }
    }

    pub(super) async fn clear(&self) {
        self.known.lock().await.clear();
    }
}

fn failed(job: JobId, error: &FileStoreError) -> EarlierJob {
    warn!(%job, %error, "cannot read what the earlier job answered: models answer the queries");
    EarlierJob::Failed { retry_at: Instant::now() + RETRY_AFTER }
}

/// What a batch takes over, by position.
pub(super) struct BatchReuse {
    jobs: Arc<EarlierJobs>,
    from: Option<(JobId, Arc<EarlierAnswers>)>,
    digests: Vec<Option<Digest>>,
    answers: Vec<Option<Bytes>>,
}

impl std::fmt::Debug for BatchReuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let from = self.from.as_ref().map(|(job, _)| job);
        f.debug_struct("BatchReuse").field("from", &from).finish_non_exhaustive()
    }
}

impl BatchReuse {
    /// For a batch of so many queries; `None` if its job takes nothing over.
    pub(super) async fn new(
        store: &dyn FileStore,
        jobs: &Arc<EarlierJobs>,
        reuse: Reuse,
        queries: usize,
    ) -> Option<Self> {
        let from = match reuse {
            Reuse::Off => return None,
            Reuse::On => None,
            Reuse::From(job) => jobs.get(store, job).await.map(|answers| (job, answers)),
        };
        Some(Self {
            jobs: Arc::clone(jobs),
            from,
            digests: vec![None; queries],
            answers: vec![None; queries],
        })
    }

    /// Learns the digest of the input at a position, and looks for its answer. Says whether there is one.
    pub(super) async fn look_up(&mut self, store: &dyn FileStore, position: usize, digest: Digest) -> bool {
        if let Some(known) = self.digests.get_mut(position) {
            *known = Some(digest);
        }
        let Some((job, earlier)) = &self.from else { return false };
        match earlier.answer(store, &digest).await {
            Ok(answer) => {
                let is_found = answer.is_some();
                if let Some(place) = self.answers.get_mut(position) {
                    *place = answer;
                }
                is_found
            }
            Err(error) => {
                // Its rows may have been merged since, into other segments.
                self.jobs.known.lock().await.put(*job, failed(*job, &error));
                self.from = None;
                false
            }
        }
    }

    /// The digest of the input at a position, once it is known.
    pub(super) fn digest(&self, position: usize) -> Option<&Digest> {
        self.digests.get(position)?.as_ref()
    }

    /// Whether the query at a position is answered, so that its input is not needed.
    pub(super) fn has(&self, position: usize) -> bool {
        self.answers.get(position).is_some_and(Option::is_some)
    }

    /// The answer to the query at a position, if it was found.
    pub(super) fn answer(&self, position: usize) -> Option<&Bytes> {
        self.answers.get(position)?.as_ref()
    }
}
