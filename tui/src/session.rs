//! The session of a command: the cluster it talks to, its time limit, and how it reports progress.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use idunno_shared::access::Grant;
use idunno_shared::client::cluster::Cluster;
use idunno_shared::client::files::{Files, Progress};
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::security::{Credentials, Role, SecurityError};

use crate::answer::{Exit, Failure};
use crate::command::Global;
use crate::command::values::MemberRef;
use crate::local::record::Record;

/// A member's default port.
const MEMBER_PORT: u16 = 7401;

/// Reports the progress of long commands.
pub trait Reporter: Send + Sync {
    /// Starts reporting work of so many files or bytes; if both are 0 the size is not known yet. The report ends when the
    /// returned `Progress` is dropped.
    fn start(&self, label: &str, files: u64, bytes: u64) -> Box<dyn Progress>;
}

/// The context in which commands run. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    cluster: Arc<Mutex<(Endpoint, Cluster)>>,
    given: Vec<SocketAddr>,
    /// The identity file given by the user.
    identity: Option<PathBuf>,
    /// The role that the identity grants.
    pub role: Role,
    /// What the identity grants to whom; `None` without security.
    pub grant: Option<Grant>,
    /// When the identity ends, in milliseconds since the epoch, if it does.
    pub ends_ms: Option<u64>,
    /// The local cluster's directory.
    pub dir: PathBuf,
    /// The member that commands act on if none is named.
    pub own_member: Option<MemberRef>,
    pub read_only: bool,
    /// Whether commands only show what they would change.
    pub dry_run: bool,
    /// The time limit given by the user.
    pub timeout: Option<Duration>,
    pub reporter: Arc<dyn Reporter>,
}

impl Session {
    /// Opens a session as configured. Fails if the local cluster's file is damaged.
    pub fn new(global: &Global, reporter: Arc<dyn Reporter>) -> Result<Self, Failure> {
        let timeout = global.timeout.map(Duration::from_secs);
        let identity = global.identity.clone().or_else(|| global.context_identity.clone());
        let endpoint = Endpoint::find(&global.cluster.0, &global.dir, identity.as_deref())?;
        let (cluster, credentials) = connect(&endpoint, timeout)?;
        let role = credentials.role();
        Ok(Self {
            cluster: Arc::new(Mutex::new((endpoint, cluster))),
            given: global.cluster.0.clone(),
            identity,
            role,
            grant: credentials.grant(),
            ends_ms: credentials.ends_ms(),
            dir: global.dir.clone(),
            own_member: global.own_member.clone(),
            read_only: global.read_only || role == Role::Viewer,
            dry_run: global.dry_run,
            timeout,
            reporter,
        })
    }

    /// The same session with another progress reporter.
    #[must_use]
    pub fn reporting(&self, reporter: Arc<dyn Reporter>) -> Self {
        Self { reporter, ..self.clone() }
    }

    pub fn cluster(&self) -> Cluster {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// The cluster's files, over separate connections.
    pub fn files(&self) -> Files {
        let files = Files::new(self.cluster());
        match self.timeout {
            Some(limit) => files.patience(limit).put_limit(limit),
            None => files,
        }
    }

    /// Whether the cluster is a local one, found by its directory.
    pub fn is_local(&self) -> bool {
        self.given.is_empty()
    }

    /// The member that `join` and `leave` act on if none is named: this session's own, or the one at the only address given.
    pub fn default_member(&self) -> Option<MemberRef> {
        let only = || if let [only] = self.given[..] { Some(MemberRef::Address(only)) } else { None };
        self.own_member.clone().or_else(only)
    }

    /// Locates the cluster again: a local one may have started or have new addresses. The client is kept while the endpoint
    /// is unchanged or the local cluster's file cannot be read.
    pub fn refresh(&self) {
        let Ok(endpoint) = Endpoint::find(&self.given, &self.dir, self.identity.as_deref()) else { return };
        let mut current = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 != endpoint
            && let Ok((cluster, _)) = connect(&endpoint, self.timeout)
        {
            *current = (endpoint, cluster);
        }
    }

    /// The cluster's name on the screen.
    pub fn label(&self) -> String {
        let path = self.dir.display();
        match self.given.as_slice() {
            [] if Record::exists(&self.dir) => format!("local {path}"),
            [] => format!("127.0.0.1:{MEMBER_PORT}"),
            [one] => one.to_string(),
            [first, rest @ ..] => format!("{first} +{}", rest.len()),
        }
    }
}

fn connect(endpoint: &Endpoint, timeout: Option<Duration>) -> Result<(Cluster, Credentials), Failure> {
    let refused = |error: SecurityError| Failure::new(Exit::Refused, error.to_string());
    let credentials = match &endpoint.identity {
        Some(path) => Credentials::load(path).map_err(refused)?,
        None => Credentials::insecure(),
    };
    let connector = TcpConnector::new(credentials.clone());
    let cluster = Cluster::new(Arc::new(connector), endpoint.seeds.clone());
    let cluster = match timeout {
        Some(limit) => cluster.with_deadline(limit),
        None => cluster,
    };
    Ok((cluster, credentials))
}

/// Where the cluster is, and the identity to connect with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint {
    seeds: Vec<SocketAddr>,
    identity: Option<PathBuf>,
}

impl Endpoint {
    fn find(given: &[SocketAddr], dir: &Path, identity: Option<&Path>) -> Result<Self, Failure> {
        let local = match Record::load(dir) {
            // Errors of a local cluster that was not asked for do not matter.
            Err(_) if !given.is_empty() => None,
            loaded => loaded?,
        };
        let known = local.as_ref().map(Record::addresses).unwrap_or_default();
        let is_local = given.iter().all(|address| known.contains(address));
        let secret =
            local.and_then(|record| record.secret(dir)).filter(|secret| is_local && secret.is_file());
        let seeds = match (given, &known[..]) {
            ([], []) => vec![SocketAddr::from((Ipv4Addr::LOCALHOST, MEMBER_PORT))],
            ([], known) => known.to_vec(),
            (given, _) => given.to_vec(),
        };
        Ok(Self { seeds, identity: identity.map(Path::to_owned).or(secret) })
    }
}
