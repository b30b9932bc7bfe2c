//! An authority: a key whose certificates a cluster believes.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::Role;
use super::subject::SubjectName;
use crate::ids::Digest;

/// The longest that an identity may be valid, in days.
pub const VALID_DAYS_MAX: u32 = 3_650;
/// Certificates are valid from so long ago, for clocks that are behind.
const BACKDATED: Duration = Duration::from_secs(24 * 3_600);

/// A certificate and its key.
pub(super) struct Issued {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivatePkcs8KeyDer<'static>,
}

/// A key that signs certificates. Its own certificate follows from it, but for a signature that nobody looks at, and has
/// no end: processes that have the same key trust the same authority.
#[derive(Debug)]
pub(super) struct Authority {
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub(super) fn generate() -> Result<Self, rcgen::Error> {
        Self::of(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
    }

    pub(super) fn from_der(key: &[u8]) -> Result<Self, rcgen::Error> {
        let key = PrivatePkcs8KeyDer::from(key);
        Self::of(KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)?)
    }

    fn of(key: KeyPair) -> Result<Self, rcgen::Error> {
        let certificate = parameters(&key).self_signed(&key)?.into();
        Ok(Self { key, certificate })
    }

    /// Its key, as it is kept in files.
    pub(super) fn key_der(&self) -> &[u8] {
        self.key.serialized_der()
    }

    /// Its certificate, by which others know what it signed.
    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// How people tell it from others.
    pub(super) fn fingerprint(&self) -> String {
        fingerprint(&self.key)
    }

    /// A certificate for `role`, of that holder, until `not_after`. Only a member's can be a server's.
    pub(super) fn issue(
        &self,
        (role, holder): (Role, Option<&SubjectName>),
        now: SystemTime,
        not_after: SystemTime,
    ) -> Result<Issued, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let names: Vec<String> = [role.certified_name().to_owned()]
            .into_iter()
            .chain(holder.map(SubjectName::certified))
            .collect();
        let mut wanted = CertificateParams::new(names)?;
        wanted.not_before = (now - BACKDATED).into();
        wanted.not_after = not_after.into();
        wanted.distinguished_name = named(format!("IDunno {role}"));
        wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        wanted.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role == Role::Member {
            wanted.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        wanted.use_authority_key_identifier_extension = true;
        let issuer = Issuer::new(parameters(&self.key), &self.key);
        let certificate = wanted.signed_by(&key, &issuer)?.into();
        Ok(Issued { certificate, key: PrivatePkcs8KeyDer::from(key.serialize_der()) })
    }
}

fn parameters(key: &KeyPair) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = named(format!("IDunno cluster {}", fingerprint(key)));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    parameters
}

fn named(name: String) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn fingerprint(key: &KeyPair) -> String {
    let digest = Digest::of(&key.subject_public_key_info()).to_string();
    digest.chars().take(16).collect()
}
