//! Local clusters: an introducer and members, each with a model server, in one directory on this machine.
//!
//! Invariants: a process is signalled only if it is the one that was started (pid and start time agree); only `down --purge`
//! deletes data directories, and only those that the record names and that are below DIR; nothing is believed that another
//! user could have written ([`trust`]). One command at a time changes a directory: it holds `DIR/lock`.

pub mod launch;
pub mod process;
pub mod ready;
pub mod record;
pub mod stop;
#[cfg(test)]
mod tests;
pub mod trust;
mod up;

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use idunno_shared::client::cluster::Cluster;
use idunno_shared::wire::control::{ControlReply, ControlRequest, MemberView};
use tokio::time::timeout;

use crate::answer::local::LocalProcess;
use crate::answer::table::Table;
use crate::answer::{Answer, Exit, Failure, text};
use crate::command::LocalVerb;
use crate::session::Session;
use record::Record;

const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// The last line of a failed start.
pub const STILL_RUN: &str = "the processes are still running: 'idunno local down' stops them";

/// Runs a `local` command.
pub async fn run(session: &Session, verb: LocalVerb) -> Result<Answer, Failure> {
    if cfg!(not(unix)) {
        return Err(Failure::new(Exit::Refused, "local clusters need a Unix system"));
    }
    match verb {
        LocalVerb::Up { members, idunnod, model_server_python: python, threads, insecure, gateway } => {
            up::up(session, up::UpOptions { members, idunnod, python, threads, insecure, gateway }).await
        }
        LocalVerb::Start { names } => up::start(session, &names).await,
        LocalVerb::Kill { names, coordinator, random } => {
            stop::kill(session, &names, coordinator, random).await
        }
        LocalVerb::Status => status(session).await,
        LocalVerb::Down { purge, yes } => stop::down(session, purge, yes).await,
    }
}

/// Locks the directory against other commands until dropped.
pub(crate) fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join("lock");
    let wrong = |error: std::io::Error| Failure::error(format!("cannot lock {}: {error}", path.display()));
    trust::create_private(dir).map_err(wrong)?;
    trust::check(dir)?;
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&path).map_err(wrong)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let text = format!("another 'idunno local' command is running in {}: wait for it", dir.display());
            Err(Failure::new(Exit::Refused, text))
        }
        Err(TryLockError::Error(error)) => Err(wrong(error)),
    }
}

/// The membership list of the first member that answers.
pub(crate) async fn members_of(cluster: &Cluster, record: &Record) -> Vec<MemberView> {
    let living = record.members().filter(|member| member.is_alive()).filter_map(|member| member.address);
    for address in living {
        let reply = timeout(ASK_TIMEOUT, cluster.ask_member(address, ControlRequest::Members)).await;
        if let Ok(Ok(ControlReply::Members(members))) = reply {
            return members;
        }
    }
    Vec::new()
}

/// `local status`.
async fn status(session: &Session) -> Result<Answer, Failure> {
    let record = Record::require(&session.dir)?;
    let members = members_of(&session.cluster(), &record).await;
    let mut table = Table::new("NAME PROCESS +>PID +ADDRESS STATE ROLE");
    let mut rows = Vec::new();
    for process in &record.processes {
        let seen = members.iter().find(|member| Some(member.address) == process.address);
        let alive = process.is_alive();
        let pid = process.running.as_ref().map(|identity| identity.pid);
        let address = process.address.map(|address| address.to_string());
        let state = seen.map(|member| member.liveness);
        let role = seen.filter(|_| alive).map(|member| member.role);
        table.row([
            process.name.clone(),
            String::from(if alive { "running" } else { "not running" }),
            pid.filter(|_| alive).map_or_else(|| String::from("-"), |pid| pid.to_string()),
            address.clone().unwrap_or_else(|| String::from("-")),
            state.map_or("-", text::liveness).to_owned(),
            if process.is_member() { role.map_or("-", text::role).to_owned() } else { process.name.clone() },
        ]);
        rows.push(LocalProcess {
            name: process.name.clone(),
            running: alive,
            pid: pid.filter(|_| alive),
            address,
            state: state.map(Into::into),
            role: role.map(Into::into),
            data_dir: process.data_dir.display().to_string(),
        });
    }
    Ok(Answer::list(rows, table))
}
