//! A daemon's configuration, validated: nothing starts before every setting is known to be usable.
//!
//! [`Settings`] is what the user gave. This module fills in the defaults and validates the whole, into the configuration
//! that an introducer or a member runs with.

mod backends;
pub mod check;
mod error;
mod model_server;
pub mod report;
mod settings;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use idunno_shared::client::connections::CONNECTIONS_MAX;
use idunno_shared::names::MemberName;
use tracing_subscriber::EnvFilter;

pub use self::backends::BackendSettings;
pub use self::error::ConfigError;
use self::error::invalid;
pub use self::model_server::{MODEL_SERVER_URL, ModelServer, NO_MODEL_SERVER};
pub use self::settings::{LogFormat, Settings};
use crate::net::connection_limits::Limits;
use idunno_store::blobs::RESERVE_BYTES;
use idunno_store::scrub;
use idunno_worker::supervisor::Backend;

/// The introducer's port in a real deployment.
pub const INTRODUCER_PORT: u16 = 7400;
/// A member's port in a real deployment.
pub const MEMBER_PORT: u16 = 7401;
/// The failure detector logs a dead member once; openraft would log it ten times a second.
const LOG_FILTER: &str = "info,openraft::replication=off";
const DISK_RESERVE_MIB_MAX: u64 = 1 << 20;
const LIMIT_CONNECTIONS_MAX: usize = 4_096;
/// The limit on open files that a daemon asks the system for: enough for the connections that it accepts and opens.
pub const FILES_MAX: u64 = 16_384;
const FILES_OF_STORE: usize = 512;
/// Accepted connections have three limits of their own, and those that this process opens come on top.
const _: () = assert!(
    (3 * LIMIT_CONNECTIONS_MAX + CONNECTIONS_MAX + FILES_OF_STORE) as u64 <= FILES_MAX,
    "a daemon may run out of files"
);
/// A lower limit would keep the members of a large cluster from connecting to each other.
const LIMIT_MEMBERS_MIN: usize = 64;
const LIMIT_REQUESTS_MAX: usize = 65_536;

/// The validated settings that the introducer and a member share.
#[derive(Clone, Debug)]
pub struct Common {
    pub listen: SocketAddr,
    /// The cluster's secret file. Without one, nothing is authenticated or encrypted.
    pub secret: Option<PathBuf>,
    /// The address to give to others, if it is not the one listened on. Port 0 stands for the same port.
    pub advertise: Option<SocketAddr>,
    pub data_dir: PathBuf,
    /// Tracing directives.
    pub log: String,
    pub log_dir: PathBuf,
    /// Days whose log files are kept.
    pub log_files: usize,
    /// The limit on the total size of a day's files.
    pub log_day_bytes: u64,
    pub log_format: LogFormat,
    pub limits: Limits,
}

/// A member's validated settings.
#[derive(Clone, Debug)]
pub struct MemberConfig {
    pub common: Common,
    /// The introducer's `HOST:PORT`, resolved again at each attempt.
    pub introducer: String,
    pub name: MemberName,
    pub model_server: ModelServer,
    /// The folder that the member shares with a model server of another user.
    pub model_files_dir: Option<PathBuf>,
    pub backends: Vec<Backend>,
    /// Raft's heartbeat interval; election time-outs are 2.5 to 5 times as long.
    pub heartbeat: Duration,
    /// Disk space that blobs leave free.
    pub reserve_bytes: u64,
    /// The time in which the scrub verifies every blob once.
    pub scrub_period: Duration,
    /// Where to serve metrics, if at all.
    pub metrics_listen: Option<SocketAddr>,
    /// `HOST` or `HOST:PORT` to which webhooks go although it is private.
    pub webhook_hosts: Vec<String>,
    /// The URLs of what datasets may refer to although it is private, and what is read with this member's credentials.
    pub reference_urls: Vec<String>,
}

impl Settings {
    pub fn introducer(&self) -> Result<Common, ConfigError> {
        self.common(INTRODUCER_PORT)
    }

