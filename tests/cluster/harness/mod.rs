//! A cluster in a temporary directory: an introducer and members `m1` to `mN`, on free ports of this machine.

pub(crate) mod disk;
mod expected;
pub(crate) mod http;
mod jobs;
pub(crate) mod log_times;
mod metrics;
mod model_server;
mod model_server_calls;
mod process;
mod wait;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::client::cluster::{Cluster, ClusterError};
use idunno_shared::client::files::Files;
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::ids::NodeId;
use idunno_shared::names::FileName;
use idunno_shared::security::secret::Secret;
use idunno_shared::security::{Credentials, private_file};
use idunno_shared::wire::control::{
    ClusterView, ControlReply, ControlRequest, IdentityView, Liveness, LogRole, MemberView,
};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) use self::expected::{Expected, check_copies, content};
pub(crate) use self::jobs::{ResultRow, dataset, put_dataset, put_text};
pub(crate) use self::model_server::SlowServer;
pub(crate) use self::process::{Daemon, idunnod, python, run_to_end};

/// Limit for anything that should happen at once, generous for a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// A URL at which nothing answers.
const NO_MODEL_SERVER: &str = "http://127.0.0.1:9";
const SECRET: &str = "secret.pem";

static GATE: RwLock<()> = RwLock::const_new(());

/// Held by a test that loads the machine or measures time, so that it runs alone.
pub(crate) async fn heavy() -> RwLockWriteGuard<'static, ()> {
    GATE.write().await
}

/// Held by all other tests.
pub(crate) async fn light() -> RwLockReadGuard<'static, ()> {
    GATE.read().await
}

/// The cluster. Dropping it kills every process; after a failed test the directory stays.
pub(crate) struct LocalCluster {
    pub(crate) introducer: Daemon,
    pub(crate) members: Vec<Daemon>,
    /// Credentials of the test's clients.
    pub(crate) credentials: Credentials,
    /// What is mounted at data directories.
    pub(crate) disks: Vec<disk::Disk>,
    dir: Option<TempDir>,
}

impl LocalCluster {
    /// Starts an introducer and `members` members, and waits until they are one cluster.
    pub(crate) async fn start(members: usize, with_model_server: bool) -> Self {
        let cluster = Self::launch(members, with_model_server).await;
        cluster.ready().await;
        cluster
    }

    /// The same without model servers, and with further arguments for each member.
    pub(crate) async fn start_with(members: usize, further: &[&str]) -> Self {
        Self::start_each(members, |cluster, name, introducer| {
            cluster.new_member_with(name, introducer, further)
        })
        .await
    }

    /// The same, and all members' workers use one model server that is there already.
    pub(crate) async fn start_at(members: usize, server: &SlowServer) -> Self {
        Self::start_at_with(members, server, &[]).await
    }

    /// The same, with further arguments for each member.
    pub(crate) async fn start_at_with(members: usize, server: &SlowServer, further: &[&str]) -> Self {
        Self::start_at_url(members, &server.url(), further).await
    }

    /// The same, of any kind.
    pub(crate) async fn start_at_url(members: usize, url: &str, further: &[&str]) -> Self {
        let arguments = [&["--model-server-url", url], further].concat();
        Self::start_each(members, |cluster, name, introducer| cluster.daemon(name, introducer, &arguments))
            .await
    }

    /// The same, and each member's data directory is a disk of its own.
    pub(crate) async fn start_on_disks(members: usize, with_model_server: bool) -> Self {
        let mut cluster = Self::launch(0, false).await;
        let introducer = cluster.introducer.address();
        for number in 1..=members {
            let mut member = cluster.new_member(&format!("m{number}"), introducer, with_model_server);
            member.add_arguments(&["--disk-reserve-mib", "16"]);
            let image = cluster.path().join(format!("m{number}.image"));
            cluster.disks.push(disk::Disk::mount(image, member.data_dir.clone(), 768));
            cluster.members.push(member);
        }
        let all: Vec<usize> = (0..members).collect();
        cluster.restart(&all).await;
        cluster.ready().await;
        cluster
    }

