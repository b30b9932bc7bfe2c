//! `put`, `populate-test-data`: local files into the store.

use std::path::{Path, PathBuf};

use idunno_shared::client::files::{PutItem, PutOptions, PutReport};
use idunno_shared::names::{DatasetName, FileName};
use tokio::task::spawn_blocking;

use super::STREAM;
use super::walk::{Found, Selection, walk};
use crate::answer::files::{UploadedDataset, UploadedFile};
use crate::answer::{Answer, Exit, Failure, text};
use crate::execute::only_on_command_line;
use crate::session::Session;

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
    if path.as_os_str() == STREAM {
        return Err(only_on_command_line("standard input is put"));
    }
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
pub async fn populate(
    session: &Session,
    directory: &Path,
    dataset: &DatasetName,
    selection: Selection,
) -> Result<Answer, Failure> {
    let (root, name) = (directory.to_owned(), dataset.clone());
    let walked = spawn_blocking(move || walk(&root, &name, &selection)).await;
    let mut found = walked.map_err(|error| Failure::error(error.to_string()))??;
    let (items, size_bytes) = (std::mem::take(&mut found.items), found.size_bytes);
    if items.is_empty() {
        let lines =
            [vec![format!("{} contains no files to put", directory.display())], found.left_out_text()];
        return Err(Failure::new(Exit::Refused, lines.concat().join("; ")));
    }
    let progress = session.reporter.start(dataset.as_str(), items.len() as u64, size_bytes);
    let options = PutOptions { skip_unchanged: true, ..PutOptions::default() };
    let report = session.files().put_files(items, options, progress.as_ref()).await?;
    Ok(Uploaded { dataset, report: &report, found: &found }.answer())
}

/// A dataset whose files are put.
pub(super) struct Uploaded<'a> {
    pub(super) dataset: &'a DatasetName,
    pub(super) report: &'a PutReport,
    pub(super) found: &'a Found,
}

impl Uploaded<'_> {
    pub(super) fn answer(self) -> Answer {
        let Self { dataset, report, found } = self;
        let put = format!(
            "{dataset}: {} put ({}), {} already there{}",
            text::count(report.files, "file"),
            text::bytes(report.bytes),
            report.skipped,
            copies(report)
        );
        let uploaded = UploadedDataset {
            dataset: dataset.to_string(),
            files: report.files,
            size_bytes: report.bytes,
            files_skipped: report.skipped,
            copies: report.copies_min,
            copies_wanted: report.copies_wanted,
            left_out: found.left_out(),
        };
        let text = [vec![put], found.left_out_text()].concat().join("\n");
        let answer = Answer::new(&uploaded, text);
        match found.loss() {
            Some(loss) => answer.incomplete(loss),
            None => answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
