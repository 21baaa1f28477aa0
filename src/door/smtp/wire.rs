//! The client's socket: octets that were read and not yet parsed, replies that are not yet sent, and the deadlines.
//!
//! Replies to pipelined commands leave together (RFC 2920 3.2): they are sent before the next read that may wait.
//! Every read has a deadline, the earlier of the step's own and the session's, also where the client always has octets
//! ready. A client that doesn't read its replies is cut off without one. While it waits, a connection holds no buffer:
//! octets are read to the stack first, so that ten thousand idle clients need none.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};

use crate::relay::{Hold, TakenBack};
use crate::smtp::reply::Reply;
use crate::tls::{Acceptor, Negotiated, Stream};

/// How much is read at once.
const READ: usize = 16 * 1024;
/// Replies that are queued before they are sent even though more commands are at hand.
const QUEUE: usize = 16 * 1024;
/// After a close the client's octets are read for a moment: with unread octets the kernel resets the connection, and the last
/// reply is lost.
const LINGER: Duration = Duration::from_secs(2);
/// But not more than these.
const LINGER_OCTETS: usize = 4 * 1024 * 1024;
/// For the client to take replies.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why nothing more can be read or written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Ended {
    /// The deadline passed.
    TimedOut,
    /// The client's connection to the relay was taken back.
    TooSlow(TakenBack),
    /// The client has gone.
    Gone,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: Stream<S>,
    input: BytesMut,
    output: Vec<u8>,
    /// How much of the output is on its way.
    sent: usize,
    session_end: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S, session: Duration) -> Self {
        Self {
            stream: Stream::Plain(stream),
            input: BytesMut::new(),
            output: Vec::new(),
            sent: 0,
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

    /// Whether so much is queued that it should be sent first: a client that pipelines and never reads must not fill
    /// our memory.
    pub(super) fn is_queue_full(&self) -> bool {
        self.output.len() - self.sent >= QUEUE
    }

    /// Queues a reply.
    pub(super) fn answer(&mut self, reply: &Reply) {
        reply.write_to(&mut self.output);
    }

    /// Sends the queued replies. May be cancelled: octets that were sent leave the queue at once. A client that doesn't read
    /// them in time is gone: a reply may have been cut off in the middle, and no other can follow it.
    pub(super) async fn flush(&mut self) -> Result<(), Ended> {
        if self.output.is_empty() {
            return Ok(());
        }
        let end = self.session_end.min(Instant::now() + WRITE_TIMEOUT);
        let written = timeout_at(end, async {
            while let Some(rest) = self.output.get(self.sent..).filter(|rest| !rest.is_empty()) {
                match self.stream.write(rest).await? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    written => self.sent += written,
                }
            }
            self.stream.flush().await // TLS may hold octets back when the socket is full
        });
        match written.await {
            Ok(Ok(())) => {
                (self.output, self.sent) = (Vec::new(), 0); // an idle connection holds no buffer
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(Ended::Gone),
        }
    }

    /// Sends what is queued and reads more, until then or the end of the session; at least one octet, or why not.
    /// May be cancelled.
    pub(super) async fn more(&mut self, until: Instant) -> Result<(), Ended> {
        self.flush().await?;
        let end = self.session_end.min(until);
        if end <= Instant::now() {
            return Err(Ended::TimedOut); // timeout_at alone would still read what is ready
        }
        match timeout_at(end, self.read()).await {
            Ok(Ok(0) | Err(_)) => Err(Ended::Gone),
            Ok(Ok(_)) => Ok(()),
            Err(_elapsed) => Err(Ended::TimedOut),
        }
    }

    /// [`Self::more`], while the client holds a connection to the relay that others may wait for.
    pub(super) async fn more_held(&mut self, until: Instant, hold: Option<&Hold>) -> Result<(), Ended> {
        let Some(hold) = hold else { return self.more(until).await };
        let read = async {
            let before = self.input.len();
            self.more(until).await.map(|()| self.input.len() - before)
        };
        Box::pin(hold.wait(read)).await.map_err(Ended::TooSlow)?.map(drop)
    }

    /// [`Self::flush`], likewise.
    pub(super) async fn flush_held(&mut self, hold: Option<&Hold>) -> Result<(), Ended> {
        let Some(hold) = hold else { return self.flush().await };
        let sent = async { self.flush().await.map(|()| 0) };
        Box::pin(hold.wait(sent)).await.map_err(Ended::TooSlow)?.map(drop)
    }

    /// Reads what there is behind the input; 0 at the end.
    async fn read(&mut self) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(context)).await
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); READ];
        let mut read = ReadBuf::uninit(&mut space);
        match Pin::new(&mut self.stream).poll_read(context, &mut read) {
            Poll::Ready(Ok(())) => {
                self.input.extend_from_slice(read.filled());
                Poll::Ready(Ok(read.filled().len()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                if self.input.is_empty() {
                    self.input = BytesMut::new(); // an idle connection holds no buffer
                }
                Poll::Pending
            }
        }
    }

    /// Sends what is queued, then does the handshake. The caller has made sure that no input is left from before it.
    pub(super) async fn start_tls(&mut self, acceptor: &Acceptor, wait: Duration) -> io::Result<()> {
        let end = self.session_end.min(Instant::now() + wait);
        let late = || io::Error::new(io::ErrorKind::TimedOut, "not done in time");
        self.flush().await.map_err(|ended| match ended {
            Ended::TimedOut | Ended::TooSlow(_) => late(),
            Ended::Gone => io::ErrorKind::BrokenPipe.into(),
        })?;
        timeout_at(end, self.stream.accept(acceptor)).await.unwrap_or_else(|_elapsed| Err(late()))
    }

    /// What the handshake agreed on, if there was one.
    pub(super) fn tls(&self) -> Option<Negotiated> {
        self.stream.negotiated()
    }

    /// The version that it agreed on; empty for plain text.
    pub(super) fn tls_version(&self) -> &'static str {
        self.tls().map_or("", |negotiated| negotiated.version().name())
    }

    /// Sends the queued replies to a client that sent QUIT, and closes. It sends nothing more, so that no octet is left
    /// unread and no reset can overtake the reply: there is nothing to wait for.
    pub(super) async fn part(mut self) {
        if self.input.is_empty() && matches!(self.stream, Stream::Plain(_)) {
            self.flush().await.ok();
        } else {
            self.close().await;
        }
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
                match self.read().await? {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;
    use crate::smtp::reply::Enhanced;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test]
    async fn a_connection_that_waits_holds_no_buffer() {
        let (mut client, stream) = duplex(1 << 20);
        let mut wire = Wire::new(stream, Duration::from_secs(60));
        client.write_all(&[b'x'; 3 * READ]).await.unwrap();
        let mut came = 0;
        while came < 3 * READ {
            wire.more(soon()).await.unwrap();
            came += wire.input().len();
            wire.take(usize::MAX);
        }
        wire.answer(&Reply::new(250, Enhanced(2, 0, 0), "ok"));
        let waited = timeout(Duration::from_millis(20), wire.more(soon())).await;
        assert!(waited.is_err(), "nothing came, so it waits");
        assert_eq!((wire.input.capacity(), wire.output.capacity()), (0, 0));
        let mut reply = [0; 14];
        client.read_exact(&mut reply).await.unwrap();
        assert_eq!(&reply, b"250 2.0.0 ok\r\n");
    }

    #[tokio::test]
    async fn what_is_not_understood_yet_stays_while_more_is_awaited() {
        let (mut client, stream) = duplex(64);
        let mut wire = Wire::new(stream, Duration::from_secs(60));
        client.write_all(b"EHL").await.unwrap();
        wire.more(soon()).await.unwrap();
        assert_eq!(wire.more(Instant::now() + Duration::from_millis(10)).await, Err(Ended::TimedOut));
        client.write_all(b"O c\r\n").await.unwrap();
        wire.more(soon()).await.unwrap();
        assert_eq!(wire.input(), b"EHLO c\r\n");
        drop(client);
        assert_eq!(wire.more(soon()).await, Err(Ended::Gone));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_no_reply_is_given_up() {
        let (_client, stream) = duplex(16);
        let mut wire = Wire::new(stream, Duration::from_secs(600));
        wire.answer(&Reply::new(250, Enhanced(2, 0, 0), "more than the pipe can hold"));
        let began = Instant::now();
        assert_eq!(wire.flush().await, Err(Ended::Gone));
        assert_eq!(began.elapsed(), WRITE_TIMEOUT);
    }
}
