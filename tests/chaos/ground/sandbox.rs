//! Namespaces for the whole run.
//!
//! The driver moves into new network, mount and process namespaces before it makes anything. What it makes has no name
//! outside of them, so that two runs cannot meet; and whatever becomes of the driver, the kernel takes its processes,
//! links and mounts away with it.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Set for the driver within its namespaces.
const INSIDE: &str = "IDUNNO_CHAOS_INSIDE";
const NAMESPACES: [&str; 6] = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
/// Maps whoever runs this to the superuser of the namespaces.
const FOR_A_USER: [&str; 2] = ["--user", "--map-root-user"];

/// What is needed, each with the command that shows whether it is there.
const NEEDED: [(&str, &str); 6] = [
    ("a file system in memory", "mount -t tmpfs tmpfs /run"),
    ("nsenter (package util-linux)", "nsenter --version"),
    ("ip (package iproute2)", "ip -Version"),
    ("a bridge and a network namespace", "ip link add hub type bridge && ip netns add probe"),
    ("nft (package nftables)", "nft --version"),
    (
        "nftables in the kernel, with random numbers",
        "printf 'table inet t {\nchain c {\ntype filter hook input priority 0\nnumgen random mod 100 < 1 drop\n}\n}\n' \
         | nft -f -",
    ),
];
/// Delays need a part of the kernel that many lack.
const DELAY: &str = "tc qdisc add dev lo root netem delay 1ms";

/// Where the run takes place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// In namespaces of its own; `can_delay` says whether links can be made slow.
    Namespaces { can_delay: bool },
    /// On the machine's loopback, and why.
    Loopback(String),
}

/// Moves this program into namespaces, which starts it anew there; returns where it is, or must stay.
pub(crate) fn enter() -> Ground {
    if let Some(delay) = env::var_os(INSIDE) {
        return Ground::Namespaces { can_delay: delay == "delay" };
    }
    if let Err(missing) = probe() {
        return Ground::Loopback(missing);
    }
    let delay = if succeeds(DELAY) { "delay" } else { "no delay" };
    let Ok(program) = env::current_exe() else {
        return Ground::Loopback(String::from("this program does not know its own path"));
    };
    let error = unshare().arg(program).args(env::args_os().skip(1)).env(INSIDE, delay).exec();
    Ground::Loopback(format!("unshare cannot be run: {error}"))
}

/// Tries everything that a run needs, in namespaces that end with it.
fn probe() -> Result<(), String> {
    let namespaces = unshare().arg("true").stdin(Stdio::null()).output();
    let output = namespaces.map_err(|error| format!("unshare (package util-linux) is missing: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("namespaces cannot be made here: {}", errors.trim()));
    }
    let step = |(what, command)| format!("{{ {command}; }} >/dev/null || {{ echo '{what}'; exit 1; }}\n");
    let script: String = NEEDED.into_iter().map(step).collect();
    let output = unshare().args(["sh", "-c", &script]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let (what, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("{} is missing ({})", what.trim(), errors.trim().replace('\n', ", ")))
}

fn succeeds(script: &str) -> bool {
    let status = unshare().args(["sh", "-c", script]).stderr(Stdio::null()).stdin(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(FOR_A_USER);
    }
    command.args(NAMESPACES).arg("--");
    command
}
