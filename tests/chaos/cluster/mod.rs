//! The cluster under test: its processes, their disks and links, and the faults injected into them.

pub(crate) mod daemon;
pub(crate) mod logs;
pub(crate) mod views;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use idunno_shared::ids::NodeId;
use idunno_shared::security::secret::Secret;
use idunno_shared::security::{Credentials, private_file};
use rustix::process::Signal;

use self::daemon::{Daemon, DaemonSpec};
use crate::check::Violation;
use crate::check::terms::Claim;
use crate::sandbox::disk::Disk;
use crate::sandbox::links::{Broken, Endpoint};
use crate::sandbox::network::Network;

/// What a cluster is built from.
pub(crate) struct Parts {
    pub(crate) members: usize,
    pub(crate) idunnod: PathBuf,
    pub(crate) python: PathBuf,
    /// Where everything is kept.
    pub(crate) dir: PathBuf,
}

/// How long a member may take to end after its disk was freed: it drains its worker and leaves the cluster first.
const ENDING_LIMIT: Duration = Duration::from_secs(40);

/// The state of a member's disk, which decides whether the member may end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DiskState {
    Normal,
    /// The disk is full: the member may end.
    Full,
    /// The disk was full until then: the member may still end.
    FreedAt(Instant),
}

/// One member.
pub(crate) struct Member {
    pub(crate) daemon: Daemon,
    /// Of its own, where file systems can be mounted.
    disk: Option<Disk>,
    disk_state: DiskState,
    /// Counted from 1; a wiped member begins another.
    life: u32,
    pub(crate) node: Option<NodeId>,
}

impl Member {
    /// Its name, and which of its lives this is.
    pub(crate) fn who(&self) -> String {
        match self.life {
            1 => self.daemon.name.clone(),
            life => format!("{} (life {life})", self.daemon.name),
        }
    }
}

/// The whole cluster. Dropping it kills every process.
pub(crate) struct World {
    pub(crate) members: Vec<Member>,
    introducer: Daemon,
    network: Option<Network>,
    /// What its clients prove themselves with.
    pub(crate) credentials: Credentials,
    dir: PathBuf,
    /// Claims from logs, including the logs of members that were wiped since.
    pub(crate) claims: BTreeSet<Claim>,
    /// Violations found in processes and logs.
    pub(crate) violations_seen: Vec<Violation>,
}

