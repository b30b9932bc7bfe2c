//! `cluster`: a cluster's secret, as a local file. No member is asked.

use std::path::Path;

use idunno_shared::security::secret::{KeyRotation, Secret};
use idunno_shared::security::{SecurityError, private_file};

use crate::answer::program::ClusterSecret;
use crate::answer::{Answer, Exit, Failure};
use crate::command::ClusterVerb;

/// Runs a `cluster` command.
pub fn run(verb: ClusterVerb, dry_run: bool) -> Result<Answer, Failure> {
    if dry_run {
        return Err(Failure::no_dry_run());
    }
    let done = match verb {
        ClusterVerb::Init { out } => init(&out),
        ClusterVerb::Rotate { step, secret } => rotate(step.into(), &secret),
    };
    done.map_err(|error| failure(&error))
}

/// What a fault of a local file means for the command.
pub(super) fn failure(error: &SecurityError) -> Failure {
    let exit = match error {
        SecurityError::Read { reason, .. } if reason.kind() == std::io::ErrorKind::NotFound => Exit::NotFound,
        SecurityError::Issue(_) | SecurityError::Tls(_) | SecurityError::Write { .. } => Exit::Error,
        _ => Exit::Refused,
    };
    Failure::new(exit, error.to_string())
}

fn init(out: &Path) -> Result<Answer, SecurityError> {
    let secret = Secret::generate()?;
    private_file::create(out, &secret.render())?;
    let keys = secret.fingerprints();
    let text = format!(
        "{} is the secret of a new cluster, with key {}.\nCopy it to each machine of the cluster and to nobody else.",
        out.display(),
        keys.join(", ")
    );
    Ok(Answer::new(&ClusterSecret { path: out.display().to_string(), keys }, text))
}

fn rotate(step: KeyRotation, path: &Path) -> Result<Answer, SecurityError> {
    let mut secret = Secret::load(path)?;
    secret.rotate(step)?;
    private_file::replace(path, &secret.render())?;
    let keys = secret.fingerprints();
    let next = match step {
        KeyRotation::Add => {
            "The new key is trusted and does not sign yet. Copy the file to all machines, make people new identities ('idunno identity create'), then run rotate sign."
        }
        KeyRotation::Sign => {
            "The new key signs; the old one is still trusted. Copy the file to all machines, then run rotate drop."
        }
        KeyRotation::Drop => {
            "The old key is removed. Copy the file to all machines: they then reject what the old key signed."
        }
    };
    let text = format!("{} has the keys {}.\n{next}", path.display(), keys.join(" (signs), "));
    Ok(Answer::new(&ClusterSecret { path: path.display().to_string(), keys }, text))
}

#[cfg(test)]
mod tests {
    use idunno_shared::security::{Credentials, Role};

    use super::*;
    use crate::command::values::RotationStep;

    #[test]
    fn a_secret_is_of_use_before_and_after_its_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let secret = path("secret.pem");
        run(ClusterVerb::Init { out: secret.clone() }, false).unwrap();
        assert_eq!(run(ClusterVerb::Init { out: secret.clone() }, false).unwrap_err().exit, Exit::Refused);
        assert_eq!(Credentials::load(&secret).unwrap().role(), Role::Operator);
        for step in [RotationStep::Add, RotationStep::Sign, RotationStep::Drop] {
            run(ClusterVerb::Rotate { step, secret: secret.clone() }, false).unwrap();
            assert!(
                run(ClusterVerb::Rotate { step, secret: secret.clone() }, false).is_err()
                    || step == RotationStep::Drop
            );
        }
        assert_eq!(Credentials::load(&secret).unwrap().role(), Role::Operator);
        let missing = ClusterVerb::Rotate { step: RotationStep::Add, secret: path("none") };
        assert_eq!(run(missing, false).unwrap_err().exit, Exit::NotFound);
    }
}
