//! What a certificate lets its holder be.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::{CertificateDer, DnsName, ServerName};
use rustls::server::ParsedCertificate;

/// A role, the lower the less it may do. It is a name in the certificate, so that who checks the name checks the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A person who looks.
    Viewer,
    /// A person who changes things.
    Operator,
    /// A process of the cluster.
    Member,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Member];

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Member => "member",
        }
    }

    /// The name in its certificates.
    pub(super) const fn certified_name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer.idunno",
            Self::Operator => "operator.idunno",
            Self::Member => "member.idunno",
        }
    }

    /// That name, as TLS compares it.
    pub(super) fn server_name(self) -> Option<ServerName<'static>> {
        DnsName::try_from(self.certified_name()).ok().map(ServerName::DnsName)
    }

    /// The role of a certificate; none if it is none of ours.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        let names = |role: &Self| {
            role.server_name().is_some_and(|name| rustls::client::verify_server_name(&parsed, &name).is_ok())
        };
        Self::ALL.into_iter().find(names)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| format!("'{text}' is no role: there are viewer, operator and member"))
    }
}
