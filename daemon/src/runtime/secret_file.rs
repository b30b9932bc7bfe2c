//! Watches the cluster's secret file, so that a key can be rotated without a restart.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use idunno_shared::security::secret::Secret;
use idunno_shared::security::{Credentials, SecurityError};
use thiserror::Error;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

/// How often the file is checked for changes.
pub const PERIOD: Duration = Duration::from_secs(2);

/// The file cannot be the source of a service's secret.
#[derive(Debug, Error)]
pub enum SecretFileError {
    #[error(transparent)]
    Secret(#[from] SecurityError),
    #[error("cannot look at {path}: {source}")]
    Look { path: PathBuf, source: io::Error },
    #[error("{path} belongs to user {uid}, who can read it: run 'chown root: {path}'", path = path.display())]
    Owner { path: PathBuf, uid: u32 },
}

/// Refuses a secret that is not valid, or that others than root can read. A service gets a copy that only it can read,
/// which says nothing of its source: whoever can read that is the cluster.
pub fn check(path: &Path) -> Result<(), SecretFileError> {
    Secret::load(path)?;
    let found = std::fs::metadata(path);
    let found = found.map_err(|source| SecretFileError::Look { path: path.to_owned(), source })?;
    match found.uid() {
        0 => Ok(()),
        uid => Err(SecretFileError::Owner { path: path.to_owned(), uid }),
    }
}

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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use idunno_shared::security::private_file;

    use super::*;

    #[test]
    fn a_secret_that_others_than_root_can_read_is_no_source_for_a_service() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret.pem");
        private_file::create(&path, &Secret::generate().unwrap().render()).unwrap();
        let is_roots = path.metadata().unwrap().uid() == 0;
        assert_eq!(check(&path).is_ok(), is_roots);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(check(&path), Err(SecretFileError::Secret(SecurityError::Exposed { .. }))));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        // Only root can give files away.
        if chown(&path, Some(65_534), None).is_ok() {
            assert!(matches!(check(&path), Err(SecretFileError::Owner { uid: 65_534, .. })));
        }
    }
}
