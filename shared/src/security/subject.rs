//! What a certificate says of its subject: the role, which decides what it may do, and a name for logs and people.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::{CertificateDer, DnsName, ServerName};
use rustls::server::ParsedCertificate;
use thiserror::Error;
use webpki::EndEntityCert;

use crate::ids::Digest;

/// Longest subject name, in characters.
const NAME_CHARS_MAX: usize = 40;
/// Ends the DNS name that holds a subject's name. No role's DNS name ends with it.
const NAME_SUFFIX: &str = ".holder.idunno";
/// Hexadecimal digits of the certificate's digest that stand in for a missing name.
const DIGEST_DIGITS: usize = 16;

/// What a certificate entitles its subject to, in ascending order of rights.
///
/// The role is a DNS name in the certificate, so that TLS's own check of the name is a check of the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A person or program that may read, and change nothing.
    Viewer,
    /// A person or program that may change everything the console can change.
    Operator,
    /// A daemon of the cluster: a member or the introducer.
    Member,
}

/// The text names no role.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not a role: use viewer, operator or member")]
pub struct RoleError(String);

impl Role {
    /// All roles, in ascending order of rights.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Member];

    /// The role's name in commands, logs and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Member => "member",
        }
    }

    /// The DNS name that stands for the role in a certificate.
    pub(super) const fn dns_name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer.idunno",
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

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| RoleError(text.to_owned()))
    }
}

/// The name of a person or program in its certificate: 1 to 40 characters of `a` to `z`, `0` to `9` and `-`, with no
/// `-` at either end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectName(String);

/// The text is not a valid subject name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "'{0}' is not a valid name: use 1 to {NAME_CHARS_MAX} letters a-z, digits and hyphens, with no hyphen at either end"
)]
pub struct SubjectNameError(String);

impl SubjectName {
    /// The name of anybody who connects with the secret itself.
    pub fn of_secret() -> Self {
        Self(String::from("secret-holder"))
    }

    /// The DNS name that stands for the subject's name in a certificate.
    pub(super) fn dns_name(&self) -> String {
        format!("{}{NAME_SUFFIX}", self.0)
    }
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SubjectName {
    type Err = SubjectNameError;

    fn from_str(text: &str) -> Result<Self, SubjectNameError> {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = (1..=NAME_CHARS_MAX).contains(&text.len())
            && text.bytes().all(is_allowed)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if is_name { Ok(Self(text.to_owned())) } else { Err(SubjectNameError(text.to_owned())) }
    }
}

/// Describes a certificate's subject for logs: its role, then its name, or the start of the certificate's digest if it
/// has no name.
pub fn describe(role: Role, certificate: &CertificateDer<'_>) -> String {
    let parsed = EndEntityCert::try_from(certificate).ok();
    let name = parsed
        .as_ref()
        .and_then(|parsed| parsed.valid_dns_names().find_map(|name| name.strip_suffix(NAME_SUFFIX)));
    match name {
        Some(name) => format!("{role} {name}"),
        None => format!("{role} {}", Digest::of(certificate).to_string().split_at(DIGEST_DIGITS).0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::secret::Secret;
    use super::*;

    #[test]
    fn a_certificate_carries_the_subject_name_beside_the_role() {
        let (secret, day) = (Secret::generate().unwrap(), Duration::from_secs(24 * 3_600));
        let anna = "anna-2".parse().unwrap();
        let named = secret.mint_lasting(Role::Viewer, Some(&anna), day).unwrap();
        assert_eq!(describe(named.role, &named.certificate), "viewer anna-2");
        assert_eq!(Role::of(&named.certificate), Some(Role::Viewer));
        let unnamed = [(); 2].map(|()| secret.mint(Role::Operator, day).unwrap());
        let [one, other] = unnamed.map(|identity| describe(identity.role, &identity.certificate));
        assert!(
            one.starts_with("operator ") && one.len() == "operator ".len() + DIGEST_DIGITS && one != other,
            "{one}"
        );
    }

    #[test]
    fn a_subject_name_cannot_pass_for_a_role() {
        for wrong in ["", "-", "a-", "Anna", "a.b", "member.idunno", "a b", &"a".repeat(NAME_CHARS_MAX + 1)] {
            assert!(wrong.parse::<SubjectName>().is_err(), "{wrong}");
        }
    }
}
