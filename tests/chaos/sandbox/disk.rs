//! A small file system for one member, which can be filled without affecting others.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{FallocateFlags, fallocate};

use super::run;

/// The 256 MiB that placement requires to be free, and what clients store in an hour, all of which lies on each of four members
/// while three are gone: about 400 MB if the programs are optimised, and what waits to be collected. A cluster whose disks are
/// full cannot heal.
const SIZE: &str = "size=1g";
/// First allocation when the disk is filled, in bytes; halved until it reaches [`PIECE_MIN`].
const PIECE_MAX: u64 = 64 << 20;
const PIECE_MIN: u64 = 4096;

/// A file system in memory. It disappears with the driver's mount namespace.
pub(crate) struct Disk {
    root: PathBuf,
}

impl Disk {
    /// Mounts one at `root`. The driver must be in its own namespaces.
    pub(crate) fn mount(root: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(root)?;
        run("mount", &["-t", "tmpfs", "-o", SIZE, "tmpfs", &root.display().to_string()], "")?;
        Ok(Self { root: root.to_owned() })
    }

    /// Allocates all free space.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let file = File::create(self.filler()).context("cannot fill the disk")?;
        let (mut offset, mut piece) = (0, PIECE_MAX);
        while piece >= PIECE_MIN {
            match fallocate(&file, FallocateFlags::empty(), offset, piece) {
                Ok(()) => offset += piece,
                Err(_) => piece /= 2,
            }
        }
        Ok(())
    }

    /// Frees the allocated space.
    pub(crate) fn relieve(&self) -> anyhow::Result<()> {
        fs::remove_file(self.filler()).context("cannot empty the disk")
    }

    fn filler(&self) -> PathBuf {
        self.root.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // If this fails, the mount still ends with the mount namespace.
        let _ = run("umount", &["--lazy", &self.root.display().to_string()], "");
    }
}
