//! A disk whose faults and flushes are controlled by a test.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::time::Duration;

use idunno_shared::ids::Digest;

use super::disk::{BlobDisk, ListedFile, RealDisk};
use super::watched::{HUNG_AFTER, WatchedDisk};

/// A call of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DiskCall {
    Create,
    Open,
    Truncate,
    Rename,
    Remove,
    Inspect,
    List,
    Write,
    Sync,
    Digest,
    FreeBytes,
}

impl DiskCall {
    pub(crate) const ALL: [Self; 11] = [
        Self::Create,
        Self::Open,
        Self::Truncate,
        Self::Rename,
        Self::Remove,
        Self::Inspect,
        Self::List,
        Self::Write,
        Self::Sync,
        Self::Digest,
        Self::FreeBytes,
    ];
}

#[derive(Default)]
struct Faults {
    hanging: Option<DiskCall>,
    failing: Option<DiskCall>,
    /// Calls that hang now.
    hung: usize,
}

#[derive(Clone, Default)]
pub(crate) struct TestDisk(pub(crate) Arc<TestDiskState>);

#[derive(Default)]
pub(crate) struct TestDiskState {
    pub(crate) file_flushes: AtomicUsize,
    pub(crate) system_flushes: AtomicUsize,
    /// Flushes signal `entered`, then wait until the gate is open.
    gate_closed: Mutex<bool>,
    gate_opened: Condvar,
    pub(crate) entered: Mutex<Option<mpsc::Sender<()>>>,
    /// The number of the flush that fails, from 1. The next one succeeds, so that a store that retries would be caught.
    pub(crate) failing_flush: AtomicUsize,
    pub(crate) full: AtomicBool,
    /// Writes fail with a device fault.
    pub(crate) unwritable: AtomicBool,
    /// Direct reads fail with a device fault.
    pub(crate) unreadable: AtomicBool,
    /// Calls that hang, and calls that fail with a device fault.
    faults: Mutex<Faults>,
    changed: Condvar,
    /// Used bytes of a disk of 1 TiB.
    pub(crate) used_bytes: AtomicU64,
}

impl TestDisk {
    /// This disk, with time enough for every call.
    pub(crate) fn watched(&self) -> WatchedDisk {
        WatchedDisk::new(Box::new(self.clone()), HUNG_AFTER)
    }
}

impl TestDiskState {
    /// From now on the call does not return before [`Self::release`].
    pub(crate) fn hang(&self, call: DiskCall) {
        self.faults().hanging = Some(call);
    }

    /// From now on the call fails with a device fault.
    pub(crate) fn fail(&self, call: DiskCall) {
        self.faults().failing = Some(call);
    }

    /// Ends all faults.
    pub(crate) fn release(&self) {
        (self.faults().hanging, self.faults().failing) = (None, None);
        self.changed.notify_all();
    }

    /// Waits until somebody waits for the call that hangs.
    pub(crate) fn until_hung(&self, call: DiskCall) {
        let limit = Duration::from_secs(20);
        let waited = self.changed.wait_timeout_while(self.faults(), limit, |faults| faults.hung == 0);
        let timed_out = waited.unwrap().1.timed_out();
        if timed_out {
            // Or the threads that hang would keep the failed test.
            self.release();
        }
        assert!(!timed_out, "nobody made the call {call:?}");
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap()
    }

    fn enter(&self, call: DiskCall) -> io::Result<()> {
        let mut faults = self.faults();
        if faults.hanging == Some(call) {
            faults.hung += 1;
            self.changed.notify_all();
            faults = self.changed.wait_while(faults, |faults| faults.hanging == Some(call)).unwrap();
            faults.hung -= 1;
        }
        if faults.failing == Some(call) { Err(device_fault()) } else { Ok(()) }
    }

    pub(crate) fn close_gate(&self) {
        *self.gate_closed.lock().unwrap() = true;
    }

    pub(crate) fn open_gate(&self) {
        *self.gate_closed.lock().unwrap() = false;
        self.gate_opened.notify_all();
    }

    fn flush(&self, kind: &AtomicUsize) -> io::Result<()> {
        kind.fetch_add(1, Ordering::Relaxed);
        let number = self.file_flushes.load(Ordering::Relaxed) + self.system_flushes.load(Ordering::Relaxed);
        if let Some(entered) = self.entered.lock().unwrap().take() {
            entered.send(()).unwrap();
        }
        let closed = self.gate_closed.lock().unwrap();
        drop(self.gate_opened.wait_while(closed, |closed| *closed).unwrap());
        let fails = self.failing_flush.load(Ordering::Relaxed) == number;
        if fails { Err(io::Error::other("injected")) } else { Ok(()) }
    }
}

fn device_fault() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl BlobDisk for TestDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.0.enter(DiskCall::Create)?;
        RealDisk.create(path)
    }

    fn create_direct(&self, path: &Path, size: u64) -> io::Result<File> {
        self.0.enter(DiskCall::Create)?;
        RealDisk.create_direct(path, size)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        self.0.enter(DiskCall::Open)?;
        RealDisk.open(path)
    }

    fn open_direct(&self, path: &Path) -> io::Result<File> {
        self.0.enter(DiskCall::Open)?;
        RealDisk.open_direct(path)
    }

    fn truncate(&self, file: &File, size: u64) -> io::Result<()> {
        self.0.enter(DiskCall::Truncate)?;
        RealDisk.truncate(file, size)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.enter(DiskCall::Rename)?;
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.enter(DiskCall::Remove)?;
        RealDisk.remove(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.0.enter(DiskCall::Inspect)?;
        RealDisk.metadata(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<ListedFile>> {
        self.0.enter(DiskCall::List)?;
        RealDisk.list(directory)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        self.0.enter(DiskCall::Write)?;
        if self.0.full.load(Ordering::Relaxed) {
            RealDisk.write(file, &bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.0.unwritable.load(Ordering::Relaxed) {
            return Err(device_fault());
        }
        RealDisk.write(file, bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.0.enter(DiskCall::Sync)?;
        self.0.flush(&self.0.file_flushes)?;
        RealDisk.sync(file)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.0.enter(DiskCall::Sync)?;
        RealDisk.sync_directory(path)
    }

    fn sync_file_system(&self, handle: &File) -> io::Result<()> {
        self.0.enter(DiskCall::Sync)?;
        self.0.flush(&self.0.system_flushes)?;
        RealDisk.sync_file_system(handle)
    }

    fn digest(&self, file: &File) -> io::Result<Digest> {
        self.0.enter(DiskCall::Digest)?;
        if self.0.unreadable.load(Ordering::Relaxed) {
            return Err(device_fault());
        }
        RealDisk.digest(file)
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        self.0.enter(DiskCall::FreeBytes)?;
        Ok((1 << 40) - self.0.used_bytes.load(Ordering::Relaxed))
    }
}
