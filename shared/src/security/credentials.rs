//! What the doors of a process prove themselves with. They ask at each connection, so that a certificate is made anew
//! before it expires, and another secret counts at once.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tracing::warn;

use super::datagrams::DatagramKey;
use super::identity::Identity;
use super::secret::Secret;
use super::{Role, SecurityError, private_file, tls, trust};

/// How long the certificate of a process is valid. It is replaced when half of that is over.
const PROCESS_VALID: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How often it is looked whether a console's certificate still counts.
const CHECK_PERIOD: Duration = Duration::from_secs(60);

/// Proof of who this process is, and whom it believes. Cheap to clone; all clones change together.
#[derive(Clone)]
pub struct Credentials {
    /// None where nothing is proven: on loopback, by request.
    inner: Option<Arc<Inner>>,
}

struct Inner {
    role: Role,
    state: RwLock<State>,
    changed: watch::Sender<()>,
}

struct State {
    /// What new certificates are made from; a person's identity has nothing of the kind.
    secret: Option<Secret>,
    current: Arc<Current>,
    renew_at: SystemTime,
}

struct Current {
    connector: TlsConnector,
    acceptor: Option<TlsAcceptor>,
    verifier: Arc<dyn ClientCertVerifier>,
    datagram_keys: Arc<[DatagramKey]>,
}

impl Current {
    fn of(identity: &Identity, datagram_keys: Vec<DatagramKey>) -> Result<Arc<Self>, SecurityError> {
        let verifier = trust::verifier(&identity.trusted)?;
        let is_server = identity.role == Role::Member;
        let acceptor = is_server.then(|| tls::acceptor(identity, Arc::clone(&verifier))).transpose()?;
        let connector = tls::connector(identity)?;
        Ok(Arc::new(Self { connector, acceptor, verifier, datagram_keys: datagram_keys.into() }))
    }
}

impl State {
    fn mint(secret: Secret, role: Role) -> Result<Self, SecurityError> {
        let (current, renew_at) = mint(&secret, role)?;
        Ok(Self { secret: Some(secret), current, renew_at })
    }
}

/// A process' new certificate, and when it wants another.
fn mint(secret: &Secret, role: Role) -> Result<(Arc<Current>, SystemTime), SecurityError> {
    let identity = match role {
        Role::Member => secret.mint(role, PROCESS_VALID)?,
        Role::Operator | Role::Viewer => secret.mint_own(role, PROCESS_VALID)?,
    };
    let keys = if role == Role::Member { secret.datagram_keys()? } else { Vec::new() };
    Ok((Current::of(&identity, keys)?, SystemTime::now() + PROCESS_VALID / 2))
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner {
            Some(inner) => write!(formatter, "Credentials({})", inner.role),
            None => formatter.write_str("Credentials(insecure)"),
        }
    }
}

impl Credentials {
    /// Of a process that proves nothing and believes everybody.
    pub const fn insecure() -> Self {
        Self { inner: None }
    }

    /// Of a member, or of the introducer.
    pub fn of_member(secret: Secret) -> Result<Self, SecurityError> {
        Self::minting(secret, Role::Member)
    }

    /// Of a person who has the secret itself.
    pub fn of_operator(secret: Secret) -> Result<Self, SecurityError> {
        Self::minting(secret, Role::Operator)
    }

    /// Of a person.
    pub fn of(identity: &Identity) -> Result<Self, SecurityError> {
        let state =
            State { secret: None, current: Current::of(identity, Vec::new())?, renew_at: SystemTime::now() };
        Ok(Self::with(identity.role, state))
    }

    /// Of a person, from the file of an identity or of the secret.
    pub fn load(path: &Path) -> Result<Self, SecurityError> {
        let is_secret = Secret::parse(&private_file::read(path)?).is_ok();
        if is_secret { Self::of_operator(Secret::load(path)?) } else { Self::of(&Identity::load(path)?) }
    }

    fn minting(secret: Secret, role: Role) -> Result<Self, SecurityError> {
        Ok(Self::with(role, State::mint(secret, role)?))
    }

    fn with(role: Role, state: State) -> Self {
        let changed = watch::channel(()).0;
        Self { inner: Some(Arc::new(Inner { role, state: RwLock::new(state), changed })) }
    }

