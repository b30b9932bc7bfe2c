//! Metrics for Prometheus, and health checks.
//!
//! Off unless `metrics_listen` is set. The listener is separate, so that it can be bound to a private address: it speaks
//! plain HTTP and is read-only.
//!
//! | path | answer |
//! | --- | --- |
//! | `/metrics` | metrics in Prometheus' text format: of this member and, at the coordinator, of the cluster |
//! | `/health/live` | 200 while this process answers |
//! | `/health/ready` | 200 while this member is in a cluster that has a coordinator, otherwise 503 and the reason |
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
use tokio::time::timeout;
use tracing::{info, warn};

use crate::net::unproven::{Unproven, UnprovenLimits};

pub use member::Sources;

/// Concurrent connections, an eighth of them of one address: the oldest gives way.
pub const CONNECTIONS_MAX: usize = 16;
/// The longest life of a connection; a scraper reconnects.
pub const CONNECTION_MAX: Duration = Duration::from_secs(30);
/// The time limit for a request's head.
const HEAD_MAX: Duration = Duration::from_secs(5);

/// The metrics listener cannot be opened.
#[derive(Debug, Error)]
#[error("cannot listen on metrics_listen = {address}: {source}")]
pub struct MetricsError {
    pub address: SocketAddr,
    pub source: std::io::Error,
}

/// The metrics listener.
pub struct Metrics {
    listener: TcpListener,
}

impl Metrics {
    pub async fn bind(address: SocketAddr) -> Result<Self, MetricsError> {
        let failed = |source| MetricsError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        info!(address = %listener.local_addr().map_err(failed)?, "serving metrics");
        Ok(Self { listener })
    }

    /// Serves until dropped.
    pub async fn serve(self, sources: Sources) {
        let sources = Arc::new(sources);
        accept_all(self.listener, |stream| serve_connection(stream, Arc::clone(&sources))).await;
    }
}

/// Serves each connection at once: nobody can keep a scraper waiting by connections that say nothing.
async fn accept_all<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Unproven::new(UnprovenLimits::of_strangers(CONNECTIONS_MAX));
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let (place, served) = (places.enter(from.ip(), false), serve(stream));
                tokio::spawn(async move {
                    // A scraper that is cut off tries again.
                    tokio::select! {
                        _ = timeout(CONNECTION_MAX, served) => {}
                        () = place.evicted() => {}
                    }
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a metrics connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, sources: Arc<Sources>) {
    let service = service_fn(move |request| {
        let sources = Arc::clone(&sources);
        async move { Ok::<_, Infallible>(answer(&request, &sources).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    // Errors of a scraper's connection do not matter here.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer<B>(request: &Request<B>, sources: &Sources) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match request.uri().path() {
        "/metrics" => metrics_page(sources).await.unwrap_or_else(|error| {
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot collect the metrics: {error}\n"))
        }),
        "/health/live" => text(StatusCode::OK, "live\n"),
        "/health/ready" => match sources.unready() {
            None => text(StatusCode::OK, "ready\n"),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "the paths are /metrics, /health/live and /health/ready\n"),
    }
}

async fn metrics_page(sources: &Sources) -> prometheus::Result<Response<Full<Bytes>>> {
    let (view, usable_bytes) = tokio::join!(sources.cluster_view(), sources.usable_bytes());
    let registry = Registry::new_custom(Some(String::from("idunno")), None)?;
    member::register(&registry, sources, usable_bytes)?;
    if let Some(view) = view {
        cluster::register(&registry, &view)?;
    }
    let mut families = registry.gather();
    // The library's own metrics of the process.
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;

    use super::*;

    #[tokio::test]
    async fn silent_connections_do_not_keep_a_scraper_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _serving = tokio::spawn(accept_all(listener, |mut stream: TcpStream| async move {
            let mut byte = [0];
            if stream.read_exact(&mut byte).await.is_ok() {
                stream.write_all(&byte).await.unwrap();
            }
        }));
        let mut silent = Vec::new();
        for number in 0..200 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(IpAddr::from([127, 0, 1, number]), 0)).unwrap();
            silent.push(socket.connect(address).await.unwrap());
        }
        let mut scraper = TcpStream::connect(address).await.unwrap();
        scraper.write_all(&[7]).await.unwrap();
        let answer = timeout(HEAD_MAX, scraper.read_u8()).await.expect("silent connections are in the way");
        assert_eq!(answer.unwrap(), 7);
    }
}
