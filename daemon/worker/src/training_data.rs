//! The examples that a model is trained on, as files on this machine, which is how the model server takes them.
//!
//! A data set is all files below its name, which become a folder, or one file of that name. They are kept for as long
//! as the training takes ([`Folder`]) and cleared away at the next one if the member died meanwhile.
//!
//! Bounds: what the disk has free beside the reserve that blobs leave too.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::files::{Files, GetError, GetItem, NoProgress};
use idunno_shared::names::{DatasetName, FileName, ModelName};
use idunno_shared::wire::control::{ControlReply, ControlRequest, FileSummary, ITEMS_PER_REQUEST_MAX};
use thiserror::Error;
use tokio::fs;

/// Why there is nothing to train on.
#[derive(Debug, Error)]
pub enum TrainingDataError {
    /// The coordinator cannot be asked what there is.
    #[error("cannot list the data set '{dataset}': {source}")]
    List {
        /// The data set.
        dataset: DatasetName,
        /// Why.
        source: ClusterError,
    },
    /// There is no file of that name, nor below it.
    #[error("the data set '{dataset}' is empty: put files under '{dataset}/'")]
    Empty {
        /// The data set.
        dataset: DatasetName,
    },
    /// It does not fit.
    #[error("the data set '{dataset}' has {bytes} bytes, this member's disk has room for {room_bytes}")]
    TooLarge {
        /// The data set.
        dataset: DatasetName,
        /// Its size.
        bytes: u64,
        /// What fits.
        room_bytes: u64,
    },
    /// A file of it cannot be read.
    #[error("cannot fetch the data set '{dataset}': {source}")]
    Fetch {
        /// The data set.
        dataset: DatasetName,
        /// Why.
        source: GetError,
    },
    /// Its folder cannot be made.
    #[error("cannot make {} for the data set '{dataset}': {source}", path.display())]
    Folder {
        /// The data set.
        dataset: DatasetName,
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A folder of one training, gone when this is dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The one of a model below the member's data directory.
    pub fn new(data_dir: &Path, model: &ModelName) -> Self {
        Self(data_dir.join("training").join(model.as_str()))
    }

    /// Where it is, or will be.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays is removed before the next training of the model.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Fetches a data set into `folder`, which is emptied first. Returns the path for the model server.
pub async fn fetch(
    files: &Files,
    dataset: &DatasetName,
    folder: &Path,
    room_bytes: u64,
) -> Result<PathBuf, TrainingDataError> {
    let found = list(files, dataset).await?;
    let bytes = found.iter().map(|file| file.size).sum();
    if bytes > room_bytes {
        return Err(TrainingDataError::TooLarge { dataset: dataset.clone(), bytes, room_bytes });
    }
    let (items, path) = placed(dataset, folder, found.into_iter().map(|file| file.name).collect());
    make(folder, &items).await.map_err(|source| TrainingDataError::Folder {
        dataset: dataset.clone(),
        path: folder.to_owned(),
        source,
    })?;
    let fetched = files.get_files(items, &NoProgress).await;
    fetched.map_err(|source| TrainingDataError::Fetch { dataset: dataset.clone(), source })?;
    Ok(path)
}

/// The one file of the data set's name, else those below it.
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

/// Where each file goes, and what the model server is told. A name in the store has no `..` and begins with no slash.
fn placed(dataset: &DatasetName, folder: &Path, names: Vec<FileName>) -> (Vec<GetItem>, PathBuf) {
    let whole = names.iter().find(|name| name.as_str() == dataset.as_str());
    if let Some(name) = whole {
        // The ending says what it is.
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

async fn make(folder: &Path, items: &[GetItem]) -> io::Result<()> {
    match fs::remove_dir_all(folder).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let folders: BTreeSet<&Path> = items.iter().filter_map(|item| item.target.parent()).collect();
    for folder in folders {
        fs::create_dir_all(folder).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(dataset: &str, names: &[&str]) -> (Vec<PathBuf>, PathBuf) {
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        let (items, path) = placed(&dataset.parse().unwrap(), Path::new("/d/m"), names);
        (items.into_iter().map(|item| item.target).collect(), path)
    }

    #[test]
    fn files_below_the_name_become_a_folder_and_one_of_that_name_stays_a_file() {
        let (files, path) = targets("cats", &["cats/labels.csv", "cats/a/1.jpg"]);
        assert_eq!(files, [Path::new("/d/m/labels.csv"), Path::new("/d/m/a/1.jpg")]);
        assert_eq!(path, Path::new("/d/m"));
        let (files, path) = targets("texts/reviews.jsonl", &["texts/reviews.jsonl"]);
        assert_eq!((files, path), (vec![PathBuf::from("/d/m/reviews.jsonl")], "/d/m/reviews.jsonl".into()));
    }

    #[tokio::test]
    async fn what_a_training_left_behind_is_gone_before_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), &"m".parse().unwrap());
        std::fs::create_dir_all(folder.path().join("old")).unwrap();
        let target = folder.path().join("new/1.jpg");
        make(folder.path(), &[GetItem { name: "x".parse().unwrap(), target: target.clone() }]).await.unwrap();
        assert!(!folder.path().join("old").exists() && target.parent().unwrap().is_dir());
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }
}
