//! `local up` and `local start`.

use std::fmt::Write as _;
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
use super::ready::{self, NotReady, ReadyCondition};
use super::record::{GATEWAY, INTRODUCER, Process, Record};
use super::{STILL_RUN, lock};
use crate::answer::local::{LocalCluster, LocalMember, StartedProcesses};
use crate::answer::{Answer, Exit, Failure};
use crate::session::Session;

const GATEWAY_PROGRAM: &str = "idunno-gateway";
const MEMBERS_DEFAULT: u32 = 7;
const DEADLINE_DEFAULT: Duration = Duration::from_secs(60);

/// The options of `local up`.
pub(crate) struct UpOptions {
    pub(crate) members: Option<u32>,
    pub(crate) idunnod: Option<PathBuf>,
    pub(crate) python: Option<PathBuf>,
    pub(crate) threads: Option<u32>,
    pub(crate) insecure: bool,
    pub(crate) gateway: bool,
}

/// `local up`: starts a new cluster, or restarts an earlier one at its addresses.
pub(crate) async fn up(session: &Session, options: UpOptions) -> Result<Answer, Failure> {
    let started = Instant::now();
    let deadline = started + session.timeout.unwrap_or(DEADLINE_DEFAULT);
    let dir = absolute(&session.dir)?;
    let _lock = lock(&session.dir)?;
    let mut record = plan(&dir, options, Record::load(&dir)?)?;
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
        text.push_str("\nno model servers: --model-server-python starts one for each member");
    }
    let gateway = record.processes.iter().find(|process| process.is_gateway());
    let gateway = gateway.and_then(|gateway| Some(format!("http://{}", gateway.address?)));
    if let Some(url) = &gateway {
        let _ = write!(
            text,
            "\nS3 at {url}, OpenAI's API at {url}/v1: 'idunno key create --name NAME --role ROLE' makes a key"
        );
    }
    let directory = dir.display().to_string();
    let cluster = LocalCluster { directory, members, model_servers: servers, ready_s: seconds, gateway };
    Ok(Answer::new(&cluster, text))
}

/// Starts processes and waits until they are part of the cluster. A failure mentions processes that are still running.
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

/// The record of the cluster to start.
fn plan(dir: &Path, options: UpOptions, old: Option<Record>) -> Result<Record, Failure> {
    let refused = |text: String| Err(Failure::new(Exit::Refused, text));
    if let Some(process) = old.iter().flat_map(|record| &record.processes).find(|process| process.is_alive())
    {
        return refused(format!(
            "{} of a local cluster is already running in {}: 'idunno local down' stops the cluster, 'idunno local start' \
             restarts killed processes",
            process.name,
            dir.display()
        ));
    }
    let before = old.as_ref().map_or(0, |record| record.members().count());
    let members = match options.members {
        Some(members) => usize::try_from(members).unwrap_or(usize::MAX),
        None if before > 0 => before,
        None => MEMBERS_DEFAULT as usize,
    };
    if members < before {
        return refused(format!(
            "the local cluster in {} has {before} members: start all of them, or delete the cluster with 'idunno local down \
             --purge'",
            dir.display()
        ));
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = options.threads.unwrap_or_else(|| u32::try_from((cores / members).max(1)).unwrap_or(1));
    let idunnod = match options.idunnod {
        Some(path) => absolute(&path)?,
        None => program("idunnod", Some("--idunnod"))?,
    };
    let python = options.python.map(|path| on_path(&path)).transpose()?;
    let python = python.or_else(|| old.as_ref().and_then(|record| record.python.clone()));
    let before = old.as_ref().and_then(|record| record.gateway.clone());
    let gateway = if options.gateway { Some(program(GATEWAY_PROGRAM, None)?) } else { before };
    let mut record = Record::new(idunnod, python, threads);
    (record.insecure, record.gateway) = (options.insecure, gateway);
    record.processes = old.map(|old| old.processes).unwrap_or_default();
    let has_gateway = record.gateway.is_some();
    let mut add = |name: String| {
        if !record.processes.iter().any(|process| process.name == name) {
            let data_dir = dir.join(&name);
            record.processes.push(Process { name, data_dir, address: None, running: None });
        }
    };
    add(String::from(INTRODUCER));
    (1..=members).for_each(|number| add(format!("m{number}")));
    if has_gateway {
        add(String::from(GATEWAY));
    }
    Ok(record)
}

/// An absolute path: the daemon may run in another directory. It is written to the record, which is JSON.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let path =
        std::path::absolute(path).map_err(|error| Failure::error(format!("{}: {error}", path.display())))?;
    if path.to_str().is_none() {
        let text = format!("{} is not UTF-8: choose another name", path.display());
        return Err(Failure::new(Exit::Refused, text));
    }
    Ok(path)
}

