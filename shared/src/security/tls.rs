//! TLS as the doors speak it: version 1.3 alone, both sides with a certificate of the cluster's authorities.
//!
//! No session is resumed: a resumed one would outlive its certificate, and a handshake costs less than a millisecond.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::SecurityError;
use super::identity::Identity;
use super::trust::{provider, roots};

/// How much is read from a socket at once. The library itself takes 4 KiB at a time, a quarter of a record: a read of the
/// system for each would cost more than the decryption.
pub const READ_BYTES: usize = 64 << 10;

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

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::Role;
    use super::super::secret::Secret;
    use super::super::trust::{Doubt, verifier};
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