    pub fn member(&self) -> Result<MemberConfig, ConfigError> {
        let common = self.common(MEMBER_PORT)?;
        let introducer = self.introducer.clone().ok_or(ConfigError::Missing {
            key: "introducer",
            flag: "introducer",
            variable: "IDUNNO_INTRODUCER",
        })?;
        if !is_host_and_port(&introducer) {
            return Err(invalid("introducer", &introducer, "write it as HOST:PORT, without a scheme"));
        }
        let mut webhook_hosts = self.checked_webhook_hosts()?;
        if common.listen.ip().is_loopback() {
            // All of such a cluster is on one machine, and so are those whom it may tell.
            webhook_hosts.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        }
        Ok(MemberConfig {
            common,
            introducer,
            name: self.checked_name()?,
            model_server: self.model_server()?,
            model_files_dir: self.checked_model_files_dir()?,
            backends: backends::checked(&self.backend)?,
            heartbeat: self.heartbeat()?,
            reserve_bytes: self.reserve_bytes()?,
            scrub_period: self.scrub_period()?,
            metrics_listen: self.metrics_listen,
            webhook_hosts,
            reference_urls: self.checked_reference_urls()?,
        })
    }

    fn common(&self, default_port: u16) -> Result<Common, ConfigError> {
        let unspecified = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), default_port);
        let listen = self.listen.unwrap_or(unspecified);
        let secret = self.checked_secret(listen)?;
        let advertise = self.advertise.as_deref().map(parse_advertise).transpose()?;
        if advertise.is_none() && listen.ip().is_unspecified() {
            let why = "other processes cannot connect to it: set advertise to this machine's address";
            return Err(invalid("listen", listen, why));
        }
        let log_files = self.log_files.unwrap_or(14);
        if log_files == 0 {
            return Err(invalid("log_files", log_files, "keep at least 1"));
        }
        let data_dir = self.data_dir.clone().unwrap_or_else(|| PathBuf::from("/var/lib/idunno"));
        let log_dir = self.log_dir.clone().unwrap_or_else(|| data_dir.join("logs"));
        for (key, path) in [("data_dir", &data_dir), ("log_dir", &log_dir)] {
            // They are written to files of JSON, and sent to people.
            if path.to_str().is_none() {
                return Err(invalid(key, path.display(), "it is not UTF-8: choose another name"));
            }
        }
        Ok(Common {
            listen,
            secret,
            advertise,
            log_dir,
            data_dir,
            log: self.checked_log()?,
            log_files,
            log_day_bytes: self.log_day_bytes()?,
            log_format: self.log_format.unwrap_or_default(),
            limits: self.limits()?,
        })
    }

    fn checked_secret(&self, listen: SocketAddr) -> Result<Option<PathBuf>, ConfigError> {
        let is_insecure = self.insecure == Some(true);
        match &self.secret {
            Some(secret) if is_insecure => {
                Err(invalid("secret", secret.display(), "insecure is also set: give only one of the two"))
            }
            Some(secret) => Ok(Some(secret.clone())),
            None if !is_insecure => Err(ConfigError::NoSecret),
            None if !listen.ip().is_loopback() => {
                let why = "without a secret a daemon listens only on 127.0.0.1 or ::1: give --secret instead of --insecure";
                Err(invalid("listen", listen, why))
            }
            None => Ok(None),
        }
    }

    fn checked_log(&self) -> Result<String, ConfigError> {
        let log = self.log.clone().unwrap_or_else(|| String::from(LOG_FILTER));
        match EnvFilter::try_new(&log) {
            Ok(_) => Ok(log),
            Err(error) => Err(invalid("log", &log, format!("it is not a tracing filter: {error}"))),
        }
    }

    fn checked_name(&self) -> Result<MemberName, ConfigError> {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let name = self.name.clone().unwrap_or_else(host);
        name.parse()
            .map_err(|error: idunno_shared::names::NameError| invalid("name", &name, error.to_string()))
    }

    fn heartbeat(&self) -> Result<Duration, ConfigError> {
        let heartbeat_ms = self.heartbeat_ms.unwrap_or(100);
        if !(20..=1_000).contains(&heartbeat_ms) {
            return Err(invalid("heartbeat_ms", heartbeat_ms, "give 20 to 1,000"));
        }
        Ok(Duration::from_millis(heartbeat_ms))
    }

    fn reserve_bytes(&self) -> Result<u64, ConfigError> {
        let Some(reserve_mib) = self.disk_reserve_mib else { return Ok(RESERVE_BYTES) };
        if reserve_mib > DISK_RESERVE_MIB_MAX {
            return Err(invalid("disk_reserve_mib", reserve_mib, "give 0 to 1,048,576"));
        }
        Ok(reserve_mib << 20)
    }

    fn checked_webhook_hosts(&self) -> Result<Vec<String>, ConfigError> {
        let hosts = listed(self.webhook_hosts.as_deref());
        let is_host =
            |host: &str| !host.contains(|c: char| matches!(c, '/' | '@' | '*') || c.is_whitespace());
        match hosts.iter().find(|host| !is_host(host)) {
            Some(host) => {
                let why =
                    "list hosts as HOST or HOST:PORT with commas between them, without a scheme or a pattern";
                Err(invalid("webhook_hosts", host, why))
            }
            None => Ok(hosts.into_iter().map(str::to_owned).collect()),
        }
    }

    fn checked_reference_urls(&self) -> Result<Vec<String>, ConfigError> {
        const SCHEMES: [&str; 6] = ["s3", "gs", "az", "http", "https", "file"];
        let urls = listed(self.reference_urls.as_deref());
        let is_url = |url: &str| {
            let parts = url.split_once("://");
            parts.is_some_and(|(scheme, rest)| SCHEMES.contains(&scheme) && !rest.contains('*'))
        };
        match urls.iter().find(|url| !is_url(url)) {
            Some(url) => {
                let why = "list URLs as s3://BUCKET/PREFIX/, https://HOST:PORT/ or file:///FOLDER/ with commas between \
                           them, without a pattern";
                Err(invalid("reference_urls", url, why))
            }
            None => Ok(urls.into_iter().map(str::to_owned).collect()),
        }
    }

    fn limits(&self) -> Result<Limits, ConfigError> {
        let checked = |key, given: Option<usize>, default, least, most| {
            let value = given.unwrap_or(default);
            let why = || format!("give {least} to {most}");
            if (least..=most).contains(&value) { Ok(value) } else { Err(invalid(key, value, why())) }
        };
        let default = Limits::default();
        let connections =
            |key, given, default, least| checked(key, given, default, least, LIMIT_CONNECTIONS_MAX);
        Ok(Limits {
            greetings: connections("limit_greetings", self.limit_greetings, default.greetings, 1)?,
            members: connections("limit_members", self.limit_members, default.members, LIMIT_MEMBERS_MIN)?,
            clients: connections("limit_clients", self.limit_clients, default.clients, 1)?,
            identity_connections: connections(
                "limit_identity_connections",
                self.limit_identity_connections,
                default.identity_connections,
                1,
            )?,
            identity_requests: checked(
                "limit_identity_requests",
                self.limit_identity_requests,
                default.identity_requests,
                1,
                LIMIT_REQUESTS_MAX,
            )?,
            ..default
        })
    }

    fn log_day_bytes(&self) -> Result<u64, ConfigError> {
        let log_day_mib = self.log_day_mib.unwrap_or(32);
        if !(1..=65_536).contains(&log_day_mib) {
            return Err(invalid("log_day_mib", log_day_mib, "give 1 to 65,536"));
        }
        Ok(log_day_mib << 20)
    }

    fn scrub_period(&self) -> Result<Duration, ConfigError> {
        match self.scrub_period_s {
            None => Ok(scrub::PERIOD),
            Some(0) => Err(invalid("scrub_period_s", 0, "give at least 1")),
            Some(seconds) => Ok(Duration::from_secs(seconds)),
        }
    }
}

