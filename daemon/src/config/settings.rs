//! The settings as given: by a TOML file, by environment variables and by flags, in rising precedence.
//!
//! One structure serves all three, so that they cannot drift apart: clap reads flags and environment, serde reads the file,
//! and the file supplies what the others leave out.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use super::backends::BackendSettings;
use super::error::ConfigError;

/// The settings as given, before defaults.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Settings {
    /// A TOML file with these settings, keys with underscores (listen, data_dir, ...)
    #[arg(long, env = "IDUNNO_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Address and port to listen on, TCP and UDP [default: 0.0.0.0:7401, introducer 0.0.0.0:7400]
    #[arg(long, env = "IDUNNO_LISTEN", value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Address that other processes use for this one, if it is not the one listened on
    #[arg(long, env = "IDUNNO_ADVERTISE", value_name = "IP[:PORT]")]
    pub advertise: Option<String>,
    /// Directory for all data of this process [default: /var/lib/idunno]
    #[arg(long, env = "IDUNNO_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The introducer's address
    #[arg(long, env = "IDUNNO_INTRODUCER", value_name = "HOST:PORT")]
    pub introducer: Option<String>,
    /// This member's name [default: the host name]
    #[arg(long, env = "IDUNNO_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// URL of a model server that is run separately, 'unix:' and the path of its socket, or 'none' [default: http://127.0.0.1:8080, or 'none' beside a backend]
    #[arg(long, env = "IDUNNO_MODEL_SERVER_URL", value_name = "URL")]
    pub model_server_url: Option<String>,
    /// Folder for packages and training data that a separate model server reads as another user: the member writes there, the model server's user may enter it [default: the data directory]
    #[arg(long, env = "IDUNNO_MODEL_FILES_DIR", value_name = "DIR")]
    pub model_files_dir: Option<PathBuf>,
    /// Python interpreter with idunno_model_server installed: run and supervise the model server with it
    #[arg(long, env = "IDUNNO_MODEL_SERVER_PYTHON", value_name = "PYTHON")]
    pub model_server_python: Option<PathBuf>,
    /// Threads of the supervised model server [default: one per core]
    #[arg(long, env = "IDUNNO_THREADS", value_name = "N")]
    pub threads: Option<usize>,
    /// The cluster's secret file, created by 'idunno cluster init': the same for all processes of the cluster
    #[arg(long, env = "IDUNNO_SECRET", value_name = "FILE")]
    pub secret: Option<PathBuf>,
    /// Run without a secret: anyone on this machine may do everything. On loopback only
    #[arg(long, env = "IDUNNO_INSECURE", num_args = 0..=1, default_missing_value = "true")]
    pub insecure: Option<bool>,
    /// Raft heartbeat in milliseconds, 20 to 1,000 [default: 100]
    #[arg(long, env = "IDUNNO_HEARTBEAT_MS", value_name = "MS")]
    pub heartbeat_ms: Option<u64>,
    /// Disk space that stored files leave free, in MiB, up to 1,048,576 [default: 256]
    #[arg(long, env = "IDUNNO_DISK_RESERVE_MIB", value_name = "MIB")]
    pub disk_reserve_mib: Option<u64>,
    /// Seconds in which every stored blob is read and verified once, at least 1 [default: 604800, a week]
    #[arg(long, env = "IDUNNO_SCRUB_PERIOD_S", value_name = "S")]
    pub scrub_period_s: Option<u64>,
    /// What to log, as tracing directives [default: info]
    #[arg(long, env = "IDUNNO_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// Directory for log files [default: logs in the data directory]
    #[arg(long, env = "IDUNNO_LOG_DIR", value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// Days of log files to keep [default: 14]
    #[arg(long, env = "IDUNNO_LOG_FILES", value_name = "N")]
    pub log_files: Option<usize>,
    /// Size limit of a day's log in MiB, 1 to 65,536; beyond it the day's oldest lines are dropped [default: 32]
    #[arg(long, env = "IDUNNO_LOG_DAY_MIB", value_name = "MIB")]
    pub log_day_mib: Option<u64>,
    /// Format of the log files [default: human]
    #[arg(long, env = "IDUNNO_LOG_FORMAT", value_name = "FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
    /// Address and port for Prometheus metrics and health checks over HTTP [default: none]
    #[arg(long, env = "IDUNNO_METRICS_LISTEN", value_name = "IP:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// Hosts on this machine or in private networks to which webhooks may be sent, with commas between them [default: none]
    #[arg(long, env = "IDUNNO_WEBHOOK_HOSTS", value_name = "HOST[:PORT],...")]
    pub webhook_hosts: Option<String>,
    /// URLs of buckets and folders that datasets may refer to although they are private, and that are read with this member's own credentials, with commas between them: s3://BUCKET/, https://minio:9000/, file:///mnt/data/ [default: none]
    #[arg(long, env = "IDUNNO_REFERENCE_URLS", value_name = "URL,...")]
    pub reference_urls: Option<String>,
    /// Limit on connections in their handshake, 1 to 4,096; half of it is kept for addresses of known members; beyond the limit, the oldest is closed [default: 1024]
    #[arg(long, env = "IDUNNO_LIMIT_GREETINGS", value_name = "N")]
    pub limit_greetings: Option<usize>,
    /// Limit on connections of other members, 64 to 4,096 [default: 4096]
    #[arg(long, env = "IDUNNO_LIMIT_MEMBERS", value_name = "N")]
    pub limit_members: Option<usize>,
    /// Limit on connections of clients, 1 to 4,096 [default: 1024]
    #[arg(long, env = "IDUNNO_LIMIT_CLIENTS", value_name = "N")]
    pub limit_clients: Option<usize>,
    /// Limit on client connections of one identity, 1 to 4,096 [default: 256]
    #[arg(long, env = "IDUNNO_LIMIT_IDENTITY_CONNECTIONS", value_name = "N")]
    pub limit_identity_connections: Option<usize>,
    /// Limit on requests in flight of one identity, 1 to 65,536 [default: 512]
    #[arg(long, env = "IDUNNO_LIMIT_IDENTITY_REQUESTS", value_name = "N")]
    pub limit_identity_requests: Option<usize>,
    /// Model servers of others: only in the file.
    #[arg(skip)]
    #[serde(default)]
    pub backend: Vec<BackendSettings>,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text for people
    #[default]
    Human,
    /// One JSON object per line
    Json,
}

