//! `reference-data`: a dataset of objects that stay where they are.
//!
//! The objects are listed here, with the credentials of whoever runs the command. The store keeps their URLs, sizes and
//! entity tags; the workers read the objects themselves.
//! Bounds: the references of all objects are in memory, some 200 bytes each.

use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use idunno_references::{ListError, ObjectClient, Trust};
use idunno_shared::client::files::{PutItem, PutOptions};
use idunno_shared::names::DatasetName;
use idunno_shared::wire::references::{ObjectReference, ReferenceSource, ReferencesHeader};
use serde::Serialize;
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;

use super::walk::{Found, Reason, Selection, walk};
use crate::answer::files::ReferencedDataset;
use crate::answer::{Answer, Exit, Failure, text};
use crate::session::Session;

/// The ending of the names of such datasets.
const ENDING: &str = ".refs";

/// A line of the file.
#[derive(Serialize)]
struct Record<'a> {
    input: &'a ObjectReference,
}

/// `reference-data`.
pub async fn reference(
    session: &Session,
    url: &str,
    dataset: &DatasetName,
    source: ReferenceSource,
    selection: &Selection,
) -> Result<Answer, Failure> {
    check_name(dataset)?;
    let (objects, found) = find(&source, url, dataset, selection).await?;
    let size_bytes = objects.iter().map(|object| object.size).sum();
    let not_written = |error: std::io::Error| {
        Failure::error(format!("cannot write a temporary file for the references: {error}"))
    };
    let file = write(&source, &objects).map_err(not_written)?;
    let bytes = file.as_file().metadata().map_err(not_written)?.len();
    let name = dataset.as_str().parse().map_err(|error| Failure::new(Exit::Usage, format!("{error}")))?;
    let progress = session.reporter.start(dataset.as_str(), 0, bytes);
    let item = PutItem { name, path: file.path().to_owned() };
    let report = session.files().put_files(vec![item], PutOptions::default(), progress.as_ref()).await?;
    let referenced = ReferencedDataset {
        dataset: dataset.to_string(),
        version: report.versions.first().copied().flatten().unwrap_or_default(),
        objects: objects.len() as u64,
        size_bytes,
        left_out: found.left_out(),
    };
    let put = format!(
        "{dataset} version {}: {} ({}) referred to, none copied",
        referenced.version,
        text::count(referenced.objects, "object"),
        text::bytes(size_bytes)
    );
    let text = [vec![put], found.left_out_text()].concat().join("\n");
    Ok(Answer::new(&referenced, text))
}

/// Datasets are told by the endings of their names.
pub fn check_name(dataset: &DatasetName) -> Result<(), Failure> {
    let name = dataset.as_str();
    if name.len() > ENDING.len() && name.to_ascii_lowercase().ends_with(ENDING) {
        return Ok(());
    }
    let text = format!("the name of a dataset of references ends in {ENDING}: '{name}{ENDING}'");
    Err(Failure::new(Exit::Usage, text))
}

/// The objects of a URL that are selected, by their URLs, and what is left out.
pub async fn find(
    source: &ReferenceSource,
    url: &str,
    dataset: &DatasetName,
    selection: &Selection,
) -> Result<(Vec<ObjectReference>, Found), Failure> {
    let client = ObjectClient::new(&Trust::Everything);
    let (objects, found) = if let Some(directory) = local_directory(url) {
        files_below(&directory, dataset, selection).await?
    } else {
        let listing = client.list(source, url).await.map_err(|error| refused(&error))?;
        let mut found = Found::default();
        for folder in &listing.folders {
            found.leave_out(Reason::Folder, Path::new(folder), None);
        }
        (select(url, listing.objects, selection, &mut found), found)
    };
    if selection.strict {
        found.check_strict()?;
    }
    if objects.is_empty() {
        let lines = [vec![format!("there are no objects to take at {url}")], found.left_out_text()];
        return Err(Failure::new(Exit::Refused, lines.concat().join("; ")));
    }
    Ok((objects, found))
}

/// A listing that failed.
pub(super) fn refused(error: &ListError) -> Failure {
    let exit = match error {
        ListError::NotBuilt | ListError::Failed { .. } => Exit::Error,
        ListError::Url { .. } => Exit::Usage,
        ListError::Name { .. } | ListError::Unversioned { .. } => Exit::Refused,
        ListError::Nothing { .. } => Exit::NotFound,
    };
    Failure::new(exit, error.to_string())
}

/// The directory of a `file:///` URL, if it is one of this machine.
fn local_directory(url: &str) -> Option<PathBuf> {
    let path = idunno_references::local_path(url)?;
    path.is_dir().then_some(path)
}