/// The parts of a list with commas between them.
fn listed(given: Option<&str>) -> Vec<&str> {
    given.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn parse_advertise(text: &str) -> Result<SocketAddr, ConfigError> {
    let address = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 0)));
    match address {
        Ok(address) if !address.ip().is_unspecified() => Ok(address),
        _ => Err(invalid("advertise", text, "write it as IP or IP:PORT, of this machine")),
    }
}

/// Whether it is a host's name or address with a port. An IPv6 address is in brackets.
fn is_host_and_port(text: &str) -> bool {
    if text.parse::<SocketAddr>().is_ok() {
        return true;
    }
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !host.is_empty() && host.chars().all(is_name) && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn settings() -> Settings {
        Settings {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            introducer: Some("127.0.0.1:7400".into()),
            name: Some("m1".into()),
            secret: Some("secret.pem".into()),
            ..Settings::default()
        }
    }

    #[test]
    fn unset_settings_have_defaults() {
        let config = settings().member().unwrap();
        assert_eq!(config.model_server, ModelServer::Url(MODEL_SERVER_URL.into()));
        assert_eq!(config.heartbeat, Duration::from_millis(100));
    }

    #[test]
    fn an_introducer_is_a_name_or_an_address_with_a_port() {
        for introducer in ["vm1:7400", "vm_1.example.org:7400", "10.0.0.1:7400", "[fd00::1]:7400"] {
            let settings = Settings { introducer: Some(introducer.into()), ..settings() };
            assert_eq!(settings.member().unwrap().introducer, introducer);
        }
    }

    #[test]
    fn directories_that_cannot_be_written_as_text_are_refused() {
        use std::os::unix::ffi::OsStrExt;

        let strange = Some(PathBuf::from(std::ffi::OsStr::from_bytes(b"/tmp/\xff")));
        for wrong in [
            Settings { data_dir: strange.clone(), ..settings() },
            Settings { log_dir: strange.clone(), ..settings() },
        ] {
            assert!(wrong.introducer().unwrap_err().to_string().contains("not UTF-8"));
        }
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let file: Settings = toml::from_str("name = 'file'\nthreads = 3").unwrap();
        let merged = settings().or(file);
        assert_eq!(merged.name.as_deref(), Some("m1"));
        assert_eq!(merged.threads, Some(3));
    }

    #[test]
    fn insecure_mode_refuses_to_leave_loopback() {
        let insecure = Settings { secret: None, insecure: Some(true), ..settings() };
        assert_eq!(insecure.introducer().unwrap().secret, None);
        for address in ["0.0.0.0:7401", "10.0.0.1:7401", "[::]:7401"] {
            let beyond = Settings { listen: Some(address.parse().unwrap()), ..insecure.clone() };
            let beyond = Settings { advertise: Some("10.0.0.1".into()), ..beyond };
            let error = beyond.introducer().unwrap_err().to_string();
            assert!(error.contains("--secret"), "{error}");
            assert!(Settings { insecure: None, secret: Some("s".into()), ..beyond }.introducer().is_ok());
        }
        let neither = Settings { secret: None, ..settings() };
        assert!(neither.introducer().unwrap_err().to_string().contains("idunno cluster init"));
        assert!(toml::from_str::<Settings>("insecure_network = true").is_err(), "the setting was removed");
    }

    #[test]
    fn an_offending_key_is_named() {
        let error = toml::from_str::<Settings>("lisen = '127.0.0.1:1'").unwrap_err().to_string();
        assert!(error.contains("lisen"), "{error}");
        for (key, broken) in [
            ("introducer", Settings { introducer: Some("nowhere".into()), ..settings() }),
            ("introducer", Settings { introducer: None, ..settings() }),
            ("introducer", Settings { introducer: Some("http://10.0.0.1:7400".into()), ..settings() }),
            ("introducer", Settings { introducer: Some(":7400".into()), ..settings() }),
            ("introducer", Settings { introducer: Some("10.0.0.1:70000".into()), ..settings() }),
            ("log", Settings { log: Some("info,idunno=loudly".into()), ..settings() }),
            ("name", Settings { name: Some("a b".into()), ..settings() }),
            ("heartbeat_ms", Settings { heartbeat_ms: Some(1), ..settings() }),
            ("disk_reserve_mib", Settings { disk_reserve_mib: Some(u64::MAX), ..settings() }),
            ("limit_members", Settings { limit_members: Some(2), ..settings() }),
            ("limit_clients", Settings { limit_clients: Some(9_999), ..settings() }),
            ("log_day_mib", Settings { log_day_mib: Some(0), ..settings() }),
            ("scrub_period_s", Settings { scrub_period_s: Some(0), ..settings() }),
            ("listen", Settings { listen: Some("0.0.0.0:7401".parse().unwrap()), ..settings() }),
            ("advertise", Settings { advertise: Some("0.0.0.0".into()), ..settings() }),
            ("model_server_url", Settings { model_server_url: Some("ftp://x".into()), ..settings() }),
            ("model_server_url", Settings { model_server_url: Some("https://x".into()), ..settings() }),
            (
                "model_server_url",
                Settings { model_server_url: Some("http://10.0.0.1:80".into()), ..settings() },
            ),
            (
                "model_server_url",
                Settings { model_server_url: Some("http://127.0.0.1:80@10.0.0.1/".into()), ..settings() },
            ),
            ("secret", Settings { secret: None, ..settings() }),
            ("secret", Settings { insecure: Some(true), ..settings() }),
        ] {
            let error = broken.member().unwrap_err().to_string();
            assert!(error.contains(&format!("'{key}'")), "{key}: {error}");
        }
    }
}