impl World {
    /// Starts the introducer and all members, and waits until they listen.
    pub(crate) async fn start(parts: &Parts, network: Option<Network>) -> anyhow::Result<Self> {
        let secret = secret(parts);
        private_file::create(&secret, &Secret::generate()?.render())?;
        let credentials = Credentials::load(&secret)?;
        let introducer = introducer(parts, network.is_some())?;
        let mut members = Vec::new();
        for index in 0..parts.members {
            members.push(member(parts, index, introducer.address, network.is_some())?);
        }
        let (claims, violations_seen) = (BTreeSet::new(), Vec::new());
        let dir = parts.dir.clone();
        let mut world = Self { members, introducer, network, credentials, dir, claims, violations_seen };
        world.start_introducer().await?;
        let all: Vec<usize> = (0..world.members.len()).collect();
        world.start_members(&all).await?;
        Ok(world)
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.daemon.address).collect()
    }

    /// Starts members that are down, and waits until they listen.
    pub(crate) async fn start_members(&mut self, members: &[usize]) -> anyhow::Result<()> {
        for &index in members {
            self.members[index].daemon.start()?;
        }
        for &index in members {
            let member = &mut self.members[index];
            member.node = member.daemon.listening().await?;
        }
        Ok(())
    }

    pub(crate) async fn start_introducer(&mut self) -> anyhow::Result<()> {
        self.introducer.start()?;
        self.introducer.listening().await.map(drop)
    }

    pub(crate) fn kill_introducer(&mut self) -> anyhow::Result<()> {
        self.introducer.reap()
    }

    /// SIGKILL to all of them before any is waited for.
    pub(crate) fn kill(&mut self, members: &[usize]) -> anyhow::Result<()> {
        self.note_ends();
        self.signal(members, Signal::KILL)?;
        members.iter().try_for_each(|&index| self.members[index].daemon.reap())
    }

    pub(crate) fn signal(&mut self, members: &[usize], signal: Signal) -> anyhow::Result<()> {
        members.iter().try_for_each(|&index| self.members[index].daemon.signal(signal))
    }

    /// Kills members and destroys all that they kept but their logs, which go to the evidence.
    pub(crate) fn wipe(&mut self, members: &[usize]) -> anyhow::Result<()> {
        self.kill(members)?;
        for &index in members {
            self.harvest(index);
            let member = &mut self.members[index];
            let data = &member.daemon.data_dir;
            let kept = self.dir.join("wiped").join(format!("{}-life-{}", member.daemon.name, member.life));
            copy(&data.join("logs"), &kept).context("the logs of a wiped member cannot be kept")?;
            fs::remove_dir_all(data).with_context(|| format!("{} cannot be wiped", data.display()))?;
            member.life += 1;
            member.node = None;
        }
        Ok(())
    }

    pub(crate) fn fill_disks(&mut self, members: &[usize]) -> anyhow::Result<()> {
        for &index in members {
            let member = &mut self.members[index];
            member.disk_state = DiskState::Full;
            member.disk.as_ref().map_or(Ok(()), Disk::fill)?;
        }
        Ok(())
    }

    /// Frees the disks again.
    pub(crate) fn relieve_disks(&mut self, members: &[usize]) -> anyhow::Result<()> {
        for &index in members {
            let member = &mut self.members[index];
            member.disk.as_ref().map_or(Ok(()), Disk::relieve)?;
            member.disk_state = DiskState::FreedAt(Instant::now());
        }
        Ok(())
    }

    /// Has renames of blobs hang, or ends that.
    pub(crate) fn hang_renames(&self, members: &[usize], hang: bool) -> anyhow::Result<()> {
        members.iter().try_for_each(|&index| self.members[index].daemon.hang_renames(hang))
    }

    /// Sets wall clocks ahead, or behind; 0 sets them right.
    pub(crate) fn step_clocks(&self, members: &[usize], ahead_s: i64) -> anyhow::Result<()> {
        members.iter().try_for_each(|&index| self.members[index].daemon.set_clock_ahead_s(ahead_s))
    }

    pub(crate) fn kill_model_servers(&self, members: &[usize]) -> anyhow::Result<()> {
        members.iter().try_for_each(|&index| self.members[index].daemon.kill_model_server())
    }

    /// Breaks exactly these links.
    pub(crate) fn set_links(&self, broken: &[Broken]) -> anyhow::Result<()> {
        self.network.as_ref().map_or(Ok(()), |network| network.set(broken))
    }

    /// Delays what members send; 0 ends it.
    pub(crate) fn delay(&self, members: &[usize], ms: u32) -> anyhow::Result<()> {
        let Some(network) = &self.network else { return Ok(()) };
        members.iter().try_for_each(|&index| network.delay(index, ms))
    }

    /// Looks for processes that ended by themselves. One that lately wanted room is started again, as its service
    /// manager would; any other one is an offence.
    pub(crate) async fn tend(&mut self) -> anyhow::Result<()> {
        self.note_ends();
        let mut ended = Vec::new();
        for (index, member) in self.members.iter_mut().enumerate() {
            if matches!(member.disk_state, DiskState::FreedAt(_))
                && let Ok(Some(status)) = member.daemon.exit_status()
            {
                println!(
                    "            {} wanted room ({status}): {}",
                    member.who(),
                    member.daemon.last_error_line()
                );
                member.daemon.reap()?;
                ended.push(index);
            }
        }
        self.start_members(&ended).await
    }

    /// Notes processes that ended without an excuse; they are not started again.
    pub(crate) fn note_ends(&mut self) {
        for member in &mut self.members {
            if matches!(member.disk_state, DiskState::FreedAt(since) if since.elapsed() > ENDING_LIMIT) {
                member.disk_state = DiskState::Normal;
            }
            if member.disk_state == DiskState::Normal
                && let Ok(Some(status)) = member.daemon.exit_status()
            {
                let detail =
                    format!("{} ended ({status}): {}", member.who(), member.daemon.last_error_line());
                // Reaped, so that it is noted once.
                let _ = member.daemon.reap();
                self.violations_seen.push(Violation::new("no member ends by itself", detail));
            }
        }
    }

    /// Reads all logs for claims and violations_seen.
    pub(crate) fn harvest_all(&mut self) {
        (0..self.members.len()).for_each(|index| self.harvest(index));
    }

    fn harvest(&mut self, index: usize) {
        let member = &self.members[index];
        let (who, text) = (member.who(), logs::read(&member.daemon.data_dir.join("logs")));
        if let Some(node) = member.node {
            self.claims.extend(logs::terms(&text).map(|term| Claim { term, who: node.to_string() }));
        }
        let panics = logs::panics(&text).map(|line| format!("{who}: {line}"));
        for detail in panics {
            self.violations_seen.push(Violation::new("no task panics", detail));
        }
    }

    /// Copies the data of all members to where it outlives the run.
    pub(crate) fn keep(&self) -> anyhow::Result<()> {
        for member in self.members.iter().filter(|member| member.disk.is_some()) {
            copy(&member.daemon.data_dir, &self.dir.join("kept").join(&member.daemon.name))?;
        }
        Ok(())
    }
}

