//! Training data as local files, which is how the model server reads them.
//!
//! A dataset is either one file of its name, or all files below it, which become a folder. The files exist while the
//! training runs ([`TrainingFolder`]); if the member died, the next training deletes them.
//!
//! Bounds: the space that the disk has free beyond its reserve.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::files::{Files, GetError, GetItem, NoProgress};
use idunno_shared::names::{DatasetName, FileName, ModelName};
use idunno_shared::wire::control::{ControlReply, ControlRequest, FileSummary, ITEMS_PER_REQUEST_MAX};
use thiserror::Error;
use tokio::fs;
use tokio::runtime::Handle;
use tracing::debug;

use super::model_files::ModelFiles;

/// A dataset cannot be fetched.
#[derive(Debug, Error)]
pub enum TrainingDataError {
    #[error("cannot list the dataset '{dataset}': {source}")]
    List { dataset: DatasetName, source: ClusterError },
    /// There is no file of that name or below it.
    #[error("the dataset '{dataset}' is empty: put files under '{dataset}/'")]
    Empty { dataset: DatasetName },
    #[error("the dataset '{dataset}' has {bytes} bytes, but this member's disk has only {free_bytes} free")]
    TooLarge { dataset: DatasetName, bytes: u64, free_bytes: u64 },
    #[error("cannot fetch the dataset '{dataset}': {source}")]
    Fetch { dataset: DatasetName, source: GetError },
    #[error("cannot create {} for the dataset '{dataset}': {source}", path.display())]
    Folder { dataset: DatasetName, path: PathBuf, source: io::Error },
}

/// Numbers the folders, so that one that is still being deleted is not in the way of the next.
static FOLDERS: AtomicU64 = AtomicU64::new(0);

/// The folder of one training, deleted after this is dropped.
#[derive(Debug)]
pub struct TrainingFolder {
    path: PathBuf,
    files: ModelFiles,
}

impl TrainingFolder {
    pub fn new(files: &ModelFiles, model: &ModelName) -> Self {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed).to_string();
        Self { path: files.training().join(model.as_str()).join(number), files: files.clone() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the model server read what was put there.
    pub async fn share(&self) -> io::Result<()> {
        self.files.share(&self.path).await
    }
}

impl Drop for TrainingFolder {
    fn drop(&mut self) {
        // What is not deleted now is deleted before the model's next training. Not here: a worker's task must not wait for
        // the disk.
        let folder = std::mem::take(&mut self.path);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || std::fs::remove_dir_all(folder));
        }
    }
}

/// Fetches a dataset into `folder`, which is emptied first. Returns the path for the model server.
pub async fn fetch(
    files: &Files,
    dataset: &DatasetName,
    folder: &Path,
    free_bytes: u64,
) -> Result<PathBuf, TrainingDataError> {
    let found = list(files, dataset).await?;
    let bytes = found.iter().map(|file| file.size).sum();
    if bytes > free_bytes {
        return Err(TrainingDataError::TooLarge { dataset: dataset.clone(), bytes, free_bytes });
    }
    let (items, path) = plan_targets(dataset, folder, found.into_iter().map(|file| file.name).collect());
    create_folders(folder, &items).await.map_err(|source| TrainingDataError::Folder {
        dataset: dataset.clone(),
        path: folder.to_owned(),
        source,
    })?;
    let fetched = files.get_files(items, &NoProgress).await;
    fetched.map_err(|source| TrainingDataError::Fetch { dataset: dataset.clone(), source })?;
    Ok(path)
}

/// The file of the dataset's name, or else the files below it.
async fn list(files: &Files, dataset: &DatasetName) -> Result<Vec<FileSummary>, TrainingDataError> {
    let below = format!("{dataset}/");
    let mut found: Vec<FileSummary> = Vec::new();
    let mut after = None;
    loop {
        let request = ControlRequest::List {
            prefix: dataset.to_string(),
            after: after.take(),
            limit: u32::try_from(ITEMS_PER_REQUEST_MAX).unwrap_or(u32::MAX),
        };
        let failed = |source| TrainingDataError::List { dataset: dataset.clone(), source };
        let reply = files.cluster().control(request).await.map_err(failed)?;
        let ControlReply::Files { files: page, more } = reply else { break };
        after = page.last().map(|file| file.name.clone());
        if page.first().is_some_and(|first| first.name.as_str() == dataset.as_str()) && found.is_empty() {
            return Ok(page.into_iter().take(1).collect());
        }
        found.extend(page.into_iter().filter(|file| file.name.as_str().starts_with(&below)));
        if !more || after.is_none() {
            break;
        }
    }
    if found.is_empty() {
        return Err(TrainingDataError::Empty { dataset: dataset.clone() });
    }
    Ok(found)
}

