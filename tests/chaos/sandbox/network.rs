//! A bridge, and a network namespace for each daemon attached to it. The driver has an address on the bridge too.

use std::fs;
use std::process::Command;

use anyhow::Context;

use super::links::{Broken, Endpoint, firewall};
use super::run;

/// The directory in which `ip` keeps the names of namespaces.
const NAMES: &str = "/run/netns";

/// The network of a run. It disappears with the driver's namespaces.
pub(crate) struct Network {
    endpoints: Vec<Endpoint>,
    /// Whether the kernel can delay packets.
    can_delay: bool,
}

impl Network {
    /// Builds the network. The driver must be in its own namespaces.
    pub(crate) fn build(members: usize, can_delay: bool) -> anyhow::Result<Self> {
        run("mount", &["-t", "tmpfs", "tmpfs", "/run"], "")
            .context("cannot mount a directory for the names of namespaces")?;
        fs::create_dir_all(NAMES)?;
        let address = Endpoint::Client.address();
        let hub = format!(
            "link set lo up\nlink add hub type bridge\naddr add {address}/24 dev hub\nlink set hub up\n"
        );
        run("ip", &["-batch", "-"], &hub).context("cannot build the bridge")?;
        let daemons = (0..members).map(Endpoint::Member).chain([Endpoint::Introducer]);
        for endpoint in daemons.clone() {
            attach(endpoint)?;
        }
        Ok(Self { endpoints: daemons.chain([Endpoint::Client]).collect(), can_delay })
    }

    /// Breaks exactly these links; all others work.
    pub(crate) fn set(&self, broken: &[Broken]) -> anyhow::Result<()> {
        for &endpoint in &self.endpoints {
            let rules = firewall(endpoint, broken);
            match endpoint {
                Endpoint::Client => run("nft", &["-f", "-"], &rules)?,
                _ => run("nsenter", &[&within(endpoint), "--", "nft", "-f", "-"], &rules)?,
            }
        }
        Ok(())
    }

    /// Delays what a member sends by about `ms` milliseconds, if the kernel can; 0 removes the delay.
    pub(crate) fn delay(&self, member: usize, ms: u32) -> anyhow::Result<()> {
        if !self.can_delay {
            return Ok(());
        }
        let within = within(Endpoint::Member(member));
        let tc = [within.as_str(), "--", "tc", "qdisc"];
        let (delay, jitter) = (format!("{ms}ms"), format!("{}ms", ms / 2));
        let netem = ["replace", "dev", "eth0", "root", "netem", "delay", &delay, &jitter];
        let change: &[&str] = if ms == 0 { &["del", "dev", "eth0", "root"] } else { &netem };
        run("nsenter", &[&tc, change].concat(), "")
    }
}

/// A command that runs in the network namespace of `endpoint`.
pub(crate) fn command_within(endpoint: Endpoint, program: &std::path::Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(within(endpoint)).arg("--").arg(program);
    command
}

fn attach(endpoint: Endpoint) -> anyhow::Result<()> {
    let (name, address) = (name(endpoint), endpoint.address());
    let outside = format!(
        "netns add {name}\nlink add to-{name} type veth peer name eth0 netns {name}\n\
         link set to-{name} master hub up\n"
    );
    run("ip", &["-batch", "-"], &outside)?;
    let inside = format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n");
    run("ip", &["-n", &name, "-batch", "-"], &inside)
}

fn name(endpoint: Endpoint) -> String {
    match endpoint {
        Endpoint::Client => String::from("client"),
        Endpoint::Introducer => String::from("introducer"),
        Endpoint::Member(index) => format!("m{}", index + 1),
    }
}

fn within(endpoint: Endpoint) -> String {
    format!("--net={NAMES}/{}", name(endpoint))
}
