//! One connection to a relay that isn't trusted: commands out, a reply to each in, each under a deadline.
//!
//! Commands are queued and leave when the first of their replies is awaited: all in one write where the relay offers
//! PIPELINING (RFC 2920), else one by one. Replies are counted. After a failure, or a call that was dropped before its
//! end, every later call returns an error: a reply is never taken for the reply to another command.

use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio::time::timeout;

use crate::metrics::OpenConnection;
use crate::relay::duplex::{Event, has_octets, read_or_write};
use crate::relay::error::{RelayError, Stage};
use crate::relay::reply_parser::{Malformed, ReplyParser};
use crate::smtp::reply::Reply;
use crate::tls::Stream;

/// Positive completion of a mail command.
pub(super) const DONE: RangeInclusive<u16> = 250..=259;
/// RSET has one answer (RFC 5321 4.3.2).
const RESET: RangeInclusive<u16> = 250..=250;
/// The banner, also after XCLIENT; the answer to STARTTLS.
pub(super) const READY: RangeInclusive<u16> = 220..=220;
/// The answer to DATA.
pub(super) const GO_AHEAD: RangeInclusive<u16> = 354..=354;

/// Factor of the timeout for the reply to the final dot: the relay scans the message, and a sender that gives up too
/// early delivers it twice (RFC 5321 4.5.3.2.6: 10 minutes instead of 5).
const END_PATIENCE: u32 = 2;
/// Octets of one read; few replies are longer.
const READ_SIZE: usize = 2048;
/// "Service not available, closing" at any time (RFC 5321 3.8).
const CLOSING: u16 = 421;
/// For [`Conversation::is_ready`] on a pooled connection: its reply to RSET should have come long ago.
const READY_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Conversation {
    stream: Stream<TcpStream>,
    parser: ReplyParser,
    /// The last read; here and not in the futures, whose size counts for every client's connection.
    buffer: Vec<u8>,
    /// Octets behind a reply while more replies are due.
    unread: Vec<u8>,
    /// Command lines that aren't sent yet, and their number.
    queue: Vec<u8>,
    queued: usize,
    /// Replies that are due.
    due: usize,
    pipelining: bool,
    /// For each reply but the last ([`END_PATIENCE`]), and for each write that makes no progress.
    patience: Duration,
    /// Set while a call runs; it stays set where the call failed or was dropped.
    engaged: bool,
    _counted: OpenConnection,
}

impl Conversation {
    /// Sends the PROXY header, which may be empty, and reads the banner.
    pub(super) async fn open(
        mut stream: TcpStream,
        header: &[u8],
        patience: Duration,
        counted: OpenConnection,
    ) -> Result<Self, RelayError> {
        if !header.is_empty() {
            let sent = stream.write_all(header).await;
            sent.map_err(|_gone| RelayError::Closed(Stage::Banner))?;
        }
        let mut conversation = Self {
            stream: Stream::Plain(stream),
            parser: ReplyParser::default(),
            buffer: vec![0; READ_SIZE],
            unread: Vec::new(),
            queue: Vec::new(),
            queued: 0,
            due: 1,
            pipelining: false,
            patience,
            engaged: false,
            _counted: counted,
        };
        conversation.answer(Stage::Banner, &READY).await?;
        Ok(conversation)
    }

    /// Whether queued commands may leave in one write.
    pub(super) fn set_pipelining(&mut self, offered: bool) {
        self.pipelining = offered;
    }

    /// Queues a command, without CRLF.
    pub(super) fn queue(&mut self, line: &str) {
        self.queue.extend_from_slice(line.as_bytes());
        self.queue.extend_from_slice(b"\r\n");
        self.queued += 1;
    }

    /// Awaits the reply to the first command that has none yet. A code within `expected` is `Ok`; 4xx and 5xx are
    /// [`RelayError::Rejected`], after which the conversation may go on.
    pub(super) async fn answer(
        &mut self,
        stage: Stage,
        expected: &RangeInclusive<u16>,
    ) -> Result<Reply, RelayError> {
        self.engage(stage)?;
        if self.due == 0 {
            self.send_queue(stage).await?;
        }
        let reply = self.reply(stage).await?;
        self.due -= 1;
        if self.due == 0 && !self.unread.is_empty() {
            return Err(RelayError::Garbage { stage, what: Malformed::Surplus });
        }
        self.settle(stage, reply, expected)
    }

    /// Sends a command and awaits its reply as [`Self::answer`] does.
    pub(super) async fn command(
        &mut self,
        stage: Stage,
        line: &str,
        expected: &RangeInclusive<u16>,
    ) -> Result<Reply, RelayError> {
        if !self.is_free() {
            return Err(RelayError::OutOfStep(stage));
        }
        self.queue(line);
        self.answer(stage, expected).await
    }