/// The target of each file, and the path for the model server. Names in the store contain no `..` and do not begin with a
/// slash.
fn plan_targets(dataset: &DatasetName, folder: &Path, names: Vec<FileName>) -> (Vec<GetItem>, PathBuf) {
    let whole = names.iter().find(|name| name.as_str() == dataset.as_str());
    if let Some(name) = whole {
        // Keeps the extension, which tells the format.
        let file = name.as_str().rsplit('/').next().unwrap_or(name.as_str());
        let target = folder.join(file);
        return (vec![GetItem { name: name.clone(), target: target.clone() }], target);
    }
    let item = |name: FileName| {
        let rest = name.as_str().strip_prefix(dataset.as_str()).unwrap_or(name.as_str());
        let target = folder.join(rest.trim_start_matches('/'));
        GetItem { name, target }
    };
    (names.into_iter().map(item).collect(), folder.to_owned())
}

async fn create_folders(folder: &Path, items: &[GetItem]) -> io::Result<()> {
    if let Some(of_model) = folder.parent() {
        delete_content(of_model).await?;
    }
    let folders: BTreeSet<&Path> = items.iter().filter_map(|item| item.target.parent()).collect();
    for folder in folders {
        fs::create_dir_all(folder).await?;
    }
    Ok(())
}

/// Deletes what earlier trainings of a model left. Of one that has just ended, somebody else may delete it meanwhile.
async fn delete_content(of_model: &Path) -> io::Result<()> {
    let mut entries = match fs::read_dir(of_model).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    while let Some(entry) = entries.next_entry().await? {
        if let Err(error) = fs::remove_dir_all(entry.path()).await {
            debug!(path = %entry.path().display(), %error, "cannot delete what a training left");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(dataset: &str, names: &[&str]) -> (Vec<PathBuf>, PathBuf) {
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        let (items, path) = plan_targets(&dataset.parse().unwrap(), Path::new("/d/m"), names);
        (items.into_iter().map(|item| item.target).collect(), path)
    }

    #[test]
    fn files_below_the_name_become_a_folder_and_a_file_of_that_name_stays_a_file() {
        let (files, path) = targets("cats", &["cats/labels.csv", "cats/a/1.jpg"]);
        assert_eq!(files, [Path::new("/d/m/labels.csv"), Path::new("/d/m/a/1.jpg")]);
        assert_eq!(path, Path::new("/d/m"));
        let (files, path) = targets("texts/reviews.jsonl", &["texts/reviews.jsonl"]);
        assert_eq!((files, path), (vec![PathBuf::from("/d/m/reviews.jsonl")], "/d/m/reviews.jsonl".into()));
    }

    #[tokio::test]
    async fn leftovers_of_a_training_are_deleted_before_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let model = "m".parse().unwrap();
        let old = TrainingFolder::new(&ModelFiles::in_data_dir(dir.path()), &model).path().to_owned();
        let folder = TrainingFolder::new(&ModelFiles::in_data_dir(dir.path()), &model);
        for left in [&old, folder.path()] {
            std::fs::create_dir_all(left.join("old")).unwrap();
        }
        let target = folder.path().join("new/1.jpg");
        create_folders(folder.path(), &[GetItem { name: "x".parse().unwrap(), target: target.clone() }])
            .await
            .unwrap();
        assert!(!old.exists() && !folder.path().join("old").exists() && target.parent().unwrap().is_dir());
        let path = folder.path().to_owned();
        drop(folder);
        tokio::time::timeout(std::time::Duration::from_secs(20), async {
            while path.exists() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
}
