//! `local up` and `local start`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::client::cluster::Cluster;
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::names::MemberName;
use idunno_shared::security::secret::Secret;
use idunno_shared::security::{Credentials, private_file};
use tokio::time::Instant;

use super::launch::{Launched, await_addresses, launch, log_tail};
use super::ready::{self, Wanted};
use super::record::{INTRODUCER, Process, Record};
use super::{STILL_RUN, lock};
use crate::answer::local::{LocalCluster, LocalMember, StartedProcesses};
use crate::answer::{Answer, Exit, Failure};
use crate::session::Session;

const MEMBERS_DEFAULT: u32 = 7;
const DEADLINE_DEFAULT: Duration = Duration::from_secs(60);

/// What `local up` was asked for.
pub(crate) struct Wish {
    pub(crate) members: Option<u32>,
    pub(crate) idunnod: Option<PathBuf>,
    pub(crate) python: Option<PathBuf>,
    pub(crate) threads: Option<u32>,
    pub(crate) insecure: bool,
}

/// `local up`: a new cluster, or an old one again at its addresses.
pub(crate) async fn up(session: &Session, wish: Wish) -> Result<Answer, Failure> {
    let started = Instant::now();
    let deadline = started + session.timeout.unwrap_or(DEADLINE_DEFAULT);
    let _lock = lock(&session.dir)?;
    let dir = absolute(&session.dir)?;
    let mut record = plan(&dir, wish, Record::load(&dir)?)?;
    let all: Vec<usize> = (0..record.processes.len()).collect();
    run_all(session, &dir, &mut record, &all, deadline).await?;
    let members: Vec<_> = record
        .members()
        .map(|member| LocalMember {
            name: member.name.clone(),
            address: member.address.map(|address| address.to_string()),
            data_dir: member.data_dir.display().to_string(),
        })
        .collect();
    let seconds = started.elapsed().as_secs_f64();
    let servers = record.python.is_some();
    let mut text = format!("{} members ready in {seconds:.1} s, in {}", members.len(), session.dir.display());
    if !servers {
        text.push_str("\nwithout model servers: --model-server-python gives each member one");
    }
    let directory = dir.display().to_string();
    let cluster = LocalCluster { directory, members, model_servers: servers, ready_s: seconds };
    Ok(Answer::new(&cluster, text))
}

/// Starts processes and waits until they are part of the cluster. A failure says that they still run, if any does.
async fn run_all(
    session: &Session,
    dir: &Path,
    record: &mut Record,
    positions: &[usize],
    deadline: Instant,
) -> Result<(), Failure> {
    let _spinner = session.reporter.start("waiting for the cluster", 0, 0);
    let started = async {
        let mut launched = bring_up(dir, record, positions, deadline).await?;
        session.refresh();
        await_ready(dir, record, &mut launched, deadline).await
    };
    let Err(failure) = started.await else { return Ok(()) };
    if record.processes.iter().any(Process::is_alive) {
        return Err(Failure::new(failure.exit, format!("{failure}\n{STILL_RUN}")));
    }
    Err(failure)
}

