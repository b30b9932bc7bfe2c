//! The resources that a daemon's process uses, as the kernel reports them.

use std::fs;
use std::time::{Duration, Instant};

use crate::harness::Daemon;

/// Ticks of CPU time per second, on every Linux.
const TICKS_PER_SECOND: u32 = 100;

/// One process at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessFigures {
    /// Open sockets.
    pub(crate) sockets: usize,
    /// Resident memory in MiB.
    pub(crate) resident_mib: u64,
    cpu: Duration,
    at: Instant,
}

impl ProcessFigures {
    /// The figures of a running daemon.
    pub(crate) fn of(daemon: &Daemon) -> Self {
        let proc = format!("/proc/{}", daemon.pid().unwrap());
        let files = fs::read_dir(format!("{proc}/fd")).unwrap();
        // A file may be closed after it was listed.
        let targets = files.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        let sockets = targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count();
        let resident_kib = resident_kib(&proc);
        let stat = fs::read_to_string(format!("{proc}/stat")).unwrap();
        // After the name, which is in brackets: the state is field 3, user and system time are 14 and 15.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u32 = fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap();
        let cpu = Duration::from_secs(ticks.into()) / TICKS_PER_SECOND;
        Self { sockets, resident_mib: resident_kib >> 10, cpu, at: Instant::now() }
    }

    /// The share of one core that was used since then, in percent.
    pub(crate) fn cpu_percent_since(&self, earlier: &Self) -> f64 {
        let wall = self.at.duration_since(earlier.at);
        100.0 * self.cpu.saturating_sub(earlier.cpu).as_secs_f64() / wall.as_secs_f64()
    }
}

fn resident_kib(proc: &str) -> u64 {
    let status = fs::read_to_string(format!("{proc}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    resident.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Resident memory of this process in bytes.
pub(crate) fn resident_bytes() -> usize {
    usize::try_from(resident_kib("/proc/self") << 10).unwrap()
}

/// Connections that were tried and failed, in this machine's network namespace, since it started.
pub(crate) fn failed_dials() -> u64 {
    let table = fs::read_to_string("/proc/net/snmp").unwrap();
    let mut lines = table.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut columns = names.split_whitespace().zip(values.split_whitespace());
    columns.find(|(name, _)| *name == "AttemptFails").unwrap().1.parse().unwrap()
}
