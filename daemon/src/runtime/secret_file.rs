//! Watches the cluster's secret file, so that a key can be rotated without a restart.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use idunno_shared::security::secret::Secret;
use idunno_shared::security::{Credentials, SecurityError};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

/// How often the file is checked for changes.
pub const PERIOD: Duration = Duration::from_secs(2);

/// Applies each change of the file for as long as the process runs. An unusable file changes nothing.
pub async fn follow(path: PathBuf, credentials: Credentials) {
    let mut seen = stamp(&path);
    loop {
        sleep(PERIOD).await;
        let (file, before) = (path.clone(), seen);
        // Off the runtime's threads: the file system may be slow. Reading cannot panic.
        let Ok((now, read)) = spawn_blocking(move || read_if_changed(&file, before)).await else { continue };
        seen = now;
        match read.map(|secret| apply(secret?, &credentials)) {
            None | Some(Ok(())) => {}
            Some(Err(error)) => {
                warn!(%error, "the changed secret file is ignored: the earlier secret stays in use");
            }
        }
    }
}

fn apply(secret: Secret, credentials: &Credentials) -> Result<(), SecurityError> {
    let keys = secret.fingerprints();
    credentials.replace(secret)?;
    info!(?keys, "the cluster's secret changed: the first key signs");
    Ok(())
}

/// Returns the file's stamp, and its secret if the stamp differs from `before`.
fn read_if_changed(
    path: &Path,
    before: Option<Stamp>,
) -> (Option<Stamp>, Option<Result<Secret, SecurityError>>) {
    let now = stamp(path);
    // A file that is missing for a moment is being replaced.
    let is_changed = now.is_some() && now != before;
    (now.or(before), is_changed.then(|| Secret::load(path)))
}

type Stamp = (SystemTime, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
