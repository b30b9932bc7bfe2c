//! What a command works with: the cluster, its limits, and where it tells how far it is.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use idunno_shared::client::cluster::{Cluster, DEADLINE_DEFAULT};
use idunno_shared::client::files::{Files, Progress};
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::security::{Credentials, Role, SecurityError};

use crate::answer::{Exit, Failure};
use crate::command::Global;
use crate::command::values::MemberRef;
use crate::local::record::Record;

/// The port of a member where nothing else is said.
const MEMBER_PORT: u16 = 7401;

/// Where a long command tells how far it is.
pub trait Reporter: Send + Sync {
    /// Something begins, of so many files or bytes; without either its size is not known, or not yet. The old display
    /// ends when its `Progress` is dropped.
    fn start(&self, label: &str, files: u64, bytes: u64) -> Box<dyn Progress>;
}

/// What commands work with. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    cluster: Arc<Mutex<(Place, Cluster)>>,
    given: Vec<SocketAddr>,
    /// The identity that was named.
    identity: Option<PathBuf>,
    /// What it lets one do.
    pub role: Role,
    /// The local cluster's directory.
    pub dir: PathBuf,
    /// The member that commands mean where none is named.
    pub own_member: Option<MemberRef>,
    /// Whether nothing may be changed.
    pub read_only: bool,
    /// Whether commands only say what they would change.
    pub dry_run: bool,
    /// The limit that was asked for.
    pub timeout: Option<Duration>,
    /// Where to tell how far it is.
    pub reporter: Arc<dyn Reporter>,
}

impl Session {
    /// A session as the command line says; refused if the local cluster's file is damaged.
    pub fn new(global: &Global, reporter: Arc<dyn Reporter>) -> Result<Self, Failure> {
        let timeout = global.timeout.map(Duration::from_secs);
        let identity = global.identity.clone().or_else(|| global.context_identity.clone());
        let place = Place::find(&global.cluster.0, &global.dir, identity.as_deref())?;
        let (cluster, role) = connect(&place, timeout)?;
        Ok(Self {
            cluster: Arc::new(Mutex::new((place, cluster))),
            given: global.cluster.0.clone(),
            identity,
            role,
            dir: global.dir.clone(),
            own_member: global.context_member.clone(),
            read_only: global.read_only || role == Role::Viewer,
            dry_run: global.dry_run,
            timeout,
            reporter,
        })
    }

    /// The same session, telling elsewhere how far it is.
    #[must_use]
    pub fn reporting(&self, reporter: Arc<dyn Reporter>) -> Self {
        Self { reporter, ..self.clone() }
    }

    /// The cluster.
    pub fn cluster(&self) -> Cluster {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// The cluster's files, over connections of their own.
    pub fn files(&self) -> Files {
        let files = Files::new(self.cluster());
        match self.timeout {
            Some(limit) => files.patience(limit),
            None => files,
        }
    }

    /// Whether it is the cluster of a directory on this machine.
    pub fn is_local(&self) -> bool {
        self.given.is_empty()
    }

    /// The member that `join` and `leave` mean where none is named, if it can be no other: this session's own, else the
    /// one at the only address that was given.
    pub fn default_member(&self) -> Option<MemberRef> {
        let only = || if let [only] = self.given[..] { Some(MemberRef::Address(only)) } else { None };
        self.own_member.clone().or_else(only)
    }

    /// Looks again where the cluster is: a local one may have started, or have got other addresses. What was learned
    /// of the old one is kept as long as the place is the same, or the local cluster's files cannot be read.
    pub fn refresh(&self) {
        let Ok(place) = Place::find(&self.given, &self.dir, self.identity.as_deref()) else { return };
        let mut current = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 != place
            && let Ok((cluster, _)) = connect(&place, self.timeout)
        {
            *current = (place, cluster);
        }
    }

    /// What the cluster is called on screen.
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

fn connect(place: &Place, timeout: Option<Duration>) -> Result<(Cluster, Role), Failure> {
    let refused = |error: SecurityError| Failure::new(Exit::Refused, error.to_string());
    let credentials = match &place.identity {
        Some(path) => Credentials::load(path).map_err(refused)?,
        None => Credentials::insecure(),
    };
    let role = credentials.role();
    let cluster = Cluster::new(Arc::new(TcpConnector::new(credentials)), place.seeds.clone());
    Ok((cluster.with_deadline(timeout.unwrap_or(DEADLINE_DEFAULT)), role))
}

/// Where the cluster is, and as whom one goes there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    seeds: Vec<SocketAddr>,
    identity: Option<PathBuf>,
}

impl Place {
    fn find(given: &[SocketAddr], dir: &Path, identity: Option<&Path>) -> Result<Self, Failure> {
        let local = match Record::load(dir) {
            // A local cluster that nobody asked for is nobody's concern.
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
