//! Tells whether the disk hangs: how long its operations have been running.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use idunno_shared::ids::Digest;

use super::disk::{BlobDisk, ListedFile};

/// A disk with an operation that has run for this long counts as hung until the operation ends.
pub const HUNG_AFTER: Duration = Duration::from_secs(10);

/// A disk whose operations in progress are known.
pub(crate) struct WatchedDisk {
    disk: Box<dyn BlobDisk>,
    hung_after: Duration,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    last_number: u64,
    /// When each operation in progress began, by number and therefore oldest first.
    since: BTreeMap<u64, Instant>,
}

impl WatchedDisk {
    /// Its operations may take `hung_after`.
    pub(crate) fn new(disk: Box<dyn BlobDisk>, hung_after: Duration) -> Self {
        Self { disk, hung_after, running: Mutex::default() }
    }

    /// How long the oldest operation has been running, if that is too long.
    pub(super) fn hung_for(&self) -> Option<Duration> {
        let oldest = self.running().since.first_key_value().map(|(_, since)| since.elapsed());
        oldest.filter(|age| *age >= self.hung_after)
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch<T>(&self, operation: impl FnOnce(&dyn BlobDisk) -> T) -> T {
        let number = {
            let mut running = self.running();
            running.last_number += 1;
            let number = running.last_number;
            running.since.insert(number, Instant::now());
            number
        };
        let done = operation(self.disk.as_ref());
        self.running().since.remove(&number);
        done
    }
}

impl BlobDisk for WatchedDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.watch(|disk| disk.create(path))
    }

    fn create_direct(&self, path: &Path, size: u64) -> io::Result<File> {
        self.watch(|disk| disk.create_direct(path, size))
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        self.watch(|disk| disk.open(path))
    }

    fn open_direct(&self, path: &Path) -> io::Result<File> {
        self.watch(|disk| disk.open_direct(path))
    }

    fn truncate(&self, file: &File, size: u64) -> io::Result<()> {
        self.watch(|disk| disk.truncate(file, size))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.watch(|disk| disk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.watch(|disk| disk.remove(path))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.watch(|disk| disk.metadata(path))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<ListedFile>> {
        self.watch(|disk| disk.list(directory))
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        self.watch(|disk| disk.write(file, bytes))
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.watch(|disk| disk.sync(file))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.watch(|disk| disk.sync_directory(path))
    }

    fn sync_file_system(&self, handle: &File) -> io::Result<()> {
        self.watch(|disk| disk.sync_file_system(handle))
    }

    fn digest(&self, file: &File) -> io::Result<Digest> {
        self.watch(|disk| disk.digest(file))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.watch(|disk| disk.free_bytes(path))
    }
}
