//! A cluster's secret: a file with the private keys of the cluster's certificate authorities.
//!
//! Anybody who has the file can act as a member. It normally holds one key. During a rotation it holds two: the first
//! signs, both are trusted. Keys are numbered in order of age, so that a step of the rotation repeated by mistake is
//! refused.

use std::path::Path;
use std::time::Duration;

use pem::Pem;
use rustls::pki_types::CertificateDer;
use thiserror::Error;

use super::access_key::AccessKeyId;
use super::authority::{Authority, Subject};
use super::datagrams::DatagramKey;
use super::identity::Identity;
use super::private_file::{KEY_TAG, encode};
use super::webhook_key::WebhookKey;
use super::{Role, SecurityError, private_file};
use crate::access::{Grant, PREFIXES_MAX, SubjectName};
use crate::injected_faults::wall_clock;

/// Most keys in a file.
const KEYS_MAX: usize = 2;
const NUMBER_HEADER: &str = "Number";
const PREAMBLE: &str = "The secret of an IDunno cluster. Anybody who can read this file can act as a member: keep it private.\n\n";

/// The steps of a key rotation, in order. All daemons must have read the file again before the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRotation {
    /// Adds a new key, which is trusted from now on.
    Add,
    /// Makes the new key the one that signs.
    Sign,
    /// Drops the old key, which is no longer trusted.
    Drop,
}

/// Why a step of a rotation was refused. The secret is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RotationError {
    /// [`KeyRotation::Add`] while two keys exist.
    #[error("cannot add a key: the secret has a new key already; continue with 'sign' and 'drop'")]
    AlreadyAdded,
    /// [`KeyRotation::Sign`] before a key was added.
    #[error("cannot sign with a new key: the secret has only one key; begin with 'add'")]
    NothingAdded,
    /// [`KeyRotation::Sign`] a second time, which would undo the first.
    #[error("the new key signs already; continue with 'drop'")]
    AlreadySigning,
    /// [`KeyRotation::Drop`] while only one key exists.
    #[error("cannot drop a key: the secret has only one; the rotation is complete")]
    NothingToDrop,
    /// [`KeyRotation::Drop`] before the new key signs.
    #[error("cannot drop the old key: it still signs; continue with 'sign'")]
    OldKeySigns,
}

/// Why bytes are not the file of a secret.
#[derive(Debug, Error)]
pub enum SecretFormatError {
    /// The bytes are not PEM.
    #[error("it is not a PEM file: {0}")]
    Pem(#[from] pem::PemError),
    /// Not one or two keys.
    #[error(
        "a cluster's secret has one key or two, this file has {0}: create one with 'idunno cluster init'"
    )]
    KeyCount(usize),
    /// A block that is not a private key.
    #[error("a cluster's secret holds only keys, this file holds a {0}")]
    Block(String),
    /// A key without its number.
    #[error("it holds a key without a number, so 'idunno cluster init' did not create it")]
    Unnumbered,
    /// A key that the library does not accept.
    #[error("it holds a key that cannot be used: {0}")]
    Key(#[from] rcgen::Error),
}

/// The keys of a cluster's authorities.
#[derive(Debug)]
pub struct Secret {
    /// The first signs; never empty.
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    number: u64,
    authority: Authority,
}

impl Secret {
    /// Generates the secret of a new cluster.
    pub fn generate() -> Result<Self, SecurityError> {
        Ok(Self { keys: vec![Key { number: 1, authority: Authority::generate()? }] })
    }

    /// Reads a file. The file must be private.
    pub fn load(path: &Path) -> Result<Self, SecurityError> {
        let bytes = private_file::read(path)?;
        Self::parse(&bytes).map_err(|reason| SecurityError::Secret { path: path.to_owned(), reason })
    }

