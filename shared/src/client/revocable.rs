//! A half of a connection that ends as soon as its peer's certificate is no longer trusted.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::link::BoxFuture;
use crate::security::{CertificateDer, Credentials, Role};

/// Reads and writes fail once the peer is distrusted.
pub(super) struct Revocable<T> {
    inner: T,
    /// None once it is distrusted.
    distrusted: Option<BoxFuture<'static, ()>>,
}

impl<T> Revocable<T> {
    /// Guards `inner`, whose other end is the member that showed `certificate`.
    pub(super) fn new(inner: T, certificate: CertificateDer<'static>, credentials: Credentials) -> Self {
        let distrusted = async move { credentials.distrusts(&certificate, Role::Member).await };
        Self { inner, distrusted: Some(Box::pin(distrusted)) }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(distrusted) = &mut self.distrusted
            && distrusted.as_mut().poll(cx).is_pending()
        {
            return Ok(());
        }
        self.distrusted = None;
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the peer's certificate is no longer trusted"))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Revocable<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Revocable<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
