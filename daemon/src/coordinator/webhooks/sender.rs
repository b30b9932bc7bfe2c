//! Sends webhooks, and refuses to be a way into the cluster's own network.
//!
//! A URL is somebody's text, and the coordinator stands where that person may not: beside metadata services, databases and
//! other machines' ports. So addresses of this machine and of private networks are refused, unless an operator lists the host;
//! a name counts by the addresses that it has at each try; redirects are failures.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::injected_faults::wall_clock;
use idunno_shared::public_addresses::is_public;
use idunno_shared::security::Credentials;
use idunno_shared::wire::webhooks::WebhookUrl;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER, USER_AGENT};
use reqwest::{Client, StatusCode, Url, redirect};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::message::Message;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a receiver may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest pause for which a receiver may ask.
const PAUSE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// How a try went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The receiver has it.
    Told,
    /// It is of no use to try again, for this reason.
    Futile(String),
    /// It may be tried again, not before the pause for which the receiver asked.
    Failed {
        /// The reason.
        why: String,
        /// The pause.
        pause: Option<Duration>,
    },
}

/// Sends webhooks in the name of the cluster.
#[derive(Clone)]
pub struct WebhookSender {
    credentials: Credentials,
    /// `HOST` or `HOST:PORT`, which may be anywhere.
    listed: Arc<[String]>,
}

/// Where a URL leads.
struct Target {
    url: Url,
    host: String,
    port: u16,
    is_listed: bool,
}

impl WebhookSender {
    /// Signs with the keys of these credentials. `listed` are the hosts, as `HOST` or `HOST:PORT`, that may have private
    /// addresses.
    pub fn new(credentials: Credentials, listed: &[String]) -> Self {
        let listed = listed.iter().map(|host| host.to_ascii_lowercase()).collect();
        Self { credentials, listed }
    }

    /// Why a URL can never be told anything, as far as its text says so.
    pub(super) fn check(&self, url: &WebhookUrl) -> Result<(), String> {
        let target = self.target(url)?;
        let literal = target.host.parse().ok();
        match literal.filter(|ip| !target.is_listed && !is_public(*ip)) {
            Some(_) => Err(refused(&target)),
            None => Ok(()),
        }
    }

    /// Sends a message once.
    pub(super) async fn send(&self, url: &WebhookUrl, message: &Message) -> Attempt {
        let failed = |why: String| Attempt::Failed { why, pause: None };
        let target = match self.target(url) {
            Ok(target) => target,
            Err(why) => return Attempt::Futile(why),
        };
        let addresses: Vec<SocketAddr> =
            match timeout(CONNECT_TIMEOUT, lookup_host((&*target.host, target.port))).await {
                Ok(Ok(addresses)) => addresses.collect(),
                Ok(Err(error)) => return failed(format!("{} has no address: {error}", target.host)),
                Err(_) => return failed(format!("the address of {} is not told in time", target.host)),
            };
        let allowed: Vec<SocketAddr> =
            addresses.into_iter().filter(|address| target.is_listed || is_public(address.ip())).collect();
        if allowed.is_empty() {
            return Attempt::Futile(refused(&target));
        }
        match self.post(&target, &allowed, message).await {
            Ok((status, headers)) => verdict(status, &headers),
            Err(error) => failed(text(&error)),
        }
    }

    fn target(&self, url: &WebhookUrl) -> Result<Target, String> {
        let url = Url::parse(url.as_str()).map_err(|error| format!("{url} is no URL: {error}"))?;
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = url.port_or_known_default().unwrap_or(0);
        let with_port = SocketAddr::new(host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port);
        let with_port =
            if host.parse::<IpAddr>().is_ok() { with_port.to_string() } else { format!("{host}:{port}") };
        let is_listed = self.listed.iter().any(|listed| *listed == host || *listed == with_port);
        Ok(Target { url, host, port, is_listed })
    }

    async fn post(
        &self,
        target: &Target,
        addresses: &[SocketAddr],
        message: &Message,
    ) -> reqwest::Result<(StatusCode, HeaderMap)> {
        // A client of its own: what it trusts and where names lead is of this try only.
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .resolve_to_addrs(&target.host, addresses)
            .build()?;
        let now = wall_clock().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let timestamp_s = now.as_secs();
        let keys = self.credentials.webhook_keys();
        let signatures: Vec<String> =
            keys.iter().map(|key| key.sign(&message.id, timestamp_s, &message.body)).collect();
        let mut request = client
            .post(target.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("idunno/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", timestamp_s);
        if !signatures.is_empty() {
            request = request.header("webhook-signature", signatures.join(" "));
        }
        let answer = request.body(message.body.clone()).send().await?;
        Ok((answer.status(), answer.headers().clone()))
    }
}

fn verdict(status: StatusCode, headers: &HeaderMap) -> Attempt {
    if status.is_success() {
        return Attempt::Told;
    }
    let why = format!("the receiver answered {status}");
    if status == StatusCode::GONE {
        return Attempt::Futile(why);
    }
    let pause_s = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Attempt::Failed { why, pause: pause_s.map(|pause_s| Duration::from_secs(pause_s).min(PAUSE_MAX)) }
}

fn refused(target: &Target) -> String {
    format!(
        "{} is an address of this machine or of a private network, to which no webhook is sent: an operator may list it in \
         the members' webhook_hosts",
        target.host
    )
}

/// An error with its causes, without the URL, which stands beside it.
fn text(error: &reqwest::Error) -> String {
    let mut text = String::from("no answer");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(listed: &[&str]) -> WebhookSender {
        let listed: Vec<String> = listed.iter().map(|host| (*host).to_owned()).collect();
        WebhookSender::new(Credentials::insecure(), &listed)
    }

    fn url(text: &str) -> WebhookUrl {
        text.parse().unwrap()
    }

    #[test]
    fn only_public_addresses_are_told_unless_an_operator_lists_the_host() {
        // However the address is written.
        for private in
            ["http://127.1/", "http://2130706433/", "http://0x7f.1/x", "http://[::ffff:7f00:1]:80/"]
        {
            assert!(sender(&[]).check(&url(private)).unwrap_err().contains("webhook_hosts"), "{private}");
        }
        let listed = sender(&["10.0.0.5:8000", "Hooks.Internal", "::1"]);
        for right in
            ["http://10.0.0.5:8000/x", "https://hooks.internal/", "http://[::1]:9/", "https://example.com/"]
        {
            assert_eq!(listed.check(&url(right)), Ok(()), "{right}");
        }
        assert!(listed.check(&url("http://10.0.0.5:8001/")).is_err(), "another port");
    }

    #[tokio::test]
    async fn a_name_counts_by_the_addresses_that_it_has() {
        let message = Message { id: String::from("job-1-1"), body: String::from("{}") };
        let attempt = sender(&[]).send(&url("http://localhost:9/"), &message).await;
        assert!(matches!(&attempt, Attempt::Futile(why) if why.contains("localhost")), "{attempt:?}");
    }

    #[test]
    fn a_receiver_may_ask_for_patience_and_end_it() {
        let mut headers = HeaderMap::new();
        assert_eq!(verdict(StatusCode::NO_CONTENT, &headers), Attempt::Told);
        assert!(matches!(verdict(StatusCode::GONE, &headers), Attempt::Futile(_)));
        assert!(matches!(verdict(StatusCode::FOUND, &headers), Attempt::Failed { pause: None, .. }));
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        let Attempt::Failed { why, pause } = verdict(StatusCode::TOO_MANY_REQUESTS, &headers) else {
            panic!()
        };
        assert!(why.contains("429") && pause == Some(Duration::from_secs(7)), "{why}");
    }
}
