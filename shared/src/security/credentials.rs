//! Credentials of a process: what its connections and datagrams are authenticated with.
//!
//! Transports ask for them at each connection, so a certificate is renewed before it expires and a replaced secret takes
//! effect at once.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tracing::warn;

use super::datagrams::DatagramKey;
use super::identity::Identity;
use super::secret::Secret;
use super::webhook_key::WebhookKey;
use super::{Role, SecurityError, private_file, subject, tls, trust};
use crate::access::{Grant, Issued, SubjectName};
use crate::ids::Digest;
use crate::injected_faults::wall_clock;

/// Validity of the certificate that a process issues to itself. It is renewed after half of that.
const PROCESS_VALID: Duration = Duration::from_secs(30 * 24 * 3_600);
/// By so much a clock may be set back before a certificate is renewed. Shorter than certificates are backdated, so that none
/// is used that is not valid yet.
const SET_BACK_MAX: Duration = Duration::from_secs(3_600);
/// How often the certificate of a connected console is verified again.
const CHECK_PERIOD: Duration = Duration::from_secs(60);

/// Who this process is, and whom it trusts. Clones are cheap and share their state.
#[derive(Clone)]
pub struct Credentials {
    /// `None` for `--insecure`, which works on loopback only.
    inner: Option<Arc<Inner>>,
}

struct Inner {
    role: Role,
    /// What an identity grants, and when it ends; `None` for what is issued from the secret.
    issued: Option<Issued>,
    state: RwLock<State>,
    changed: watch::Sender<()>,
}

struct State {
    /// What new certificates are issued from; `None` for an identity, which cannot be renewed.
    secret: Option<Secret>,
    current: Arc<Current>,
    /// When the certificate was issued, by this machine's clock of that moment.
    issued_at: SystemTime,
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
    fn issue(secret: Secret, role: Role) -> Result<Self, SecurityError> {
        let Certified { current, issued_at } = Certified::issue(&secret, role)?;
        Ok(Self { secret: Some(secret), current, issued_at })
    }

    /// Whether to renew the certificate: it is half-way through its time, or the clock has been set back to before it was
    /// issued, so that all others would refuse it.
    fn is_due(&self, now: SystemTime) -> bool {
        let is_fresh = match now.duration_since(self.issued_at) {
            Ok(age) => age < PROCESS_VALID / 2,
            Err(ahead) => ahead.duration() < SET_BACK_MAX,
        };
        self.secret.is_some() && !is_fresh
    }
}

/// A certificate just issued.
struct Certified {
    current: Arc<Current>,
    issued_at: SystemTime,
}

impl Certified {
    fn issue(secret: &Secret, role: Role) -> Result<Self, SecurityError> {
        let issued_at = wall_clock();
        let identity = match role {
            Role::Member => secret.mint(role, PROCESS_VALID)?,
            Role::Operator | Role::Submitter | Role::Viewer => secret.mint_own(role, PROCESS_VALID)?,
        };
        let keys = if role == Role::Member { secret.datagram_keys()? } else { Vec::new() };
        Ok(Self { current: Current::of(&identity, keys)?, issued_at })
    }
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
    /// Credentials that prove nothing and trust everybody.
    pub const fn insecure() -> Self {
        Self { inner: None }
    }

    /// Credentials of a daemon: a member or the introducer.
    pub fn of_member(secret: Secret) -> Result<Self, SecurityError> {
        Self::issuing(secret, Role::Member)
    }

    /// Credentials of an operator who has the secret itself.
    pub fn of_operator(secret: Secret) -> Result<Self, SecurityError> {
        Self::issuing(secret, Role::Operator)
    }

    /// Credentials of a person or program with an identity.
    pub fn of(identity: &Identity) -> Result<Self, SecurityError> {
        let current = Current::of(identity, Vec::new())?;
        let issued = issued(&*current.verifier, &identity.certificate);
        let state = State { secret: None, current, issued_at: wall_clock() };
        Ok(Self::with(identity.role, issued, state))
    }

    /// Credentials of a person or program, from a file that holds an identity or the secret.
    pub fn load(path: &Path) -> Result<Self, SecurityError> {
        let is_secret = Secret::parse(&private_file::read(path)?).is_ok();
        if is_secret { Self::of_operator(Secret::load(path)?) } else { Self::of(&Identity::load(path)?) }
    }

