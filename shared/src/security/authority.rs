//! A certificate authority: the key whose certificates a cluster trusts.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::Role;
use super::subject::{dns_name_of, uri_of};
use crate::access::{Prefix, SubjectName};
use crate::ids::Digest;

/// Validity of an identity for which none is given, in days.
pub const VALID_DAYS_DEFAULT: u32 = 90;
/// Longest validity of an identity, in days.
pub const VALID_DAYS_MAX: u32 = 3_650;
/// By how much two clocks may differ: a certificate is valid from so long before it was issued. Beyond it the one whose clock
/// is behind refuses the other.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(24 * 3_600);

/// Whom a certificate is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) role: Role,
    pub(super) name: Option<&'a SubjectName>,
    /// Of a submitter only.
    pub(super) prefixes: &'a [Prefix],
}

/// A certificate and its private key.
pub(super) struct Issued {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivatePkcs8KeyDer<'static>,
}

/// A key that signs certificates.
///
/// Its own certificate never expires and is derived from the key, except for the signature, which no verifier checks.
/// So every process that has the key trusts the same authority.
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

    /// The private key as PKCS #8, the form in which files hold it.
    pub(super) fn key_der(&self) -> &[u8] {
        self.key.serialized_der()
    }

    /// The root certificate, against which peers verify what this authority signed.
    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A short form of the public key's digest, by which people tell authorities apart.
    pub(super) fn fingerprint(&self) -> String {
        fingerprint(&self.key)
    }

    /// Issues a certificate, valid until `not_after`. Only a member's certificate authenticates a server.
    pub(super) fn issue(
        &self,
        subject: Subject<'_>,
        now: SystemTime,
        not_after: SystemTime,
    ) -> Result<Issued, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let Subject { role, name, prefixes } = subject;
        let names: Vec<String> =
            [role.dns_name().to_owned()].into_iter().chain(name.map(dns_name_of)).collect();
        let mut request = CertificateParams::new(names)?;
        for prefix in prefixes {
            request.subject_alt_names.push(SanType::URI(uri_of(prefix).try_into()?));
        }
        request.not_before = (now - CLOCK_TOLERANCE).into();
        request.not_after = not_after.into();
        request.distinguished_name = common_name(format!("IDunno {role}"));
        request.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        request.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role == Role::Member {
            request.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        request.use_authority_key_identifier_extension = true;
        let issuer = Issuer::new(parameters(&self.key), &self.key);
        let certificate = request.signed_by(&key, &issuer)?.into();
        Ok(Issued { certificate, key: PrivatePkcs8KeyDer::from(key.serialize_der()) })
    }
}

fn parameters(key: &KeyPair) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = common_name(format!("IDunno cluster {}", fingerprint(key)));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    parameters
}

fn common_name(name: String) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn fingerprint(key: &KeyPair) -> String {
    let digest = Digest::of(&key.subject_public_key_info()).to_string();
    digest.chars().take(16).collect()
}
