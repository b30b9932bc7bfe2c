//! An identity: a certificate, its key, and whom it trusts. A person's is a file.

use std::path::Path;
use std::time::SystemTime;

use pem::Pem;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};

use super::private_file::{CERTIFICATE_TAG, KEY_TAG, encode};
use super::trust::{self, Doubt};
use super::{Role, SecurityError, private_file};

/// What one proves oneself with.
#[derive(Debug)]
pub struct Identity {
    /// What it makes of its holder.
    pub role: Role,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivatePkcs8KeyDer<'static>,
    pub(super) trusted: Vec<CertificateDer<'static>>,
}

impl Identity {
    /// Reads a file, which must be private and not expired.
    pub fn load(path: &Path) -> Result<Self, SecurityError> {
        let bytes = private_file::read(path)?;
        let unfit = |why| SecurityError::Unfit { path: path.to_owned(), why };
        let identity = Self::parse(&bytes).map_err(unfit)?;
        match identity.check(SystemTime::now())? {
            None => Ok(identity),
            Some(Doubt::Expired(date)) => Err(SecurityError::Expired { path: path.to_owned(), date }),
            Some(doubt) => Err(unfit(format!("it {doubt}"))),
        }
    }

    /// Reads a file's bytes: its certificate, its key, the authorities that it trusts.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let blocks = pem::parse_many(bytes).map_err(|error| error.to_string())?;
        let kinds: Vec<&str> = blocks.iter().map(Pem::tag).collect();
        let [CERTIFICATE_TAG, KEY_TAG, CERTIFICATE_TAG, ..] = kinds[..] else {
            return Err(String::from(
                "it is neither an identity nor a cluster's secret: have one made with 'idunno cluster issue'",
            ));
        };
        if kinds[3..].iter().any(|&kind| kind != CERTIFICATE_TAG) {
            return Err(String::from("something follows the certificates of an identity"));
        }
        let mut blocks = blocks.into_iter().map(Pem::into_contents);
        let certificate = CertificateDer::from(blocks.next().unwrap_or_default());
        let key = PrivatePkcs8KeyDer::from(blocks.next().unwrap_or_default());
        let role = Role::of(&certificate).ok_or("its certificate names no role")?;
        Ok(Self { role, certificate, key, trusted: blocks.map(CertificateDer::from).collect() })
    }

    /// The file's text.
    pub fn render(&self) -> String {
        let block = |tag: &str, der: &[u8]| encode(&Pem::new(tag, der));
        let trusted = self.trusted.iter().map(|certificate| block(CERTIFICATE_TAG, certificate));
        let own = [
            format!(
                "An IDunno {}'s identity. Whoever can read this file is that {}.\n\n",
                self.role, self.role
            ),
            block(CERTIFICATE_TAG, &self.certificate),
            block(KEY_TAG, self.key.secret_pkcs8_der()),
        ];
        own.into_iter().chain(trusted).collect()
    }

    /// What members would have against it at a moment.
    fn check(&self, at: SystemTime) -> Result<Option<Doubt>, SecurityError> {
        let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let verifier = trust::verifier(&self.trusted)?;
        let verified =
            verifier.verify_client_cert(&self.certificate, &[], UnixTime::since_unix_epoch(since_epoch));
        Ok(verified.err().map(|error| Doubt::of(&error)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::secret::Secret;
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    #[test]
    fn a_file_comes_back_as_it_was() {
        let secret = Secret::generate().unwrap();
        for role in [Role::Viewer, Role::Operator] {
            let identity = secret.mint(role, 30 * DAY).unwrap();
            let again = Identity::parse(identity.render().as_bytes()).unwrap();
            assert_eq!((again.role, again.render()), (role, identity.render()));
            assert_eq!(again.check(SystemTime::now()).unwrap(), None);
        }
        assert!(Identity::parse(secret.render().as_bytes()).is_err());
    }

    #[test]
    fn its_time_is_bounded_and_clocks_may_differ_by_hours() {
        let identity = Secret::generate().unwrap().mint(Role::Viewer, 30 * DAY).unwrap();
        let now = SystemTime::now();
        assert_eq!(identity.check(now - DAY / 2).unwrap(), None);
        assert_eq!(identity.check(now + 29 * DAY).unwrap(), None);
        assert!(matches!(identity.check(now + 31 * DAY).unwrap(), Some(Doubt::Expired(_))));
        assert!(matches!(identity.check(now - 2 * DAY).unwrap(), Some(Doubt::NotYet(_))));
    }

    #[test]
    fn an_identity_of_one_cluster_is_none_of_another() {
        let ours = Secret::generate().unwrap().mint(Role::Operator, DAY).unwrap();
        let theirs = Secret::generate().unwrap().mint(Role::Operator, DAY).unwrap();
        let mixed = Identity { trusted: ours.trusted.clone(), ..theirs };
        assert_eq!(mixed.check(SystemTime::now()).unwrap(), Some(Doubt::OtherCluster));
    }
}
