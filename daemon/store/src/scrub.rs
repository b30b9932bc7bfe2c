//! Reads every blob again and again, because disks forget: what is damaged is moved aside, counted, and copied anew from
//! another holder once the coordinator has asked for the inventory.
//!
//! Each pass takes [`PERIOD`] and goes through the blobs in the order of digests; where it stands is kept in a file, so
//! that restarts do not make it begin anew. Blobs that a reader doubts are read at once.
//!
//! Bounds: one blob is read at a time; [`DOUBTS_QUEUED_MAX`] doubts wait, further ones are left to the pass.

use std::path::Path;
use std::time::Duration;

use idunno_shared::ids::Digest;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::blobs::{BlobStore, StoreError};

/// How long a pass over all blobs takes.
pub const PERIOD: Duration = Duration::from_secs(7 * 24 * 3600);
/// Doubts that wait.
pub const DOUBTS_QUEUED_MAX: usize = 64;
/// Within this time new blobs are taken into account.
const NAP_MAX: Duration = Duration::from_secs(60);
const CURSOR_FILE: &str = "scrub";

/// The scrub of one store. Cheap to clone.
#[derive(Clone)]
pub struct Scrub {
    doubts: mpsc::Sender<Digest>,
}

impl Scrub {
    /// Starts to read, a pass every `period`.
    pub fn start(store: BlobStore, period: Duration, stop: CancellationToken) -> Self {
        let (doubts, doubted) = mpsc::channel(DOUBTS_QUEUED_MAX);
        tokio::spawn(async move {
            tokio::select! {
                () = run(store, period, doubted) => {}
                () = stop.cancelled() => {}
            }
        });
        Self { doubts }
    }

    /// Somebody got bytes of this blob that are not its own: it is read as soon as may be.
    pub fn doubt(&self, digest: Digest) {
        // Where many wait already the pass finds it.
        let _ = self.doubts.try_send(digest);
    }
}

async fn run(store: BlobStore, period: Duration, mut doubted: mpsc::Receiver<Digest>) {
    let cursor_file = store.root().join(CURSOR_FILE);
    let mut cursor = read_cursor(&cursor_file);
    let (mut progress, mut noted) = (0.0, Instant::now());
    let nap = NAP_MAX.min(period);
    loop {
        let next = store.next(cursor);
        let pause = next.map_or(nap, |(_, size)| pause(size, store.totals(), period));
        let since = Instant::now();
        tokio::select! {
            () = sleep(pause.mul_f64(1.0 - progress).min(nap)) => {}
            Some(digest) = doubted.recv() => check(&store, digest).await,
        }
        progress += since.elapsed().as_secs_f64() / pause.as_secs_f64().max(f64::EPSILON);
        if progress < 1.0 {
            continue;
        }
        progress = 0.0;
        cursor = next.map(|(digest, _)| digest);
        if let Some(digest) = cursor {
            check(&store, digest).await;
        } else {
            tracing::debug!(damaged = store.damaged(), "all blobs were read once more");
        }
        if noted.elapsed() >= NAP_MAX {
            noted = Instant::now();
            write_cursor(&cursor_file, cursor).await;
        }
    }
}

/// How long a blob's turn is: half by its share of the bytes, half by its share of the count, so that the turns of all
/// make up the period.
fn pause(size: u64, (count, bytes): (u64, u64), period: Duration) -> Duration {
    let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    period.mul_f64(f64::midpoint(share(size, bytes), share(1, count)))
}

async fn check(store: &BlobStore, digest: Digest) {
    let store = store.clone();
    match spawn_blocking(move || store.check(digest)).await {
        Ok(Ok(_) | Err(StoreError::Corrupt(_) | StoreError::Missing(_))) => {}
        Ok(Err(error)) => tracing::warn!(%digest, %error, "a blob cannot be read again"),
        Err(error) => tracing::error!(%digest, %error, "reading a blob again failed"),
    }
}

/// Where the last pass stood; a file that is not whole is none.
fn read_cursor(path: &Path) -> Option<Digest> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Not flushed: a cursor that is lost costs a pass that begins anew.
async fn write_cursor(path: &Path, cursor: Option<Digest>) {
    let text = cursor.map_or_else(String::new, |digest| digest.to_string());
    if let Err(error) = tokio::fs::write(path, text).await {
        tracing::debug!(%error, path = %path.display(), "cannot note where the scrub stands");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use idunno_shared::wire::blobs::BlobRef;
    use tempfile::TempDir;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_nobody_reads_is_found_damaged_and_what_is_doubted_at_once() {
        for (period, doubted) in [(Duration::from_secs(1), false), (PERIOD, true)] {
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
            if doubted {
                scrub.doubt(blobs[6]);
                scrub.doubt(blobs[7]);
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
    fn the_turns_of_all_blobs_make_up_the_period() {
        let sizes = [0, 1, 20_000, 64 << 20, 5];
        let totals = (sizes.len() as u64, sizes.iter().sum());
        let sum: Duration = sizes.iter().map(|&size| pause(size, totals, PERIOD)).sum();
        assert!(sum.abs_diff(PERIOD) < Duration::from_millis(1), "{sum:?}");
        assert!(pause(0, totals, PERIOD) > Duration::ZERO);
    }
}
