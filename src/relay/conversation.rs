//! One connection to a relay that isn't trusted: a command out, one reply in, each under a deadline.
//!
//! No pipelining: the relay is near, and one reply per command leaves little to get out of step with. Once anything
//! fails, or a caller drops a call before its end, the connection is of no more use and says so at every later call:
//! a reply is never taken for the answer to another command.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio::time::timeout;

use crate::relay::error::{RelayError, Stage};
use crate::relay::reply_parser::ReplyParser;
use crate::smtp::reply::Reply;
use crate::tls::Stream;

/// Codes that say "done".
pub(super) const DONE: RangeInclusive<u16> = 250..=259;
/// The banner, also after XCLIENT; the answer to STARTTLS.
pub(super) const READY: RangeInclusive<u16> = 220..=220;
/// The answer to DATA.
pub(super) const GO_AHEAD: RangeInclusive<u16> = 354..=354;

/// What is read at once; a reply seldom has more.
const READ_SIZE: usize = 2048;
/// "Service not available, closing" at any time (RFC 5321 3.8).
const CLOSING: u16 = 421;

/// A connection and where it stands.
#[derive(Debug)]
pub(super) struct Conversation {
    stream: Stream<TcpStream>,
    parser: ReplyParser,
    /// For each reply, and for each write that makes no progress.
    patience: Duration,
    /// Set while a call runs, and left set by one that doesn't end well.
    engaged: bool,
}

impl Conversation {
    /// Reads the banner of a fresh connection.
    pub(super) async fn open(stream: TcpStream, patience: Duration) -> Result<Self, RelayError> {
        let (stream, parser) = (Stream::Plain(stream), ReplyParser::default());
        let mut conversation = Self { stream, parser, patience, engaged: true };
        let reply = conversation.reply(Stage::Banner, &[]).await?;
        conversation.settle(Stage::Banner, reply, &READY)?;
        Ok(conversation)
    }