    fn issuing(secret: Secret, role: Role) -> Result<Self, SecurityError> {
        Ok(Self::with(role, None, State::issue(secret, role)?))
    }

    fn with(role: Role, issued: Option<Issued>, state: State) -> Self {
        let changed = watch::channel(()).0;
        Self { inner: Some(Arc::new(Inner { role, issued, state: RwLock::new(state), changed })) }
    }

    /// Whether connections and datagrams are authenticated.
    pub const fn is_secure(&self) -> bool {
        self.inner.is_some()
    }

    /// The role of these credentials. Without security everybody is an operator.
    pub fn role(&self) -> Role {
        self.inner.as_ref().map_or(Role::Operator, |inner| inner.role)
    }

    /// What these credentials grant; `None` without security.
    pub fn grant(&self) -> Option<Grant> {
        let inner = self.inner.as_ref()?;
        let issued = inner.issued.as_ref().map(|issued| issued.grant.clone());
        let own = || Grant { name: SubjectName::of_secret(), role: inner.role, prefixes: Vec::new() };
        Some(issued.unwrap_or_else(own))
    }

    /// When the identity ends, in milliseconds since the epoch; `None` for what is issued from the secret, and renewed.
    pub fn ends_ms(&self) -> Option<u64> {
        self.inner.as_ref()?.issued.as_ref().map(|issued| issued.ends_ms)
    }

    /// What a peer's certificate grants; `None` if it is not trusted, or IDunno did not issue it.
    pub fn issued(&self, peer: &CertificateDer<'_>) -> Option<Issued> {
        issued(&*self.current()?.verifier, peer)
    }

    /// Continues with another secret; used when the file has changed. Does nothing to insecure credentials.
    pub fn replace(&self, secret: Secret) -> Result<(), SecurityError> {
        let Some(inner) = &self.inner else { return Ok(()) };
        let state = State::issue(secret, inner.role)?;
        *inner.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        inner.changed.send_replace(());
        Ok(())
    }

    /// The TLS client, and the server name that the peer's certificate must bear. `None` without security.
    pub fn connector(&self) -> Option<(TlsConnector, ServerName<'static>)> {
        let name = Role::Member.server_name()?;
        self.current().map(|current| (current.connector.clone(), name))
    }

    /// The TLS server. Only daemons have one.
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        self.current().and_then(|current| current.acceptor.clone())
    }

    pub(super) fn datagram_keys(&self) -> Arc<[DatagramKey]> {
        self.current().map(|current| Arc::clone(&current.datagram_keys)).unwrap_or_default()
    }

    /// The keys that sign webhooks, the newest first; none without the cluster's secret.
    pub fn webhook_keys(&self) -> Vec<WebhookKey> {
        let Some(inner) = &self.inner else { return Vec::new() };
        let state = inner.state.read().unwrap_or_else(PoisonError::into_inner);
        state.secret.as_ref().map(Secret::webhook_keys).unwrap_or_default()
    }

    /// Returns once the peer of an open connection is no longer trusted: its authority was dropped, or its certificate has
    /// expired. A member's connection may outlive the member's certificate, a console's may not.
    pub async fn distrusts(&self, peer: &CertificateDer<'_>, role: Role) {
        let Some(inner) = &self.inner else { return std::future::pending().await };
        let accepted_at = trust::unix_time();
        let mut changes = inner.changed.subscribe();
        loop {
            tokio::select! {
                // The sender lives as long as `self`.
                _ = changes.changed() => {}
                () = tokio::time::sleep(CHECK_PERIOD) => {}
            }
            let at = if role == Role::Member { accepted_at } else { trust::unix_time() };
            let is_trusted = self
                .current()
                .is_some_and(|current| current.verifier.verify_client_cert(peer, &[], at).is_ok());
            if !is_trusted {
                return;
            }
        }
    }

    fn current(&self) -> Option<Arc<Current>> {
        let inner = self.inner.as_ref()?;
        let (current, is_due) = {
            let state = inner.state.read().unwrap_or_else(PoisonError::into_inner);
            (Arc::clone(&state.current), state.is_due(wall_clock()))
        };
        Some(if is_due { renew(inner) } else { current })
    }
}

