//! Who is believed: certificates of the cluster's authorities, and what is wrong with any other.

use std::io;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{AlertDescription, CertificateError, RootCertStore};
use thiserror::Error;
use time::OffsetDateTime;

use super::SecurityError;

/// What is wrong with a peer: what follows its address in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Doubt {
    /// What it sends is something else.
    #[error("does not speak TLS 1.3: it runs with --insecure, or is no process of an IDunno cluster")]
    NoTls,
    /// Another authority made its certificate, or it made it itself.
    #[error("has another cluster's certificate: all processes and consoles of a cluster need its one secret")]
    OtherCluster,
    /// Its certificate's time is over.
    #[error("has a certificate that expired on {0}, or one of the clocks is wrong")]
    Expired(String),
    /// Its certificate's time has not begun.
    #[error("has a certificate that is valid from {0} on: one of the clocks is wrong")]
    NotYet(String),
    /// It proves to be something, but no member.
    #[error("has a console's certificate and is no member")]
    NoMember,
    /// It proves nothing.
    #[error("shows no certificate: give it an identity")]
    NoCertificate,
    /// It has something against ours.
    #[error("does not accept this identity: {0}")]
    NotAccepted(&'static str),
    /// Anything else.
    #[error("breaks the rules of TLS: {0}")]
    Other(String),
}

impl Doubt {
    /// What a failed read, write or handshake tells of the peer; nothing, if the network failed.
    pub fn of_io(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<rustls::Error>().map(Self::of)
    }

    pub(super) fn of(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidMessage(_)
            | rustls::Error::PeerIncompatible(_)
            | rustls::Error::InappropriateMessage { .. }
            | rustls::Error::PeerSentOversizedRecord => Self::NoTls,
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::InvalidCertificate(error) => Self::of_certificate(error),
            rustls::Error::AlertReceived(alert) => Self::of_alert(*alert),
            other => Self::Other(other.to_string()),
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::OtherCluster,
            CertificateError::ExpiredContext { not_after, .. } => Self::Expired(date(*not_after)),
            CertificateError::NotValidYetContext { not_before, .. } => Self::NotYet(date(*not_before)),
            CertificateError::InvalidPurpose
            | CertificateError::InvalidPurposeContext { .. }
            | CertificateError::NotValidForName
            | CertificateError::NotValidForNameContext { .. } => Self::NoMember,
            other => Self::Other(other.to_string()),
        }
    }

    fn of_alert(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::UnknownCA | AlertDescription::DecryptError => {
                Self::NotAccepted("it is another cluster's, or its key was dropped: ask for a new one")
            }
            AlertDescription::CertificateExpired => {
                Self::NotAccepted("it has expired, or one of the clocks is wrong: ask for a new one")
            }
            AlertDescription::CertificateRequired => Self::NotAccepted("it shows no certificate"),
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied => {
                Self::NotAccepted("its certificate is not one of a cluster's")
            }
            other => Self::Other(format!("it sent the alert {other:?}")),
        }
    }
}

fn date(at: UnixTime) -> String {
    let seconds = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_or_else(|_| seconds.to_string(), |at| at.date().to_string())
}

/// Who checks the certificates of those that connect.
pub(super) fn verifier(
    trusted: &[CertificateDer<'static>],
) -> Result<Arc<dyn ClientCertVerifier>, SecurityError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(trusted)?, provider());
    verifier.build().map_err(|error| rustls::Error::General(error.to_string()).into())
}

/// The authorities, as the library wants them.
pub(super) fn roots(trusted: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, SecurityError> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.clone())?;
    }
    Ok(Arc::new(roots))
}

/// The one library of ciphers.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}