/// The path of a program; a bare name is looked up on the `PATH`.
fn on_path(path: &Path) -> Result<PathBuf, Failure> {
    if path.components().count() == 1 { Ok(path.to_owned()) } else { absolute(path) }
}

/// A program beside this one, otherwise in the folder that `IDUNNO_PROGRAMS` names, otherwise on the `PATH`: this program may
/// be a library of another one. `flag` gives its path.
fn program(name: &str, flag: Option<&str>) -> Result<PathBuf, Failure> {
    let this =
        std::env::current_exe().map_err(|error| Failure::error(format!("cannot find {name}: {error}")))?;
    let what = name;
    let name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let beside = this.with_file_name(&name);
    let programs = std::env::var_os("IDUNNO_PROGRAMS").filter(|folder| !folder.is_empty());
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let folders = programs.map(PathBuf::from).into_iter().chain(std::env::split_paths(&on_path));
    let mut candidates = std::iter::once(beside.clone()).chain(folders.map(|folder| folder.join(&name)));
    candidates.find(|path| path.is_file()).map_or_else(
        || {
            let give = flag.map(|flag| format!(": give its path with {flag}")).unwrap_or_default();
            let text = format!("no {what} at {} or on the PATH{give}", beside.display());
            Err(Failure::new(Exit::NotFound, text))
        },
        |path| absolute(&path),
    )
}

