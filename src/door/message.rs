//! Receives one message: header block held back and judged, body streamed to the relay in one pass.
//!
//! Memory is bounded by the header block's limit and one read buffer. Whatever refuses the message, it is read to its
//! end first (RFC 5321 4.2.5: DATA has two replies, and the second comes behind the final dot). The relay's final dot
//! is sent when the client's was seen; if the client breaks off, the relay's connection is closed without one.

use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::door::Door;
use crate::door::transaction::Transaction;
use crate::door::wire::{Ended, MESSAGE_READ, Wire};
use crate::gate::{Facts, Guest, Id};
use crate::message::authentication_results::{
    Iprev, IprevResult, authentication_results, without_own_results,
};
use crate::message::header::{self, Field};
use crate::message::trace::{self, Protocol};
use crate::policy::decide;
use crate::relay;
use crate::reverse_mx::{ClientNames, NamesOutcome};
use crate::smtp::framing::{DataEvent, DataReader, DataStep, Fault, stuffed, unstuffed};
use crate::smtp::reply::{Enhanced, Reply};

/// More Received: fields than these mean a loop (RFC 5321 6.3).
const MAX_RECEIVED: usize = 100;

/// What a connection lends to a message.
pub(super) struct Context<'a, S> {
    pub(super) door: &'a Door,
    pub(super) guest: &'a mut Guest,
    pub(super) wire: &'a mut Wire<S>,
}

/// How the reception ended.
pub(super) enum Received {
    /// The message was read to its end; this is the answer to it.
    Answer(Reply),
    /// An octet that has no place in SMTP; nothing was delivered.
    Fault(Fault),
    /// The client was silent too long; nothing was delivered.
    TimedOut,
}

/// Why the reception can't go on.
enum Broken {
    Fault(Fault),
    Ended(Ended),
}

/// Answers 354 and receives the message of a transaction.
pub(super) async fn receive<S>(context: Context<'_, S>, transaction: Transaction) -> Result<Received, Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    context.wire.answer(&Reply::plain(354, "end data with <CRLF>.<CRLF>"));
    let id = transaction.id();
    let mut incoming = Incoming {
        reader: DataReader::new(context.door.settings.bare_newline),
        door: context.door,
        wire: context.wire,
        id,
        octets: 0,
        ended: false,
    };
    let broken = match transfer(&mut incoming, context.guest, transaction).await {
        Ok(reply) => return Ok(Received::Answer(reply)),
        Err(broken) => broken,
    };
    let what = match broken {
        Broken::Fault(fault) => fault.name(),
        Broken::Ended(Ended::TimedOut) => "waited too long",
        Broken::Ended(Ended::Gone) => "the client has gone",
    };
    tracing::info!(target: "rmxd::delivery", %id, octets = incoming.octets, "broken off: {what}");
    match broken {
        Broken::Fault(fault) => Ok(Received::Fault(fault)),
        Broken::Ended(Ended::TimedOut) => Ok(Received::TimedOut),
        Broken::Ended(Ended::Gone) => Err(Ended::Gone),
    }
}

async fn transfer<S>(
    incoming: &mut Incoming<'_, S>,
    guest: &mut Guest,
    mut transaction: Transaction,
) -> Result<Reply, Broken>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let head = incoming.head().await?;
    let admitted = match head {
        Head::TooBig => {
            let reply = too_big("the header is", incoming.door.settings.header_block, incoming.id);
            tracing::info!(target: "rmxd::delivery", id = %incoming.id, %reply, "refused");
            Err(reply)
        }
        Head::Complete { block, rest } => {
            let block = unstuffed(&block).into_owned();
            judge(incoming.door, guest, &mut transaction, &block).await.map(|trace| (trace, block, rest))
        }
    };
    let (trace, block, rest) = match admitted {
        Ok(admitted) => admitted,
        Err(reply) => {
            transaction.abandon().await;
            return incoming.swallow(reply).await;
        }
    };
    let (id, hostname) = (incoming.id, incoming.door.session.hostname.as_str());
    let opened = async {
        let mut relay = transaction.into_relay()?;
        relay.data().await?;
        relay.write(&trace).await?;
        relay.write(&stuffed(&without_own_results(&block, hostname))).await?;
        relay.write(&rest).await?;
        Ok(relay)
    };
    let reply = match opened.await {
        Ok(relay) => incoming.stream(relay).await?,
        Err(reply) => incoming.swallow(reply).await?,
    };
    tracing::info!(target: "rmxd::delivery", %id, octets = incoming.octets, reply = %reply, "answered");
    Ok(reply)
}

