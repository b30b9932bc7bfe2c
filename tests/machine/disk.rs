//! The disk: large and small files, by as many threads as there are cores.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::tenths;

const BYTES_PER_THREAD: usize = 256 << 20;
const BLOCK_BYTES: usize = 4 << 20;
/// What devices ask of reads and writes that pass the page cache by.
const ALIGNED_BYTES: usize = 4096;
const FILES_PER_THREAD: usize = 2_000;
const FOLDERS: usize = 4;
/// What the benchmark's small files have.
const FILE_BYTES: usize = 20_000;
const FLUSHES: u32 = 20;

/// Files a second.
pub(crate) struct CreatedFiles {
    pub(crate) created_s: f64,
    /// With the flush of all of them at the end.
    pub(crate) durable_s: f64,
}

/// Small files in a folder that each thread has for itself, as a store would make them if it had nothing else to do. The best
/// of some folders: where files were deleted a moment ago, ext4 looks long for a place for new ones.
pub(crate) fn create_files(scratch: &Path, cores: usize) -> io::Result<CreatedFiles> {
    let mut best = CreatedFiles { created_s: 0.0, durable_s: 0.0 };
    for number in 0..FOLDERS {
        let CreatedFiles { created_s, durable_s } =
            create_in(&scratch.join(format!("files-{number}")), cores)?;
        best.created_s = best.created_s.max(created_s);
        best.durable_s = best.durable_s.max(durable_s);
    }
    Ok(best)
}

fn create_in(folder: &Path, cores: usize) -> io::Result<CreatedFiles> {
    let create = |folder: &PathBuf| -> io::Result<()> {
        let content = vec![1; FILE_BYTES];
        (0..FILES_PER_THREAD)
            .try_for_each(|number| File::create(folder.join(number.to_string()))?.write_all(&content))
    };
    let folders: Vec<_> = (0..cores).map(|core| folder.join(core.to_string())).collect();
    folders.iter().try_for_each(fs::create_dir_all)?;
    let started = Instant::now();
    at_once(&folders, create)?;
    let created = started.elapsed();
    rustix::fs::syncfs(File::open(folder)?)?;
    let files = (cores * FILES_PER_THREAD) as f64;
    let rate = |took: Duration| tenths(files / took.as_secs_f64());
    Ok(CreatedFiles { created_s: rate(created), durable_s: rate(started.elapsed()) })
}

/// The disk's rates with large files, in MB/s.
pub(crate) struct LargeFileRates {
    pub(crate) write: f64,
    pub(crate) read: f64,
    /// Of each of the two when it reads and writes at once.
    pub(crate) copy: f64,
    /// Into the page cache, nothing flushed.
    pub(crate) cached_write: f64,
}

/// Large files, past the page cache where the file system can do that and unless said otherwise. What is written is flushed.
pub(crate) fn large_files(folder: &Path, cores: usize) -> io::Result<LargeFileRates> {
    let paths = |name: &str| (0..cores).map(|core| folder.join(format!("{name}-{core}"))).collect::<Vec<_>>();
    let (written, copied, cached) = (paths("written"), paths("copied"), paths("cached"));
    let mb_s = |step: &dyn Fn() -> io::Result<()>| {
        let started = Instant::now();
        step()?;
        io::Result::Ok(tenths((cores * BYTES_PER_THREAD) as f64 / 1e6 / started.elapsed().as_secs_f64()))
    };
    let both: Vec<(bool, &PathBuf)> =
        written.iter().map(|path| (true, path)).chain(copied.iter().map(|path| (false, path))).collect();
    Ok(LargeFileRates {
        write: mb_s(&|| at_once(&written, |path| write_large(path)))?,
        read: mb_s(&|| at_once(&written, |path| read_large(path)))?,
        copy: mb_s(&|| {
            at_once(&both, |(is_read, path)| if *is_read { read_large(path) } else { write_large(path) })
        })?,
        cached_write: mb_s(&|| at_once(&cached, |path| write_cached(path)))?,
    })
}

fn write_large(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let mut file = open_direct(&options, path)?;
    write_blocks(&mut file)?;
    file.sync_data()
}

fn write_cached(path: &Path) -> io::Result<()> {
    write_blocks(&mut File::create(path)?)
}

fn write_blocks(file: &mut File) -> io::Result<()> {
    let mut buffer = vec![1; BLOCK_BYTES + ALIGNED_BYTES];
    let block = aligned(&mut buffer);
    (0..BYTES_PER_THREAD / BLOCK_BYTES).try_for_each(|_| file.write_all(block))
}

fn read_large(path: &Path) -> io::Result<()> {
    let mut file = open_direct(OpenOptions::new().read(true), path)?;
    let mut buffer = vec![0; BLOCK_BYTES + ALIGNED_BYTES];
    let block = aligned(&mut buffer);
    (0..BYTES_PER_THREAD / BLOCK_BYTES).try_for_each(|_| file.read_exact(block))
}

fn aligned(buffer: &mut [u8]) -> &mut [u8] {
    let start = buffer.as_ptr().align_offset(ALIGNED_BYTES);
    &mut buffer[start..][..BLOCK_BYTES]
}

fn open_direct(options: &OpenOptions, path: &Path) -> io::Result<File> {
    let direct = options.clone().custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path);
    direct.or_else(|_| options.open(path))
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
