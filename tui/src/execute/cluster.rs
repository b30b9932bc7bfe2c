//! `cluster`: a cluster's secret and people's identities, as local files. No member is asked.

use std::path::Path;
use std::time::Duration;

use idunno_shared::security::secret::{KeyRotation, Secret};
use idunno_shared::security::subject::SubjectName;
use idunno_shared::security::{Role, SecurityError, private_file};

use super::dry_run;
use crate::answer::program::{ClusterSecret, IssuedIdentity};
use crate::answer::{Answer, Exit, Failure};
use crate::command::ClusterVerb;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Runs a `cluster` command.
pub fn run(verb: ClusterVerb, dry_run: bool) -> Result<Answer, Failure> {
    if dry_run {
        return Err(dry_run::refuse_files());
    }
    let done = match verb {
        ClusterVerb::Init { out } => init(&out),
        ClusterVerb::Issue { role, name, secret, out, valid_days } => {
            issue(role.into(), name.as_ref(), &secret, &out, valid_days)
        }
        ClusterVerb::Rotate { step, secret } => rotate(step.into(), &secret),
    };
    done.map_err(|error| {
        let exit = match &error {
            SecurityError::Read { reason, .. } if reason.kind() == std::io::ErrorKind::NotFound => {
                Exit::NotFound
            }
            SecurityError::Issue(_) | SecurityError::Tls(_) | SecurityError::Write { .. } => Exit::Error,
            _ => Exit::Refused,
        };
        Failure::new(exit, error.to_string())
    })
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

fn issue(
    role: Role,
    name: Option<&SubjectName>,
    secret: &Path,
    out: &Path,
    valid_days: u32,
) -> Result<Answer, SecurityError> {
    let identity = Secret::load(secret)?.mint_lasting(role, name, DAY * valid_days)?;
    private_file::create(out, &identity.render())?;
    let text = format!(
        "{} makes its holder {} of the cluster for {valid_days} days: pass it with --identity or IDUNNO_IDENTITY.",
        out.display(),
        match role {
            Role::Viewer => "a viewer",
            Role::Operator | Role::Member => "an operator",
        }
    );
    let issued = IssuedIdentity {
        path: out.display().to_string(),
        role: role.name().to_string(),
        name: name.map(ToString::to_string),
        valid_days,
    };
    Ok(Answer::new(&issued, text))
}

fn rotate(step: KeyRotation, path: &Path) -> Result<Answer, SecurityError> {
    let mut secret = Secret::load(path)?;
    secret.rotate(step)?;
    private_file::replace(path, &secret.render())?;
    let keys = secret.fingerprints();
    let next = match step {
        KeyRotation::Add => {
            "The new key is trusted and does not sign yet. Copy the file to all machines, issue people new identities, then run rotate sign."
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
    use idunno_shared::security::Credentials;

    use super::*;
    use crate::command::values::{ConsoleRole, RotationStep};

    #[test]
    fn a_secret_gives_identities_before_and_after_its_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let secret = path("secret.pem");
        run(ClusterVerb::Init { out: secret.clone() }, false).unwrap();
        assert_eq!(run(ClusterVerb::Init { out: secret.clone() }, false).unwrap_err().exit, Exit::Refused);
        let issue = |role, name: &str| {
            let (secret, out) = (secret.clone(), path(name));
            run(ClusterVerb::Issue { role, name: None, secret, out, valid_days: 1 }, false)
                .map(|_| path(name))
        };
        let viewer = issue(ConsoleRole::Viewer, "viewer.pem").unwrap();
        assert_eq!(Credentials::load(&viewer).unwrap().role(), Role::Viewer);
        assert_eq!(Credentials::load(&secret).unwrap().role(), Role::Operator);
        for step in [RotationStep::Add, RotationStep::Sign, RotationStep::Drop] {
            run(ClusterVerb::Rotate { step, secret: secret.clone() }, false).unwrap();
            assert!(
                run(ClusterVerb::Rotate { step, secret: secret.clone() }, false).is_err()
                    || step == RotationStep::Drop
            );
        }
        let operator = issue(ConsoleRole::Operator, "operator.pem").unwrap();
        assert_eq!(Credentials::load(&operator).unwrap().role(), Role::Operator);
        let missing = ClusterVerb::Rotate { step: RotationStep::Add, secret: path("none") };
        assert_eq!(run(missing, false).unwrap_err().exit, Exit::NotFound);
    }
}
