//! `deploy`: installs the Debian package on VMs over ssh, or upgrades it, one VM after another.
//!
//! ssh is the program of this machine, with the user's own settings and keys; it asks nothing. All VMs are looked at before
//! anything changes, and the next VM is touched only when the last one works and no file lacks a copy. What is done on a VM is
//! `host.sh`, which is sent to it each time: nothing else of ours is needed there.

use std::net::IpAddr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Instant;

use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use crate::answer::document::List;
use crate::answer::local::DeployedHost;
use crate::answer::{Answer, Exit, Failure};
use crate::command::deploying::{Deploying, SshHost};
use crate::session::Session;

const SCRIPT: &str = include_str!("host.sh");
/// What comes before each command: it runs as root, or by a sudo that asks nothing.
const AS_ROOT: &str = "if [ \"$(id -u)\" = 0 ]; then s=; else s='sudo -n'; fi; $s";
/// Where `host.sh` finds what was sent.
const STAGED: &str = "/run/idunno-deploy";
/// The secret of a VM that has one.
const SECRET: &str = "/etc/idunno/secret.pem";
const CONNECT_TIMEOUT_S: u32 = 10;

/// What is on a VM before it is touched.
#[derive(Debug, PartialEq)]
struct Found {
    /// The version that is installed, if one is.
    version: Option<String>,
    has_secret: bool,
    addresses: Vec<IpAddr>,
}

/// `deploy`.
pub async fn run(session: &Session, deploying: &Deploying) -> Result<Answer, Failure> {
    let found = look(deploying).await?;
    let progress = session.reporter.start("deploy", deploying.hosts.len() as u64, 0);
    let mut deployed = Vec::with_capacity(found.len());
    for (host, before) in deploying.hosts.iter().zip(&found) {
        deployed.push(install(host, before, deploying).await?);
        progress.file();
    }
    let line = |host: &DeployedHost| {
        let role = if host.is_introducer { "introducer and member" } else { "member" };
        format!(
            "{}: IDunno {}, {role} at {}, works after {:.0} s",
            host.host, host.version, host.address, host.took_s
        )
    };
    let text = deployed.iter().map(line).collect::<Vec<_>>().join("\n");
    Ok(Answer::new(&List { items: deployed }, text))
}

/// What would be done, a line for each VM.
pub async fn plan(deploying: &Deploying) -> Result<Vec<String>, Failure> {
    let found = look(deploying).await?;
    let line = |(host, before): (&SshHost, &Found)| {
        let role = if is_introducer(before, deploying) { "introducer and member" } else { "member" };
        match &before.version {
            Some(version) => format!("{host}: upgrade IDunno {version}, {role}"),
            None => format!("{host}: install IDunno, {role}"),
        }
    };
    Ok(deploying.hosts.iter().zip(&found).map(line).collect())
}

fn is_introducer(before: &Found, deploying: &Deploying) -> bool {
    before.addresses.contains(&deploying.introducer)
}

/// Looks at every VM, and refuses all of them if one cannot be installed.
async fn look(deploying: &Deploying) -> Result<Vec<Found>, Failure> {
    for file in [Some(&deploying.package), deploying.secret.as_ref()].into_iter().flatten() {
        File::open(file).await.map_err(|error| {
            Failure::new(Exit::NotFound, format!("cannot read {}: {error}", file.display()))
        })?;
    }
    let mut found = Vec::with_capacity(deploying.hosts.len());
    for host in &deploying.hosts {
        let before = parse(&step(deploying, host, "check").await?);
        if !before.has_secret && deploying.secret.is_none() {
            let text = format!(
                "{host} has no secret of a cluster yet: pass --secret FILE; 'idunno cluster init' makes one"
            );
            return Err(Failure::new(Exit::Usage, text));
        }
        if let Some(secret) = deploying.secret.as_ref().filter(|_| before.has_secret) {
            check_secret(deploying, host, secret).await?;
        }
        found.push(before);
    }
    Ok(found)
}

/// Refuses a VM whose secret is another one.
async fn check_secret(deploying: &Deploying, host: &SshHost, secret: &Path) -> Result<(), Failure> {
    let same = format!("sh -c 'cmp -s - {SECRET} && echo same || echo other'");
    let said = feed(deploying, host, &same, secret).await?;
    if said.lines().any(|line| line == "same") {
        return Ok(());
    }
    let text = format!(
        "{host}: its {SECRET} is not {}: the VM belongs to another cluster, or its secret has been rotated",
        secret.display()
    );
    Err(Failure::new(Exit::Refused, text))
}

