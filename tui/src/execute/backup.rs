//! `backup`: the cluster's metadata in a local file, and what such a file contains.

use std::path::{Path, PathBuf};

use idunno_shared::backup::{self, BackupError, BackupInfo};
use tokio::task::spawn_blocking;

use crate::answer::cluster::Backup;
use crate::answer::{Answer, Exit, Failure, text};
use crate::session::Session;

/// Fetches a backup and writes it to `path`.
pub async fn make(session: &Session, path: PathBuf, force: bool) -> Result<Answer, Failure> {
    // Before the network is asked.
    idunno_shared::client::files::destination::regular(&path)
        .map_err(|error| Failure::target(&path, &error))?;
    if path.exists() && !force {
        let text = format!("{} exists: choose another file, or pass --force to replace it", path.display());
        return Err(Failure::new(Exit::Refused, text));
    }
    let bytes = session.cluster().backup().await?;
    let write = move || {
        let about = backup::write(&path, &bytes);
        about.map(|about| answer(&path, &about)).map_err(|error| Failure::target(&path, &error))
    };
    spawn_blocking(write).await.unwrap_or_else(|error| Err(Failure::error(error.to_string())))
}

/// Verifies the backup at `path` and summarises it.
pub async fn show(path: PathBuf) -> Result<Answer, Failure> {
    let read = move || match backup::read(&path) {
        Ok((about, _)) => Ok(answer(&path, &about)),
        Err(error @ BackupError::Read { .. }) => Err(Failure::error(error.to_string())),
        Err(error) => Err(Failure::new(Exit::Refused, error.to_string())),
    };
    spawn_blocking(read).await.unwrap_or_else(|error| Err(Failure::error(error.to_string())))
}

fn answer(path: &Path, about: &BackupInfo) -> Answer {
    let founder = about.founder.map(|founder| founder.to_string());
    let lines = format!(
        "{}: intact\ncluster   founded by {}, IDunno {}\nmade      {} UTC\nup to     term {}, index {}\n\
         contains  the metadata of {} and {}; the files' contents stay on the members",
        path.display(),
        founder.as_deref().unwrap_or("unknown"),
        about.program_version,
        text::moment(about.made_ms),
        about.term,
        about.index,
        text::count(about.files, "file"),
        text::count(about.jobs, "job"),
    );
    Answer::new(&Backup::new(path.display().to_string(), about), lines)
}
