//! `key create`: access keys of programs that speak S3 to a gateway. They are made from the secret, and nobody keeps them.

use std::path::Path;
use std::time::Duration;

use idunno_shared::access::{Prefix, Role, join};
use idunno_shared::security::secret::Secret;
use idunno_shared::security::{AccessKeyId, SecurityError};

use super::clock::now_ms;
use super::cluster;
use crate::answer::identities::CreatedKey;
use crate::answer::{Answer, Exit, Failure, text};
use crate::command::NewKey;

/// Makes a key; no member is asked.
pub fn run(NewKey { name, role, prefix, secret, expires }: NewKey) -> Result<Answer, Failure> {
    let role = Role::from(role);
    if role != Role::Submitter && prefix.is_some() {
        let text =
            format!("--prefix is for a submitter: {} may change files everywhere or nowhere", role.noun());
        return Err(Failure::new(Exit::Usage, text));
    }
    if name.is_of_secret() {
        return Err(cluster::failure(&SecurityError::Reserved(name)));
    }
    let prefix = prefix.or_else(|| (role == Role::Submitter).then(|| Prefix::of_home(&name)));
    let id = AccessKeyId { name, role, prefix, key: 0, ends_s: 0 };
    make(id, &secret, expires.0).map_err(|error| cluster::failure(&error))
}

fn make(id: AccessKeyId, secret: &Path, valid: Duration) -> Result<Answer, SecurityError> {
    let secret = Secret::load(secret)?;
    let ends_s = now_ms() / 1_000 + valid.as_secs();
    let id = AccessKeyId { key: secret.newest_number(), ends_s, ..id };
    // The newest key is in the file.
    let secret_access_key = secret.access_secret(&id).unwrap_or_default();
    let grant = id.grant();
    let below = if grant.prefixes.is_empty() {
        String::new()
    } else {
        format!(", with files below {}", join(&grant.prefixes))
    };
    let ends_ms = ends_s.saturating_mul(1_000);
    let lines = format!(
        "AWS_ACCESS_KEY_ID={id}\nAWS_SECRET_ACCESS_KEY={secret_access_key}\n# {} is {}{below}, until {} UTC. Keep the secret: it is not \
         stored anywhere.",
        id.name,
        id.role.noun(),
        text::moment(ends_ms),
    );
    let created = CreatedKey {
        access_key_id: id.to_string(),
        secret_access_key,
        name: id.name.to_string(),
        role: id.role.name().to_owned(),
        prefixes: grant.prefixes.iter().map(ToString::to_string).collect(),
        ends_ms,
    };
    Ok(Answer::new(&created, lines))
}

#[cfg(test)]
mod tests {
    use idunno_shared::security::private_file;

    use super::*;
    use crate::answer::Data;
    use crate::command::values::{ConsoleRole, Validity};

    #[test]
    fn a_key_is_what_the_gateway_makes_of_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret.pem");
        let ours = Secret::generate().unwrap();
        private_file::create(&path, &ours.render()).unwrap();
        let create = |name: &str, role, prefix: Option<&str>| {
            let prefix = prefix.map(|prefix| prefix.parse().unwrap());
            let (name, secret, expires) = (name.parse().unwrap(), path.clone(), Validity::default());
            run(NewKey { name, role, prefix, secret, expires })
        };
        for (role, prefix, prefixes) in [
            (ConsoleRole::Viewer, None, &[][..]),
            (ConsoleRole::Submitter, None, &["users/anna/"]),
            (ConsoleRole::Submitter, Some("photos"), &["photos/"]),
        ] {
            let Data::Document(json) = create("anna", role, prefix).unwrap().data else {
                panic!("no document")
            };
            let json: serde_json::Value = serde_json::from_str(&json).unwrap();
            let id: AccessKeyId = json["access_key_id"].as_str().unwrap().parse().unwrap();
            assert_eq!(ours.access_secret(&id).as_deref(), json["secret_access_key"].as_str());
            assert_eq!(
                id.grant().prefixes,
                prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect::<Vec<_>>()
            );
            assert_eq!(json["ends_ms"].as_u64(), Some(id.ends_s * 1_000));
        }
        assert!(create("anna", ConsoleRole::Viewer, Some("photos")).is_err());
        assert!(create("secret-holder", ConsoleRole::Viewer, None).is_err());
    }
}
