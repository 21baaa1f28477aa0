//! Where a message comes from: the octets behind DATA up to the final dot, or chunk by chunk behind BDAT (RFC 3030).
//!
//! Both give the same [`Message`] the same kind of octets. In-line means that nothing is read ahead: the client is read
//! as fast as the relay takes it.

use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::door::smtp::SmtpDoor;
use crate::door::smtp::message::Message;
use crate::door::smtp::wire::{Ended, Wire};
use crate::gate::{Client, Transaction};
use crate::relay::{Hold, TakenBack};
use crate::smtp::chunk::ChunkEncoder;
use crate::smtp::framing::{BareNewline, DataEvent, DataReader};
use crate::smtp::reply::{Enhanced, Reply};

/// How the reception ended.
pub(super) enum Received {
    /// What was announced was read to its end; this is the answer to it.
    HopReply(Reply),
    /// An octet came that has no place in SMTP, and nothing was delivered; the answer, which closes the connection.
    Broken(Reply),
    /// The client was silent too long; nothing was delivered.
    TimedOut,
    /// The client was slow while others waited for the relay; nothing was delivered.
    TooSlow(TakenBack),
}

/// A client whose connection to the relay goes to another.
pub(super) fn log_too_slow(client: IpAddr, seen: TakenBack) {
    let rate = format_args!("{:.1} octets a second", seen.rate);
    let waited = format_args!("{} s", seen.waited.as_secs());
    tracing::info!(target: "rmxd::session", %client, rate, waited, "too slow while others wait for the relay");
}

/// What a connection lends to a message.
pub(super) struct Source<'a, S> {
    pub(super) door: &'a SmtpDoor,
    pub(super) client: &'a mut Client,
    pub(super) wire: &'a mut Wire<S>,
}

/// A message that comes in chunks; between two of them the client is answered.
#[derive(Debug)]
pub(super) struct Chunked {
    message: Message,
    encoder: ChunkEncoder,
}

impl Chunked {
    pub(super) fn new(message: Message, bare_newline: BareNewline) -> Self {
        Self { message, encoder: ChunkEncoder::new(bare_newline) }
    }

    pub(super) fn hold(&self) -> Option<Hold> {
        self.message.hold()
    }

    /// Between two chunks a refusal belongs to the message's transaction.
    pub(super) fn transaction(&mut self) -> &mut Transaction {
        self.message.transaction()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Source<'_, S> {
    /// Answers 354 and receives up to the final dot.
    pub(super) async fn data(mut self, mut message: Message) -> Result<Received, Ended> {
        self.wire.answer(&Reply::plain(354, "end data with <CRLF>.<CRLF>"));
        let mut reader = DataReader::new(self.door.settings.bare_newline(self.client));
        loop {
            let step = reader.next(self.wire.input());
            if let DataEvent::Fault(fault) = step.event {
                return Ok(Received::Broken(message.fault(fault)));
            }
            let content = self.wire.input().get(..step.content).unwrap_or_default();
            for part in [content, step.insert] {
                if !part.is_empty() {
                    message.take(self.door, self.client, part, reader.stuffing()).await;
                }
            }
            self.wire.take(step.consumed);
            match step.event {
                DataEvent::End => {
                    return Ok(Received::HopReply(message.finish(self.door, self.client).await));
                }
                DataEvent::More => {
                    message.flush().await;
                    if let Some(received) = self.more(message.hold()).await? {
                        return Ok(self.ended(message, received));
                    }
                }
                DataEvent::Again | DataEvent::Fault(_) => {}
            }
        }
    }

    /// Receives one chunk; the message is given back unless it ended or broke off.
    pub(super) async fn chunk(
        mut self,
        mut chunked: Chunked,
        octets: u64,
        last: bool,
    ) -> Result<(Received, Option<Chunked>), Ended> {
        let mut left = octets;
        let mut data = Vec::new();
        while left > 0 {
            if self.wire.input().is_empty() {
                chunked.message.flush().await;
                if let Some(received) = self.more(chunked.hold()).await? {
                    return Ok((self.ended(chunked.message, received), None));
                }
            }
            let piece = self.piece(left);
            data.clear();
            if let Err(fault) = chunked.encoder.push(piece, &mut data) {
                return Ok((Received::Broken(chunked.message.fault(fault)), None));
            }
            let taken = piece.len();
            self.wire.take(taken);
            left -= taken as u64;
            chunked.message.take(self.door, self.client, &data, chunked.encoder.stuffing()).await;
        }
        if !last {
            chunked.message.flush().await;
            let taken = || Reply::new(250, Enhanced(2, 0, 0), format!("{octets} octets taken"));
            let reply = chunked.message.refusal().cloned().unwrap_or_else(taken);
            return Ok((Received::HopReply(reply), Some(chunked)));
        }
        data.clear();
        if let Err(fault) = chunked.encoder.finish(&mut data) {
            return Ok((Received::Broken(chunked.message.fault(fault)), None));
        }
        let Chunked { mut message, encoder } = chunked;
        message.take(self.door, self.client, &data, encoder.stuffing()).await;
        Ok((Received::HopReply(message.finish(self.door, self.client).await), None))
    }

    /// Throws octets away; how it ended where that isn't well.
    pub(super) async fn discard(mut self, octets: u64) -> Result<Option<Received>, Ended> {
        let mut left = octets;
        while left > 0 {
            if self.wire.input().is_empty()
                && let Some(received) = self.more(None).await?
            {
                return Ok(Some(received));
            }
            let taken = self.piece(left).len();
            self.wire.take(taken);
            left -= taken as u64;
        }
        Ok(None)
    }

    /// How a message ends whose client sends no more, or too slowly.
    fn ended(&self, message: Message, received: Received) -> Received {
        match received {
            Received::TooSlow(seen) => {
                log_too_slow(self.client.address(), seen);
                Received::Broken(message.too_slow(self.door))
            }
            Received::HopReply(_) | Received::Broken(_) | Received::TimedOut => received,
        }
    }

    /// What the buffer holds of the octets that are left.
    fn piece(&self, left: u64) -> &[u8] {
        let input = self.wire.input();
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        input.get(..length).unwrap_or_default()
    }

    async fn more(&mut self, hold: Option<Hold>) -> Result<Option<Received>, Ended> {
        let until = Instant::now() + self.door.settings.data_timeout;
        match self.wire.more_held(until, hold.as_ref()).await {
            Ok(()) => Ok(None),
            Err(Ended::TimedOut) => Ok(Some(Received::TimedOut)),
            Err(Ended::TooSlow(seen)) => Ok(Some(Received::TooSlow(seen))),
            Err(Ended::Gone) => Err(Ended::Gone),
        }
    }
}
