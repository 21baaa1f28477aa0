//! One connection to a relay that isn't trusted: a command out, one reply in, each under a deadline.
//!
//! No pipelining: the relay is near, and one reply per command leaves little to get out of step with. Once anything
//! fails, or a caller drops a call before its end, the connection is of no more use and says so at every later call:
//! a reply is never taken for the answer to another command.

use std::mem::MaybeUninit;
use std::ops::RangeInclusive;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::relay::error::{RelayError, Stage};
use crate::relay::reply_parser::ReplyParser;
use crate::smtp::reply::Reply;

/// Codes that say "done".
pub(super) const DONE: RangeInclusive<u16> = 250..=259;
/// The banner, also after XCLIENT.
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
    stream: TcpStream,
    parser: ReplyParser,
    /// For each reply, and for each write that makes no progress.
    patience: Duration,
    /// Set while a call runs, and left set by one that doesn't end well.
    engaged: bool,
}

impl Conversation {
    /// Reads the banner of a fresh connection.
    pub(super) async fn open(stream: TcpStream, patience: Duration) -> Result<Self, RelayError> {
        let mut conversation = Self { stream, parser: ReplyParser::default(), patience, engaged: true };
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
        if self.has_unread() {
            return Err(self.overheard(stage, &[]).await);
        }
        let wire = format!("{line}\r\n");
        match timeout(self.patience, self.stream.write_all(wire.as_bytes())).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(self.overheard(stage, &[]).await),
            Err(_) => return Err(RelayError::Silent(stage)),
        }
        let reply = self.reply(stage, &[]).await?;
        self.settle(stage, reply, expected)
    }

    /// Sends a piece of the message. A relay that answers before the end has made up its mind: its 4xx or 5xx counts.
    /// Reading goes on while writing, so that a relay that stops taking the message to say so is heard.
    pub(super) async fn send(&mut self, mut octets: &[u8]) -> Result<(), RelayError> {
        self.engage(Stage::Message)?;
        let mut early = [0; READ_SIZE];
        while !octets.is_empty() {
            let (mut reader, mut writer) = self.stream.split();
            let event = tokio::select! {
                biased;
                heard = reader.read(&mut early) => Event::Heard(heard.unwrap_or(0)),
                sent = writer.write(octets) => Event::Sent(sent.unwrap_or(0)),
                () = sleep(self.patience) => return Err(RelayError::Silent(Stage::Message)),
            };
            match event {
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
    pub(super) fn quit(self) {
        if !self.engaged && self.stream.try_write(b"QUIT\r\n").is_err() {
            tracing::debug!(target: "rmxd::relay", "QUIT could not be sent");
        }
    }

    fn engage(&mut self, stage: Stage) -> Result<(), RelayError> {
        if std::mem::replace(&mut self.engaged, true) { Err(RelayError::OutOfStep(stage)) } else { Ok(()) }
    }

    /// Whether the relay said something, or closed, while nothing was asked. The system is asked directly: what
    /// tokio knows of the socket may be older, and before the final dot a stray 250 must not go unseen.
    fn has_unread(&self) -> bool {
        match SockRef::from(&self.stream).peek(&mut [MaybeUninit::uninit()]) {
            Ok(_) => true,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        }
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

enum Event {
    Heard(usize),
    Sent(usize),
}
