//! The file operations of the store, all of which may hang, and which tests must be able to fail.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use idunno_shared::client::files::direct_io::{self, ALIGNMENT, AlignedBuffer, PIECE_BYTES};
use idunno_shared::ids::Digest;
use idunno_shared::injected_faults;
use rustix::fs::StatVfsMountFlags;

/// A file in a directory.
pub(crate) struct ListedFile {
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
}

pub(crate) trait BlobDisk: Send + Sync {
    /// Creates a file that must not exist, for buffered writes.
    fn create(&self, path: &Path) -> io::Result<File>;

    /// Creates a file that must not exist, with room for `size` bytes, for writes that bypass the page cache.
    fn create_direct(&self, path: &Path, size: u64) -> io::Result<File>;

    /// Opens a file or a directory.
    fn open(&self, path: &Path) -> io::Result<File>;

    /// Opens a file for reads that bypass the page cache.
    fn open_direct(&self, path: &Path) -> io::Result<File>;

    fn truncate(&self, file: &File, size: u64) -> io::Result<()>;

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// The files of a directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<ListedFile>>;

    /// Writes all of `bytes` at the file's position.
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()>;

    /// Makes one open file, or an open directory's entries, durable.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Makes the entries of a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Makes everything on the file system of `handle` durable. Reports failed write-back since Linux 5.8.
    fn sync_file_system(&self, handle: &File) -> io::Result<()>;

    /// The digest of a file's content on the disk itself, bypassing the page cache where the file system allows it.
    fn digest(&self, file: &File) -> io::Result<Digest>;

    /// Bytes that an unprivileged process may still write to the file system of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

pub(super) struct RealDisk;

impl BlobDisk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        File::create_new(path)
    }

    fn create_direct(&self, path: &Path, size: u64) -> io::Result<File> {
        File::create_new(path).and_then(|file| direct_io::reserve(&file, size))?;
        direct_io::open(File::options().write(true), path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    fn open_direct(&self, path: &Path) -> io::Result<File> {
        direct_io::open(File::options().read(true), path)
    }

    fn truncate(&self, file: &File, size: u64) -> io::Result<()> {
        file.set_len(size)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        injected_faults::before_rename();
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        fs::metadata(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<ListedFile>> {
        let listed = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            Ok(ListedFile { path: entry.path(), size: entry.metadata()?.len() })
        };
        fs::read_dir(directory)?.map(listed).collect()
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_file_system(&self, handle: &File) -> io::Result<()> {
        Ok(rustix::fs::syncfs(handle)?)
    }

    fn digest(&self, file: &File) -> io::Result<Digest> {
        // A direct read of a small file into a large buffer makes the kernel zero the rest of the buffer.
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(PIECE_BYTES);
        let piece = (size.min(PIECE_BYTES) + 1).next_multiple_of(ALIGNMENT).min(PIECE_BYTES);
        let mut hasher = blake3::Hasher::new();
        let mut buffer = AlignedBuffer::new(piece);
        loop {
            match file.read_at(buffer.bytes_mut(), hasher.count()) {
                Ok(count) => {
                    hasher.update(&buffer.bytes()[..count]);
                    // A direct read must start aligned, so a short read is the last.
                    if count < piece {
                        return Ok(Digest(*hasher.finalize().as_bytes()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let figures = rustix::fs::statvfs(path)?;
        if figures.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Ok(0);
        }
        Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
    }
}
