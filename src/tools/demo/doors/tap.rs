//! A connection whose octets are kept, with the side that sent them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Stream;

/// Who sent something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Postfix,
    Rmxd,
}

/// The connection, seen from Postfix.
#[derive(Debug)]
pub(super) struct Tap {
    stream: Stream,
    seen: Vec<(Side, Vec<u8>)>,
}

impl Tap {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, seen: Vec::new() }
    }

    /// What was sent so far, in its order; consecutive octets of one side are one item.
    pub(super) fn seen(&self) -> &[(Side, Vec<u8>)] {
        &self.seen
    }

    fn note(&mut self, side: Side, octets: &[u8]) {
        match self.seen.last_mut() {
            Some((last, all)) if *last == side => all.extend_from_slice(octets),
            Some(_) | None => self.seen.push((side, octets.to_vec())),
        }
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let octets = buffer.filled().get(before..).unwrap_or_default();
        self.note(Side::Rmxd, octets);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, octets))?;
        self.note(Side::Postfix, octets.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