    /// Members `m1` to `mN` with data that other processes left behind, packed in an archive: their folders, that of their
    /// introducer, and the secret. All members' workers use one model server that is there already.
    pub(crate) async fn start_from(archive: &Path, members: usize, server: &SlowServer) -> Self {
        let dir = tempfile::Builder::new().prefix("idunno-cluster-").tempdir().unwrap();
        let unpacked = Command::new("tar").arg("-xpzf").arg(archive).arg("-C").arg(dir.path()).status();
        assert!(unpacked.unwrap().success(), "{} cannot be unpacked", archive.display());
        let mut cluster = Self::launch_in(dir).await;
        let (introducer, url) = (cluster.introducer.address(), server.url());
        for number in 1..=members {
            let member = cluster.daemon(&format!("m{number}"), introducer, &["--model-server-url", &url]);
            cluster.members.push(member);
        }
        let all: Vec<usize> = (0..members).collect();
        cluster.restart(&all).await;
        cluster.ready().await;
        cluster
    }

    async fn start_each(members: usize, member: impl Fn(&Self, &str, SocketAddr) -> Daemon) -> Self {
        let mut cluster = Self::launch(0, false).await;
        let introducer = cluster.introducer.address();
        for number in 1..=members {
            let member = member(&cluster, &format!("m{number}"), introducer);
            cluster.members.push(member);
        }
        let all: Vec<usize> = (0..members).collect();
        cluster.restart(&all).await;
        cluster.ready().await;
        cluster
    }

    /// Starts the processes and waits until they listen, no longer.
    pub(crate) async fn launch(members: usize, with_model_server: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("idunno-cluster-").tempdir().unwrap();
        private_file::create(&dir.path().join(SECRET), &Secret::generate().unwrap().render()).unwrap();
        let mut cluster = Self::launch_in(dir).await;
        let introducer = cluster.introducer.address();
        for number in 1..=members {
            let member = cluster.new_member(&format!("m{number}"), introducer, with_model_server);
            cluster.members.push(member);
        }
        cluster.members.iter_mut().for_each(Daemon::spawn);
        for member in &mut cluster.members {
            member.started().await;
        }
        cluster
    }

    /// Starts the introducer of a cluster whose secret is in the directory.
    async fn launch_in(dir: TempDir) -> Self {
        let secret = dir.path().join(SECRET);
        let credentials = Credentials::load(&secret).unwrap();
        let arguments =
            vec![String::from("introducer"), String::from("--secret"), secret.display().to_string()];
        let introducer = Daemon::new("introducer", dir.path().join("introducer"), arguments, None);
        let (none, disks) = (Vec::new(), Vec::new());
        let mut cluster = Self { introducer, members: none, credentials, disks, dir: Some(dir) };
        cluster.introducer.spawn();
        cluster.introducer.started().await;
        cluster
    }

    /// A member that is not started yet, and not in the list of members.
    pub(crate) fn new_member(&self, name: &str, introducer: SocketAddr, with_model_server: bool) -> Daemon {
        if !with_model_server {
            return self.new_member_with(name, introducer, &[]);
        }
        let python = python().display().to_string();
        self.daemon(name, introducer, &["--model-server-python", &python, "--threads", "1"])
    }

    /// The same without a model server, and with further arguments.
    pub(crate) fn new_member_with(&self, name: &str, introducer: SocketAddr, further: &[&str]) -> Daemon {
        self.daemon(name, introducer, &[&["--model-server-url", NO_MODEL_SERVER], further].concat())
    }

    fn daemon(&self, name: &str, introducer: SocketAddr, further: &[&str]) -> Daemon {
        let (introducer, secret) = (introducer.to_string(), self.secret().display().to_string());
        let arguments = ["member", "--name", name, "--introducer", &introducer, "--secret", &secret]
            .into_iter()
            .chain(further.iter().copied());
        Daemon::new(name, self.path().join(name), arguments.map(String::from).collect(), None)
    }

