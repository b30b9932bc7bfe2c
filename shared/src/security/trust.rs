//! How a peer's certificate is judged.
//!
//! A peer is trusted if an authority of the cluster issued its certificate. [`TrustError`] says why a peer is not
//! trusted.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{AlertDescription, CertificateError, RootCertStore};
use thiserror::Error;
use time::OffsetDateTime;

use super::SecurityError;
use crate::injected_faults::wall_clock;

/// A moment at which every certificate has ended, in seconds since the epoch.
const YEAR_9999_S: u64 = 253_370_764_800;

/// Why a peer is not trusted. The text follows the peer's address in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TrustError {
    /// Its bytes are not TLS 1.3.
    #[error("does not speak TLS 1.3: it runs with --insecure, or it is not an IDunno process")]
    NoTls,
    /// An unknown authority issued its certificate, or the certificate is self-signed.
    #[error(
        "has another cluster's certificate, or this side's secret or identity is from before the cluster's key was replaced: \
         use the secret that all processes of the cluster use, or have a new identity made ('idunno identity create')"
    )]
    OtherCluster,
    /// Its certificate has expired; the date of expiry.
    #[error("has a certificate that expired on {0}; if that date has not passed, correct the clocks")]
    Expired(String),
    /// Its certificate is not valid yet; the date from which it is.
    #[error("has a certificate that is valid only from {0}: correct the clocks")]
    NotYet(String),
    /// Its certificate is a viewer's or an operator's where a member's is required.
    #[error("has a console's certificate, not a member's")]
    NotMember,
    /// It presented no certificate.
    #[error("presented no certificate: start it with an identity")]
    NoCertificate,
    /// It rejected our certificate; why.
    #[error("does not accept this identity: {0}")]
    NotAccepted(&'static str),
    /// Any other violation of TLS.
    #[error("violated TLS: {0}")]
    Other(String),
}

impl TrustError {
    /// Extracts the reason from a failed read, write or handshake; `None` if the network failed instead.
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
            | CertificateError::NotValidForNameContext { .. } => Self::NotMember,
            other => Self::Other(other.to_string()),
        }
    }

    fn of_alert(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::UnknownCA | AlertDescription::DecryptError => Self::NotAccepted(
                "it belongs to another cluster, or its key has been dropped: ask for a new identity",
            ),
            AlertDescription::CertificateExpired => Self::NotAccepted(
                "it has expired or is not valid yet: have a new one issued, or correct the clocks",
            ),
            AlertDescription::CertificateRequired => Self::NotAccepted("it presented no certificate"),
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied => {
                Self::NotAccepted("its certificate was not issued by a cluster")
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

/// The verifier of client certificates.
pub(super) fn verifier(
    trusted: &[CertificateDer<'static>],
) -> Result<Arc<dyn ClientCertVerifier>, SecurityError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(trusted)?, provider());
    verifier.build().map_err(|error| rustls::Error::General(error.to_string()).into())
}

/// When a certificate ends, in seconds since the epoch; `None` if the verifier does not trust it.
pub(super) fn ends_s(verifier: &dyn ClientCertVerifier, certificate: &CertificateDer<'_>) -> Option<u64> {
    let late = UnixTime::since_unix_epoch(Duration::from_secs(YEAR_9999_S));
    match verifier.verify_client_cert(certificate, &[], late) {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(not_after.as_secs())
        }
        _ => None,
    }
}

/// The trusted authorities in the form that rustls takes.
pub(super) fn roots(trusted: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, SecurityError> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.clone())?;
    }
    Ok(Arc::new(roots))
}

/// The cryptography provider of every TLS configuration.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

/// The clock by which certificates are judged.
#[derive(Debug)]
pub(super) struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time())
    }
}

/// Now, by the wall clock.
pub(super) fn unix_time() -> UnixTime {
    UnixTime::since_unix_epoch(wall_clock().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