    /// Parses a file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, SecretFormatError> {
        let blocks = pem::parse_many(bytes)?;
        let keys = blocks.iter().map(Key::parse).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() || keys.len() > KEYS_MAX {
            return Err(SecretFormatError::KeyCount(keys.len()));
        }
        Ok(Self { keys })
    }

    /// The secret as the text of a file.
    pub fn render(&self) -> String {
        let blocks: String = self.keys.iter().map(Key::render).collect();
        format!("{PREAMBLE}{blocks}")
    }

    /// Takes the next step of a rotation.
    pub fn rotate(&mut self, step: KeyRotation) -> Result<(), SecurityError> {
        let newest = self.newest().number;
        let signs_newest = self.keys[0].number == newest;
        match (step, self.keys.len()) {
            (KeyRotation::Add, 1) => {
                self.keys.push(Key { number: newest + 1, authority: Authority::generate()? });
            }
            (KeyRotation::Add, _) => return Err(RotationError::AlreadyAdded.into()),
            (KeyRotation::Sign, 1) => return Err(RotationError::NothingAdded.into()),
            (KeyRotation::Sign, _) if signs_newest => return Err(RotationError::AlreadySigning.into()),
            (KeyRotation::Sign, _) => self.keys.reverse(),
            (KeyRotation::Drop, 1) => return Err(RotationError::NothingToDrop.into()),
            (KeyRotation::Drop, _) if !signs_newest => return Err(RotationError::OldKeySigns.into()),
            (KeyRotation::Drop, _) => self.keys.truncate(1),
        }
        Ok(())
    }

    /// The keys' fingerprints, the signing key's first.
    pub fn fingerprints(&self) -> Vec<String> {
        self.keys.iter().map(|key| key.authority.fingerprint()).collect()
    }

    /// Issues an identity with the signing key.
    pub fn mint(&self, role: Role, valid: Duration) -> Result<Identity, SecurityError> {
        self.issue(&self.keys[0], Subject { role, name: None, prefixes: &[] }, valid)
    }

    /// Issues an identity to an owner of the secret, with the signing key.
    pub(super) fn mint_own(&self, role: Role, valid: Duration) -> Result<Identity, SecurityError> {
        self.issue(
            &self.keys[0],
            Subject { role, name: Some(&SubjectName::of_secret()), prefixes: &[] },
            valid,
        )
    }

    /// Issues an identity with the newest key, so that it outlives a rotation in progress. Members that have not read that
    /// key yet refuse it.
    pub fn mint_lasting(&self, grant: &Grant, valid: Duration) -> Result<Identity, SecurityError> {
        let Grant { name, role, prefixes } = grant;
        if name.is_of_secret() {
            return Err(SecurityError::Reserved(name.clone()));
        }
        if prefixes.len() > PREFIXES_MAX {
            return Err(SecurityError::Prefixes(prefixes.len()));
        }
        self.issue(self.newest(), Subject { role: *role, name: Some(name), prefixes }, valid)
    }

    fn issue(&self, key: &Key, subject: Subject<'_>, valid: Duration) -> Result<Identity, SecurityError> {
        let now = wall_clock();
        let issued = key.authority.issue(subject, now, now + valid)?;
        Ok(Identity {
            role: subject.role,
            certificate: issued.certificate,
            key: issued.key,
            trusted: self.trusted(),
        })
    }

    /// The root certificates of all keys.
    pub(super) fn trusted(&self) -> Vec<CertificateDer<'static>> {
        self.keys.iter().map(|key| key.authority.certificate().clone()).collect()
    }

    /// The keys for datagrams: the first one seals, all of them open.
    pub(super) fn datagram_keys(&self) -> Result<Vec<DatagramKey>, SecurityError> {
        self.keys.iter().map(|key| DatagramKey::derive(key.authority.key_der())).collect()
    }

    /// The number of the newest key, from which access keys are derived, so that they outlive a rotation in progress.
    pub fn newest_number(&self) -> u64 {
        self.newest().number
    }

    /// The secret of an access key; `None` if it is derived from a key that is not in the file.
    pub fn access_secret(&self, id: &AccessKeyId) -> Option<String> {
        let key = self.keys.iter().find(|key| key.number == id.key)?;
        Some(id.secret(key.authority.key_der()))
    }

    /// The keys that sign webhooks, the newest first: receivers may know any of them while keys are rotated.
    pub fn webhook_keys(&self) -> Vec<WebhookKey> {
        let mut keys: Vec<&Key> = self.keys.iter().collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.number));
        keys.into_iter().map(|key| WebhookKey::derive(key.authority.key_der())).collect()
    }

    fn newest(&self) -> &Key {
        self.keys.iter().max_by_key(|key| key.number).unwrap_or(&self.keys[0])
    }
}

impl Key {
    fn parse(block: &Pem) -> Result<Self, SecretFormatError> {
        if block.tag() != KEY_TAG {
            return Err(SecretFormatError::Block(block.tag().to_owned()));
        }
        let number = block.headers().get(NUMBER_HEADER).and_then(|number| number.trim().parse().ok());
        let number = number.ok_or(SecretFormatError::Unnumbered)?;
        let authority = Authority::from_der(block.contents())?;
        Ok(Self { number, authority })
    }

    fn render(&self) -> String {
        let mut block = Pem::new(KEY_TAG, self.authority.key_der());
        // Digits are valid in a PEM header.
        let _ = block.headers_mut().add(NUMBER_HEADER, &self.number.to_string());
        encode(&block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_survives_a_round_trip_through_its_file() {
        let mut secret = Secret::generate().unwrap();
        secret.rotate(KeyRotation::Add).unwrap();
        let again = Secret::parse(secret.render().as_bytes()).unwrap();
        assert_eq!(again.fingerprints(), secret.fingerprints());
        assert_eq!(again.render(), secret.render());
        assert_eq!(again.trusted().len(), 2);
    }

    #[test]
    fn rotation_steps_are_accepted_once_and_in_order() {
        let mut secret = Secret::generate().unwrap();
        let old = secret.fingerprints();
        assert!(secret.rotate(KeyRotation::Sign).is_err() && secret.rotate(KeyRotation::Drop).is_err());
        secret.rotate(KeyRotation::Add).unwrap();
        assert_eq!(secret.fingerprints()[0], old[0], "the old key still signs");
        assert!(secret.rotate(KeyRotation::Add).is_err() && secret.rotate(KeyRotation::Drop).is_err());
        secret.rotate(KeyRotation::Sign).unwrap();
        assert_eq!(secret.fingerprints()[1], old[0], "the old key is still trusted");
        assert!(secret.rotate(KeyRotation::Sign).is_err(), "a second time would undo the first");
        secret.rotate(KeyRotation::Drop).unwrap();
        assert!(!secret.fingerprints().contains(&old[0]));
        secret.rotate(KeyRotation::Add).unwrap();
    }

    #[test]
    fn other_files_are_refused_as_a_secret_with_a_reason() {
        let identity = Secret::generate().unwrap().mint(Role::Viewer, Duration::from_secs(60)).unwrap();
        let three = Secret::generate().unwrap().render().repeat(3);
        for (text, word) in [
            (String::new(), "one key or two"),
            (String::from("nonsense"), "one key or two"),
            (identity.render(), "CERTIFICATE"),
            (three, "has 3"),
            (Secret::generate().unwrap().render().replace("Number: 1\n", ""), "without a number"),
        ] {
            let error = Secret::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