/// The files below a directory, as `populate-test-data` finds them.
async fn files_below(
    directory: &Path,
    dataset: &DatasetName,
    selection: &Selection,
) -> Result<(Vec<ObjectReference>, Found), Failure> {
    let (root, name, selection) = (directory.to_owned(), dataset.clone(), selection.clone());
    let walked = spawn_blocking(move || {
        let mut found = walk(&root, &name, &selection)?;
        let items = std::mem::take(&mut found.items);
        let objects: Result<Vec<_>, _> =
            items.iter().map(|item| idunno_references::reference_of_file(&item.path)).collect();
        Ok::<_, Failure>((objects.map_err(|error| refused(&error))?, found))
    });
    walked.await.map_err(|error| Failure::error(error.to_string()))?
}

/// The objects that are selected by what follows the URL in theirs.
fn select(
    url: &str,
    objects: Vec<ObjectReference>,
    selection: &Selection,
    found: &mut Found,
) -> Vec<ObjectReference> {
    let selected = objects.into_iter().filter(|object| {
        let below = object.url.strip_prefix(url).map(|below| below.trim_start_matches('/'));
        // The URL of an object itself has been asked for by name.
        let Some(below) = below.filter(|below| !below.is_empty()) else { return true };
        let path = Path::new(below);
        let reason = selection.leaves_out(path);
        if let Some(reason) = reason {
            found.leave_out(reason, path, None);
        }
        reason.is_none()
    });
    selected.collect()
}

fn write(source: &ReferenceSource, objects: &[ObjectReference]) -> std::io::Result<NamedTempFile> {
    let file = NamedTempFile::new()?;
    let mut lines = BufWriter::new(file.as_file());
    serde_json::to_writer(&mut lines, &ReferencesHeader { references: source.clone() })?;
    lines.write_all(b"\n")?;
    for input in objects {
        serde_json::to_writer(&mut lines, &Record { input })?;
        lines.write_all(b"\n")?;
    }
    lines.flush()?;
    drop(lines);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::walk::Pattern;
    use super::*;

    fn object(url: &str) -> ObjectReference {
        ObjectReference { url: url.to_owned(), size: 3, etag: Some(String::from("\"e\"")), modified_ms: None }
    }

    #[test]
    fn the_file_has_a_header_and_a_line_for_each_object() {
        let source = ReferenceSource { anonymous: true, ..ReferenceSource::default() };
        let file = write(&source, &[object("s3://b/a \"quoted\"")]).unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(
            text,
            "{\"references\":{\"endpoint\":null,\"region\":null,\"anonymous\":true}}\n\
             {\"input\":{\"url\":\"s3://b/a \\\"quoted\\\"\",\"size\":3,\"etag\":\"\\\"e\\\"\"}}\n"
        );
    }

    #[test]
    fn patterns_and_junk_count_by_what_follows_the_url() {
        let objects = ["s3://b/p/a.jpg", "s3://b/p/.hidden/b.jpg", "s3://b/p/sub/c.jpg", "s3://b/p/d.txt"];
        let objects: Vec<ObjectReference> = objects.map(object).to_vec();
        let selection = Selection {
            patterns: vec![Pattern::new("*.jpg", true).unwrap(), Pattern::new("sub/**", false).unwrap()],
            ..Selection::default()
        };
        let mut found = Found::default();
        let selected = select("s3://b/p", objects.clone(), &selection, &mut found);
        assert_eq!(selected, [object("s3://b/p/a.jpg")]);
        let left_out: Vec<(String, u64)> =
            found.left_out().into_iter().map(|left_out| (left_out.reason, left_out.count)).collect();
        assert_eq!(left_out, [("excluded".into(), 2), ("hidden".into(), 1)]);
        let one = select("s3://b/p/d.txt", vec![objects[3].clone()], &selection, &mut found);
        assert_eq!(one.len(), 1, "it was asked for by its name");
    }

    #[test]
    fn the_name_says_what_the_dataset_is() {
        assert!(check_name(&"photos.REFS".parse().unwrap()).is_ok());
        for name in ["photos", ".refs", "photos.list"] {
            let error = check_name(&name.parse().unwrap()).unwrap_err();
            assert!(
                error.exit == Exit::Usage && error.message.contains(&format!("'{name}.refs'")),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn the_files_of_a_folder_are_referred_to_as_they_are_put() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b", "a", ".hidden"] {
            std::fs::write(folder.path().join(name), "one").unwrap();
        }
        let url = format!("file://{}", folder.path().display());
        let found =
            find(&ReferenceSource::default(), &url, &"d.refs".parse().unwrap(), &Selection::default()).await;
        if !idunno_references::IS_BUILT {
            assert!(found.unwrap_err().message.contains("built without references"));
            return;
        }
        let (objects, found) = found.unwrap();
        let urls: Vec<&str> = objects.iter().map(|object| object.url.as_str()).collect();
        assert_eq!(urls, [format!("{url}/a"), format!("{url}/b")]);
        assert!(objects.iter().all(|object| object.size == 3 && object.modified_ms.is_some()));
        assert_eq!(found.left_out().len(), 1);
    }
}