    /// The directory of everything; `scratch` in it is the test's own.
    pub(crate) fn path(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    /// The file of the cluster's secret.
    pub(crate) fn secret(&self) -> PathBuf {
        self.path().join(SECRET)
    }

    /// The connector of the test's clients.
    pub(crate) fn door(&self) -> TcpConnector {
        TcpConnector::new(self.credentials.clone())
    }

    /// A path for a file of the test's own.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        let dir = self.path().join("scratch");
        std::fs::create_dir_all(&dir).unwrap();
        dir.join(name)
    }

    /// Addresses of all members, whether they are up or not.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().filter_map(|member| member.address).collect()
    }

    /// A client that knows all members.
    pub(crate) fn client(&self) -> Cluster {
        Cluster::new(Arc::new(self.door()), self.addresses())
    }

    /// The store.
    pub(crate) fn files(&self) -> Files {
        Files::new(self.client())
    }

    /// The id of member `index`.
    pub(crate) fn node(&self, index: usize) -> NodeId {
        NodeId(u64::from_str_radix(self.members[index].node.as_ref().unwrap(), 16).unwrap())
    }

    /// The member with this id.
    pub(crate) fn index_of(&self, node: NodeId) -> usize {
        (0..self.members.len()).find(|&index| self.node(index) == node).unwrap()
    }

    /// Indices of members whose process was started and not stopped by the test.
    pub(crate) fn up(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|&index| self.members[index].is_started()).collect()
    }

    /// The list of member `index`.
    pub(crate) async fn list_of(&self, index: usize) -> Result<Vec<MemberView>, String> {
        let reply = self.client().ask_member(self.members[index].address(), ControlRequest::Members).await;
        match reply {
            Ok(ControlReply::Members(members)) => Ok(members),
            other => Err(format!("{}: {other:?}", self.members[index].name)),
        }
    }

    /// What member `index` says of itself.
    pub(crate) async fn identity_of(&self, index: usize) -> Result<IdentityView, String> {
        let reply = self.client().ask_member(self.members[index].address(), ControlRequest::Identity).await;
        match reply {
            Ok(ControlReply::Identity(identity)) => Ok(identity),
            other => Err(format!("{}: {other:?}", self.members[index].name)),
        }
    }

    /// Waits until all members that are up list each other as alive, and none else, know the same coordinator, and
    /// vote (7 at most).
    pub(crate) async fn ready(&self) {
        self.ready_with(&self.up()).await;
    }

    /// The same for some members only.
    pub(crate) async fn ready_with(&self, members: &[usize]) {
        self.ready_within(members, SOON).await;
    }

    /// The same, and how long it may take.
    pub(crate) async fn ready_within(&self, members: &[usize], limit: Duration) {
        let wanted: BTreeSet<NodeId> = members.iter().map(|&index| self.node(index)).collect();
        let voters = members.len().min(7);
        self.eventually(&format!("{} members form a cluster", members.len()), limit, async || {
            let mut coordinators = BTreeSet::new();
            for &index in members {
                let list = self.list_of(index).await?;
                let name = &self.members[index].name;
                let alive: BTreeSet<NodeId> = with_liveness(&list, Liveness::Alive).collect();
                if alive != wanted {
                    return Err(format!("{name} lists {} of {} as alive", alive.len(), wanted.len()));
                }
                let roles = |role| list.iter().filter(move |member| member.role == role);
                let voting = roles(LogRole::Coordinator).chain(roles(LogRole::Voter));
                let voting = voting.filter(|member| wanted.contains(&member.id)).count();
                if voting != voters {
                    return Err(format!("{name} knows {voting} voters of {voters}"));
                }
                let coordinator: Vec<NodeId> = roles(LogRole::Coordinator).map(|member| member.id).collect();
                if coordinator.len() != 1 {
                    return Err(format!("{name} knows {} coordinators", coordinator.len()));
                }
                coordinators.extend(coordinator);
            }
            if coordinators.len() == 1 { Ok(()) } else { Err(format!("coordinators: {coordinators:?}")) }
        })
        .await;
    }

    /// The coordinator and its term, according to the coordinator itself.
    pub(crate) async fn coordinator(&self) -> (usize, u64) {
        self.eventually("a member coordinates", SOON, async || {
            let client = self.client().with_deadline(Duration::from_secs(2));
            match client.control(ControlRequest::Coordinator).await {
                Ok(ControlReply::Coordinator { coordinator, term }) => {
                    Ok((self.index_of(coordinator.node), term.0))
                }
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// The members that claim to coordinate at this moment, with their terms.
    pub(crate) async fn who_coordinates(&self, among: &[usize]) -> Vec<(usize, u64)> {
        let mut found = Vec::new();
        for &index in among {
            let reply =
                self.client().ask_member(self.members[index].address(), ControlRequest::Coordinator).await;
            if let Ok(ControlReply::Coordinator { term, .. }) = reply {
                found.push((index, term.0));
            }
        }
        found
    }

    /// Everything a console shows, once.
    pub(crate) async fn view(&self) -> Result<ClusterView, String> {
        // A client of its own, so that the watching ends with it.
        let client = self.client().with_deadline(Duration::from_secs(5));
        let mut views = client.watch().await.map_err(|error| error.to_string())?;
        let reply = views.recv().await.ok_or("the watched coordinator is gone")?;
        Cluster::view(reply).ok_or_else(|| String::from("a watcher got something else than a view"))
    }

    /// The metadata's revision.
    pub(crate) async fn revision(&self) -> u64 {
        self.eventually("the coordinator shows its view", SOON, async || self.view().await).await.revision
    }

    /// Kills members with SIGKILL in the same moment.
    pub(crate) fn kill(&mut self, members: &[usize]) {
        for &index in members {
            self.members[index].signal(Signal::KILL);
        }
        for &index in members {
            self.members[index].reap();
        }
    }

    /// Starts members again, with their data and at their addresses, and waits until they listen.
    pub(crate) async fn restart(&mut self, members: &[usize]) {
        for &index in members {
            self.members[index].spawn();
        }
        for &index in members {
            self.members[index].started().await;
        }
    }

    /// SIGTERM, and the exit code.
    pub(crate) async fn stop(&mut self, index: usize, limit: Duration) -> ExitStatus {
        self.members[index].signal(Signal::TERM);
        self.members[index].ended(limit).await
    }

    /// The last log lines of every daemon.
    pub(crate) fn log_tails(&self) -> String {
        let daemons = [&self.introducer].into_iter().chain(&self.members);
        daemons.map(Daemon::log_tail).collect()
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        // Kill all before waiting: a process that flushes to a busy disk ends only after the flush.
        self.members.iter().for_each(Daemon::kill);
        self.members.iter_mut().for_each(Daemon::reap);
        self.introducer.reap();
        self.disks.clear();
        if std::thread::panicking() {
            let dir = self.dir.take().unwrap().keep();
            eprintln!("the cluster's data and logs are kept in {0} ({0}/m1/logs, ...)", dir.display());
        }
    }
}

/// Ids of the members in this state.
pub(crate) fn with_liveness(list: &[MemberView], liveness: Liveness) -> impl Iterator<Item = NodeId> {
    list.iter().filter(move |member| member.liveness == liveness).map(|member| member.id)
}

/// A checked file name.
pub(crate) fn name(text: &str) -> FileName {
    text.parse().unwrap()
}

/// The refusal in an error, or the test fails.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, ClusterError>) -> Refusal {
    match result {
        Err(ClusterError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// Checks what kind of refusal it is, and that its message names the thing.
pub(crate) fn assert_refused<T: std::fmt::Debug>(
    result: Result<T, ClusterError>,
    code: &RefusalCode,
    named: &str,
) {
    let refusal = refusal(result);
    assert_eq!(refusal.code, *code, "{refusal}");
    assert!(refusal.message.contains(named), "{named:?} is not in {:?}", refusal.message);
}
