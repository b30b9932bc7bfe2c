//! Namespaces for the whole run.
//!
//! The driver moves into new network, mount and process namespaces before it creates anything. Nothing that it creates is
//! visible outside, so runs cannot interfere with each other. However the driver ends, the kernel removes its processes,
//! links and mounts.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Set for the driver inside its namespaces.
const INSIDE: &str = "IDUNNO_CHAOS_INSIDE";
const NAMESPACES: [&str; 6] = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
/// Maps the current user to root inside the namespaces.
const FOR_A_USER: [&str; 2] = ["--user", "--map-root-user"];

/// The requirements, each with a command that succeeds if it is met.
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
/// Delays need the netem module, which many kernels lack.
const DELAY: &str = "tc qdisc add dev lo root netem delay 1ms";

/// Where the run takes place, which decides which faults are possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sandbox {
    /// In namespaces; `can_delay` says whether links can be slowed down.
    Namespaces { can_delay: bool },
    /// On the loopback interface of the machine; why.
    Loopback(String),
}

/// Moves this program into namespaces by starting it again inside them. Returns where the run takes place.
pub(crate) fn enter() -> Sandbox {
    if let Some(delay) = env::var_os(INSIDE) {
        return Sandbox::Namespaces { can_delay: delay == "delay" };
    }
    if let Err(missing) = probe() {
        return Sandbox::Loopback(missing);
    }
    let delay = if succeeds(DELAY) { "delay" } else { "no delay" };
    let Ok(program) = env::current_exe() else {
        return Sandbox::Loopback(String::from("the path of this program is unknown"));
    };
    let error = unshare().arg(program).args(env::args_os().skip(1)).env(INSIDE, delay).exec();
    Sandbox::Loopback(format!("cannot run unshare: {error}"))
}

/// Checks every requirement in temporary namespaces.
fn probe() -> Result<(), String> {
    let namespaces = unshare().arg("true").stdin(Stdio::null()).output();
    let output = namespaces.map_err(|error| format!("unshare (package util-linux) is missing: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cannot create namespaces here: {}", errors.trim()));
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
