//! The HTTP server: connections, TLS, what is limited whoever asks, and bodies framed anew before s3s reads them.
//!
//! Bounds: [`CONNECTIONS_MAX`] connections; requests as many as configured, beyond which programs are asked to slow down; a request's header must be
//! complete after [`HEADER_TIMEOUT`].

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError, S3Error, S3ErrorCode, StdError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::errors::{error, slow_down};
use crate::keys::{Gate, Keys};
use crate::openai::{Door, is_of_door};
use crate::request_id;
use crate::s3::chunked::Reframer;
use crate::s3::gateway::Gateway;

/// Connections at once.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Within which a request's header must be complete, and a TLS handshake.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests may take to their end once the gateway is asked to stop.
const DRAIN: Duration = Duration::from_secs(25);
/// The largest form that a browser may upload: s3s holds it in memory.
const FORM_BYTES_MAX: u64 = 16 << 20;

/// The server.
#[derive(Clone)]
pub struct Server {
    service: S3Service,
    openai: Door,
    requests: Arc<Semaphore>,
    requests_max: usize,
}

impl Server {
    /// A server of so many requests at once.
    pub fn new(gateway: Gateway, keys: Keys, requests_max: usize) -> Self {
        let mut config = s3s::config::S3Config::default();
        config.post_object_max_file_size = FORM_BYTES_MAX;
        let openai = Door::new(&gateway);
        let mut builder = S3ServiceBuilder::new(gateway);
        builder.set_auth(keys);
        builder.set_access(Gate);
        builder.set_config(Arc::new(s3s::config::StaticConfigProvider::new(Arc::new(config))));
        Self {
            service: builder.build(),
            openai,
            requests: Arc::new(Semaphore::new(requests_max)),
            requests_max,
        }
    }

    /// Serves until `stop` is done, then lets requests come to their end.
    pub async fn run(self, listener: TcpListener, tls: Option<TlsAcceptor>, stop: impl Future<Output = ()>) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut stop = std::pin::pin!(stop);
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stop => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(failed) => {
                    // Out of file descriptors: a moment later there may be some.
                    tracing::warn!(error = %failed, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // Small answers are sent at once.
            let _ = stream.set_nodelay(true);
            let (server, tls) = (self.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => server.connection(stream).await,
                    Some(tls) => match timeout(HEADER_TIMEOUT, tls.accept(stream)).await {
                        Ok(Ok(stream)) => server.connection(stream).await,
                        Ok(Err(failed)) => tracing::debug!(error = %failed, "a TLS handshake failed"),
                        Err(_) => tracing::debug!("a TLS handshake took too long"),
                    },
                }
                drop(permit);
            });
        }
        let all = u32::try_from(self.requests_max).unwrap_or(u32::MAX);
        if timeout(DRAIN, self.requests.acquire_many(all)).await.is_err() {
            tracing::warn!("requests that did not come to their end are cut off");
        }
    }

    async fn connection(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = service_fn(|request| self.request(request));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(failed) = served {
            tracing::debug!(error = %failed, "a connection broke");
        }
    }

    async fn request(&self, request: Request<Incoming>) -> Result<Response<Body>, HttpError> {
        let Ok(permit) = Arc::clone(&self.requests).try_acquire_owned() else {
            let text = format!("{} requests are being answered already", self.requests_max);
            return slow_down(text).to_http_response().map_err(|failed| HttpError::new(Box::new(failed)));
        };
        let waits = waits_for_nothing(&request);
        let mut response = if is_of_door(request.uri().path()) {
            self.openai.answer(request).await
        } else {
            let response = match without_cors(&request) {
                Some(refused) => {
                    refused.to_http_response().map_err(|failed| HttpError::new(Box::new(failed)))?
                }
                None => self.service.call(reframed(request)).await?,
            };
            match request_id::new() {
                Some(id) => request_id::add(response, &id),
                None => response,
            }
        };
        if waits {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response.map(|body| Body::http_body_unsync(Counted { body, _permit: permit })))
    }
}

/// Whether a program asks to go on before it sends a body that is empty. Such a request gets its response at once, without a `100 Continue`
/// before it, and its connection is closed: awscli 1.46 carries the status over to the next request that asks, takes that one's status
/// line for a header, and finds no `ETag`.
fn waits_for_nothing(request: &Request<impl http_body::Body>) -> bool {
    request.headers().contains_key(header::EXPECT) && request.body().is_end_stream()
}

/// The answer to a browser that asks whether a page of another origin may send a request: none may.
fn without_cors(request: &Request<impl http_body::Body>) -> Option<S3Error> {
    if request.method() != Method::OPTIONS {
        return None;
    }
    if !request.headers().contains_key(header::ORIGIN) {
        let mut refused = error(S3ErrorCode::InvalidRequest, "OPTIONS needs the header Origin");
        if let Some(code) = S3ErrorCode::from_bytes(b"BadRequest") {
            refused.set_code(code);
        }
        refused.set_status_code(StatusCode::BAD_REQUEST);
        return Some(refused);
    }
    let mut refused = error(S3ErrorCode::AccessDenied, "no bucket allows requests of other origins (CORS)");
    if let Some(code) = S3ErrorCode::from_bytes(b"AccessForbidden") {
        refused.set_code(code);
    }
    refused.set_status_code(StatusCode::FORBIDDEN);
    Some(refused)
}

/// The request as s3s is to read it.
fn reframed(request: Request<Incoming>) -> Request<Body> {
    let hash = request.headers().get("x-amz-content-sha256").map(HeaderValue::as_bytes);
    let is_chunked = hash.is_some_and(|hash| hash.starts_with(b"STREAMING-"));
    if is_chunked {
        request.map(|body| {
            Body::http_body_unsync(Chunked { body, reframer: Reframer::default(), ready: VecDeque::new() })
        })
    } else {
        request.map(Body::from)
    }
}

/// A body in `aws-chunked` framing.
struct Chunked {
    body: Incoming,
    reframer: Reframer,
    ready: VecDeque<Bytes>,
}

impl http_body::Body for Chunked {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    // Trailers of HTTP are none of S3's.
                    let Ok(bytes) = frame.into_data() else { continue };
                    match self.reframer.take(bytes) {
                        Ok(pieces) => self.ready.extend(pieces),
                        Err(wrong) => return Poll::Ready(Some(Err(Box::new(wrong)))),
                    }
                }
                Some(Err(broken)) => return Poll::Ready(Some(Err(Box::new(broken)))),
                None => {
                    let end = self.reframer.finish().err();
                    return Poll::Ready(end.map(|wrong| Err(Box::new(wrong) as StdError)));
                }
            }
        }
    }
}

/// A response's body, until whose end its request counts.
struct Counted {
    body: Body,
    _permit: OwnedSemaphorePermit,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// TLS with a certificate chain and its key, in PEM files.
pub fn tls(certificate: &Path, key: &Path) -> io::Result<TlsAcceptor> {
    let wrong = |path: &Path, why: String| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain: Vec<CertificateDer<'static>> = chain.map_err(|why| wrong(certificate, why.to_string()))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|why| wrong(key, why.to_string()))?;
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, private);
    Ok(TlsAcceptor::from(Arc::new(config.map_err(|why| wrong(certificate, why.to_string()))?)))
}
