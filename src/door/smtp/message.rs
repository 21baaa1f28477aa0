//! One message on its way in: the header block held back and judged, the body streamed to the relay in one pass.
//!
//! Memory is bounded by the header block's limit. Where the message is refused, the rest of it is read and dropped
//! (RFC 5321 4.2.5: DATA has two replies, and the second comes behind the final dot). The relay's final dot is sent when
//! the client's end was seen; if the client breaks off, the value is dropped and the relay's connection closed without it.
//! The same where the body refuses the message, since a DKIM signature was not valid.

use std::time::SystemTime;

use crate::door::iprev::iprev;
use crate::door::smtp::SmtpDoor;
use crate::door::smtp::relayed::{Relayed, relayed};
use crate::gate::{Client, Transaction};
use crate::message::authentication_results::authentication_results;
use crate::message::forged_results::without_own_results;
use crate::message::mailbox_line;
use crate::message::trace::{self, Protocol};
use crate::policy::reason::Reason;
use crate::relay::{self, Hold, HopReply};
use crate::reverse_mx::ClientNames;
use crate::smtp::framing::Fault;
use crate::smtp::reply::{Enhanced, Reply};
use crate::smtp::transparency::{Unstuffer, stuffed, unstuffed};

/// A message of a transaction. Dropping it delivers nothing.
#[derive(Debug)]
pub(super) struct Message {
    transaction: Relayed,
    stage: Stage,
    /// Of the body.
    unstuffer: Unstuffer,
}

#[derive(Debug)]
enum Stage {
    /// The header block as far as it came, dot-stuffed.
    Head(Vec<u8>),
    /// Judged and good, unless the body decides; the relay takes the body.
    Body(relay::Transaction),
    /// The reply at the end.
    Refused(Reply),
    /// Answered.
    Over,
}

impl Message {
    /// The message of a transaction that has recipients.
    pub(super) fn new(transaction: Relayed) -> Self {
        Self { transaction, stage: Stage::Head(Vec::new()), unstuffer: Unstuffer::default() }
    }

    /// Why nothing more of the message counts, where that is so.
    pub(super) fn refusal(&self) -> Option<&Reply> {
        match &self.stage {
            Stage::Refused(reply) => Some(reply),
            Stage::Head(_) | Stage::Body(_) | Stage::Over => None,
        }
    }

    /// The client's hold on a connection of the relay.
    pub(super) fn hold(&self) -> Option<Hold> {
        match &self.stage {
            Stage::Head(_) => self.transaction.hold(),
            Stage::Body(relay) => relay.hold(),
            Stage::Refused(_) | Stage::Over => None,
        }
    }

    /// Takes the next octets: strict CRLF, dot-stuffed; of all so far, `stuffing` are dots that transparency added.
    pub(super) async fn take(&mut self, door: &SmtpDoor, client: &mut Client, octets: &[u8], stuffing: u64) {
        self.transaction.gate.received(octets.len());
        // RFC 1870 5: dots that transparency added don't count.
        if self.transaction.gate.octets() - stuffing > door.settings.message && self.refusal().is_none() {
            self.refuse(too_big("message", door.settings.message)).await;
        }
        match &mut self.stage {
            Stage::Refused(_) | Stage::Over => {}
            Stage::Body(relay) => {
                let written = relay.write(octets).await;
                self.judge_body(octets);
                if let Err(answer) = written {
                    self.stage = Stage::Refused(self.failed(answer));
                }
            }
            Stage::Head(block) => {
                let seen = block.len();
                block.extend_from_slice(octets);
                let end = header_end(block, seen);
                if end.unwrap_or(block.len()) > door.settings.header_block {
                    self.refuse(too_big("header", door.settings.header_block)).await;
                } else if let Some(end) = end {
                    let rest = block.split_off(end);
                    let block = std::mem::take(block);
                    self.judge(door, client, block, rest).await;
                }
            }
        }
    }

    /// Nothing more of the message is at hand: what was taken so far is to reach the relay.
    pub(super) async fn flush(&mut self) {
        if let Stage::Body(relay) = &mut self.stage
            && let Err(answer) = relay.flush().await
        {
            self.stage = Stage::Refused(self.failed(answer));
        }
    }