    /// Sends a command and awaits its reply. A code of `expected` is `Ok`; 4xx and 5xx are
    /// [`RelayError::Rejected`], after which the conversation may go on.
    pub(super) async fn command(
        &mut self,
        stage: Stage,
        line: &str,
        expected: &RangeInclusive<u16>,
    ) -> Result<Reply, RelayError> {
        self.engage(stage)?;
        if let Some(heard) = self.unread().await {
            return Err(self.overheard(stage, &heard).await);
        }
        let wire = format!("{line}\r\n");
        let stream = &mut self.stream;
        let written = timeout(self.patience, async {
            stream.write_all(wire.as_bytes()).await?;
            stream.flush().await // TLS may hold octets back when the socket is full
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(self.overheard(stage, &[]).await),
            Err(_) => return Err(RelayError::Silent(stage)),
        }
        let reply = self.reply(stage, &[]).await?;
        self.settle(stage, reply, expected)
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
        // What came behind the 220 came in plain text, from anybody: it must not be heard as an answer given by TLS.
        if let Some(heard) = self.unread().await {
            return Err(self.overheard(Stage::StartTls, &heard).await);
        }
        let late = |_elapsed| Err(io::Error::new(io::ErrorKind::TimedOut, "not done in time"));
        let done = timeout(limit, self.stream.connect(host, address)).await.unwrap_or_else(late);
        done.map_err(RelayError::Handshake)?;
        self.engaged = false;
        Ok(())
    }

    /// Sends a piece of the message. A relay that answers before the end has made up its mind: its 4xx or 5xx counts.
    /// Reading goes on while writing, so that a relay that stops taking the message to say so is heard.
    pub(super) async fn send(&mut self, mut octets: &[u8]) -> Result<(), RelayError> {
        self.engage(Stage::Message)?;
        let mut early = [0; READ_SIZE];
        while !octets.is_empty() {
            let event = timeout(self.patience, hear_or_send(&mut self.stream, &mut early, octets));
            match event.await.map_err(|_elapsed| RelayError::Silent(Stage::Message))? {
                Event::Heard(0) => return Err(RelayError::Closed(Stage::Message)),
                Event::Heard(count) => {
                    let heard = early.get(..count).unwrap_or_default();
                    return Err(self.overheard(Stage::Message, heard).await);
                }
                // the write failed; the relay's reason may be there to be read
                Event::Sent(0) => return Err(self.overheard(Stage::Message, &[]).await),
                Event::Sent(count) => octets = octets.get(count..).unwrap_or_default(),
            }
        }
        self.engaged = false;
        Ok(())
    }

    /// Says QUIT, if the relay waits for a command, and closes. The 221 isn't awaited: it would change nothing.
    pub(super) fn quit(mut self) {
        if self.engaged {
            return;
        }
        let said = async {
            self.stream.write_all(b"QUIT\r\n").await?;
            self.stream.shutdown().await
        };
        if !matches!(unconstrained(said).now_or_never(), Some(Ok(()))) {
            tracing::debug!(target: "rmxd::relay", "QUIT could not be sent");
        }
    }

    fn engage(&mut self, stage: Stage) -> Result<(), RelayError> {
        if std::mem::replace(&mut self.engaged, true) { Err(RelayError::OutOfStep(stage)) } else { Ok(()) }
    }

    /// What the relay said while nothing was asked, as far as it was taken in, or that it closed. The system is asked
    /// directly: what tokio knows of the socket may be older, and before the final dot a stray 250 must not go unseen.
    /// Under TLS what lies in the socket may be no word of the relay (a session ticket), so there it is taken in.
    async fn unread(&mut self) -> Option<Vec<u8>> {
        let stream = &mut self.stream;
        let look = async {
            loop {
                if matches!(stream, Stream::Tls(_)) {
                    let mut heard = [0; READ_SIZE];
                    if let Some(read) = unconstrained(stream.read(&mut heard)).now_or_never() {
                        return Some(heard.get(..read.unwrap_or(0)).unwrap_or_default().to_vec());
                    }
                }
                match (&*stream, stream.below()) {
                    (_, Some(socket)) if !has_octets(socket) => return None,
                    (Stream::Tls(_), Some(socket)) if socket.readable().await.is_ok() => {}
                    _ => return Some(Vec::new()),
                }
            }
        };
        timeout(self.patience, look).await.unwrap_or(Some(Vec::new()))
    }

    /// What an unasked-for reply, or the end of the connection, means.
    async fn overheard(&mut self, stage: Stage, heard: &[u8]) -> RelayError {
        match self.reply(stage, heard).await {
            Err(error) => error,
            Ok(reply) => match (stage, reply.code()) {
                (_, CLOSING) => RelayError::Closing { stage, reply },
                (Stage::Message | Stage::End, 400..=599) => RelayError::Rejected { stage, reply },
                _ => RelayError::OutOfPlace { stage, reply },
            },
        }
    }

    /// Reads one reply, of which `heard` was read already.
    async fn reply(&mut self, stage: Stage, heard: &[u8]) -> Result<Reply, RelayError> {
        let garbage = |what| RelayError::Garbage { stage, what };
        let (stream, parser) = (&mut self.stream, &mut self.parser);
        let read = async {
            if let Some(reply) = parser.feed(heard).map_err(garbage)? {
                return Ok(reply);
            }
            let mut buffer = [0; READ_SIZE];
            loop {
                let count = stream.read(&mut buffer).await.unwrap_or(0);
                if count == 0 {
                    return Err(RelayError::Closed(stage));
                }
                if let Some(reply) = parser.feed(buffer.get(..count).unwrap_or_default()).map_err(garbage)? {
                    return Ok(reply);
                }
            }
        };
        timeout(self.patience, read).await.unwrap_or(Err(RelayError::Silent(stage)))
    }

    /// Whether the reply is an answer to what was asked.
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

/// Whether there is something to read, be it the end.
fn has_octets(socket: &TcpStream) -> bool {
    match SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// Whichever comes first, hearing before sending.
async fn hear_or_send(stream: &mut Stream<TcpStream>, early: &mut [u8], octets: &[u8]) -> Event {
    poll_fn(|context| {
        let mut heard = ReadBuf::new(early);
        if let Poll::Ready(read) = Pin::new(&mut *stream).poll_read(context, &mut heard) {
            return Poll::Ready(Event::Heard(read.map_or(0, |()| heard.filled().len())));
        }
        Pin::new(&mut *stream).poll_write(context, octets).map(|sent| Event::Sent(sent.unwrap_or(0)))
    })
    .await
}

enum Event {
    Heard(usize),
    Sent(usize),
}
