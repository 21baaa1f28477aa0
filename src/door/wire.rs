//! The client's socket: what was read and not yet understood, what is answered and not yet sent, and until when.
//!
//! Answers to pipelined commands leave together (RFC 2920 3.2): they are sent before the next read that may wait.
//! Every read has a deadline, the earlier of the step's own and the session's; a client that always has octets ready
//! doesn't get around it. A client that doesn't take its replies is cut off: it can't be told so.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use crate::smtp::reply::Reply;
use crate::tls::{Acceptor, Negotiated, Stream};

/// How much of a message is read at once.
pub(super) const MESSAGE_READ: usize = 16 * 1024;
/// How much is read at once where a command is awaited: every idle connection holds as much.
pub(super) const COMMAND_READ: usize = 1024;
/// After a close a client's unread octets are taken in for a moment: a reset would lose the last reply on its way.
const LINGER: Duration = Duration::from_secs(2);
/// But not more than these.
const LINGER_OCTETS: usize = 4 * 1024 * 1024;
/// For the client to take replies.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why nothing more can be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The deadline passed.
    TimedOut,
    /// The client has gone.
    Gone,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: Stream<S>,
    input: BytesMut,
    output: BytesMut,
    session_end: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S, session: Duration) -> Self {
        Self {
            stream: Stream::Plain(stream),
            input: BytesMut::new(),
            output: BytesMut::new(),
            session_end: Instant::now() + session,
        }
    }

    /// What was read and not yet taken off.
    pub(super) fn input(&self) -> &[u8] {
        &self.input
    }

    /// Takes octets off the input.
    pub(super) fn take(&mut self, octets: usize) {
        self.input.advance(octets.min(self.input.len()));
    }

    /// Queues a reply.
    pub(super) fn answer(&mut self, reply: &Reply) {
        let mut wire = Vec::new();
        reply.write_to(&mut wire);
        self.output.extend_from_slice(&wire);
    }

    /// Sends what is queued. May be cancelled: what was sent is taken off at once.
    pub(super) async fn flush(&mut self) -> Result<(), Ended> {
        if self.output.is_empty() {
            return Ok(());
        }
        let end = self.session_end.min(Instant::now() + WRITE_TIMEOUT);
        let written = timeout_at(end, async {
            while !self.output.is_empty() {
                if self.stream.write_buf(&mut self.output).await? == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
            }
            self.stream.flush().await // TLS may hold octets back when the socket is full
        });
        match written.await {
            Ok(Ok(())) => {
                self.output = BytesMut::new(); // an idle connection holds no buffer
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(Ended::Gone),
        }
    }

    /// Sends what is queued and reads more, until then or the end of the session; at least one octet, or why not.
    /// There is room for `room` octets at least. May be cancelled.
    pub(super) async fn more(&mut self, room: usize, until: Instant) -> Result<(), Ended> {
        self.flush().await?;
        if self.input.is_empty() {
            self.input = BytesMut::new(); // it may be a large one
        }
        let end = self.session_end.min(until);
        if end <= Instant::now() {
            return Err(Ended::TimedOut); // timeout_at alone would still read what is ready
        }
        self.input.reserve(room);
        match timeout_at(end, self.stream.read_buf(&mut self.input)).await {
            Ok(Ok(0) | Err(_)) => Err(Ended::Gone),
            Ok(Ok(_)) => Ok(()),
            Err(_elapsed) => Err(Ended::TimedOut),
        }
    }

    /// Sends what is queued, then does the handshake. The caller has made sure that no input is left from before it.
    pub(super) async fn start_tls(&mut self, acceptor: &Acceptor, wait: Duration) -> io::Result<()> {
        let end = self.session_end.min(Instant::now() + wait);
        let late = || io::Error::new(io::ErrorKind::TimedOut, "not done in time");
        self.flush().await.map_err(|ended| match ended {
            Ended::TimedOut => late(),
            Ended::Gone => io::ErrorKind::BrokenPipe.into(),
        })?;
        timeout_at(end, self.stream.accept(acceptor)).await.unwrap_or_else(|_elapsed| Err(late()))
    }

    /// What the handshake agreed on, if there was one.
    pub(super) fn tls(&self) -> Option<Negotiated> {
        self.stream.negotiated()
    }

    /// Sends what is queued and closes, so that the last reply arrives.
    pub(super) async fn close(mut self) {
        if self.flush().await.is_err() || self.stream.shutdown().await.is_err() {
            return;
        }
        self.input.clear();
        let drained: Result<io::Result<()>, _> = timeout(LINGER, async {
            let mut taken = 0;
            while taken < LINGER_OCTETS {
                self.input.clear();
                self.input.reserve(MESSAGE_READ);
                match self.stream.read_buf(&mut self.input).await? {
                    0 => break,
                    octets => taken += octets,
                }
            }
            Ok(())
        })
        .await;
        if let Ok(Err(error)) = drained {
            tracing::trace!(%error, "the client was gone before the close");
        }
    }
}
