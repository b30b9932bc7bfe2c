//! Local files written aside and renamed into place, so that no reader sees half a file. A file that is replaced keeps
//! its mode and its owner.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::destination::{Destination, open_stream};
use super::direct_io::{self, Aligner};
use super::fetch::Sink;
use crate::ids::Digest;

/// Extents of at least this size are written past the page cache, in bytes.
const DIRECT_BYTES_MIN: u64 = 16 << 20;

/// Writes a whole file aside and puts it in its place: `path` is whole, or as it was before. A stream takes the bytes at
/// once. Blocks.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    Target::write_all(path, bytes)
}

/// A file that is written piece by piece and put in its place whole; deleted unless it is finished. All calls block.
pub struct GrowingFile(Target);

impl GrowingFile {
    /// Makes the file beside `path`, or in the directory for temporary files if `path` is a stream.
    pub fn create(path: &Path) -> io::Result<Self> {
        Target::create(path, 0).map(Self)
    }

    /// Writes the next bytes.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.file.write_all(bytes)
    }

    /// Puts the file in its place.
    pub fn finish(self) -> io::Result<()> {
        self.0.finish()
    }
}

/// Deletes every file that is not finished, and lets no other begin: the process is about to end, and threads that it
/// does not wait for would leave theirs behind.
pub fn discard_unfinished() {
    let mut unfinished = unfinished();
    unfinished.is_closed = true;
    for path in &unfinished.paths {
        // A leftover is harmless: its name says what it is.
        let _ = std::fs::remove_file(path);
    }
}

/// The files of this process that are being written.
#[derive(Debug, Default)]
struct Unfinished {
    paths: BTreeSet<PathBuf>,
    is_closed: bool,
}

fn unfinished() -> MutexGuard<'static, Unfinished> {
    static UNFINISHED: Mutex<Unfinished> =
        Mutex::new(Unfinished { paths: BTreeSet::new(), is_closed: false });
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file beside its place, deleted when dropped. No other process chooses its name, nor does a later one that has this
/// one's pid, as the first process of a container always has.
#[derive(Debug)]
pub(crate) struct Aside {
    path: PathBuf,
}

