//! Disks that lose unflushed data in a simulated power cut.
//!
//! Each is an ext4 of its own in a loop device. While [`NoWriteBack`] lives the kernel writes nothing back by itself, so
//! that only flushes reach the image. The image as it is right after the processes were killed is what a power cut would
//! have left; it is mounted for the restart. (What was written past the page cache reaches the image at once: a disk
//! with a cache of its own could lose more.)

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;

/// Why such disks cannot be made here, if they cannot.
pub(crate) fn unavailable() -> Option<String> {
    if !geteuid().is_root() {
        return Some(String::from("it needs root, to mount file systems"));
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some(String::from("it needs loop devices"));
    }
    let found = Command::new("mkfs.ext4").arg("-V").output().is_ok();
    (!found).then(|| String::from("it needs mkfs.ext4 (e2fsprogs)"))
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
}

/// A file system in a file, mounted until this is dropped.
pub(crate) struct Disk {
    image: PathBuf,
    mounted_at: PathBuf,
}

impl Disk {
    /// Makes a disk of `mebibytes` and mounts it.
    pub(crate) fn mount(image: PathBuf, mounted_at: PathBuf, mebibytes: u64) -> Self {
        fs::File::create_new(&image).unwrap().set_len(mebibytes << 20).unwrap();
        run("mkfs.ext4", &["-q", image.to_str().unwrap()]);
        fs::create_dir_all(&mounted_at).unwrap();
        let disk = Self { image, mounted_at };
        disk.attach();
        disk
    }

    fn attach(&self) {
        // The journal's own timer must not commit either.
        let (image, target) = (self.image.to_str().unwrap(), self.mounted_at.to_str().unwrap());
        run("mount", &["-o", "loop,commit=3600", image, target]);
    }

    /// Has the file system give itself up, as it does after an error of the device: from here on it is read-only, and
    /// what was not written yet fails to be.
    pub(crate) fn fail(&self) {
        run("mount", &["-o", "remount,abort", self.mounted_at.to_str().unwrap()]);
    }

    /// Checks the file system and mounts it again. No process may use it.
    pub(crate) fn repair(&self) {
        self.detach();
        // It exits with 1 after it has repaired something.
        let checked = Command::new("e2fsck").args(["-p", self.image.to_str().unwrap()]).output().unwrap();
        assert!(checked.status.code().is_some_and(|code| code <= 1), "e2fsck: {checked:?}");
        self.attach();
    }

    fn detach(&self) {
        run("umount", &[self.mounted_at.to_str().unwrap()]);
    }

    /// Drops everything that did not reach the image. No process may use it.
    pub(crate) fn cut(&self) {
        let left = self.image.with_extension("cut");
        run("cp", &["--sparse=always", self.image.to_str().unwrap(), left.to_str().unwrap()]);
        self.detach();
        fs::rename(left, &self.image).unwrap();
        self.attach();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a failed test may have left a process that uses it.
        let _ = Command::new("umount").arg("-l").arg(&self.mounted_at).output();
    }
}

const SETTINGS: [(&str, &str); 4] = [
    ("dirty_ratio", "95"),
    ("dirty_background_ratio", "90"),
    ("dirty_expire_centisecs", "100000000"),
    ("dirty_writeback_centisecs", "0"),
];

/// The kernel's write-back, switched off for the whole machine until this is dropped.
pub(crate) struct NoWriteBack(Vec<(PathBuf, String)>);

impl NoWriteBack {
    pub(crate) fn new() -> Self {
        let set = |(name, value): (&str, &str)| {
            let path = Path::new("/proc/sys/vm").join(name);
            let before = fs::read_to_string(&path).unwrap();
            fs::write(&path, value).unwrap();
            (path, before)
        };
        Self(SETTINGS.into_iter().map(set).collect())
    }
}

impl Drop for NoWriteBack {
    fn drop(&mut self) {
        for (path, before) in self.0.iter().rev() {
            // A setting that cannot be put back is the machine's, and shows.
            let _ = fs::write(path, before);
        }
    }
}