/// The verdict on the header block, and the trace fields that go before it.
async fn judge(
    door: &Door,
    guest: &mut Guest,
    transaction: &mut Transaction,
    block: &[u8],
) -> Result<Vec<u8>, Reply> {
    let header = header::read(block);
    if header.received > MAX_RECEIVED {
        let id = transaction.id();
        let text = format!("more than {MAX_RECEIVED} Received: fields, a mail loop (id {id})");
        let reply = Reply::new(554, Enhanced(5, 4, 6), text);
        tracing::info!(target: "rmxd::delivery", %id, %reply, "refused");
        return Err(reply);
    }
    let decision = if transaction.judged() {
        transaction.inspection.header(guest, &header).await
    } else {
        decide::exempt()
    };
    let (from, reply_to) = (addresses(&header.from), addresses(&header.reply_to));
    let rcpt = transaction.first.as_ref().map(ToString::to_string).unwrap_or_default();
    let facts = Facts { rcpt: &rcpt, from: &from, reply_to: &reply_to, ..Facts::default() };
    transaction.log(guest, &decision, &facts);
    match door.gate.refusal(&decision, transaction.id()) {
        Some(reply) => Err(reply),
        None => Ok(trace_fields(door, guest, transaction).await),
    }
}

async fn trace_fields(door: &Door, guest: &mut Guest, transaction: &Transaction) -> Vec<u8> {
    let (id, hostname) = (transaction.id(), &door.session.hostname);
    let client = transaction.client.ip();
    let names = guest.names().await;
    let esmtp = transaction.hello.as_ref().is_some_and(|hello| hello.extended);
    let received = trace::Received {
        helo: transaction.helo(),
        ptr: names.as_ref().and_then(ClientNames::first),
        client,
        by: hostname,
        protocol: if esmtp { Protocol::Esmtp } else { Protocol::Smtp },
        id: id.as_str(),
        recipient: transaction.first.as_ref().filter(|_| transaction.accepted == 1),
        at: SystemTime::now(),
    };
    let iprev = names.as_ref().map(|names| Iprev { result: iprev_result(&names.outcome), client });
    let results = authentication_results(hostname, iprev, transaction.findings());
    [received.to_bytes(), results].concat()
}

/// RFC 8601 2.7.3.
fn iprev_result(names: &NamesOutcome) -> IprevResult {
    match names {
        NamesOutcome::Confirmed(_) => IprevResult::Pass,
        NamesOutcome::NoPtr | NamesOutcome::NotConfirmed(_) => IprevResult::Fail,
        NamesOutcome::TempError(_) => IprevResult::TempError,
    }
}

/// The addresses of a field, for the log.
fn addresses(field: &Field) -> String {
    match field {
        Field::Absent => String::new(),
        Field::Malformed(malformed) => malformed.name().to_owned(),
        Field::Authors(authors) => {
            authors.iter().map(|author| author.address.as_str()).collect::<Vec<_>>().join(", ")
        }
    }
}

fn too_big(what: &str, limit: impl std::fmt::Display, id: Id) -> Reply {
    Reply::new(552, Enhanced(5, 3, 4), format!("{what} larger than {limit} octets (id {id})"))
}

enum Head {
    /// The header block as it came (dot-stuffed), without the empty line; `rest` is what was read behind it.
    Complete {
        block: Vec<u8>,
        rest: Vec<u8>,
    },
    TooBig,
}

