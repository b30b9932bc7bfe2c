//! `put`, `populate-test-data`: local files into the store.

use std::path::{Path, PathBuf};

use idunno_shared::client::files::{PutItem, PutOptions, PutReport};
use idunno_shared::names::{DatasetName, FileName};
use tokio::task::spawn_blocking;
use walkdir::WalkDir;

use crate::answer::files::{UploadedDataset, UploadedFile};
use crate::answer::{Answer, Exit, Failure, text};
use crate::session::Session;

/// Deepest directory that `populate-test-data` enters.
const DEPTH_MAX: usize = 64;

/// `put`.
pub async fn put(session: &Session, local: PathBuf, name: FileName) -> Result<Answer, Failure> {
    let size_bytes = local_size(&local)?;
    let progress = session.reporter.start(name.as_str(), 0, size_bytes);
    let item = PutItem { name: name.clone(), path: local };
    let report = session.files().put_files(vec![item], PutOptions::default(), progress.as_ref()).await?;
    let version = report.versions.first().copied().flatten().unwrap_or_default();
    let text = format!("{name} version {version}, {size_bytes} bytes{}", copies(&report));
    let sent = report.copies_wanted > 0;
    let uploaded = UploadedFile {
        name: name.to_string(),
        version,
        size_bytes,
        copies: sent.then_some(report.copies_min),
        copies_wanted: sent.then_some(report.copies_wanted),
    };
    Ok(Answer::new(&uploaded, text))
}

/// The durable copies of what was sent, if anything was: empty files have none.
fn copies(report: &PutReport) -> String {
    if report.copies_wanted == 0 {
        return String::new();
    }
    format!(", copies: {} of {}", report.copies_min, report.copies_wanted)
}

/// The size of a local file, if it can be put.
pub(in crate::execute) fn local_size(path: &Path) -> Result<u64, Failure> {
    let wrong = |reason: &str| Failure::error(format!("cannot put {}: {reason}", path.display()));
    let metadata = path.metadata().map_err(|error| wrong(&error.to_string()))?;
    if metadata.is_dir() {
        return Err(wrong("it is a directory (populate-test-data takes directories)"));
    }
    if !metadata.is_file() {
        return Err(wrong("it is not a regular file"));
    }
    Ok(metadata.len())
}

/// `populate-test-data`.
pub async fn populate(session: &Session, directory: &Path, dataset: &DatasetName) -> Result<Answer, Failure> {
    let (root, name) = (directory.to_owned(), dataset.clone());
    let walked = spawn_blocking(move || walk(&root, &name)).await;
    let Found { items, size_bytes } = walked.map_err(|error| Failure::error(error.to_string()))??;
    if items.is_empty() {
        return Err(Failure::new(Exit::Refused, format!("{} contains no files", directory.display())));
    }
    let progress = session.reporter.start(dataset.as_str(), items.len() as u64, size_bytes);
    let options = PutOptions { skip_unchanged: true, ..PutOptions::default() };
    let report = session.files().put_files(items, options, progress.as_ref()).await?;
    let text = format!(
        "{dataset}: {} put ({}), {} already there{}",
        text::count(report.files, "file"),
        text::bytes(report.bytes),
        report.skipped,
        copies(&report)
    );
    let uploaded = UploadedDataset {
        dataset: dataset.to_string(),
        files: report.files,
        size_bytes: report.bytes,
        files_skipped: report.skipped,
        copies: report.copies_min,
        copies_wanted: report.copies_wanted,
    };
    Ok(Answer::new(&uploaded, text))
}

/// The files of a directory.
#[derive(Debug)]
pub struct Found {
    /// The files with their names in the store, in the order of these.
    pub items: Vec<PutItem>,
    /// Their bytes.
    pub size_bytes: u64,
}