    /// Drops the commands that weren't sent and reads the replies to those that were; all of them must be negative.
    /// Returns whether the conversation can go on.
    pub(super) async fn give_up_queue(&mut self, stage: Stage) -> bool {
        self.queue.clear();
        self.queued = 0;
        while self.due > 0 {
            if !matches!(self.answer(stage, &DONE).await, Err(RelayError::Rejected { .. })) {
                self.engaged = true;
            }
            if self.engaged {
                return false;
            }
        }
        !self.engaged
    }

    /// STARTTLS and the handshake, within `limit`; then the relay is to be greeted anew (RFC 3207 4.2). After
    /// [`RelayError::Rejected`] the conversation may go on in plain text.
    pub(super) async fn start_tls(
        &mut self,
        host: &str,
        address: IpAddr,
        limit: Duration,
    ) -> Result<(), RelayError> {
        self.command(Stage::StartTls, "STARTTLS", &READY).await?;
        self.engage(Stage::StartTls)?;
        // Octets behind the 220 are plain text that anyone on the path could have sent (CVE-2011-0411): they must not
        // count as a reply under TLS.
        if self.has_unread().await {
            return Err(self.unexpected(Stage::StartTls).await);
        }
        let late = |_elapsed| Err(io::Error::new(io::ErrorKind::TimedOut, "not done in time"));
        let done = timeout(limit, self.stream.connect(host, address)).await.unwrap_or_else(late);
        done.map_err(RelayError::Handshake)?;
        self.engaged = false;
        Ok(())
    }

    /// Sends a piece of the message. A 4xx or 5xx before the end counts. Reading goes on while writing, so that the
    /// reply of a relay that stops reading the message isn't missed.
    pub(super) async fn send(&mut self, mut octets: &[u8]) -> Result<(), RelayError> {
        if !self.is_free() {
            return Err(RelayError::OutOfStep(Stage::Message));
        }
        self.engaged = true;
        while !octets.is_empty() {
            let event = timeout(self.patience, read_or_write(&mut self.stream, &mut self.buffer, octets));
            match event.await.map_err(|_elapsed| RelayError::Silent(Stage::Message))? {
                Event::Read(0) => return Err(RelayError::Closed(Stage::Message)),
                Event::Read(count) => {
                    self.unread.extend_from_slice(self.buffer.get(..count).unwrap_or_default());
                    return Err(self.unexpected(Stage::Message).await);
                }
                // the write failed; the relay's reply may be there to be read
                Event::Written(0) => return Err(self.unexpected(Stage::Message).await),
                Event::Written(count) => octets = octets.get(count..).unwrap_or_default(),
            }
        }
        self.engaged = false;
        Ok(())
    }

    /// Sends the last piece of the message, which ends with the dot line, and awaits the reply to the whole message. An
    /// earlier reply doesn't count as that.
    pub(super) async fn end(&mut self, octets: &[u8]) -> Result<Reply, RelayError> {
        self.engage(Stage::End)?;
        if self.has_unread().await {
            return Err(self.unexpected(Stage::End).await);
        }
        self.engaged = false;
        self.send(octets).await?;
        self.engaged = true;
        match timeout(self.patience, self.stream.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(self.unexpected(Stage::End).await),
            Err(_) => return Err(RelayError::Silent(Stage::End)),
        }
        self.engaged = false;
        self.due = 1;
        self.answer(Stage::End, &DONE).await
    }

    /// Sends RSET if that is possible without waiting, and returns whether it was. [`Self::is_ready`] awaits the reply.
    pub(super) fn reset(&mut self) -> bool {
        let sent = self.is_free() && self.send_at_once(b"RSET\r\n", false);
        self.due = usize::from(sent);
        sent
    }

    /// Whether the relay waits for a command: the reply to RSET has come if one was sent, the connection is open, and
    /// there is no unexpected reply.
    pub(super) async fn is_ready(&mut self) -> bool {
        let ready = async {
            let reset = self.due == 0 || self.answer(Stage::Reset, &RESET).await.is_ok();
            reset && self.is_free() && !self.has_unread().await
        };
        timeout(READY_PATIENCE, ready).await.unwrap_or(false)
    }

    /// Sends QUIT where the relay waits for a command or is about to, and closes. The 221 isn't awaited: it would
    /// change nothing.
    pub(super) fn quit(mut self) {
        if !self.engaged && self.queued == 0 && !self.send_at_once(b"QUIT\r\n", true) {
            tracing::debug!(target: "rmxd::relay", "QUIT could not be sent");
        }
    }

    /// Whether no call runs or failed, no command waits to be sent and no reply is due.
    pub(super) fn is_free(&self) -> bool {
        !self.engaged && self.due == 0 && self.queued == 0
    }

