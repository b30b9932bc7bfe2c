//! What a certificate says of its subject: the role, which decides what it may do, a name, and the prefixes of a submitter.
//!
//! All are subject alternative names: role and name are DNS names, so that TLS's own check of the name is a check of the
//! role, and each prefix is a URI.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rustls::pki_types::{CertificateDer, DnsName, ServerName};
use rustls::server::ParsedCertificate;
use webpki::EndEntityCert;

use crate::access::{Grant, PREFIXES_MAX, Prefix, Role, SubjectName};
use crate::ids::Digest;

/// Ends the DNS name that holds a subject's name. No role's DNS name ends with it.
const NAME_SUFFIX: &str = ".holder.idunno";
/// Begins the URI that holds a prefix.
const PREFIX_SCHEME: &str = "idunno-prefix:";
/// What is escaped in a prefix's URI.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
/// Hexadecimal digits of the certificate's digest that stand in for a missing name.
const DIGEST_DIGITS: usize = 16;

impl Role {
    /// The DNS name that stands for the role in a certificate.
    pub(super) const fn dns_name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer.idunno",
            Self::Submitter => "submitter.idunno",
            Self::Operator => "operator.idunno",
            Self::Member => "member.idunno",
        }
    }

    /// [`Self::dns_name`] as TLS compares it.
    pub(super) fn server_name(self) -> Option<ServerName<'static>> {
        DnsName::try_from(self.dns_name()).ok().map(ServerName::DnsName)
    }

    /// The role that a certificate names; `None` for a certificate that IDunno did not issue.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        let is_named = |role: &Self| {
            role.server_name().is_some_and(|name| rustls::client::verify_server_name(&parsed, &name).is_ok())
        };
        Self::ALL.into_iter().find(is_named)
    }
}

/// The DNS name that stands for a subject's name in a certificate.
pub(super) fn dns_name_of(name: &SubjectName) -> String {
    format!("{name}{NAME_SUFFIX}")
}

/// The URI that stands for a prefix in a certificate.
pub(super) fn uri_of(prefix: &Prefix) -> String {
    format!("{PREFIX_SCHEME}{}", utf8_percent_encode(prefix.as_str(), ESCAPED))
}

fn prefix_of(uri: &str) -> Option<Prefix> {
    percent_decode_str(uri.strip_prefix(PREFIX_SCHEME)?).decode_utf8().ok()?.parse().ok()
}

/// What a certificate grants; `None` for a certificate that IDunno did not issue. The start of the certificate's digest
/// stands in for a missing name.
pub fn grant(certificate: &CertificateDer<'_>) -> Option<Grant> {
    let role = Role::of(certificate)?;
    let parsed = EndEntityCert::try_from(certificate).ok()?;
    let name = parsed.valid_dns_names().find_map(|name| name.strip_suffix(NAME_SUFFIX)?.parse().ok());
    let digest = || Digest::of(certificate).to_string().split_at(DIGEST_DIGITS).0.parse().ok();
    let prefixes: Vec<Prefix> = parsed.valid_uri_names().map(prefix_of).collect::<Option<_>>()?;
    (prefixes.len() <= PREFIXES_MAX).then_some(Grant { name: name.or_else(digest)?, role, prefixes })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::secret::Secret;
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    #[test]
    fn a_certificate_carries_name_and_prefixes_beside_the_role() {
        let secret = Secret::generate().unwrap();
        let prefixes = ["photos", "naïve café %2e%2e/a b"].map(|text| text.parse().unwrap()).to_vec();
        for role in Role::ISSUED {
            let is_submitter = role == Role::Submitter;
            let prefixes = if is_submitter { prefixes.clone() } else { Vec::new() };
            let given = Grant { name: "anna-2".parse().unwrap(), role, prefixes };
            let identity = secret.mint_lasting(&given, DAY).unwrap();
            assert_eq!(grant(&identity.certificate), Some(given));
            assert_eq!(Role::of(&identity.certificate), Some(role));
        }
        let unnamed = [(); 2].map(|()| secret.mint(Role::Operator, DAY).unwrap());
        let [one, other] = unnamed.map(|identity| grant(&identity.certificate).unwrap().name);
        assert!(one.as_str().len() == DIGEST_DIGITS && one != other, "{one}");
    }
}
