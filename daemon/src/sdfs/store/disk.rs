//! The few file operations whose failure the tests must be able to cause.

use std::fs::File;
use std::io::{self, Write};

pub(super) trait Disk: Send + Sync {
    /// Writes all of `bytes` at the file's position.
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()>;

    /// Makes one file, or one directory's entries, durable.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Makes everything on the file system of `handle` durable. Reports failed write-back since Linux 5.8.
    fn sync_file_system(&self, handle: &File) -> io::Result<()>;
}

pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_file_system(&self, handle: &File) -> io::Result<()> {
        Ok(rustix::fs::syncfs(handle)?)
    }
}