fn secret(parts: &Parts) -> PathBuf {
    parts.dir.join("secret.pem")
}

fn introducer(parts: &Parts, has_network: bool) -> anyhow::Result<Daemon> {
    Daemon::new(DaemonSpec {
        name: "introducer",
        program: &parts.idunnod,
        arguments: vec![
            String::from("introducer"),
            String::from("--secret"),
            secret(parts).display().to_string(),
        ],
        endpoint: Endpoint::Introducer,
        has_network,
        data_dir: parts.dir.join("introducer"),
        faults_dir: parts.dir.join("introducer.faults"),
        stderr: parts.dir.join("introducer.stderr"),
    })
}

fn member(parts: &Parts, index: usize, introducer: SocketAddr, has_network: bool) -> anyhow::Result<Member> {
    let name = format!("m{}", index + 1);
    let root = parts.dir.join("disks").join(&name);
    let disk = has_network.then(|| Disk::mount(&root)).transpose().context("no disk for a member")?;
    let (introducer, python) = (introducer.to_string(), parts.python.display().to_string());
    let secret = secret(parts).display().to_string();
    let arguments = [
        "member",
        "--name",
        &name,
        "--introducer",
        &introducer,
        "--model-server-python",
        &python,
        "--threads",
        "1",
        "--secret",
        &secret,
    ];
    let daemon = Daemon::new(DaemonSpec {
        name: &name,
        program: &parts.idunnod,
        arguments: arguments.map(String::from).to_vec(),
        endpoint: Endpoint::Member(index),
        has_network,
        data_dir: root.join("data"),
        faults_dir: parts.dir.join(format!("{name}.faults")),
        stderr: parts.dir.join(format!("{name}.stderr")),
    })?;
    Ok(Member { daemon, disk, disk_state: DiskState::Normal, life: 1, node: None })
}

/// Copies a directory with the files and directories that are in it. Sockets stay.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)?.flatten() {
        let (source, target, kind) = (entry.path(), to.join(entry.file_name()), entry.file_type()?);
        if kind.is_dir() {
            copy(&source, &target)?;
        } else if kind.is_file() {
            fs::copy(&source, &target).with_context(|| format!("cannot keep {}", source.display()))?;
        }
    }
    Ok(())
}
