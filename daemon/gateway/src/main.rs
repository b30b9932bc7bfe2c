//! The program: settings, and a server until SIGTERM.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use idunno_gateway::keys::Keys;
use idunno_gateway::s3::gateway::{Gateway, Limits};
use idunno_gateway::server::{self, Server};
use idunno_shared::security::secret::Secret;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Serves an IDunno cluster's store over S3, and its jobs over OpenAI's batch API
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Example:\n  idunno-gateway --cluster 10.0.0.1:7401 --secret secret.pem\n\nKeys for programs: idunno key create"
)]
struct Settings {
    /// Addresses of members, separated by commas; one that is up suffices
    #[arg(long, env = "IDUNNO_CLUSTER", value_name = "HOST:PORT", value_delimiter = ',', value_parser = member, required = true)]
    cluster: Vec<SocketAddr>,
    /// The cluster's secret file
    #[arg(long, env = "IDUNNO_SECRET", value_name = "FILE")]
    secret: PathBuf,
    /// Where to listen; another address than a loopback one needs a certificate
    #[arg(long, env = "IDUNNO_GATEWAY_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// The certificate that programs see, with its chain, in a PEM file
    #[arg(long, env = "IDUNNO_GATEWAY_CERTIFICATE", value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The private key of the certificate, in a PEM file
    #[arg(long, env = "IDUNNO_GATEWAY_KEY", value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Memory for bytes of objects, in MiB: half of it for what is received, half for what is sent
    #[arg(long, env = "IDUNNO_GATEWAY_MEMORY_MIB", value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u64).range(128..=1_048_576))]
    memory_mib: u64,
    /// Requests that are answered at once; further ones are asked to slow down
    #[arg(long, env = "IDUNNO_GATEWAY_REQUESTS", value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    requests: u16,
}

/// The address of a member, given by name or by number.
fn member(text: &str) -> Result<SocketAddr, String> {
    let wrong = |why: String| format!("{why}: write HOST:PORT");
    let mut found = text.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong(String::from("it has no address")))
}

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    let filter = EnvFilter::try_from_env("IDUNNO_LOG").unwrap_or_else(|_| EnvFilter::new("info,s3s=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nobody may read it.
            let _ = writeln!(std::io::stderr(), "idunno-gateway: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> Result<(), Box<dyn std::error::Error>> {
    let Settings { cluster, secret, listen, certificate, key, memory_mib, requests } = settings;
    let tls = match certificate.zip(key) {
        Some((certificate, key)) => Some(server::tls(&certificate, &key)?),
        None if listen.ip().is_loopback() => None,
        None => {
            let text = format!(
                "{listen} is no loopback address: give it a certificate, --certificate and --key, or listen on 127.0.0.1"
            );
            return Err(text.into());
        }
    };
    let keys = Keys::new(Secret::load(&secret)?, cluster);
    let half = memory_mib << 19;
    let limits = Limits {
        receive_bytes: half,
        send_bytes: half / 2,
        cache_bytes: usize::try_from(half / 2).unwrap_or(usize::MAX),
    };
    let server = Server::new(Gateway::new(keys.clone(), limits), keys, requests.into());
    let listener =
        TcpListener::bind(listen).await.map_err(|why| format!("cannot listen on {listen}: {why}"))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let address = listener.local_addr()?;
    let mut out = std::io::stdout();
    // Who started it may wait for these lines, or not listen.
    let _ = writeln!(out, "S3 at {scheme}://{address}")
        .and_then(|()| writeln!(out, "OpenAI's API at {scheme}://{address}/v1"))
        .and_then(|()| out.flush());
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    server.run(listener, tls, stop).await;
    Ok(())
}
