//! Re-reads every blob periodically to find silent corruption. A damaged blob is quarantined and counted, and copied again
//! from another holder once the coordinator has read the inventory.
//!
//! A pass takes [`PERIOD`] and visits the blobs in digest order. Its position is kept in a file, so a restart resumes it.
//! Blobs that a reader reports as suspect are checked at once.
//!
//! Bounds: one blob is read at a time; [`SUSPECTS_QUEUED_MAX`] suspects are queued, further ones are left to the pass, as are
//! those that clients report beyond [`CLIENT_SUSPECTS_BURST`] and one per [`CLIENT_SUSPECT_PERIOD`].

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use idunno_shared::ids::Digest;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::blobs::{BlobStore, StoreError};

/// Duration of a pass over all blobs.
pub const PERIOD: Duration = Duration::from_secs(7 * 24 * 3600);
pub const SUSPECTS_QUEUED_MAX: usize = 64;
/// A client's report costs it a few bytes and the disk up to a whole extent, so all clients together get one this often.
pub const CLIENT_SUSPECT_PERIOD: Duration = Duration::from_secs(10);
/// Reports of clients that are taken at once after a while without any.
pub const CLIENT_SUSPECTS_BURST: u32 = 8;
/// Longest sleep, so that new blobs are taken into account.
const SLEEP_MAX: Duration = Duration::from_secs(60);
const CURSOR_FILE: &str = "scrub";

/// The scrub of one store. Cheap to clone.
#[derive(Clone)]
pub struct Scrub {
    suspects: mpsc::Sender<Digest>,
    client_reports: Arc<Mutex<ReportRate>>,
}

/// The rate at which reports of clients are taken.
#[derive(Debug)]
struct ReportRate {
    /// When the reports taken so far are used up, at one per [`CLIENT_SUSPECT_PERIOD`].
    used_up_at: Instant,
}

impl ReportRate {
    fn takes(&mut self, now: Instant) -> bool {
        let used_up_at = self.used_up_at.max(now) + CLIENT_SUSPECT_PERIOD;
        let is_within = used_up_at.duration_since(now) <= CLIENT_SUSPECT_PERIOD * CLIENT_SUSPECTS_BURST;
        if is_within {
            self.used_up_at = used_up_at;
        }
        is_within
    }
}

impl Scrub {
    /// Starts the scrub, with one pass per `period`.
    pub fn start(store: BlobStore, period: Duration, stop: CancellationToken) -> Self {
        let (suspects, queued) = mpsc::channel(SUSPECTS_QUEUED_MAX);
        tokio::spawn(async move {
            tokio::select! {
                () = run(store, period, queued) => {}
                () = stop.cancelled() => {}
            }
        });
        let client_reports = Arc::new(Mutex::new(ReportRate { used_up_at: Instant::now() }));
        Self { suspects, client_reports }
    }

    /// Queues a blob that a client reports, at a limited rate.
    pub fn suspect_of_client(&self, digest: Digest) {
        let mut reports = self.client_reports.lock().unwrap_or_else(PoisonError::into_inner);
        if reports.takes(Instant::now()) {
            self.suspect(digest);
        }
    }

    /// Queues a blob whose reader received wrong bytes.
    pub fn suspect(&self, digest: Digest) {
        // If the queue is full, the pass checks it.
        let _ = self.suspects.try_send(digest);
    }
}

async fn run(store: BlobStore, period: Duration, mut suspects: mpsc::Receiver<Digest>) {
    let cursor_file = store.root().join(CURSOR_FILE);
    let mut cursor = read_cursor(&cursor_file).await;
    // Elapsed share of the current pause.
    let mut progress = 0.0;
    let mut saved_at = Instant::now();
    let sleep_max = SLEEP_MAX.min(period);
    loop {
        let next = store.next(cursor);
        let pause = next.map_or(sleep_max, |(_, size)| pause(size, store.totals(), period));
        let since = Instant::now();
        tokio::select! {
            () = sleep(pause.mul_f64(1.0 - progress).min(sleep_max)) => {}
            Some(digest) = suspects.recv() => check_blob(&store, digest).await,
        }
        progress += since.elapsed().as_secs_f64() / pause.as_secs_f64().max(f64::EPSILON);
        if progress < 1.0 {
            continue;
        }
        progress = 0.0;
        cursor = next.map(|(digest, _)| digest);
        if let Some(digest) = cursor {
            check_blob(&store, digest).await;
        } else {
            tracing::debug!(damaged = store.damaged(), "a scrub pass is complete");
        }
        if saved_at.elapsed() >= SLEEP_MAX {
            saved_at = Instant::now();
            write_cursor(&cursor_file, cursor).await;
        }
    }
}

