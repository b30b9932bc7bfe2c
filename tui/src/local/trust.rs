//! Whether a local cluster's files may be believed.
//!
//! `cluster.json` names a program to run, processes to end and directories to delete. A command believes it only if nobody
//! but its user, or root, can have written it. New directories are for their owner only.

use std::path::Path;

use crate::answer::{Exit, Failure};

/// Refuses a directory or file that somebody else could have written.
#[cfg(unix)]
pub fn check(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt;

    let refused = |why: String| Err(Failure::new(Exit::Refused, format!("{} {why}", path.display())));
    let found = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::error(format!("cannot look at {}: {error}", path.display()))),
        Ok(found) => found,
    };
    let me = rustix::process::geteuid().as_raw();
    if found.uid() != me && found.uid() != 0 {
        return refused(format!(
            "belongs to user {}, who could make this command run any program: use a directory of your own, with --dir",
            found.uid()
        ));
    }
    // It may lead to a directory of one's own that was not meant.
    let link = std::fs::symlink_metadata(path).map_or(me, |link| link.uid());
    if link != me && link != 0 {
        return refused(format!("is a link that user {link} made: use a directory of your own, with --dir"));
    }
    let mode = found.mode() & 0o777;
    if mode & 0o022 != 0 {
        let why = "so that others could make this command run any program";
        return refused(format!("has mode {mode:o}, {why}: run 'chmod go-w {}'", path.display()));
    }
    Ok(())
}

#[cfg(not(unix))]
pub fn check(_path: &Path) -> Result<(), Failure> {
    Ok(())
}

/// Creates a directory for its owner only, with its parents. One that exists stays as it is.
pub fn create_private(dir: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};

    use super::*;

    #[test]
    fn what_others_could_have_written_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster");
        check(&path).unwrap();
        create_private(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        check(&path).unwrap();
        for mode in [0o720, 0o702, 0o777] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let refused = check(&path).unwrap_err();
            assert!(refused.exit == Exit::Refused && refused.message.contains("chmod go-w"), "{refused}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        check(&path).unwrap();
        // Only root can give files away.
        if chown(&path, Some(65_534), None).is_ok() {
            assert!(check(&path).unwrap_err().message.contains("belongs to user 65534"));
            let (own, link) = (dir.path().join("own"), dir.path().join("link"));
            create_private(&own).unwrap();
            symlink(&own, &link).unwrap();
            check(&link).unwrap();
            lchown(&link, Some(65_534), None).unwrap();
            assert!(check(&link).unwrap_err().message.contains("is a link that user 65534 made"));
        }
    }
}