/// Starts the processes at these positions: the introducer first, then the members together, then the gateway. The record is saved as soon as
/// they run, so that they can be stopped whatever happens next, and again once their addresses are known.
async fn bring_up(
    dir: &Path,
    record: &mut Record,
    positions: &[usize],
    deadline: Instant,
) -> Result<Vec<Launched>, Failure> {
    create_secret(dir, record)?;
    let of = |is_wanted: fn(&Process) -> bool| -> Vec<usize> {
        positions.iter().copied().filter(|&position| is_wanted(&record.processes[position])).collect()
    };
    let groups = [of(Process::is_introducer), of(Process::is_member), of(Process::is_gateway)];
    let mut launched = Vec::new();
    for group in groups {
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

/// Creates the cluster's secret, unless it exists or the cluster is insecure.
fn create_secret(dir: &Path, record: &Record) -> Result<(), Failure> {
    let created = match record.secret(dir) {
        Some(path) if !path.exists() => {
            Secret::generate().and_then(|secret| private_file::create(&path, &secret.render()))
        }
        _ => Ok(()),
    };
    created.map_err(|error| Failure::error(error.to_string()))
}

/// Waits until the live members form a cluster.
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
    let wanted = ReadyCondition { members: &members, servers: record.python.is_some() };
    let missing = match ready::wait(&cluster, &wanted, launched, deadline).await {
        Ok(()) => return Ok(()),
        Err(NotReady::Ended(failure)) => return Err(failure),
        Err(NotReady::TimedOut { missing }) => missing,
    };
    let first = missing.first().map_or("", String::as_str);
    let named = record.members().find(|member| first.split_whitespace().any(|word| word == member.name));
    let tail = named.or_else(|| record.members().next()).map(|member| log_tail(&member.data_dir));
    let text = format!("the cluster is not ready:\n{}\n{}", missing.join("\n"), tail.unwrap_or_default());
    Err(Failure::new(Exit::Timeout, text.trim_end()))
}

/// `local start`.
pub(crate) async fn start(session: &Session, names: &[MemberName]) -> Result<Answer, Failure> {
    let deadline = Instant::now() + session.timeout.unwrap_or(DEADLINE_DEFAULT);
    let dir = absolute(&session.dir)?;
    let _lock = lock(&session.dir)?;
    let mut record = Record::require(&dir)?;
    let positions = if names.is_empty() { record.stopped() } else { named(&record, names)? };
    let shown: Vec<String> = positions.iter().map(|&at| record.processes[at].name.clone()).collect();
    if shown.is_empty() {
        return Ok(Answer::new(&StartedProcesses { started: shown }, "all processes are already running"));
    }
    run_all(session, &dir, &mut record, &positions, deadline).await?;
    let text = format!("started: {}", shown.join(", "));
    Ok(Answer::new(&StartedProcesses { started: shown }, text))
}

/// The positions of the named processes, each once. Fails if one of them is running.
fn named(record: &Record, names: &[MemberName]) -> Result<Vec<usize>, Failure> {
    let mut positions = Vec::new();
    for name in names {
        let position = record.position(name.as_str())?;
        if record.processes[position].is_alive() {
            return Err(Failure::new(Exit::Refused, format!("{name} is already running")));
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

    fn options(members: Option<u32>) -> UpOptions {
        UpOptions {
            members,
            idunnod: Some("idunnod".into()),
            python: None,
            threads: None,
            insecure: false,
            gateway: false,
        }
    }

    #[test]
    fn a_cluster_restarts_unchanged_and_may_grow() {
        let dir = Path::new("dir");
        let first = plan(dir, options(None), None).unwrap();
        let names: Vec<&str> = first.processes.iter().map(|process| process.name.as_str()).collect();
        assert_eq!(names, ["introducer", "m1", "m2", "m3", "m4", "m5", "m6", "m7"]);
        let mut old = plan(dir, options(Some(2)), None).unwrap();
        old.processes[1].address = Some(([127, 0, 0, 1], 4000).into());
        old.python = Some("python".into());
        let again = plan(dir, options(None), Some(old.clone())).unwrap();
        assert_eq!((again.processes, again.python), (old.processes.clone(), old.python.clone()));
        old.gateway = Some("idunno-gateway".into());
        let served = plan(dir, options(None), Some(old.clone())).unwrap();
        assert_eq!(served.processes.last().unwrap().name, "gateway", "as before");
        assert_eq!((served.members().count(), served.addresses().len()), (2, 1));
        let grown = plan(dir, options(Some(3)), Some(old.clone())).unwrap();
        assert_eq!(grown.members().count(), 3);
        assert_eq!(grown.processes[1].address, old.processes[1].address);
        assert_eq!(plan(dir, options(Some(1)), Some(old)).unwrap_err().exit, Exit::Refused);
    }

    #[test]
    #[cfg(unix)]
    fn what_the_record_cannot_name_is_refused_before_anything_starts() {
        use std::os::unix::ffi::OsStrExt;

        let strange = Path::new(std::ffi::OsStr::from_bytes(b"/tmp/\xff"));
        assert!(absolute(strange).unwrap_err().message.contains("not UTF-8"));
        let given = UpOptions { idunnod: Some(strange.to_owned()), ..options(None) };
        assert_eq!(plan(Path::new("dir"), given, None).unwrap_err().exit, Exit::Refused);
    }

    #[test]
    fn a_running_cluster_is_not_started_twice() {
        let mut old = plan(Path::new("dir"), options(Some(1)), None).unwrap();
        old.processes[1].running = Some(super::super::process::ProcessIdentity::of(std::process::id()));
        let error = plan(Path::new("dir"), options(None), Some(old)).unwrap_err();
        assert!(error.exit == Exit::Refused && error.message.contains("m1"), "{error}");
    }
}
