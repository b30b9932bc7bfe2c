//! TLS for connections: version 1.3 only, with certificates on both sides.
//!
//! Sessions are never resumed: a resumed session would outlive its certificate, and a full handshake takes less than a
//! millisecond.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::SecurityError;
use super::identity::Identity;
use super::trust::{WallClock, provider, roots};

/// Size of a socket read, in bytes. Left alone, rustls reads 4 KiB at a time, a quarter of a record, and the system calls
/// would cost more than the decryption.
pub const READ_BYTES: usize = 64 << 10;

/// Most bytes that are encrypted for one socket write. Left alone, rustls takes 64 KiB, and waking the reader so often costs
/// more than the encryption.
pub const WRITE_BYTES: usize = 256 << 10;

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

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::Role;
    use super::super::secret::Secret;
    use super::super::trust::{TrustError, verifier};
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