/// A message on its way in.
struct Incoming<'a, S> {
    reader: DataReader,
    door: &'a Door,
    wire: &'a mut Wire<S>,
    id: Id,
    /// Octets so far, dot-stuffed.
    octets: u64,
    ended: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Incoming<'_, S> {
    /// Up to the empty line, or to the end of a message that has none.
    async fn head(&mut self) -> Result<Head, Broken> {
        let limit = self.door.settings.header_block;
        let mut block: Vec<u8> = Vec::new();
        while !self.ended {
            let seen = block.len();
            let step = self.step().await?;
            block.extend_from_slice(self.content(step));
            block.extend_from_slice(step.insert);
            self.take(step);
            if let Some(end) = header_end(&block, seen) {
                let rest = block.split_off(end);
                return Ok(if block.len() > limit { Head::TooBig } else { Head::Complete { block, rest } });
            }
            if block.len() > limit {
                return Ok(Head::TooBig);
            }
        }
        Ok(Head::Complete { block, rest: Vec::new() })
    }

    /// The body to the relay, straight from the read buffer, then the final dot; the relay's answer.
    async fn stream(&mut self, mut relay: relay::Transaction) -> Result<Reply, Broken> {
        while !self.ended && !self.is_too_big() {
            let step = self.step().await?;
            let mut failed = None;
            for part in [self.content(step), step.insert] {
                if part.is_empty() {
                    continue;
                }
                if let Err(reply) = relay.write(part).await {
                    failed = Some(reply);
                    break;
                }
            }
            self.take(step);
            if let Some(reply) = failed {
                drop(relay);
                return self.swallow(reply).await;
            }
        }
        if self.is_too_big() {
            drop(relay);
            return self.swallow(too_big("the message is", self.door.settings.message, self.id)).await;
        }
        Ok(relay.finish().await)
    }

    /// Reads to the end of the message and throws it away.
    async fn swallow(&mut self, reply: Reply) -> Result<Reply, Broken> {
        while !self.ended {
            let step = self.step().await?;
            self.take(step);
        }
        Ok(reply)
    }

    /// RFC 1870 5: dots that transparency added don't count.
    fn is_too_big(&self) -> bool {
        self.octets - self.reader.stuffing() > self.door.settings.message
    }

    /// The next piece of the message, read from the socket where the buffer holds none; it stays in the buffer until
    /// it is taken. The time-out is for each read (RFC 5321 4.5.3.2.5: "data block"), the session's for all of them.
    async fn step(&mut self) -> Result<DataStep, Broken> {
        loop {
            let step = self.reader.next(self.wire.input());
            match step.event {
                DataEvent::Fault(fault) => return Err(Broken::Fault(fault)),
                DataEvent::More if step.consumed == 0 => {
                    let until = Instant::now() + self.door.settings.data_timeout;
                    self.wire.more(MESSAGE_READ, until).await.map_err(Broken::Ended)?;
                }
                DataEvent::More | DataEvent::Again | DataEvent::End => return Ok(step),
            }
        }
    }

    /// The octets of the buffer that a step gives.
    fn content(&self, step: DataStep) -> &[u8] {
        self.wire.input().get(..step.content).unwrap_or_default()
    }

    /// Takes a step off the buffer; must be called once for each.
    fn take(&mut self, step: DataStep) {
        self.octets += (step.content + step.insert.len()) as u64;
        self.ended = step.event == DataEvent::End;
        self.wire.take(step.consumed);
    }
}

/// Where the header block ends: behind the last CRLF before the empty line. `seen` octets were looked at before.
fn header_end(block: &[u8], seen: usize) -> Option<usize> {
    if block.starts_with(b"\r\n") {
        return Some(0);
    }
    let from = seen.saturating_sub(3);
    let found = memchr::memmem::find(block.get(from..)?, b"\r\n\r\n")?;
    Some(from + found + 2)
}