fn issued(verifier: &dyn ClientCertVerifier, certificate: &CertificateDer<'_>) -> Option<Issued> {
    let grant = subject::grant(certificate)?;
    let ends_ms = trust::ends_s(verifier, certificate)?.saturating_mul(1_000);
    Some(Issued { certificate: Digest::of(certificate), grant, ends_ms })
}

/// Issues a new certificate from the same secret; keeps the old one if that fails.
fn renew(inner: &Inner) -> Arc<Current> {
    let mut state = inner.state.write().unwrap_or_else(PoisonError::into_inner);
    // Another thread may have renewed it already.
    if state.is_due(wall_clock())
        && let Some(issued) = state.secret.as_ref().map(|secret| Certified::issue(secret, inner.role))
    {
        match issued {
            Ok(Certified { current, issued_at }) => {
                if issued_at < state.issued_at {
                    warn!("the clock was set back: this process has issued itself a new certificate");
                }
                state.current = current;
                state.issued_at = issued_at;
            }
            Err(error) => warn!(%error, "cannot renew this process's certificate"),
        }
    }
    Arc::clone(&state.current)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Prefix;

    #[test]
    fn a_certificate_is_renewed_long_before_it_expires() {
        let credentials = Credentials::of_member(Secret::generate().unwrap()).unwrap();
        let first = credentials.current().unwrap();
        assert!(Arc::ptr_eq(&first, &credentials.current().unwrap()));
        let inner = credentials.inner.as_ref().unwrap();
        inner.state.write().unwrap().issued_at = SystemTime::now() - PROCESS_VALID / 2;
        assert!(!Arc::ptr_eq(&first, &credentials.current().unwrap()));
        assert!(!inner.state.read().unwrap().is_due(SystemTime::now() + PROCESS_VALID / 3));
    }

    #[test]
    fn a_certificate_that_was_issued_by_a_clock_in_the_future_is_renewed_once_the_clock_is_right() {
        let credentials = Credentials::of_member(Secret::generate().unwrap()).unwrap();
        let (inner, first) = (credentials.inner.as_ref().unwrap(), credentials.current().unwrap());
        for days in [1, 3, 400] {
            let future = SystemTime::now() + Duration::from_secs(days * 24 * 3_600);
            inner.state.write().unwrap().issued_at = future;
            assert!(!inner.state.read().unwrap().is_due(future), "it is right by that clock");
            assert!(!Arc::ptr_eq(&first, &credentials.current().unwrap()), "{days} days ahead");
            assert!(inner.state.read().unwrap().issued_at < future);
        }
        inner.state.write().unwrap().issued_at = SystemTime::now() + Duration::from_secs(2);
        let again = credentials.current().unwrap();
        assert!(
            Arc::ptr_eq(&again, &credentials.current().unwrap()),
            "a clock that NTP corrects costs nothing"
        );
    }

    #[test]
    fn an_identity_says_what_it_grants_and_when_it_ends() {
        let (secret, day) = (Secret::generate().unwrap(), Duration::from_secs(24 * 3_600));
        let name: SubjectName = "anna".parse().unwrap();
        let grant = Grant { role: Role::Submitter, prefixes: vec![Prefix::of_home(&name)], name };
        let credentials = Credentials::of(&secret.mint_lasting(&grant, 90 * day).unwrap()).unwrap();
        assert_eq!(credentials.grant(), Some(grant));
        let ends = SystemTime::UNIX_EPOCH + Duration::from_millis(credentials.ends_ms().unwrap());
        let left = ends.duration_since(SystemTime::now()).unwrap();
        assert!(left <= 90 * day && left > 89 * day, "{left:?}");
        let holder = Credentials::of_operator(secret).unwrap();
        assert!(holder.grant().unwrap().name.is_of_secret() && holder.ends_ms().is_none());
    }

    #[test]
    fn only_daemons_accept_connections() {
        let secret = || Secret::generate().unwrap();
        let identity = secret().mint(Role::Viewer, PROCESS_VALID).unwrap();
        assert!(Credentials::of(&identity).unwrap().acceptor().is_none());
        assert!(Credentials::of_operator(secret()).unwrap().acceptor().is_none());
        assert!(Credentials::of_member(secret()).unwrap().acceptor().is_some());
        assert!(Credentials::insecure().connector().is_none());
    }
}
