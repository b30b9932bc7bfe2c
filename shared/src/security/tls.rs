//! TLS as the doors speak it: version 1.3 alone, both sides with a certificate of the cluster's authorities.
//!
//! No session is resumed: a resumed one would outlive its certificate, and a handshake costs less than a millisecond.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::TLS13;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore, ServerConfig};
use thiserror::Error;
use time::OffsetDateTime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::SecurityError;
use super::identity::Identity;

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

/// How much is read from a socket at once. The library itself takes 4 KiB at a time, a quarter of a record: a read of the
/// system for each would cost more than the decryption.
pub const READ_BYTES: usize = 64 << 10;

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

/// The side that connects.
pub(super) fn connector(identity: &Identity) -> Result<TlsConnector, SecurityError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(&identity.trusted)?)
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key().into())?;
    config.resumption = Resumption::disabled();
    // All members have one name, which is no secret and says nothing.
    config.enable_sni = false;
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The side that is connected to.
pub(super) fn acceptor(
    identity: &Identity,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<TlsAcceptor, SecurityError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key().into())?;
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn roots(trusted: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, SecurityError> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.clone())?;
    }
    Ok(Arc::new(roots))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::Role;
    use super::super::secret::Secret;
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    /// What a member makes of a server with this identity.
    async fn met(server: &Identity, member: &Identity) -> Result<(), Doubt> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let acceptor = acceptor(server, verifier(&server.trusted).unwrap()).unwrap();
        tokio::spawn(async move {
            if let Ok(mut stream) = acceptor.accept(theirs).await {
                stream.write_all(b"welcome").await.unwrap();
                stream.flush().await.unwrap();
            }
        });
        let name = Role::Member.server_name().unwrap();
        let said = async {
            let mut stream = connector(member).unwrap().connect(name, ours).await?;
            stream.read_exact(&mut [0; 7]).await
        };
        said.await.map(drop).map_err(|error: io::Error| Doubt::of_io(&error).unwrap())
    }

    #[tokio::test]
    async fn only_a_member_of_the_cluster_can_be_a_server() {
        let (secret, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        let member = secret.mint(Role::Member, DAY).unwrap();
        assert_eq!(met(&secret.mint(Role::Member, DAY).unwrap(), &member).await, Ok(()));
        for role in [Role::Viewer, Role::Operator] {
            let leaked = secret.mint(role, DAY).unwrap();
            assert_eq!(met(&leaked, &member).await, Err(Doubt::NoMember), "{role}");
        }
        let stranger = other.mint(Role::Member, DAY).unwrap();
        assert_eq!(met(&stranger, &member).await, Err(Doubt::OtherCluster));
        let expired = secret.mint(Role::Member, Duration::ZERO).unwrap();
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert!(matches!(met(&expired, &member).await, Err(Doubt::Expired(_))));
    }
}
