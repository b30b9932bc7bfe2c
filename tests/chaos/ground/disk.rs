//! A small file system for one member, so that it can be filled without harm to others.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{FallocateFlags, fallocate};

use super::run;

/// Above the 256 MiB that placement wants to see free.
const SIZE: &str = "size=320m";
/// The first piece that is taken when the disk is filled, in bytes.
const PIECE_MAX: u64 = 64 << 20;
const PIECE_MIN: u64 = 4096;

/// A file system in memory. It ends with the mount namespace that the driver is in.
pub(crate) struct Disk {
    root: PathBuf,
}

impl Disk {
    /// Mounts one at `root`; the driver must be in namespaces of its own.
    pub(crate) fn mount(root: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(root)?;
        run("mount", &["-t", "tmpfs", "-o", SIZE, "tmpfs", &root.display().to_string()], "")?;
        Ok(Self { root: root.to_owned() })
    }

    /// Leaves not a byte.
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

    /// Gives the room back.
    pub(crate) fn relieve(&self) -> anyhow::Result<()> {
        fs::remove_file(self.filler()).context("cannot empty the disk")
    }

    fn filler(&self) -> PathBuf {
        self.root.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // At the latest it ends with the mount namespace.
        let _ = run("umount", &["--lazy", &self.root.display().to_string()], "");
    }
}
