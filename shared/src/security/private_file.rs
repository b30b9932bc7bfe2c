//! Files that only their owner may read, and the PEM blocks in them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use pem::Pem;

use super::SecurityError;

/// Bytes of a file that are read at most.
const BYTES_MAX: u64 = 64 << 10;
pub(super) const CERTIFICATE_TAG: &str = "CERTIFICATE";
pub(super) const KEY_TAG: &str = "PRIVATE KEY";

/// Reads a file, and refuses it if other users can read it.
pub fn read(path: &Path) -> Result<Vec<u8>, SecurityError> {
    let failed = |reason| SecurityError::Read { path: path.to_owned(), reason };
    let file = File::open(path).map_err(failed)?;
    check_mode(path, &file)?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Refuses a file that its group or others can read. Files in systemd's credentials directory are exempt as to the group:
/// systemd sets their modes itself and shows the directory to one service only.
#[cfg(unix)]
fn check_mode(path: &Path, file: &File) -> Result<(), SecurityError> {
    use std::os::unix::fs::MetadataExt;

    let metadata = file.metadata().map_err(|reason| SecurityError::Read { path: path.to_owned(), reason })?;
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let is_credential = credentials.is_some_and(|dir| dir.is_absolute() && is_directly_in(&dir, path));
    let exposed = if is_credential { 0o007 } else { 0o077 };
    let mode = metadata.mode() & 0o777;
    if metadata.is_file() && mode & exposed != 0 {
        return Err(SecurityError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Whether the directory has this file itself: a path such as `DIR/../FILE` names another one.
#[cfg(unix)]
fn is_directly_in(dir: &Path, path: &Path) -> bool {
    let (dir, path) = (std::fs::canonicalize(dir), std::fs::canonicalize(path));
    matches!((dir, path), (Ok(dir), Ok(path)) if path.parent() == Some(&dir))
}

#[cfg(not(unix))]
fn check_mode(_path: &Path, _file: &File) -> Result<(), SecurityError> {
    Ok(())
}

/// Creates a private file. Fails if the path exists.
pub fn create(path: &Path, text: &str) -> Result<(), SecurityError> {
    write_new(path, text).map_err(|reason| match reason.kind() {
        io::ErrorKind::AlreadyExists => SecurityError::Exists { path: path.to_owned() },
        _ => SecurityError::Write { path: path.to_owned(), reason },
    })
}

/// Replaces a private file atomically. Its owner stays: a daemon that could read it still can.
pub fn replace(path: &Path, text: &str) -> Result<(), SecurityError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let write = || {
        // Left behind by an earlier attempt that crashed.
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        write_new(&beside, text)?;
        keep_owner(&beside, path)?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|reason| SecurityError::Write { path: path.to_owned(), reason })
}

/// Gives a new file the owner of the one that it replaces.
#[cfg(unix)]
fn keep_owner(new: &Path, old: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;

    let owner = |path: &Path| std::fs::metadata(path).map(|found| (found.uid(), found.gid()));
    match owner(old) {
        Ok(before) if before != owner(new)? => std::os::unix::fs::chown(new, Some(before.0), Some(before.1))
            .map_err(|error| {
                let text = format!("cannot keep its owner: {error}; run the command as its owner or as root");
                io::Error::new(error.kind(), text)
            }),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn keep_owner(_new: &Path, _old: &Path) -> io::Result<()> {
    Ok(())
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A PEM block as text, with LF line ends.
pub(super) fn encode(block: &Pem) -> String {
    pem::encode_config(block, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret.pem");
        create(&path, "text").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap(), b"text");
        assert!(matches!(create(&path, "other"), Err(SecurityError::Exists { .. })));
        for mode in [0o640, 0o604, 0o660, 0o644] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let refused = read(&path).unwrap_err();
            assert!(matches!(refused, SecurityError::Exposed { .. }), "{mode:o}: {refused}");
            assert!(refused.to_string().contains("chmod 600"), "{refused}");
        }
        replace(&path, "other").unwrap();
        assert_eq!(read(&path).unwrap(), b"other");
    }

    #[test]
    fn a_path_through_the_directory_of_credentials_is_no_credential() {
        let root = tempfile::tempdir().unwrap();
        let credentials = root.path().join("credentials");
        std::fs::create_dir(&credentials).unwrap();
        create(&root.path().join("secret.pem"), "text").unwrap();
        create(&credentials.join("secret.pem"), "text").unwrap();
        std::os::unix::fs::symlink("../secret.pem", credentials.join("link")).unwrap();
        assert!(is_directly_in(&credentials, &credentials.join("secret.pem")));
        for outside in ["../secret.pem", "link", "../credentials/../secret.pem"] {
            assert!(!is_directly_in(&credentials, &credentials.join(outside)), "{outside}");
        }
    }

    #[test]
    fn a_replaced_file_stays_its_owners() {
        use std::os::unix::fs::MetadataExt;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret.pem");
        create(&path, "text").unwrap();
        // Only root can give files away.
        let is_given = std::os::unix::fs::chown(&path, Some(65_534), Some(65_534)).is_ok();
        replace(&path, "other").unwrap();
        let now = path.metadata().unwrap();
        assert_eq!((now.mode() & 0o777, is_given), (0o600, (now.uid(), now.gid()) == (65_534, 65_534)));
    }
}
