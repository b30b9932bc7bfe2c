//! The file operations that tests must be able to fail.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use idunno_shared::client::files::direct_io::{self, ALIGNMENT, AlignedBuffer, PIECE_BYTES};
use idunno_shared::ids::Digest;
use rustix::fs::StatVfsMountFlags;

pub(crate) trait BlobDisk: Send + Sync {
    /// Writes all of `bytes` at the file's position.
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()>;

    /// Makes one file, or one directory's entries, durable.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Makes everything on the file system of `handle` durable. Reports failed write-back since Linux 5.8.
    fn sync_file_system(&self, handle: &File) -> io::Result<()>;

    /// The digest of a file's content on the disk itself, bypassing the page cache where the file system allows it.
    fn digest(&self, file: &File) -> io::Result<Digest>;

    /// Bytes that an unprivileged process may still write to the file system of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// Opens a file for [`BlobDisk::digest`].
pub(super) fn open_direct(path: &Path) -> io::Result<File> {
    direct_io::open(File::options().read(true), path)
}

pub(super) struct RealDisk;

impl BlobDisk for RealDisk {
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
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