/// The record of the cluster that is to run.
fn plan(dir: &Path, wish: Wish, old: Option<Record>) -> Result<Record, Failure> {
    let refused = |text: String| Err(Failure::new(Exit::Refused, text));
    if let Some(process) = old.iter().flat_map(|record| &record.processes).find(|process| process.is_alive())
    {
        return refused(format!(
            "{} of a local cluster runs in {} already: 'idunno local down' stops it, 'idunno local start' starts what was killed",
            process.name,
            dir.display()
        ));
    }
    let before = old.as_ref().map_or(0, |record| record.members().count());
    let members = match wish.members {
        Some(members) => usize::try_from(members).unwrap_or(usize::MAX),
        None if before > 0 => before,
        None => MEMBERS_DEFAULT as usize,
    };
    if members < before {
        return refused(format!(
            "the local cluster in {} has {before} members: start them all, or delete it with 'idunno local down --purge'",
            dir.display()
        ));
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = wish.threads.unwrap_or_else(|| u32::try_from((cores / members).max(1)).unwrap_or(1));
    let idunnod = match wish.idunnod {
        Some(path) => absolute(&path)?,
        None => beside()?,
    };
    let python = wish.python.map(|path| on_path(&path)).transpose()?;
    let python = python.or_else(|| old.as_ref().and_then(|record| record.python.clone()));
    let mut record = Record::new(idunnod, python, threads);
    record.insecure = wish.insecure;
    record.processes = old.map(|old| old.processes).unwrap_or_default();
    let mut add = |name: String| {
        if !record.processes.iter().any(|process| process.name == name) {
            let data_dir = dir.join(&name);
            record.processes.push(Process { name, data_dir, address: None, running: None });
        }
    };
    add(String::from(INTRODUCER));
    (1..=members).for_each(|number| add(format!("m{number}")));
    Ok(record)
}

/// A path that holds whatever directory the daemon runs in.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::error(format!("{}: {error}", path.display())))
}

/// A path to a program; a bare name stays one, to be looked up.
fn on_path(path: &Path) -> Result<PathBuf, Failure> {
    if path.components().count() == 1 { Ok(path.to_owned()) } else { absolute(path) }
}

fn beside() -> Result<PathBuf, Failure> {
    let this =
        std::env::current_exe().map_err(|error| Failure::error(format!("cannot find idunnod: {error}")))?;
    let path = this.with_file_name(format!("idunnod{}", std::env::consts::EXE_SUFFIX));
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::new(
        Exit::NotFound,
        format!("there is no {}: name the daemon with --idunnod", path.display()),
    ))
}

/// Starts the processes at these positions: the introducer first, the members together. The record is saved as soon as
/// they run, so that they can be stopped whatever happens next, and again with their addresses.
async fn bring_up(
    dir: &Path,
    record: &mut Record,
    positions: &[usize],
    deadline: Instant,
) -> Result<Vec<Launched>, Failure> {
    make_secret(dir, record)?;
    let (introducers, members): (Vec<usize>, Vec<usize>) =
        positions.iter().partition(|&&position| record.processes[position].is_introducer());
    let mut launched = Vec::new();
    for group in [introducers, members] {
        let introducer = record.processes.iter().find(|process| process.is_introducer());
        let introducer: Option<SocketAddr> = introducer.and_then(|process| process.address);
        let mut started = Vec::new();
        for &position in &group {
            let outcome = launch(dir, record, &record.processes[position], introducer);
            if let Ok((_, identity)) = &outcome {
                record.processes[position].running = Some(identity.clone());
            }
            record.save(dir)?;
            started.push(outcome?.0);
        }
        let addresses = await_addresses(&mut started, deadline).await?;
        for (&position, address) in group.iter().zip(addresses) {
            record.processes[position].address = Some(address);
        }
        record.save(dir)?;
        launched.append(&mut started);
    }
    Ok(launched)
}

/// The cluster's secret, unless it has one or is to do without.
fn make_secret(dir: &Path, record: &Record) -> Result<(), Failure> {
    let made = match record.secret(dir) {
        Some(path) if !path.exists() => {
            Secret::generate().and_then(|secret| private_file::create(&path, &secret.render()))
        }
        _ => Ok(()),
    };
    made.map_err(|error| Failure::error(error.to_string()))
}