/// Installs one VM, and waits until its member works.
async fn install(host: &SshHost, before: &Found, deploying: &Deploying) -> Result<DeployedHost, Failure> {
    let started = Instant::now();
    send(deploying, host, "idunno.deb", &deploying.package).await?;
    if let Some(secret) = &deploying.secret {
        send(deploying, host, "secret.pem", secret).await?;
    }
    let yes_or_no = |is: bool| if is { "yes" } else { "no" };
    let is_introducer = is_introducer(before, deploying);
    let words = format!(
        "install_package {} {} {}",
        deploying.introducer,
        yes_or_no(is_introducer),
        yes_or_no(!deploying.without_models)
    );
    let after = parse(&step(deploying, host, &words).await?);
    let address = after.addresses.first().ok_or_else(|| unclear(host))?;
    Ok(DeployedHost {
        host: host.to_string(),
        address: address.to_string(),
        version: after.version.ok_or_else(|| unclear(host))?,
        is_introducer,
        took_s: started.elapsed().as_secs_f64(),
    })
}

fn unclear(host: &SshHost) -> Failure {
    Failure::error(format!(
        "{host} does not say what is installed there: does its shell print something at login?"
    ))
}

/// The lines that a step prints, of which others than ours are skipped.
fn parse(said: &str) -> Found {
    let words = || said.lines().filter_map(|line| line.split_once(' '));
    let word =
        |wanted: &str| words().find(|(name, _)| *name == wanted).map(|(_, word)| word.trim().to_owned());
    Found {
        version: word("version").filter(|version| !version.is_empty()),
        has_secret: word("secret").as_deref() == Some("yes"),
        addresses: words()
            .filter(|(name, _)| *name == "address")
            .filter_map(|(_, it)| it.trim().parse().ok())
            .collect(),
    }
}

/// Runs a step of the script on a VM; answers what it prints.
async fn step(deploying: &Deploying, host: &SshHost, words: &str) -> Result<String, Failure> {
    let mut child = ssh(deploying, host, &format!("{AS_ROOT} sh -s -- {words}"), Stdio::piped())?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may have ended without reading all, and then says why.
        let _ = stdin.write_all(SCRIPT.as_bytes()).await;
    }
    outcome(host, child.wait_with_output().await)
}

/// Sends a file to a VM, where only root reads it.
async fn send(deploying: &Deploying, host: &SshHost, name: &str, file: &Path) -> Result<(), Failure> {
    let stage = format!("sh -c 'umask 077; mkdir -p {STAGED}; cat >{STAGED}/{name}'");
    feed(deploying, host, &stage, file).await.map(drop)
}

/// Runs a command on a VM that reads a file of this machine; answers what it prints.
async fn feed(deploying: &Deploying, host: &SshHost, command: &str, file: &Path) -> Result<String, Failure> {
    let opened = std::fs::File::open(file);
    let opened =
        opened.map_err(|error| Failure::error(format!("cannot read {}: {error}", file.display())))?;
    let child = ssh(deploying, host, &format!("{AS_ROOT} {command}"), Stdio::from(opened))?;
    outcome(host, child.wait_with_output().await)
}

fn ssh(deploying: &Deploying, host: &SshHost, command: &str, stdin: Stdio) -> Result<Child, Failure> {
    let mut ssh = Command::new("ssh");
    if let Some(config) = &deploying.ssh_config {
        ssh.arg("-F").arg(config);
    }
    ssh.args(["-o", "BatchMode=yes", "-o", &format!("ConnectTimeout={CONNECT_TIMEOUT_S}")]);
    ssh.args([host.as_str(), "--", command]);
    ssh.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    ssh.spawn().map_err(|error| Failure::error(format!("cannot start ssh: {error}")))
}

fn outcome(host: &SshHost, ended: std::io::Result<Output>) -> Result<String, Failure> {
    let Output { status, stdout, stderr } =
        ended.map_err(|error| Failure::error(format!("ssh {host}: {error}")))?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&stderr);
    let said = said.trim();
    // ssh's own failures end with 255.
    let exit = if status.code() == Some(255) { Exit::Unreachable } else { Exit::Error };
    let why = if said.is_empty() { format!("it ended with {status}") } else { said.to_owned() };
    Err(Failure::new(exit, format!("{host}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_vm_says_is_read_between_other_lines() {
        let said = "Welcome to vm1\nversion 0.1.0\nsecret yes\naddress 127.0.0.1\naddress 10.0.0.7\naddress fe80::1\n";
        let found = parse(said);
        assert_eq!((found.version.as_deref(), found.has_secret), (Some("0.1.0"), true));
        assert_eq!(found.addresses.len(), 3);
        assert_eq!(
            parse("version \nsecret no\n"),
            Found { version: None, has_secret: false, addresses: vec![] }
        );
    }
}
