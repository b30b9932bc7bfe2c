//! TLS for connections: version 1.3 only, with certificates on both sides, and how a peer's certificate is judged.
//!
//! A peer is trusted if an authority of the cluster issued its certificate. [`TrustError`] says why a peer is not
//! trusted. Sessions are never resumed: a resumed session would outlive its certificate, and a full handshake takes less
//! than a millisecond.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore, ServerConfig};
use thiserror::Error;
use time::OffsetDateTime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::SecurityError;
use super::identity::Identity;
use crate::injected_faults::wall_clock;

/// Size of a socket read, in bytes. Left alone, rustls reads 4 KiB at a time, a quarter of a record, and the system calls
/// would cost more than the decryption.
pub const READ_BYTES: usize = 64 << 10;

/// A moment at which every certificate has ended, in seconds since the epoch.
const YEAR_9999_S: u64 = 253_370_764_800;

/// The clock by which certificates are judged.
#[derive(Debug)]
struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time())
    }
}

/// Now, by the wall clock.
pub(super) fn unix_time() -> UnixTime {
    UnixTime::since_unix_epoch(wall_clock().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// Makes the client side.
pub(super) fn connector(identity: &Identity) -> Result<TlsConnector, SecurityError> {
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(WallClock))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(&identity.trusted)?)
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key().into())?;
    config.resumption = Resumption::disabled();
    // All members share one name, so SNI would tell the server nothing.
    config.enable_sni = false;
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Makes the server side.
pub(super) fn acceptor(
    identity: &Identity,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<TlsAcceptor, SecurityError> {
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(WallClock))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key().into())?;
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

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

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::Role;
    use super::super::secret::Secret;
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    /// The result of a connection from `member` to a server with the identity `server`.
    async fn connect(server: &Identity, member: &Identity) -> Result<(), TrustError> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let acceptor = acceptor(server, verifier(&server.trusted).unwrap()).unwrap();
        tokio::spawn(async move {
            if let Ok(mut stream) = acceptor.accept(theirs).await {
                stream.write_all(b"welcome").await.unwrap();
                stream.flush().await.unwrap();
            }
        });
        let name = Role::Member.server_name().unwrap();
        let greeting = async {
            let mut stream = connector(member).unwrap().connect(name, ours).await?;
            stream.read_exact(&mut [0; 7]).await
        };
        greeting.await.map(drop).map_err(|error: io::Error| TrustError::of_io(&error).unwrap())
    }

    #[tokio::test]
    async fn only_members_of_the_cluster_are_accepted_as_servers() {
        let (secret, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        let member = secret.mint(Role::Member, DAY).unwrap();
        assert_eq!(connect(&secret.mint(Role::Member, DAY).unwrap(), &member).await, Ok(()));
        for role in Role::ISSUED {
            let leaked = secret.mint(role, DAY).unwrap();
            assert_eq!(connect(&leaked, &member).await, Err(TrustError::NotMember), "{role}");
        }
        let foreign = other.mint(Role::Member, DAY).unwrap();
        assert_eq!(connect(&foreign, &member).await, Err(TrustError::OtherCluster));
        let expired = secret.mint(Role::Member, Duration::ZERO).unwrap();
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert!(matches!(connect(&expired, &member).await, Err(TrustError::Expired(_))));
    }
}
