//! Starts processes of a local cluster and waits until they announce their addresses.

use std::io::{self, Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use super::process::{self, ProcessIdentity};
use super::record::{Process, Record};
use super::trust;
use crate::answer::{Exit, Failure};

const POLL_PERIOD: Duration = Duration::from_millis(20);
const LOG: &str = "stdout.log";
const TAIL_BYTES: u64 = 2000;

/// The part of a daemon's `runtime.json` that is read here.
#[derive(Debug, Deserialize)]
struct RuntimeFile {
    pid: u32,
    address: SocketAddr,
}

/// How a process says where it listens.
#[derive(Clone, Copy, Debug)]
enum Announcement {
    /// A daemon, by its `runtime.json`.
    RuntimeFile,
    /// A gateway, by the first line of its output.
    Output,
}

impl Announcement {
    fn path(self, data_dir: &Path) -> PathBuf {
        data_dir.join(match self {
            Self::RuntimeFile => "runtime.json",
            Self::Output => LOG,
        })
    }
}

/// A started process, watched while this program runs.
pub struct Launched {
    name: String,
    data_dir: PathBuf,
    announcement: Announcement,
    child: Child,
}

impl Launched {
    /// Fails if the process has ended.
    pub fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                let text = format!("{} ended ({status})\n{}", self.name, log_tail(&self.data_dir));
                Err(Failure::error(text.trim_end()))
            }
            Err(error) => Err(Failure::error(format!("cannot watch {}: {error}", self.name))),
        }
    }
}

/// Starts one process of the cluster. Members are given the address `introducer`.
pub fn launch(
    dir: &Path,
    record: &Record,
    process: &Process,
    introducer: Option<SocketAddr>,
) -> Result<(Launched, ProcessIdentity), Failure> {
    let wrong = |what: &Path, error: io::Error| {
        Failure::error(format!("cannot start {}: {}: {error}", process.name, what.display()))
    };
    trust::create_private(&process.data_dir).map_err(|error| wrong(&process.data_dir, error))?;
    let announcement = if process.is_gateway() { Announcement::Output } else { Announcement::RuntimeFile };
    // An earlier process' file would be mistaken for this one's.
    let file = announcement.path(&process.data_dir);
    if let Err(error) = std::fs::remove_file(&file)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(wrong(&file, error));
    }
    let (program, arguments) = match &record.gateway {
        Some(gateway) if process.is_gateway() => (gateway, gateway_arguments(dir, record, process)),
        _ => (&record.idunnod, arguments(dir, record, process, introducer)),
    };
    let child = process::spawn(program, &arguments, &process.data_dir.join(LOG))
        .map_err(|error| wrong(program, error))?;
    let identity = ProcessIdentity::of(child.id().unwrap_or_default());
    let (name, data_dir) = (process.name.clone(), process.data_dir.clone());
    Ok((Launched { name, data_dir, announcement, child }, identity))
}

/// What datasets may refer to: all that the person may read whose cluster it is. Without a secret it is everybody's.
const EVERYWHERE: &str = "s3://,gs://,az://,https://,http://,file:///";

/// The daemon's arguments. A restarted process keeps its address.
pub fn arguments(
    dir: &Path,
    record: &Record,
    process: &Process,
    introducer: Option<SocketAddr>,
) -> Vec<String> {
    let listen = process.address.map_or_else(|| String::from("127.0.0.1:0"), |address| address.to_string());
    let data_dir = process.data_dir.display().to_string();
    let program = if process.is_introducer() { "introducer" } else { "member" };
    let mut arguments = vec![program.to_owned(), "--listen".into(), listen, "--data-dir".into(), data_dir];
    match record.secret(dir) {
        Some(secret) => {
            arguments.extend([String::from("--secret"), secret.display().to_string()]);
            if !process.is_introducer() {
                arguments.extend([String::from("--reference-urls"), String::from(EVERYWHERE)]);
            }
        }
        None => arguments.push(String::from("--insecure")),
    }
    let mut push = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    if !process.is_introducer() {
        push("--name", process.name.clone());
        if let Some(introducer) = introducer {
            push("--introducer", introducer.to_string());
        }
        match &record.python {
            Some(python) => {
                push("--model-server-python", python.display().to_string());
                push("--threads", record.threads.to_string());
            }
            None => push("--model-server-url", String::from("none")),
        }
    }
    arguments
}

/// The gateway's arguments. A restarted one keeps its address, too.
pub fn gateway_arguments(dir: &Path, record: &Record, process: &Process) -> Vec<String> {
    let listen = process.address.map_or_else(|| String::from("127.0.0.1:0"), |address| address.to_string());
    let members: Vec<String> =
        record.members().filter_map(|member| Some(member.address?.to_string())).collect();
    let secret = record.secret(dir).map(|secret| secret.display().to_string()).unwrap_or_default();
    let arguments = ["--cluster", &members.join(","), "--secret", &secret, "--listen", &listen];
    arguments.map(String::from).to_vec()
}

/// Waits until all processes listen, and returns their addresses in order.
pub async fn await_addresses(
    launched: &mut [Launched],
    deadline: Instant,
) -> Result<Vec<SocketAddr>, Failure> {
    let mut found: Vec<Option<SocketAddr>> = vec![None; launched.len()];
    loop {
        for (process, address) in launched.iter_mut().zip(&mut found) {
            process.check()?;
            if address.is_none() {
                *address = announced(process);
            }
        }
        if let Some(addresses) = found.iter().copied().collect::<Option<Vec<_>>>() {
            return Ok(addresses);
        }
        if Instant::now() >= deadline {
            let late = launched.iter().zip(&found).filter(|(_, address)| address.is_none());
            let late: Vec<String> = late
                .map(|(process, _)| {
                    format!("{} is not listening\n{}", process.name, log_tail(&process.data_dir))
                })
                .collect();
            return Err(Failure::new(Exit::Timeout, late.join("\n").trim_end()));
        }
        sleep(POLL_PERIOD).await;
    }
}

fn announced(process: &Launched) -> Option<SocketAddr> {
    let text = std::fs::read(process.announcement.path(&process.data_dir)).ok()?;
    match process.announcement {
        Announcement::RuntimeFile => {
            let runtime: RuntimeFile = serde_json::from_slice(&text).ok()?;
            (Some(runtime.pid) == process.child.id()).then_some(runtime.address)
        }
        Announcement::Output => {
            let text = String::from_utf8_lossy(&text);
            // The line is whole only with its end.
            let (lines, _) = text.rsplit_once('\n')?;
            lines.lines().find_map(|line| line.strip_prefix("S3 at http://")?.parse().ok())
        }
    }
}

/// The end of a process' output and log, for an error message.
pub fn log_tail(data_dir: &Path) -> String {
    let newest = crate::tail::newest_log(&data_dir.join("logs"));
    let mut parts = Vec::new();
    for path in [Some(data_dir.join(LOG)), newest].into_iter().flatten() {
        // An unreadable log must not hide the other one.
        let bytes = last_bytes(&path).unwrap_or_default();
        let tail = String::from_utf8_lossy(&bytes);
        if !tail.is_empty() {
            parts.push(format!("--- {}\n{}", path.display(), tail.trim_end()));
        }
    }
    parts.join("\n")
}

/// The last [`TAIL_BYTES`] of a file.
fn last_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