/// Pause before a blob is read: half by its share of the bytes and half by its share of the count, so that all pauses add
/// up to the period.
fn pause(size: u64, (count, bytes): (u64, u64), period: Duration) -> Duration {
    let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    period.mul_f64(f64::midpoint(share(size, bytes), share(1, count)))
}

async fn check_blob(store: &BlobStore, digest: Digest) {
    let store = store.clone();
    match spawn_blocking(move || store.check(digest)).await {
        Ok(Ok(_) | Err(StoreError::Corrupt(_) | StoreError::Missing(_))) => {}
        Ok(Err(error)) => tracing::warn!(%digest, %error, "cannot scrub a blob"),
        Err(error) => tracing::error!(%digest, %error, "the scrub of a blob panicked"),
    }
}

/// An unreadable cursor counts as none.
async fn read_cursor(path: &Path) -> Option<Digest> {
    tokio::fs::read_to_string(path).await.ok()?.trim().parse().ok()
}

/// Not flushed: losing the cursor only restarts the pass.
async fn write_cursor(path: &Path, cursor: Option<Digest>) {
    let text = cursor.map_or_else(String::new, |digest| digest.to_string());
    if let Err(error) = tokio::fs::write(path, text).await {
        tracing::debug!(%error, path = %path.display(), "cannot save the position of the scrub");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use idunno_shared::wire::blobs::BlobRef;
    use tempfile::TempDir;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn damage_is_found_by_the_pass_and_suspects_are_checked_at_once() {
        for (period, is_suspect) in [(Duration::from_secs(1), false), (PERIOD, true)] {
            let directory = TempDir::new().unwrap();
            let store = BlobStore::open(directory.path(), 0).unwrap();
            let mut blobs = Vec::new();
            for n in 0..20_u8 {
                let blob = BlobRef { digest: Digest::of(&[n; 100]), size: 100 };
                let put = store.start_put(blob, None, Bytes::from(vec![n; 100])).await.unwrap();
                put.done().await.unwrap();
                blobs.push(blob.digest);
            }
            let name = blobs[7].to_string();
            let path = directory.path().join("blobs").join(&name[..2]).join(&name[2..]);
            std::fs::write(path, [8; 100]).unwrap();
            let stop = CancellationToken::new();
            let scrub = Scrub::start(store.clone(), period, stop.clone());
            if is_suspect {
                scrub.suspect(blobs[6]);
                scrub.suspect(blobs[7]);
            }
            let begun = Instant::now();
            while store.contains(blobs[7]) {
                assert!(begun.elapsed() < Duration::from_secs(20), "not found in {period:?}");
                tokio::task::yield_now().await;
            }
            assert_eq!((store.damaged(), store.totals().0), (1, 19));
            stop.cancel();
        }
    }

    #[test]
    fn reports_of_clients_are_taken_at_a_limited_rate() {
        let begun = Instant::now();
        let mut rate = ReportRate { used_up_at: begun };
        let mut taken_until = |seconds: u32| {
            let now = begun + Duration::from_secs(seconds.into());
            (0..1_000).filter(|_| rate.takes(now)).count()
        };
        assert_eq!(taken_until(0), CLIENT_SUSPECTS_BURST as usize);
        let in_an_hour: usize = (1..=3_600).map(&mut taken_until).sum();
        assert_eq!(in_an_hour, 360, "one in ten seconds");
        assert_eq!(taken_until(10_000), CLIENT_SUSPECTS_BURST as usize);
    }

    #[test]
    fn the_pauses_of_all_blobs_add_up_to_the_period() {
        let sizes = [0, 1, 20_000, 64 << 20, 5];
        let totals = (sizes.len() as u64, sizes.iter().sum());
        let sum: Duration = sizes.iter().map(|&size| pause(size, totals, PERIOD)).sum();
        assert!(sum.abs_diff(PERIOD) < Duration::from_millis(1), "{sum:?}");
        assert!(pause(0, totals, PERIOD) > Duration::ZERO);
    }
}
