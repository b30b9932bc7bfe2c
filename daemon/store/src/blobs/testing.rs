//! A disk whose faults and flushes are controlled by a test.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};

use idunno_shared::ids::Digest;

use super::disk::{BlobDisk, RealDisk};

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
    /// Used bytes of a disk of 1 TiB.
    pub(crate) used_bytes: AtomicU64,
}

impl TestDiskState {
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
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
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
        self.0.flush(&self.0.file_flushes)?;
        RealDisk.sync(file)
    }

    fn sync_file_system(&self, handle: &File) -> io::Result<()> {
        self.0.flush(&self.0.system_flushes)?;
        RealDisk.sync_file_system(handle)
    }

    fn digest(&self, file: &File) -> io::Result<Digest> {
        if self.0.unreadable.load(Ordering::Relaxed) {
            return Err(device_fault());
        }
        RealDisk.digest(file)
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok((1 << 40) - self.0.used_bytes.load(Ordering::Relaxed))
    }
}
