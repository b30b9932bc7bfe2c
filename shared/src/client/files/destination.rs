//! What is written when a user names a path: a file that is replaced, or a stream that takes the bytes as they come.
//!
//! A device, a pipe and an open file of this process (`/dev/stdout`, `/dev/fd/3`) are streams. Replacing what such a
//! path resolves to would leave its user with the old file, or with no device.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The longest chain of links that is followed, as in Linux.
const LINKS_MAX: usize = 40;

/// Where the bytes for a path go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The regular file at this path, links followed; it need not exist.
    File(PathBuf),
    /// What this path opens.
    Stream(PathBuf),
}

impl Destination {
    /// What is written if a user names `path`. Refuses directories, sockets, disks and dangling links. Blocks shortly.
    pub fn of(path: &Path) -> io::Result<Self> {
        let refused = |kind, why: &str| Err(io::Error::new(kind, why));
        let found = match std::fs::metadata(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) if path.is_symlink() => {
                return refused(io::ErrorKind::InvalidInput, "it is a dangling link");
            }
            Err(_) => return Ok(Self::File(path.to_owned())),
            Ok(found) => found,
        };
        let kind = found.file_type();
        if kind.is_dir() {
            refused(io::ErrorKind::IsADirectory, "it is a directory: name a file")
        } else if kind.is_char_device() || kind.is_fifo() || open_file(path).is_some() {
            Ok(Self::Stream(path.to_owned()))
        } else if !kind.is_file() {
            refused(io::ErrorKind::InvalidInput, "it is neither a file nor a stream")
        } else if path.is_symlink() {
            std::fs::canonicalize(path).map(Self::File)
        } else {
            Ok(Self::File(path.to_owned()))
        }
    }
}

/// The regular file at `path`, links followed; refused if something else is there. Blocks shortly.
pub fn regular(path: &Path) -> io::Result<PathBuf> {
    match Destination::of(path)? {
        Destination::File(path) => Ok(path),
        Destination::Stream(_) => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
        }
    }
}

/// Whether bytes written to `path` come out at standard output. Blocks shortly.
pub fn is_stdout(path: &Path) -> bool {
    let Ok(Destination::Stream(path)) = Destination::of(path) else { return false };
    let Ok(stdout) = rustix::fs::fstat(io::stdout()) else { return false };
    std::fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (stdout.st_dev, stdout.st_ino))
}

/// Opens a stream for writing. Blocks: a pipe waits for its reader.
pub(super) fn open_stream(path: &Path) -> io::Result<Box<dyn Write>> {
    // The open files themselves where the language gives access to them: an open by name starts at a position of its own.
    match open_file(path) {
        Some(1) => return Ok(Box::new(io::stdout())),
        Some(2) => return Ok(Box::new(io::stderr())),
        _ => {}
    }
    let is_file = std::fs::metadata(path).as_ref().is_ok_and(Metadata::is_file);
    let file: File = OpenOptions::new().write(true).append(is_file).open(path)?;
    Ok(Box::new(file))
}

/// The number of this process' open file that `path` names, if it names one; `u32::MAX` for one of another process.
fn open_file(path: &Path) -> Option<u32> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = std::fs::canonicalize(parent.unwrap_or_else(|| Path::new("."))).ok()?;
        let name = path.file_name()?.to_owned();
        if directory.starts_with("/proc") && directory.ends_with("fd") {
            let is_own = directory == Path::new(&format!("/proc/{}/fd", std::process::id()));
            let number = name.to_str().and_then(|name| name.parse().ok());
            return Some(number.filter(|_| is_own).unwrap_or(u32::MAX));
        }
        path = directory.join(std::fs::read_link(directory.join(name)).ok()?);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_pipes_and_open_files_are_streams_and_links_to_files_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "old").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("nothing"), at("dangling")).unwrap();
        let open = File::open(at("file")).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&open);
        std::os::unix::fs::symlink(format!("/proc/self/fd/{number}"), at("link to an open file")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
            .unwrap();

        let real = std::fs::canonicalize(at("file")).unwrap();
        assert_eq!(Destination::of(&at("file")).unwrap(), Destination::File(at("file")));
        assert_eq!(Destination::of(&at("new")).unwrap(), Destination::File(at("new")));
        assert_eq!(Destination::of(&at("link")).unwrap(), Destination::File(real));
        let streams = [at("pipe"), at("link to an open file"), "/dev/null".into(), "/dev/stdout".into()];
        for stream in streams {
            assert_eq!(Destination::of(&stream).unwrap(), Destination::Stream(stream.clone()));
            assert!(regular(&stream).is_err(), "{}", stream.display());
        }
        for refused in [folder.path().to_owned(), at("dangling")] {
            assert!(Destination::of(&refused).is_err(), "{}", refused.display());
        }
        assert_eq!(open_file(Path::new("/dev/stdout")), Some(1));
        assert_eq!(open_file(Path::new("/dev/fd/2")), Some(2));
        assert_eq!(open_file(&at("file")), None);
    }
}