impl Settings {
    /// Takes what flags and environment leave out from the configuration file, if one is given.
    pub fn with_file(self) -> Result<Self, ConfigError> {
        let Some(path) = self.config.clone() else { return Ok(self) };
        let text =
            fs::read_to_string(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        let file: Self =
            toml::from_str(&text).map_err(|source| ConfigError::Parse { path, source: Box::new(source) })?;
        Ok(self.or(file))
    }

    /// Takes what `self` leaves out from `file`.
    pub(super) fn or(self, file: Self) -> Self {
        Self {
            config: self.config,
            listen: self.listen.or(file.listen),
            advertise: self.advertise.or(file.advertise),
            data_dir: self.data_dir.or(file.data_dir),
            introducer: self.introducer.or(file.introducer),
            name: self.name.or(file.name),
            model_server_url: self.model_server_url.or(file.model_server_url),
            model_files_dir: self.model_files_dir.or(file.model_files_dir),
            model_server_python: self.model_server_python.or(file.model_server_python),
            threads: self.threads.or(file.threads),
            secret: self.secret.or(file.secret),
            insecure: self.insecure.or(file.insecure),
            heartbeat_ms: self.heartbeat_ms.or(file.heartbeat_ms),
            disk_reserve_mib: self.disk_reserve_mib.or(file.disk_reserve_mib),
            scrub_period_s: self.scrub_period_s.or(file.scrub_period_s),
            log: self.log.or(file.log),
            log_dir: self.log_dir.or(file.log_dir),
            log_files: self.log_files.or(file.log_files),
            log_day_mib: self.log_day_mib.or(file.log_day_mib),
            limit_greetings: self.limit_greetings.or(file.limit_greetings),
            limit_members: self.limit_members.or(file.limit_members),
            limit_clients: self.limit_clients.or(file.limit_clients),
            limit_identity_connections: self.limit_identity_connections.or(file.limit_identity_connections),
            limit_identity_requests: self.limit_identity_requests.or(file.limit_identity_requests),
            log_format: self.log_format.or(file.log_format),
            metrics_listen: self.metrics_listen.or(file.metrics_listen),
            webhook_hosts: self.webhook_hosts.or(file.webhook_hosts),
            reference_urls: self.reference_urls.or(file.reference_urls),
            backend: if self.backend.is_empty() { file.backend } else { self.backend },
        }
    }
}