impl Aside {
    /// Creates the file in `folder`, for its owner only if it `is_private`.
    pub(crate) fn create(folder: &Path, name: &OsStr, is_private: bool) -> io::Result<(Self, File)> {
        let short: String = name.to_string_lossy().chars().take(48).collect();
        let number = getrandom::u64().map_err(io::Error::other)?;
        let path = folder.join(format!(".{short}.{number:016x}.part"));
        let mode = if is_private { 0o600 } else { 0o666 };
        let mut unfinished = unfinished();
        if unfinished.is_closed {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the program is about to end"));
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(&path)?;
        unfinished.paths.insert(path.clone());
        Ok((Self { path }, file))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the file in its place.
    pub(crate) fn rename(self, to: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, to)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        unfinished().paths.remove(&self.path);
        // It was renamed, or a leftover is harmless: its name says what it is.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A file on its way; deleted unless it is finished.
pub(super) struct Target {
    destination: Destination,
    aside: Aside,
    file: File,
}

impl Target {
    /// Makes a file for `bytes` beside `path`, or in the directory for temporary files if `path` is a stream. Blocks
    /// shortly.
    pub(super) fn create(path: &Path, bytes: u64) -> io::Result<Self> {
        let target = Self::begin(Destination::of(path)?)?;
        if bytes >= DIRECT_BYTES_MIN {
            direct_io::reserve(&target.file, bytes)?;
        }
        Ok(target)
    }

    /// Writes a whole file. Blocks.
    pub(super) fn write_all(path: &Path, bytes: &[u8]) -> io::Result<()> {
        let destination = Destination::of(path)?;
        if let Destination::Stream(path) = destination {
            let mut stream = open_stream(&path)?;
            stream.write_all(bytes)?;
            return stream.flush();
        }
        let target = Self::begin(destination)?;
        (&target.file).write_all(bytes)?;
        target.finish()
    }

    fn begin(destination: Destination) -> io::Result<Self> {
        let (path, folder, is_private) = match &destination {
            // What replaces a file must not be more exposed than it, not even for a moment.
            Destination::File(path) => {
                (path, path.parent().map_or_else(PathBuf::new, Path::to_path_buf), path.exists())
            }
            Destination::Stream(path) => (path, std::env::temp_dir(), true),
        };
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let (aside, file) = Aside::create(&folder, name, is_private)?;
        Ok(Self { destination, aside, file })
    }

    /// Where an extent of `size` bytes goes that starts at `offset` of the file.
    pub(super) fn sink(&self, offset: u64, size: u64) -> FileSink {
        FileSink { temp: self.aside.path().to_owned(), offset, size, writer: None, taken: 0 }
    }

    /// Writes bytes at `offset`. Blocks shortly.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Puts the file in its place, or its bytes into the stream.
    pub(super) fn finish(self) -> io::Result<()> {
        match &self.destination {
            Destination::File(path) => {
                keep_owner_and_mode(&self.file, path)?;
                self.aside.rename(path)
            }
            Destination::Stream(path) => {
                let mut stream = open_stream(path)?;
                let mut bytes = &self.file;
                bytes.seek(SeekFrom::Start(0))?;
                io::copy(&mut bytes, &mut stream)?;
                stream.flush()
            }
        }
    }
}

/// Gives the new file the mode of the one at `path`, and its owner where this process may. Access lists are not kept.
fn keep_owner_and_mode(file: &File, path: &Path) -> io::Result<()> {
    let (old, new) = match std::fs::metadata(path) {
        Ok(old) => (old, file.metadata()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        // Another user's file in a directory of ours: the group alone may be possible.
        let _ = std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid()))
            .or_else(|_| std::os::unix::fs::fchown(file, None, Some(old.gid())));
    }
    file.set_permissions(Permissions::from_mode(old.mode() & 0o777))
}

/// An extent's bytes on their way into a file, hashed. Writes and hashes off the runtime's threads.
pub(super) struct FileSink {
    temp: PathBuf,
    offset: u64,
    size: u64,
    writer: Option<Box<ExtentWriter>>,
    taken: u64,
}

/// Writes an extent in order. Where that is possible and pays, past the page cache.
struct ExtentWriter {
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    /// For direct writes.
    aligner: Option<Aligner>,
}

impl ExtentWriter {
    fn open(path: PathBuf, offset: u64, size: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true);
        let past_cache = size >= DIRECT_BYTES_MIN && direct_io::is_aligned(offset);
        let mut file = if past_cache { direct_io::open(&options, &path)? } else { options.open(&path)? };
        file.seek(SeekFrom::Start(offset))?;
        let aligner = past_cache.then(Aligner::default);
        Ok(Self { path, file, hasher: blake3::Hasher::new(), aligner })
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.hasher.update(chunk);
        match &mut self.aligner {
            Some(aligner) => aligner.take(chunk, |piece| self.file.write_all(piece)),
            None => self.file.write_all(chunk),
        }
    }

    /// Writes what is left. Its end is not aligned, and the bytes after it belong to another extent.
    fn finish(&mut self) -> io::Result<()> {
        let Some(aligner) = &mut self.aligner else { return Ok(()) };
        let (whole, rest) = aligner.finish();
        self.file.write_all(whole)?;
        if rest.is_empty() {
            return Ok(());
        }
        let end = self.file.stream_position()?;
        OpenOptions::new().write(true).open(&self.path)?.write_all_at(rest, end)
    }
}

impl Sink for FileSink {
    fn taken(&self) -> u64 {
        self.taken
    }

    fn restart(&mut self) {
        self.writer = None;
        self.taken = 0;
    }

