//! An identity: a certificate, its private key, and the authorities that it trusts. People and programs keep theirs in a
//! file.

use std::path::Path;
use std::time::SystemTime;

use pem::Pem;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use thiserror::Error;

use super::private_file::{CERTIFICATE_TAG, KEY_TAG, encode};
use super::trust::{self, TrustError};
use super::{Role, SecurityError, private_file};

/// Why bytes are not the file of an identity.
#[derive(Debug, Error)]
pub enum IdentityFormatError {
    /// The bytes are not PEM.
    #[error("it is not a PEM file: {0}")]
    Pem(#[from] pem::PemError),
    /// Its blocks are not a certificate, a key and an authority's certificate.
    #[error(
        "it is neither an identity nor a cluster's secret: have an identity made with 'idunno identity create'"
    )]
    Blocks,
    /// A block that is not a certificate follows the authorities.
    #[error("it holds a {0} block after the certificates that an identity consists of")]
    Trailing(String),
    /// Its certificate was not issued for a role.
    #[error("its certificate names no role, so it is not an IDunno identity")]
    NoRole,
}

/// A certificate with its key, and the authorities that its owner trusts.
#[derive(Debug)]
pub struct Identity {
    /// What the certificate entitles its subject to.
    pub role: Role,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivatePkcs8KeyDer<'static>,
    pub(super) trusted: Vec<CertificateDer<'static>>,
}

impl Identity {
    /// Reads a file. The file must be private, and its certificate valid now.
    pub fn load(path: &Path) -> Result<Self, SecurityError> {
        let bytes = private_file::read(path)?;
        let identity = Self::parse(&bytes)
            .map_err(|reason| SecurityError::Identity { path: path.to_owned(), reason })?;
        match identity.check(SystemTime::now())? {
            None => Ok(identity),
            Some(TrustError::Expired(date)) => Err(SecurityError::Expired { path: path.to_owned(), date }),
            Some(reason) => Err(SecurityError::Untrusted { path: path.to_owned(), reason }),
        }
    }

    /// Parses a file: the certificate, its key, then the certificates of the trusted authorities.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, IdentityFormatError> {
        let blocks = pem::parse_many(bytes)?;
        let kinds: Vec<&str> = blocks.iter().map(Pem::tag).collect();
        let [CERTIFICATE_TAG, KEY_TAG, CERTIFICATE_TAG, ..] = kinds[..] else {
            return Err(IdentityFormatError::Blocks);
        };
        if let Some(&other) = kinds[3..].iter().find(|&&kind| kind != CERTIFICATE_TAG) {
            return Err(IdentityFormatError::Trailing(other.to_owned()));
        }
        let mut blocks = blocks.into_iter().map(Pem::into_contents);
        let certificate = CertificateDer::from(blocks.next().unwrap_or_default());
        let key = PrivatePkcs8KeyDer::from(blocks.next().unwrap_or_default());
        let role = Role::of(&certificate).ok_or(IdentityFormatError::NoRole)?;
        Ok(Self { role, certificate, key, trusted: blocks.map(CertificateDer::from).collect() })
    }

    /// The identity as the text of a file.
    pub fn render(&self) -> String {
        let block = |tag: &str, der: &[u8]| encode(&Pem::new(tag, der));
        let trusted = self.trusted.iter().map(|certificate| block(CERTIFICATE_TAG, certificate));
        let own = [
            format!(
                "The identity of an IDunno {}. Anybody who can read this file can act as that {}.\n\n",
                self.role, self.role
            ),
            block(CERTIFICATE_TAG, &self.certificate),
            block(KEY_TAG, self.key.secret_pkcs8_der()),
        ];
        own.into_iter().chain(trusted).collect()
    }

    /// Why members would not trust it at a moment; `None` if they would.
    fn check(&self, at: SystemTime) -> Result<Option<TrustError>, SecurityError> {
        let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let verifier = trust::verifier(&self.trusted)?;
        let verified =
            verifier.verify_client_cert(&self.certificate, &[], UnixTime::since_unix_epoch(since_epoch));
        Ok(verified.err().map(|error| TrustError::of(&error)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::secret::Secret;
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    #[test]
    fn an_identity_survives_a_round_trip_through_its_file() {
        let secret = Secret::generate().unwrap();
        for role in Role::ISSUED {
            let identity = secret.mint(role, 30 * DAY).unwrap();
            let again = Identity::parse(identity.render().as_bytes()).unwrap();
            assert_eq!((again.role, again.render()), (role, identity.render()));
            assert_eq!(again.check(SystemTime::now()).unwrap(), None);
        }
        assert!(Identity::parse(secret.render().as_bytes()).is_err());
    }

    #[test]
    fn validity_is_bounded_and_tolerates_clocks_that_differ_by_hours() {
        let identity = Secret::generate().unwrap().mint(Role::Viewer, 30 * DAY).unwrap();
        let now = SystemTime::now();
        assert_eq!(identity.check(now - DAY / 2).unwrap(), None);
        assert_eq!(identity.check(now + 29 * DAY).unwrap(), None);
        assert!(matches!(identity.check(now + 31 * DAY).unwrap(), Some(TrustError::Expired(_))));
        assert!(matches!(identity.check(now - 2 * DAY).unwrap(), Some(TrustError::NotYet(_))));
    }

    #[test]
    fn another_cluster_does_not_trust_an_identity() {
        let ours = Secret::generate().unwrap().mint(Role::Operator, DAY).unwrap();
        let theirs = Secret::generate().unwrap().mint(Role::Operator, DAY).unwrap();
        let mixed = Identity { trusted: ours.trusted.clone(), ..theirs };
        assert_eq!(mixed.check(SystemTime::now()).unwrap(), Some(TrustError::OtherCluster));
    }
}
