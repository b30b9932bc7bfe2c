//! Whether a local cluster's files may be believed.
//!
//! `cluster.json` names a program to run, processes to end and directories to delete. A command believes it only if nobody
//! but its user, or root, can have written it. New directories are for their owner only.

use std::path::{Path, PathBuf};

use super::record::Record;
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

/// The data directories that exist, links resolved. Refused if one of them is not below `dir`.
pub fn below(dir: &Path, record: &Record) -> Result<Vec<PathBuf>, Failure> {
    let failed = |path: &Path, error| Failure::error(format!("cannot find {}: {error}", path.display()));
    let root = std::fs::canonicalize(dir).map_err(|error| failed(dir, error))?;
    let mut found = Vec::new();
    for process in &record.processes {
        let path = match std::fs::canonicalize(&process.data_dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            resolved => resolved.map_err(|error| failed(&process.data_dir, error))?,
        };
        if path == root || !path.starts_with(&root) {
            let text = format!(
                "nothing was deleted: the data directory of {}, {}, is not in {}: delete it yourself",
                process.name,
                path.display(),
                root.display()
            );
            return Err(Failure::new(Exit::Refused, text));
        }
        found.push(path);
    }
    Ok(found)
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};

    use super::*;
    use crate::local::record::Process;

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

    #[test]
    fn only_what_is_below_the_clusters_directory_may_be_deleted() {
        let root = tempfile::tempdir().unwrap();
        let (dir, other) = (root.path().join("cluster"), root.path().join("home"));
        for path in [dir.join("m1"), other.clone()] {
            fs::create_dir_all(path).unwrap();
        }
        symlink(&other, dir.join("link")).unwrap();
        let named = |data_dir: PathBuf| {
            let mut record = Record::new("idunnod".into(), None, 1);
            record.processes.push(Process { name: "m1".into(), data_dir, address: None, running: None });
            record
        };
        assert_eq!(below(&dir, &named(dir.join("m1"))).unwrap(), [fs::canonicalize(dir.join("m1")).unwrap()]);
        assert_eq!(below(&dir, &named(dir.join("gone"))).unwrap(), Vec::<PathBuf>::new());
        for outside in [other, dir.join("link"), dir.join("../home"), dir.clone(), root.path().to_owned()] {
            let refused = below(&dir, &named(outside.clone())).unwrap_err();
            assert!(refused.message.contains("nothing was deleted"), "{}: {refused}", outside.display());
        }
    }
}