/// All regular files under a directory with their names in the data set. Symbolic links are followed.
pub fn walk(root: &Path, dataset: &DatasetName) -> Result<Found, Failure> {
    root.read_dir().map_err(|error| Failure::error(format!("cannot read {}: {error}", root.display())))?;
    let mut found = Found { items: Vec::new(), size_bytes: 0 };
    for entry in WalkDir::new(root).follow_links(true).max_depth(DEPTH_MAX + 1) {
        let entry = entry.map_err(|error| unreadable(root, &error))?;
        if entry.file_type().is_dir() && entry.depth() > DEPTH_MAX {
            let text = format!("{} is nested deeper than {DEPTH_MAX} directories", entry.path().display());
            return Err(Failure::new(Exit::Refused, text));
        }
        if entry.file_type().is_file() {
            found.size_bytes += entry.metadata().map_err(|error| unreadable(root, &error))?.len();
            let name = name_in(dataset, root, entry.path())?;
            found.items.push(PutItem { name, path: entry.into_path() });
        }
    }
    found.items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn unreadable(root: &Path, error: &walkdir::Error) -> Failure {
    let path = error.path().unwrap_or(root).display();
    match (error.loop_ancestor(), error.io_error()) {
        (Some(ancestor), _) => {
            let text = format!("{path} is a link to {}, which contains it", ancestor.display());
            Failure::new(Exit::Refused, text)
        }
        (None, Some(reason)) => Failure::error(format!("cannot read {path}: {reason}")),
        (None, None) => Failure::error(format!("cannot read {path}")),
    }
}

fn name_in(dataset: &DatasetName, root: &Path, path: &Path) -> Result<FileName, Failure> {
    let wrong = |reason: &str| {
        Failure::new(Exit::Refused, format!("{} cannot be named in the store: {reason}", path.display()))
    };
    let mut name = dataset.to_string();
    for part in path.strip_prefix(root).unwrap_or(path).components() {
        let part = part.as_os_str().to_str().ok_or_else(|| wrong("it is not UTF-8"))?;
        name.push('/');
        name.push_str(part);
    }
    name.parse().map_err(|error: idunno_shared::names::NameError| wrong(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_becomes_names_in_order() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("sub")).unwrap();
        for name in ["b.jpg", "a.jpg", "sub/c.jpg"] {
            std::fs::write(root.path().join(name), name).unwrap();
        }
        let found = walk(root.path(), &"set".parse().unwrap()).unwrap();
        let names: Vec<&str> = found.items.iter().map(|item| item.name.as_str()).collect();
        assert_eq!(names, ["set/a.jpg", "set/b.jpg", "set/sub/c.jpg"]);
        assert_eq!(found.size_bytes, 19);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_not_in_circles_and_hidden_files_count() {
        use std::os::unix::fs::symlink;
        let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(elsewhere.path().join("a"), "12345").unwrap();
        std::fs::write(root.path().join(".hidden"), "1").unwrap();
        symlink(elsewhere.path(), root.path().join("directory")).unwrap();
        symlink(elsewhere.path().join("a"), root.path().join("file")).unwrap();
        let set = "set".parse().unwrap();
        let found = walk(root.path(), &set).unwrap();
        let names: Vec<&str> = found.items.iter().map(|item| item.name.as_str()).collect();
        assert_eq!(names, ["set/.hidden", "set/directory/a", "set/file"]);
        assert_eq!(found.size_bytes, 11);

        symlink(root.path(), root.path().join("circle")).unwrap();
        let circle = walk(root.path(), &set).unwrap_err();
        assert!(circle.exit == Exit::Refused && circle.message.contains("circle"), "{circle}");
        std::fs::remove_file(root.path().join("circle")).unwrap();
        symlink(root.path().join("missing"), root.path().join("dangling")).unwrap();
        let dangling = walk(root.path(), &set).unwrap_err();
        assert!(dangling.exit == Exit::Error && dangling.message.contains("dangling"), "{dangling}");
    }

    #[test]
    fn directories_may_be_nested_so_deep_and_no_deeper() {
        let root = tempfile::tempdir().unwrap();
        let mut deep = root.path().to_owned();
        deep.extend(std::iter::repeat_n("d", DEPTH_MAX));
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("file"), "1").unwrap();
        let set = "set".parse().unwrap();
        assert_eq!(walk(root.path(), &set).unwrap().items.len(), 1);
        std::fs::create_dir(deep.join("d")).unwrap();
        let error = walk(root.path(), &set).unwrap_err();
        assert!(error.exit == Exit::Refused && error.message.contains("deeper than 64"), "{error}");
    }

    #[test]
    fn only_what_was_sent_has_copies() {
        let empty = PutReport { files: 1, ..PutReport::default() };
        assert_eq!(copies(&empty), "");
        let sent = PutReport { files: 1, copies_min: 3, copies_wanted: 4, ..PutReport::default() };
        assert_eq!(copies(&sent), ", copies: 3 of 4");
    }

    #[test]
    fn what_cannot_be_put_is_refused_before_the_network() {
        let root = tempfile::tempdir().unwrap();
        assert!(local_size(root.path()).unwrap_err().message.contains("it is a directory"));
        let missing = local_size(&root.path().join("missing")).unwrap_err();
        assert!(missing.message.contains("missing") && missing.exit == Exit::Error, "{missing}");
        std::fs::write(root.path().join("bad\nname"), "").unwrap();
        let error = walk(root.path(), &"set".parse().unwrap()).unwrap_err();
        assert!(error.message.contains("control character") && error.exit == Exit::Refused, "{error}");
        assert!(walk(&root.path().join("missing"), &"set".parse().unwrap()).is_err());
        let file = root.path().join("file");
        std::fs::write(&file, "1").unwrap();
        assert_eq!(walk(&file, &"set".parse().unwrap()).unwrap_err().exit, Exit::Error);
    }
}
