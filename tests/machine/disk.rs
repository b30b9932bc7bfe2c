//! The disk: bytes and small files, written by as many threads as there are cores.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::tenths;

const BYTES_PER_THREAD: usize = 256 << 20;
const WRITE_BYTES: usize = 4 << 20;
/// What devices ask of a write that passes the page cache by.
const ALIGNED_BYTES: usize = 4096;
const FILES_PER_THREAD: usize = 2_000;
/// What the benchmark's small files have.
const FILE_BYTES: usize = 20_000;
const FLUSHES: u32 = 20;

/// Files a second.
pub(crate) struct CreatedFiles {
    pub(crate) created_s: f64,
    /// With the flush of all of them at the end.
    pub(crate) durable_s: f64,
}

/// Small files in a folder that each thread has for itself, as a store would make them if it had nothing else to do.
pub(crate) fn create_files(folder: &Path, cores: usize) -> io::Result<CreatedFiles> {
    let create = |folder: &Path| -> io::Result<()> {
        let content = vec![1; FILE_BYTES];
        (0..FILES_PER_THREAD)
            .try_for_each(|number| File::create(folder.join(number.to_string()))?.write_all(&content))
    };
    let folders: Vec<_> = (0..cores).map(|core| folder.join(core.to_string())).collect();
    folders.iter().try_for_each(fs::create_dir_all)?;
    let started = Instant::now();
    at_once(&folders, |folder| create(folder))?;
    let created = started.elapsed();
    rustix::fs::syncfs(File::open(folder)?)?;
    let files = (cores * FILES_PER_THREAD) as f64;
    let rate = |took: Duration| tenths(files / took.as_secs_f64());
    Ok(CreatedFiles { created_s: rate(created), durable_s: rate(started.elapsed()) })
}

/// Large files, past the page cache where the file system can do that, and flushed.
pub(crate) fn write_mb_s(folder: &Path, cores: usize) -> io::Result<f64> {
    let paths: Vec<_> = (0..cores).map(|core| folder.join(format!("large-{core}"))).collect();
    let started = Instant::now();
    at_once(&paths, |path| write_large(path))?;
    let bytes = (cores * BYTES_PER_THREAD) as f64;
    Ok(tenths(bytes / 1e6 / started.elapsed().as_secs_f64()))
}

fn write_large(path: &Path) -> io::Result<()> {
    let buffer = vec![1; WRITE_BYTES + ALIGNED_BYTES];
    let block = &buffer[buffer.as_ptr().align_offset(ALIGNED_BYTES)..][..WRITE_BYTES];
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let direct = options.clone().custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path);
    let mut file = direct.or_else(|_| options.open(path))?;
    (0..BYTES_PER_THREAD / WRITE_BYTES).try_for_each(|_| file.write_all(block))?;
    file.sync_data()
}

/// One write of a page and its flush: the mean of some.
pub(crate) fn flush_ms(folder: &Path) -> io::Result<f64> {
    let mut file = File::create(folder.join("flushed"))?;
    let started = Instant::now();
    for _ in 0..FLUSHES {
        file.write_all(&[1; ALIGNED_BYTES])?;
        file.sync_data()?;
    }
    Ok((started.elapsed() / FLUSHES).as_secs_f64() * 1e3)
}

/// Runs the same for each, at the same time.
fn at_once<T: Sync>(items: &[T], run: impl Fn(&T) -> io::Result<()> + Sync) -> io::Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(|| run(item))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
        })
    })
}