    /// The message has ended, on a CRLF; the reply to it.
    pub(super) async fn finish(mut self, door: &SmtpDoor, client: &mut Client) -> Reply {
        if let Stage::Head(block) = &mut self.stage {
            let block = std::mem::take(block);
            self.judge(door, client, block, Vec::new()).await;
        }
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Body(relay) => {
                let permit = match self.transaction.gate.end().await {
                    Ok(permit) => permit,
                    Err(refusal) => {
                        relay.abandon().await; // after DATA: closed without the dot
                        return refusal;
                    }
                };
                let answer = relay.finish(permit).await;
                if !answer.is_positive() {
                    return self.failed(answer);
                }
                self.transaction.gate.delivered(&answer.reply);
                answer.reply
            }
            Stage::Refused(reply) => reply,
            Stage::Head(_) | Stage::Over => Reply::new(451, Enhanced(4, 3, 0), "the message was not judged"),
        }
    }

    /// An octet came that has no place in SMTP; the reply, and nothing of the message is delivered.
    pub(super) fn fault(mut self, fault: Fault) -> Reply {
        let reply = Reason::BareNewline.plain_reply(fault.name(), "");
        self.transaction.gate.abort(Reason::BareNewline, reply)
    }

    /// The client is slow while others wait for the relay; the reply, and nothing of the message is delivered.
    pub(super) fn too_slow(mut self, door: &SmtpDoor) -> Reply {
        let reply = Reason::TooSlow.plain_reply(door.session.hostname.as_str(), "");
        self.transaction.gate.abort(Reason::TooSlow, reply)
    }

    pub(super) fn transaction(&mut self) -> &mut Transaction {
        &mut self.transaction.gate
    }

    /// The relay takes nothing more of it; the transaction is over.
    fn failed(&mut self, answer: HopReply) -> Reply {
        let replied = relayed(&mut self.transaction.gate, answer, None);
        self.transaction.gate.close();
        replied.unwrap_or_else(|reply| reply)
    }

    /// From the header block to the body: the verdict, then DATA, our trace fields and the block to the relay.
    async fn judge(&mut self, door: &SmtpDoor, client: &mut Client, block: Vec<u8>, rest: Vec<u8>) {
        let block = unstuffed(&block);
        let block = mailbox_line::as_field(&block).into_owned();
        if let Err(reply) = self.transaction.gate.header(client, &block).await {
            return self.leave_relay(reply).await;
        }
        let trace = trace_fields(door, client, &self.transaction).await;
        let opened = async {
            let mut relay = self.transaction.take_relay()?;
            relay.data().await?;
            let block = without_own_results(&block, door.session.hostname.as_str());
            relay.write(&[&trace, &*stuffed(&block), &rest].concat()).await?;
            Ok(relay)
        };
        self.stage = match opened.await {
            Ok(relay) => {
                self.judge_body(rest.strip_prefix(b"\r\n").unwrap_or(&rest));
                Stage::Body(relay)
            }
            Err(answer) => Stage::Refused(self.failed(answer)),
        };
    }

    /// The next octets of the body, dot-stuffed, for the gate if it waits for them.
    fn judge_body(&mut self, octets: &[u8]) {
        let Self { transaction: Relayed { gate, .. }, unstuffer, .. } = self;
        if gate.awaits_body() {
            unstuffer.push(octets, |plain| gate.body(plain));
        }
    }

    /// It is larger than allowed.
    async fn refuse(&mut self, reply: Reply) {
        let reply = self.transaction.gate.abort(Reason::TooBig, reply);
        self.leave_relay(reply).await;
    }

    /// Nothing more goes to the relay; before DATA it is left in good order.
    async fn leave_relay(&mut self, reply: Reply) {
        self.stage = Stage::Refused(reply);
        if let Ok(relay) = self.transaction.take_relay() {
            relay.abandon().await;
        }
    }
}

fn too_big(what: &str, limit: impl std::fmt::Display) -> Reply {
    Reason::TooBig.plain_reply(&format!("the {what} is larger than {limit} octets"), "")
}

/// The fields that go before the header block.
async fn trace_fields(door: &SmtpDoor, client: &mut Client, transaction: &Relayed) -> Vec<u8> {
    let Relayed { gate, envelope, .. } = transaction;
    let (id, hostname) = (gate.id(), &door.session.hostname);
    let address = envelope.client.ip();
    let names = client.names().await;
    let tls = envelope.tls.map(|negotiated| negotiated.to_string());
    let protocol = match (envelope.esmtp(), envelope.parameters.smtputf8, &tls) {
        (_, true, Some(_)) => Protocol::Utf8Smtps,
        (_, true, None) => Protocol::Utf8Smtp,
        (true, false, Some(_)) => Protocol::Esmtps,
        (true, false, None) => Protocol::Esmtp,
        (false, false, _) => Protocol::Smtp,
    };
    let (recipients, first) = gate.recipients();
    let received = trace::Received {
        helo: envelope.helo(),
        ptr: names.and_then(ClientNames::first),
        client: address,
        by: hostname,
        protocol,
        tls: tls.as_deref(),
        id: id.as_str(),
        recipient: first.filter(|_| recipients == 1),
        at: SystemTime::now(),
    };
    let results = authentication_results(hostname, iprev(client).await, gate.findings());
    [received.to_bytes(), results.concat()].concat()
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