    /// Whether anything is proven.
    pub const fn is_secure(&self) -> bool {
        self.inner.is_some()
    }

    /// What the holder may be. Where nothing is proven people may do everything.
    pub fn role(&self) -> Role {
        self.inner.as_ref().map_or(Role::Operator, |inner| inner.role)
    }

    /// Goes on with another secret, as when the file has changed.
    pub fn replace(&self, secret: Secret) -> Result<(), SecurityError> {
        let Some(inner) = &self.inner else { return Ok(()) };
        let state = State::mint(secret, inner.role)?;
        *inner.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        inner.changed.send_replace(());
        Ok(())
    }

    /// What connections are opened with, and the name that the other side must have.
    pub fn connector(&self) -> Option<(TlsConnector, ServerName<'static>)> {
        let name = Role::Member.server_name()?;
        self.current().map(|current| (current.connector.clone(), name))
    }

    /// What connections are accepted with; members have it only.
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        self.current().and_then(|current| current.acceptor.clone())
    }

    pub(super) fn datagram_keys(&self) -> Arc<[DatagramKey]> {
        self.current().map(|current| Arc::clone(&current.datagram_keys)).unwrap_or_default()
    }

    /// Returns when a peer that was believed is believed no more: its authority was dropped or, as a member's connection
    /// may outlive its certificate and a console's may not, its time is over.
    pub async fn distrusts(&self, peer: &CertificateDer<'_>, role: Role) {
        let Some(inner) = &self.inner else { return std::future::pending().await };
        let (accepted_at, mut changes) = (UnixTime::now(), inner.changed.subscribe());
        loop {
            tokio::select! {
                // The sender lives as long as `self`.
                _ = changes.changed() => {}
                () = tokio::time::sleep(CHECK_PERIOD) => {}
            }
            let at = if role == Role::Member { accepted_at } else { UnixTime::now() };
            let is_believed = self
                .current()
                .is_some_and(|current| current.verifier.verify_client_cert(peer, &[], at).is_ok());
            if !is_believed {
                return;
            }
        }
    }

    fn current(&self) -> Option<Arc<Current>> {
        let inner = self.inner.as_ref()?;
        let (current, is_due) = {
            let state = inner.state.read().unwrap_or_else(PoisonError::into_inner);
            let is_due = state.secret.is_some() && SystemTime::now() >= state.renew_at;
            (Arc::clone(&state.current), is_due)
        };
        Some(if is_due { renew(inner) } else { current })
    }
}

/// A new certificate from the same secret; the old one, should that fail.
fn renew(inner: &Inner) -> Arc<Current> {
    let mut state = inner.state.write().unwrap_or_else(PoisonError::into_inner);
    // Another caller may have been first.
    if SystemTime::now() >= state.renew_at
        && let Some(minted) = state.secret.as_ref().map(|secret| mint(secret, inner.role))
    {
        match minted {
            Ok((current, renew_at)) => (state.current, state.renew_at) = (current, renew_at),
            Err(error) => warn!(%error, "this process' certificate is not replaced"),
        }
    }
    Arc::clone(&state.current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_replaced_long_before_it_expires() {
        let credentials = Credentials::of_member(Secret::generate().unwrap()).unwrap();
        let first = credentials.current().unwrap();
        assert!(Arc::ptr_eq(&first, &credentials.current().unwrap()));
        let inner = credentials.inner.as_ref().unwrap();
        inner.state.write().unwrap().renew_at = SystemTime::now();
        assert!(!Arc::ptr_eq(&first, &credentials.current().unwrap()));
        assert!(inner.state.read().unwrap().renew_at > SystemTime::now() + PROCESS_VALID / 3);
    }

    #[test]
    fn only_members_can_accept_connections() {
        let secret = || Secret::generate().unwrap();
        let identity = secret().mint(Role::Viewer, PROCESS_VALID).unwrap();
        assert!(Credentials::of(&identity).unwrap().acceptor().is_none());
        assert!(Credentials::of_operator(secret()).unwrap().acceptor().is_none());
        assert!(Credentials::of_member(secret()).unwrap().acceptor().is_some());
        assert!(Credentials::insecure().connector().is_none());
    }
}
