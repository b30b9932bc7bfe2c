//! The HTTP clients: one that goes anywhere, and one that does not leave the public Internet.
//!
//! A name counts by the addresses that it has when a connection is made, and so does the target of each redirect. A client
//! that is guarded takes no proxy, which would resolve names itself.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::public_addresses::is_public;
use object_store::client::{HttpClient, HttpConnector};
use object_store::{ClientConfigKey, ClientOptions};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Url};
use tokio::net::lookup_host;

/// Off the clouds nothing answers: credentials are then missed within seconds.
const METADATA_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a service may send nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: usize = 5;

/// Why a private place is not reached.
pub(crate) const PRIVATE: &str = "it is an address of this machine or of a private network: an operator may list its URL in the \
                           members' reference_urls";

/// Whether a URL names a private address itself. Of names the resolver decides.
pub(crate) fn is_private(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.parse::<IpAddr>().is_ok_and(|ip| !is_public(ip))
}

/// The client that goes anywhere.
pub(crate) fn open() -> reqwest::Result<Client> {
    with_limits().redirect(Policy::limited(REDIRECTS_MAX)).build()
}

/// The client that reaches public addresses only.
pub(crate) fn guarded() -> reqwest::Result<Client> {
    let redirect = Policy::custom(|attempt| match attempt.previous().len() {
        _ if is_private(attempt.url()) => attempt.error(PRIVATE),
        REDIRECTS_MAX.. => attempt.error("too many redirects"),
        _ => attempt.follow(),
    });
    with_limits().redirect(redirect).no_proxy().dns_resolver(Arc::new(PublicResolver)).build()
}

/// A whole object may take as long as it comes: only silence is bounded.
fn with_limits() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("idunno/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
}

/// Hands one client to whatever asks for a connection.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pub(crate) objects: Client,
    /// The client of the machine's metadata service, which is next to it or nowhere.
    pub(crate) metadata: Client,
}

/// The options of requests for objects. Those for credentials of the machine differ in the time to connect.
pub(crate) fn options() -> ClientOptions {
    ClientOptions::new().with_allow_http(true).with_connect_timeout(CONNECT_TIMEOUT)
}

impl HttpConnector for Connector {
    fn connect(&self, wanted: &ClientOptions) -> object_store::Result<HttpClient> {
        let of = |options: &ClientOptions| options.get_config_value(&ClientConfigKey::ConnectTimeout);
        let client = if of(wanted) == of(&options()) { &self.objects } else { &self.metadata };
        Ok(HttpClient::new(client.clone()))
    }
}

/// The client of a metadata service.
pub(crate) fn metadata() -> reqwest::Result<Client> {
    with_limits().no_proxy().connect_timeout(METADATA_CONNECT_TIMEOUT).redirect(Policy::none()).build()
}

/// Finds the addresses of names, and leaves out those that are not public.
struct PublicResolver;

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if allowed.is_empty() {
                return Err(format!("{}: {PRIVATE}", name.as_str()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// An error with its causes, each once.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