    fn engage(&mut self, stage: Stage) -> Result<(), RelayError> {
        if std::mem::replace(&mut self.engaged, true) { Err(RelayError::OutOfStep(stage)) } else { Ok(()) }
    }

    /// Sends the whole queue, or its first line where the relay has no PIPELINING.
    async fn send_queue(&mut self, stage: Stage) -> Result<(), RelayError> {
        let (octets, lines) = match memchr::memchr(b'\n', &self.queue) {
            None => return Err(RelayError::OutOfStep(stage)),
            Some(_) if self.pipelining => (self.queue.len(), self.queued),
            Some(at) => (at + 1, 1),
        };
        let (stream, wire) = (&mut self.stream, self.queue.get(..octets).unwrap_or_default());
        let written = timeout(self.patience, async {
            stream.write_all(wire).await?;
            stream.flush().await // TLS may hold octets back when the socket is full
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(self.unexpected(stage).await),
            Err(_) => return Err(RelayError::Silent(stage)),
        }
        self.queue.drain(..octets);
        self.queued -= lines;
        self.due = lines;
        Ok(())
    }

    /// Sends octets if that is possible without waiting; after the `last` ones the stream is shut down.
    fn send_at_once(&mut self, octets: &[u8], last: bool) -> bool {
        let sent = async {
            self.stream.write_all(octets).await?;
            if last { self.stream.shutdown().await } else { self.stream.flush().await }
        };
        matches!(unconstrained(sent).now_or_never(), Some(Ok(())))
    }

    /// Whether the relay sent an unexpected reply or closed. The socket is asked, not tokio, whose state may be older:
    /// a stray 250 before the final dot must not go unseen. Under TLS the octets in the socket may be no reply (a
    /// session ticket), so there they are read.
    async fn has_unread(&mut self) -> bool {
        let (stream, buffer, unread) = (&mut self.stream, &mut self.buffer, &mut self.unread);
        let look = async {
            loop {
                if matches!(stream, Stream::Tls(_))
                    && let Some(read) = unconstrained(stream.read(buffer)).now_or_never()
                {
                    unread.extend_from_slice(buffer.get(..read.unwrap_or(0)).unwrap_or_default());
                    return true;
                }
                match (&*stream, stream.below()) {
                    (_, Some(socket)) if !has_octets(socket) => return false,
                    (Stream::Tls(_), Some(socket)) if socket.readable().await.is_ok() => {}
                    _ => return true,
                }
            }
        };
        timeout(self.patience, look).await.unwrap_or(true)
    }

    /// The error for an unexpected reply or the end of the connection.
    async fn unexpected(&mut self, stage: Stage) -> RelayError {
        match self.reply(stage).await {
            Err(error) => error,
            Ok(reply) => match (stage, reply.code()) {
                _ if !self.unread.is_empty() => RelayError::Garbage { stage, what: Malformed::Surplus },
                (_, CLOSING) => RelayError::Closing { stage, reply },
                (Stage::Message | Stage::End, 400..=599) => RelayError::Rejected { stage, reply },
                _ => RelayError::OutOfPlace { stage, reply },
            },
        }
    }

    /// Reads one reply, from `unread` or the socket.
    async fn reply(&mut self, stage: Stage) -> Result<Reply, RelayError> {
        let garbage = |what| RelayError::Garbage { stage, what };
        let patience = if stage == Stage::End { self.patience * END_PATIENCE } else { self.patience };
        let (stream, parser) = (&mut self.stream, &mut self.parser);
        let (buffer, unread) = (&mut self.buffer, &mut self.unread);
        let read = async {
            if let Some((reply, rest)) = parser.feed(unread).map_err(garbage)? {
                let used = unread.len() - rest.len();
                unread.drain(..used);
                return Ok(reply);
            }
            unread.clear();
            loop {
                let count = stream.read(buffer).await.unwrap_or(0);
                if count == 0 {
                    return Err(RelayError::Closed(stage));
                }
                let octets = buffer.get(..count).unwrap_or_default();
                if let Some((reply, rest)) = parser.feed(octets).map_err(garbage)? {
                    unread.extend_from_slice(rest);
                    return Ok(reply);
                }
            }
        };
        timeout(patience, read).await.unwrap_or(Err(RelayError::Silent(stage)))
    }

    /// Sorts a reply by its code.
    fn settle(
        &mut self,
        stage: Stage,
        reply: Reply,
        expected: &RangeInclusive<u16>,
    ) -> Result<Reply, RelayError> {
        let code = reply.code();
        if expected.contains(&code) {
            self.engaged = false;
            return Ok(reply);
        }
        match code {
            CLOSING => Err(RelayError::Closing { stage, reply }),
            400..=599 => {
                self.engaged = false;
                Err(RelayError::Rejected { stage, reply })
            }
            _ => Err(RelayError::OutOfPlace { stage, reply }),
        }
    }
}
