//! What operators' tools ask: figures for Prometheus, and whether this member is well.
//!
//! Off unless `metrics_listen` is set. It has a listener of its own, so that it can be kept to a private address: it is
//! plain HTTP, tells, and changes nothing.
//!
//! | path | answer |
//! | --- | --- |
//! | `/metrics` | figures in the text format of Prometheus: of this member, and of the cluster where it coordinates |
//! | `/health/live` | 200 while this process answers |
//! | `/health/ready` | 200 while this member is in a cluster that has a coordinator, else 503 and why |
//!
//! Bounds: [`CONNECTIONS_MAX`] connections, each for at most [`CONNECTION_MAX`].

mod cluster;
mod member;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder, Registry, TextEncoder};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{info, warn};

pub use member::Sources;

/// Connections at once; further ones wait.
pub const CONNECTIONS_MAX: usize = 16;
/// How long a connection may last: a scraper that wants more comes again.
pub const CONNECTION_MAX: Duration = Duration::from_secs(30);
/// How long a request's head may take.
const HEAD_MAX: Duration = Duration::from_secs(5);

/// Why no figures are served.
#[derive(Debug, Error)]
#[error("cannot listen on metrics_listen = {address}: {source}")]
pub struct MetricsError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub source: std::io::Error,
}

/// The listener for people's tools.
pub struct Metrics {
    listener: TcpListener,
}

impl Metrics {
    /// Listens.
    pub async fn bind(address: SocketAddr) -> Result<Self, MetricsError> {
        let failed = |source| MetricsError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        info!(address = %listener.local_addr().map_err(failed)?, "serves figures");
        Ok(Self { listener })
    }

    /// Answers until it is dropped.
    pub async fn serve(self, sources: Sources) {
        let (sources, free) = (Arc::new(sources), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        loop {
            // It is never closed.
            let Ok(turn) = Arc::clone(&free).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let sources = Arc::clone(&sources);
                    tokio::spawn(async move {
                        // Whoever is cut off asks again.
                        let _ = timeout(CONNECTION_MAX, converse(stream, sources)).await;
                        drop(turn);
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection for figures");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn converse(stream: TcpStream, sources: Arc<Sources>) {
    let service = service_fn(move |request| {
        let sources = Arc::clone(&sources);
        async move { Ok::<_, Infallible>(answer(&request, &sources).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    // A peer that breaks off, or talks nonsense, is nobody's loss.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer<B>(request: &Request<B>, sources: &Sources) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match request.uri().path() {
        "/metrics" => figures(sources).await.unwrap_or_else(|error| {
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot make the figures: {error}\n"))
        }),
        "/health/live" => text(StatusCode::OK, "live\n"),
        "/health/ready" => match sources.unready() {
            None => text(StatusCode::OK, "ready\n"),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /health/live and /health/ready\n"),
    }
}

async fn figures(sources: &Sources) -> prometheus::Result<Response<Full<Bytes>>> {
    let (view, usable_bytes) = tokio::join!(sources.cluster_view(), sources.usable_bytes());
    let registry = Registry::new_custom(Some(String::from("idunno")), None)?;
    member::register(&registry, sources, usable_bytes)?;
    if let Some(view) = view {
        cluster::register(&registry, &view)?;
    }
    let mut families = registry.gather();
    // Those of the process: the library's own.
    families.extend(prometheus::gather());
    let mut page = Vec::new();
    TextEncoder::new().encode(&families, &mut page)?;
    let mut response = text(StatusCode::OK, page);
    let format = hyper::header::HeaderValue::from_static(prometheus::TEXT_FORMAT);
    response.headers_mut().insert(CONTENT_TYPE, format);
    Ok(response)
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}
