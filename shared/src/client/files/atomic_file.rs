//! Local files written aside and renamed into place, so that no reader sees half a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::direct_io::{self, Aligner};
use super::fetch::Sink;
use crate::ids::Digest;

/// Extents of at least this size are written past the page cache, in bytes.
const DIRECT_BYTES_MIN: u64 = 16 << 20;

/// The regular file that is written where `path` points, links followed; refused if something else is there, for it
/// would be replaced. Blocks shortly.
pub fn regular(path: &Path) -> io::Result<PathBuf> {
    let refused = |kind, why: &str| Err(io::Error::new(kind, why));
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => refused(io::ErrorKind::IsADirectory, "it is a directory: name a file"),
        Ok(found) if !found.is_file() => refused(io::ErrorKind::InvalidInput, "it is not a regular file"),
        Ok(_) if path.is_symlink() => std::fs::canonicalize(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
            refused(io::ErrorKind::InvalidInput, "it is a dangling link")
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(path.to_owned()),
    }
}

/// Writes a whole file aside and puts it in its place: `path` is whole, or as it was before. Blocks.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    Target::write_all(path, bytes)
}

/// A file on its way; deleted unless it is finished.
pub(super) struct Target {
    path: PathBuf,
    temp: Option<PathBuf>,
}

impl Target {
    /// Makes a file for `bytes` beside `path`. Blocks shortly.
    pub(super) fn create(path: &Path, bytes: u64) -> io::Result<Self> {
        let (target, file) = Self::begin(path)?;
        if bytes >= DIRECT_BYTES_MIN {
            direct_io::reserve(&file, bytes)?;
        }
        Ok(target)
    }

    /// Writes a whole file. Blocks.
    pub(super) fn write_all(path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (target, mut file) = Self::begin(path)?;
        file.write_all(bytes)?;
        target.finish()
    }

    fn begin(path: &Path) -> io::Result<(Self, File)> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let path = regular(path)?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let short: String = name.chars().take(48).collect();
        let temp = path.with_file_name(format!(".{short}.{}-{number}.part", std::process::id()));
        let file = File::create_new(&temp)?;
        Ok((Self { path, temp: Some(temp) }, file))
    }

    /// Where an extent of `size` bytes goes that starts at `offset` of the file.
    pub(super) fn sink(&self, offset: u64, size: u64) -> FileSink {
        FileSink { temp: self.temp.clone().unwrap_or_default(), offset, size, writer: None, taken: 0 }
    }

    /// Writes bytes at `offset`. Blocks shortly.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(self.temp.as_deref().unwrap_or(&self.path))?;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }

    /// Puts the file in its place.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let Some(temp) = self.temp.take() else { return Ok(()) };
        let renamed = std::fs::rename(&temp, &self.path);
        if renamed.is_err() {
            self.temp = Some(temp);
        }
        renamed
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(temp) = &self.temp {
            // A leftover is harmless: its name says what it is.
            let _ = std::fs::remove_file(temp);
        }
    }
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
    use super::*;

    /// What the extents' sinks leave in the file when each is begun twice and gets its bytes in steps.
    async fn through(extents: &[Vec<u8>], base: u64) -> (Vec<u8>, Vec<u8>) {
        let folder = std::env::temp_dir().join(format!("idunno-target-{}-{base}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("file");
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
        std::fs::remove_dir_all(&folder).unwrap();
        (got, extents.concat())
    }

    #[test]
    fn only_regular_files_are_replaced_and_links_to_them_stay_links() {
        let folder = std::env::temp_dir().join(format!("idunno-regular-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (file, link, dangling) = (folder.join("file"), folder.join("link"), folder.join("dangling"));
        std::fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        std::os::unix::fs::symlink(folder.join("nothing"), &dangling).unwrap();
        write_whole(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        for special in [Path::new("/dev/null"), &folder, &dangling] {
            let error = write_whole(special, b"x").unwrap_err();
            let refused = [io::ErrorKind::InvalidInput, io::ErrorKind::IsADirectory];
            assert!(refused.contains(&error.kind()), "{}: {error}", special.display());
        }
        let names = std::fs::read_dir(&folder).unwrap().count();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(names, 3, "something was left beside the file");
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
