//! A connection that begins in plain text and may become TLS, once.
//!
//! A handshake that fails or is dropped leaves a stream that refuses all reads and writes, so that no caller goes on in
//! plain text by mistake.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use crate::tls::acceptor::Acceptor;
use crate::tls::{Negotiated, connector};

/// A connection, plain or TLS.
#[derive(Debug)]
pub enum Stream<S> {
    Plain(S),
    /// After a handshake. Boxed, so that an idle plain connection doesn't take the memory of TLS.
    Tls(Box<TlsStream<S>>),
    /// A handshake is in progress, or has failed.
    Broken,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    /// The handshake as the server. After an error, or if the future is dropped, the stream can't be used any more.
    ///
    /// # Errors
    /// The fault of the handshake, or that the stream is not plain.
    pub async fn accept(&mut self, acceptor: &Acceptor) -> io::Result<()> {
        let stream = acceptor.handshake(self.take_plain()?).await?;
        *self = Self::Tls(Box::new(stream.into()));
        Ok(())
    }

    /// The handshake as the client of `host`, which was reached at `address`. Its certificate isn't checked.
    ///
    /// # Errors
    /// As for [`Self::accept`].
    pub async fn connect(&mut self, host: &str, address: IpAddr) -> io::Result<()> {
        let stream = connector::handshake(self.take_plain()?, host, address).await?;
        *self = Self::Tls(Box::new(stream.into()));
        Ok(())
    }

    /// What the handshake agreed on; `None` for a plain connection.
    #[must_use]
    pub fn negotiated(&self) -> Option<Negotiated> {
        match self {
            Self::Tls(stream) => Negotiated::of(stream.get_ref().1),
            Self::Plain(_) | Self::Broken => None,
        }
    }

    /// The connection below TLS; `None` after a failed handshake.
    #[must_use]
    pub fn below(&self) -> Option<&S> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(stream) => Some(stream.get_ref().0),
            Self::Broken => None,
        }
    }

    fn take_plain(&mut self) -> io::Result<S> {
        match std::mem::replace(self, Self::Broken) {
            Self::Plain(stream) => Ok(stream),
            other => {
                *self = other;
                Err(io::Error::new(io::ErrorKind::InvalidInput, "a handshake is for a plain connection"))
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Broken => Poll::Ready(Err(broken())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, octets),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, octets),
            Self::Broken => Poll::Ready(Err(broken())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Broken => Poll::Ready(Err(broken())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Broken => Poll::Ready(Err(broken())),
        }
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the TLS handshake was not finished")
}