/// Waits until the living members are a cluster.
async fn await_ready(
    dir: &Path,
    record: &Record,
    launched: &mut [Launched],
    deadline: Instant,
) -> Result<(), Failure> {
    let members: Vec<(String, SocketAddr)> = record
        .members()
        .filter(|member| member.is_alive())
        .filter_map(|member| Some((member.name.clone(), member.address?)))
        .collect();
    let credentials = match record.secret(dir) {
        Some(secret) => Credentials::load(&secret).map_err(|error| Failure::error(error.to_string()))?,
        None => Credentials::insecure(),
    };
    let cluster = Cluster::new(Arc::new(TcpConnector::new(credentials)), record.addresses());
    let wanted = Wanted { members: &members, servers: record.python.is_some() };
    let Err(missing) = ready::wait(&cluster, &wanted, launched, deadline).await? else { return Ok(()) };
    let first = missing.lines().next().unwrap_or_default();
    let named = record.members().find(|member| first.split_whitespace().any(|word| word == member.name));
    let tail = named.or_else(|| record.members().next()).map(|member| log_tail(&member.data_dir));
    let text = format!("the cluster is not ready:\n{missing}\n{}", tail.unwrap_or_default());
    Err(Failure::new(Exit::Timeout, text.trim_end()))
}

/// `local start`.
pub(crate) async fn start(session: &Session, names: &[MemberName]) -> Result<Answer, Failure> {
    let deadline = Instant::now() + session.timeout.unwrap_or(DEADLINE_DEFAULT);
    let _lock = lock(&session.dir)?;
    let dir = absolute(&session.dir)?;
    let mut record = Record::require(&dir)?;
    let positions = if names.is_empty() { record.at_rest() } else { named(&record, names)? };
    let shown: Vec<String> = positions.iter().map(|&at| record.processes[at].name.clone()).collect();
    if shown.is_empty() {
        return Ok(Answer::new(&StartedProcesses { started: shown }, "all run already: nothing was started"));
    }
    run_all(session, &dir, &mut record, &positions, deadline).await?;
    let text = format!("started: {}", shown.join(", "));
    Ok(Answer::new(&StartedProcesses { started: shown }, text))
}

/// The positions of these processes, each once; refused if one of them runs.
fn named(record: &Record, names: &[MemberName]) -> Result<Vec<usize>, Failure> {
    let mut positions = Vec::new();
    for name in names {
        let position = record.position(name.as_str())?;
        if record.processes[position].is_alive() {
            return Err(Failure::new(Exit::Refused, format!("{name} runs already")));
        }
        if !positions.contains(&position) {
            positions.push(position);
        }
    }
    Ok(positions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(members: Option<u32>) -> Wish {
        Wish { members, idunnod: Some("idunnod".into()), python: None, threads: None, insecure: false }
    }

    #[test]
    fn a_cluster_comes_back_as_it_was_and_may_grow() {
        let dir = Path::new("dir");
        let first = plan(dir, wish(None), None).unwrap();
        let names: Vec<&str> = first.processes.iter().map(|process| process.name.as_str()).collect();
        assert_eq!(names, ["introducer", "m1", "m2", "m3", "m4", "m5", "m6", "m7"]);
        let mut old = plan(dir, wish(Some(2)), None).unwrap();
        old.processes[1].address = Some(([127, 0, 0, 1], 4000).into());
        old.python = Some("python".into());
        let again = plan(dir, wish(None), Some(old.clone())).unwrap();
        assert_eq!((again.processes, again.python), (old.processes.clone(), old.python.clone()));
        let grown = plan(dir, wish(Some(3)), Some(old.clone())).unwrap();
        assert_eq!(grown.members().count(), 3);
        assert_eq!(grown.processes[1].address, old.processes[1].address);
        assert_eq!(plan(dir, wish(Some(1)), Some(old)).unwrap_err().exit, Exit::Refused);
    }

    #[test]
    fn a_running_cluster_is_not_started_again() {
        let mut old = plan(Path::new("dir"), wish(Some(1)), None).unwrap();
        old.processes[1].running = Some(super::super::process::Identity::of(std::process::id()));
        let error = plan(Path::new("dir"), wish(None), Some(old)).unwrap_err();
        assert!(error.exit == Exit::Refused && error.message.contains("m1"), "{error}");
    }
}