    async fn take(&mut self, chunk: Bytes) -> io::Result<()> {
        self.taken += chunk.len() as u64;
        let (writer, temp) = (self.writer.take(), self.temp.clone());
        let (offset, size, ended) = (self.offset, self.size, self.taken == self.size);
        let write = move || {
            let mut writer = match writer {
                Some(writer) => writer,
                None => Box::new(ExtentWriter::open(temp, offset, size)?),
            };
            writer.write(&chunk)?;
            if ended {
                writer.finish()?;
            }
            io::Result::Ok(writer)
        };
        self.writer = Some(spawn_blocking(write).await.map_err(io::Error::other)??);
        Ok(())
    }

    fn digest(&self) -> Digest {
        let digest = |writer: &ExtentWriter| Digest(*writer.hasher.finalize().as_bytes());
        self.writer.as_deref().map_or_else(|| Digest::of(&[]), digest)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt;

    use super::*;

    /// What the extents' sinks leave in the file when each is begun twice and gets its bytes in steps.
    async fn through(extents: &[Vec<u8>], base: u64) -> (Vec<u8>, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let size = extents.iter().map(|extent| extent.len() as u64).sum::<u64>();
        let target = Target::create(&path, base + size).unwrap();
        let mut offset = base;
        let mut starts = Vec::new();
        for extent in extents {
            starts.push(offset);
            offset += extent.len() as u64;
        }
        // The last extent first: the end of one must leave the start of the next alone.
        for (extent, start) in extents.iter().zip(starts).rev() {
            let mut sink = target.sink(start, extent.len() as u64);
            sink.take(Bytes::from(vec![7; extent.len().min(1000) / 2])).await.unwrap();
            sink.restart();
            for step in extent.chunks(700_001) {
                sink.take(Bytes::copy_from_slice(step)).await.unwrap();
            }
            assert_eq!(sink.digest(), Digest::of(extent));
        }
        target.finish().unwrap();
        let got = std::fs::read(&path).unwrap();
        (got, extents.concat())
    }

    #[test]
    fn a_link_stays_a_link_and_nothing_is_left_beside_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_whole(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        write_whole(Path::new("/dev/null"), b"gone").unwrap();
        assert!(Path::new("/dev/null").metadata().unwrap().file_type().is_char_device());
        assert!(write_whole(folder.path(), b"x").is_err());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
    }

    #[test]
    fn what_is_replaced_keeps_its_mode_and_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        for mode in [0o600, 0o644, 0o751] {
            std::fs::write(&file, "old").unwrap();
            std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            // Only root can give files away.
            let is_given = std::os::unix::fs::chown(&file, Some(65_534), Some(65_534)).is_ok();
            write_whole(&file, b"new").unwrap();
            let now = file.metadata().unwrap();
            assert_eq!((now.mode() & 0o7777, is_given), (mode, now.uid() == 65_534 && now.gid() == 65_534));
        }
    }

    #[test]
    fn bytes_for_an_open_file_go_into_that_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let open = File::create(&path).unwrap();
        let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
        write_whole(Path::new(&name), b"one ").unwrap();
        let target = Target::create(Path::new(&name), 0).unwrap();
        target.write(0, b"two").unwrap();
        target.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one two");
        assert_eq!(open.metadata().unwrap().ino(), path.metadata().unwrap().ino(), "it was replaced");
    }

    fn pattern(length: usize, step: usize) -> Vec<u8> {
        (0..length).map(|place| u8::try_from(place * step % 251).unwrap()).collect()
    }

    #[tokio::test]
    async fn extents_of_any_size_at_any_offset_are_written_whole() {
        let large = usize::try_from(DIRECT_BYTES_MIN).unwrap();
        let extents = [pattern(large + 5, 3), pattern(large, 7), pattern(large + 4097, 11), pattern(10, 13)];
        for base in [0, 77] {
            let (got, put) = through(&extents, base).await;
            assert!(got[usize::try_from(base).unwrap()..] == put[..], "base {base}");
        }
    }
}
