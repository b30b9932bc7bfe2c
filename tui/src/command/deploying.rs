//! Arguments of `deploy`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use thiserror::Error;

/// A machine as ssh names it: `[USER@]HOST`, or a name in `~/.ssh/config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshHost(String);

impl SshHost {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SshHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// ssh would take it for something else than a machine.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("write it as ssh takes it: HOST, USER@HOST, or a name in ~/.ssh/config")]
pub struct SshHostError;

impl FromStr for SshHost {
    type Err = SshHostError;

    fn from_str(text: &str) -> Result<Self, SshHostError> {
        let is_plain = |character: char| character.is_ascii_graphic();
        if text.is_empty() || text.starts_with('-') || !text.chars().all(is_plain) {
            return Err(SshHostError);
        }
        Ok(Self(text.to_owned()))
    }
}

/// What is installed where.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Deploying {
    /// The VMs, as ssh names them; each becomes a member, one after another
    #[arg(value_name = "HOST", required = true)]
    pub hosts: Vec<SshHost>,
    /// The Debian package
    #[arg(long, value_name = "FILE")]
    pub package: PathBuf,
    /// Address of the introducer, as the members reach it: the VM that has this address runs it
    #[arg(long, value_name = "IP")]
    pub introducer: IpAddr,
    /// The cluster's secret, for VMs that have none yet; 'idunno cluster init' makes one
    #[arg(long, value_name = "FILE")]
    pub secret: Option<PathBuf>,
    /// Configuration of ssh, in place of ~/.ssh/config
    #[arg(long, value_name = "FILE")]
    pub ssh_config: Option<PathBuf>,
    /// Install no model server: the members only store files
    #[arg(long)]
    pub without_models: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_never_taken_for_an_option_or_a_command() {
        for good in ["vm1", "root@10.0.0.7", "ssh://ops@vm1:2222"] {
            assert_eq!(good.parse::<SshHost>().unwrap().as_str(), good);
        }
        for bad in ["", "-oProxyCommand=x", "vm1 reboot", "vm\n1"] {
            assert_eq!(bad.parse::<SshHost>(), Err(SshHostError), "{bad}");
        }
    }
}
