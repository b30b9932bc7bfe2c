//! Follows the file of the cluster's secret, so that a key is replaced without a restart.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use idunno_shared::security::secret::Secret;
use idunno_shared::security::{Credentials, SecurityError};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

/// How often it is looked whether the file has changed.
pub const PERIOD: Duration = Duration::from_secs(2);

/// Hands every change of the file on, as long as this process runs. A file that cannot be used changes nothing.
pub async fn follow(path: PathBuf, credentials: Credentials) {
    let mut known = stamp(&path);
    loop {
        sleep(PERIOD).await;
        let (file, before) = (path.clone(), known);
        // A slow file system holds nothing else up. The reading itself cannot panic.
        let Ok((now, read)) = spawn_blocking(move || look(&file, before)).await else { continue };
        known = now;
        match read.map(|secret| take(secret?, &credentials)) {
            None | Some(Ok(())) => {}
            Some(Err(error)) => warn!(%error, "the changed secret is not taken: the one read before stays"),
        }
    }
}

fn take(secret: Secret, credentials: &Credentials) -> Result<(), SecurityError> {
    let keys = secret.fingerprints();
    credentials.replace(secret)?;
    info!(?keys, "the cluster's secret has changed: the first key signs");
    Ok(())
}

/// The file's stamp, and its secret if the stamp is another than before.
fn look(path: &Path, before: Option<Stamp>) -> (Option<Stamp>, Option<Result<Secret, SecurityError>>) {
    let now = stamp(path);
    // One that is gone for a moment is being replaced.
    let is_changed = now.is_some() && now != before;
    (now.or(before), is_changed.then(|| Secret::load(path)))
}

type Stamp = (SystemTime, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
