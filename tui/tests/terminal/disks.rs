//! What the console says of full disks.

use std::fs::{File, create_dir_all, remove_file};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::process::geteuid;

use super::Cluster;

/// The 256 MiB that members keep free, and room for three extents.
const DISK_MIB: u64 = 512;
/// What leaves less room than an extent needs.
const FILL_MIB: u64 = 200;

/// A file system in memory, mounted until this is dropped.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(at: PathBuf) -> Self {
        create_dir_all(&at).unwrap();
        let size = format!("size={DISK_MIB}m,mode=700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).status();
        assert!(mounted.unwrap().success());
        Self(at)
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    fn fill(&self) {
        let file = File::create_new(self.filler()).unwrap();
        fallocate(&file, FallocateFlags::empty(), 0, FILL_MIB << 20).unwrap();
    }

    fn empty(&self) {
        remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still have a file open.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn the_console_says_that_disks_are_full_as_long_as_they_are() {
    if !geteuid().is_root() {
        println!("skipped: it needs root, to mount file systems");
        return;
    }
    let cluster = Cluster::start_on_small_disks();
    let mut console = cluster.console(&[]);
    console.shows("● LIVE");
    let none_is_full = |screen: &str| !screen.contains("disk full") && !screen.contains("disks full");
    console.until("no disk is full", |it| none_is_full(&it.screen()));
    let mut shows_soon = |what: &str, is_shown: &dyn Fn(&str) -> bool| {
        let started = Instant::now();
        console.until(what, |it| is_shown(&it.screen()));
        println!("{what}: shown after {:.1?}", started.elapsed());
    };
    cluster.disks[1].fill();
    shows_soon("one disk is full", &|screen| screen.contains("1 disk full"));
    cluster.disks.iter().filter(|disk| !disk.filler().exists()).for_each(SmallDisk::fill);
    shows_soon("all disks are full", &|screen| screen.contains("all disks full"));
    cluster.disks.iter().for_each(SmallDisk::empty);
    shows_soon("no disk is full any more", &none_is_full);
}
