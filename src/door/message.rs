//! One message on its way in: the header block held back and judged, the body streamed to the relay in one pass.
//!
//! Memory is bounded by the header block's limit. Whatever refuses the message, the rest of it is taken and thrown away
//! (RFC 5321 4.2.5: DATA has two replies, and the second comes behind the final dot). The relay's final dot is sent when
//! the client's end was seen; if the client breaks off, the value is dropped and the relay's connection closed without.
//! So it is where the body refuses the message, which a DKIM signature can that turns out to be worth nothing.

use std::time::SystemTime;

use compact_str::{CompactString, ToCompactString};

use crate::door::Door;
use crate::door::transaction::{Transaction, always_refused, no_decision};
use crate::gate::{Facts, Guest, addresses};
use crate::message::authentication_results::{Iprev, IprevResult, authentication_results};
use crate::message::forged_results::without_own_results;
use crate::message::trace::{self, Protocol};
use crate::message::{header, mailbox_line};
use crate::policy::decide::{self, Decision};
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::record::Record;
use crate::relay::{self, Hold};
use crate::reverse_mx::{ClientNames, NamesOutcome};
use crate::smtp::framing::{stuffed, unstuffed};
use crate::smtp::reply::{Enhanced, Reply};

/// More Received: fields than these mean a loop (RFC 5321 6.3).
const MAX_RECEIVED: usize = 100;

/// A message of a transaction. Dropping it delivers nothing.
#[derive(Debug)]
pub(super) struct Message {
    transaction: Transaction,
    stage: Stage,
    /// Octets so far, dot-stuffed.
    octets: u64,
}

#[derive(Debug)]
enum Stage {
    /// The header block as far as it came, dot-stuffed.
    Head(Vec<u8>),
    /// Judged and good; the relay takes the body.
    Body(relay::Transaction, Option<Box<Open>>),
    /// What the client is told at the end.
    Refused(Reply),
    /// Answered.
    Over,
}

/// A decision that the body makes is logged at the end; this is the one on the header, if that end never comes.
#[derive(Debug)]
struct Open {
    authors: Authors,
    decision: Decision,
    record: Record,
}

/// The addresses in From: and Reply-To:.
#[derive(Debug)]
struct Authors {
    from: CompactString,
    reply_to: CompactString,
}

impl Drop for Message {
    /// A message that never ended is in the log as such.
    fn drop(&mut self) {
        self.break_off("the client has gone");
    }
}

impl Message {
    /// The message of a transaction that has recipients.
    pub(super) fn new(transaction: Transaction) -> Self {
        Self { transaction, stage: Stage::Head(Vec::new()), octets: 0 }
    }

    /// Why nothing more of the message counts, where that is so.
    pub(super) fn refusal(&self) -> Option<&Reply> {
        match &self.stage {
            Stage::Refused(reply) => Some(reply),
            Stage::Head(_) | Stage::Body(..) | Stage::Over => None,
        }
    }

    /// What the client holds of the relay.
    pub(super) fn hold(&self) -> Option<Hold> {
        match &self.stage {
            Stage::Head(_) => self.transaction.hold(),
            Stage::Body(relay, _) => relay.hold(),
            Stage::Refused(_) | Stage::Over => None,
        }
    }

    /// Takes the next octets: strict CRLF, dot-stuffed; of all so far, `stuffing` are dots that transparency added.
    pub(super) async fn take(&mut self, door: &Door, guest: &mut Guest, octets: &[u8], stuffing: u64) {
        self.octets += octets.len() as u64;
        // RFC 1870 5: dots that transparency added don't count.
        if self.refusal().is_none() && self.octets - stuffing > door.settings.message {
            self.refuse(too_big("message", door.settings.message)).await;
        }
        match &mut self.stage {
            Stage::Refused(_) | Stage::Over => {}
            Stage::Body(relay, _) => {
                self.transaction.inspection.body(octets);
                if let Err(reply) = relay.write(octets).await {
                    self.leave(Stage::Refused(reply), "the relay took no more of it");
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
                    self.judge(door, guest, block, rest).await;
                }
            }
        }
    }

    /// Nothing more of the message is at hand: what was taken so far is to reach the relay.
    pub(super) async fn flush(&mut self) {
        if let Stage::Body(relay, _) = &mut self.stage
            && let Err(reply) = relay.flush().await
        {
            self.leave(Stage::Refused(reply), "the relay took no more of it");
        }
    }

    /// The message has ended, on a CRLF; the answer to it.
    pub(super) async fn finish(mut self, door: &Door, guest: &mut Guest) -> Reply {
        if let Stage::Head(block) = &mut self.stage {
            let block = std::mem::take(block);
            self.judge(door, guest, block, Vec::new()).await;
        }
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let reply = match stage {
            Stage::Body(relay, None) => relay.finish().await,
            Stage::Body(relay, Some(open)) => match self.verdict(door, guest, &open.authors).await {
                Some(refusal) => {
                    relay.abandon().await; // after DATA: closed without the dot
                    refusal
                }
                None => relay.finish().await,
            },
            Stage::Refused(reply) => reply,
            Stage::Head(_) | Stage::Over => Reply::new(451, Enhanced(4, 3, 0), "the message was not judged"),
        };
        let id = self.transaction.id();
        tracing::info!(target: "rmxd::delivery", %id, octets = self.octets, reply = %reply, "answered");
        reply
    }

    /// The message won't end; nothing of it is delivered.
    pub(super) fn break_off(&mut self, why: &str) {
        if !matches!(self.leave(Stage::Over, why), Stage::Over) {
            let id = self.transaction.id();
            tracing::info!(target: "rmxd::delivery", %id, octets = self.octets, "broken off: {why}");
        }
    }

    /// On to the next stage before the body has come; the one before. What the body should have decided is logged.
    fn leave(&mut self, next: Stage, why: &str) -> Stage {
        let mut before = std::mem::replace(&mut self.stage, next);
        if let Stage::Body(_, open) = &mut before {
            self.log_undecided(open.take(), why);
        }
        before
    }

    fn log_undecided(&self, open: Option<Box<Open>>, why: &str) {
        if let Some(open) = open {
            let Open { decision, record, .. } = *open;
            self.transaction.inspection.log_undecided(record, &decision, why);
        }
    }

    /// What the body has decided; the reply where it is refused.
    async fn verdict(&mut self, door: &Door, guest: &Guest, authors: &Authors) -> Option<Reply> {
        let decision = self.transaction.inspection.whole().await;
        log(&self.transaction, guest, &decision, authors);
        door.gate.refusal(&decision, self.transaction.id())
    }

    /// From the header block to the body: the verdict, then DATA, our trace fields and the block to the relay.
    async fn judge(&mut self, door: &Door, guest: &mut Guest, block: Vec<u8>, rest: Vec<u8>) {
        let block = unstuffed(&block);
        let block = mailbox_line::as_field(&block).into_owned();
        let (trace, open) = match judge(door, guest, &mut self.transaction, &block).await {
            Ok(judged) => judged,
            Err(reply) => return self.refuse(reply).await,
        };
        let opened = async {
            let mut relay = self.transaction.take_relay()?;
            relay.data().await?;
            let block = without_own_results(&block, door.session.hostname.as_str());
            relay.write(&[&trace, &*stuffed(&block), &rest].concat()).await?;
            Ok(relay)
        };
        self.stage = match opened.await {
            Ok(relay) => {
                self.transaction.inspection.body(rest.strip_prefix(b"\r\n").unwrap_or(&rest));
                Stage::Body(relay, open)
            }
            Err(reply) => {
                self.log_undecided(open, "the relay didn't take it");
                Stage::Refused(reply)
            }
        };
    }

    /// Nothing more goes to the relay; before DATA it is left in good order.
    async fn refuse(&mut self, reply: Reply) {
        self.leave(Stage::Refused(reply), "it is refused for its size");
        if let Ok(relay) = self.transaction.take_relay() {
            relay.abandon().await;
        }
    }
}

/// Says it all; there is nothing to explain later, so no id is promised.
fn too_big(what: &str, limit: impl std::fmt::Display) -> Reply {
    Reply::new(552, Enhanced(5, 3, 4), format!("the {what} is larger than {limit} octets"))
}

/// The verdict on the header block, and the trace fields that go before it; what is open where the body decides.
async fn judge(
    door: &Door,
    guest: &mut Guest,
    transaction: &mut Transaction,
    block: &[u8],
) -> Result<(Vec<u8>, Option<Box<Open>>), Reply> {
    let header = header::read(block);
    let authors = Authors { from: addresses(&header.from), reply_to: addresses(&header.reply_to) };
    if block.first().is_some_and(|first| matches!(first, b' ' | b'\t')) {
        // Behind our own trace fields it would become a part of them: a forged result in our name. Nobody is exempt.
        let subject = "the header begins with a continuation line";
        let decision = always_refused(Reason::MalformedHeader, Identity::From, subject);
        log(transaction, guest, &decision, &authors);
        return Err(door.gate.refusal(&decision, transaction.id()).unwrap_or_else(no_decision));
    }
    if header.received > MAX_RECEIVED {
        let text = format!("more than {MAX_RECEIVED} Received: fields, a mail loop");
        return Err(Reply::new(554, Enhanced(5, 4, 6), text));
    }
    let decision = if transaction.judged() {
        transaction.inspection.header(guest, &header, block).await
    } else {
        decide::exempt()
    };
    let open = if transaction.inspection.awaits_body() {
        let record = with_facts(transaction, &authors, |facts| transaction.record(guest, &decision, facts));
        Some(Box::new(Open { authors, decision: decision.clone(), record }))
    } else {
        log(transaction, guest, &decision, &authors);
        None
    };
    match door.gate.refusal(&decision, transaction.id()) {
        Some(reply) => Err(reply),
        None => Ok((trace_fields(door, guest, transaction).await, open)),
    }
}

fn log(transaction: &Transaction, guest: &Guest, decision: &Decision, authors: &Authors) {
    with_facts(transaction, authors, |facts| transaction.log(guest, decision, facts));
}

fn with_facts<T>(transaction: &Transaction, authors: &Authors, then: impl FnOnce(&Facts<'_>) -> T) -> T {
    let rcpt = transaction.first.as_ref().map(ToCompactString::to_compact_string).unwrap_or_default();
    then(&Facts { rcpt: &rcpt, from: &authors.from, reply_to: &authors.reply_to, ..Facts::default() })
}

async fn trace_fields(door: &Door, guest: &mut Guest, transaction: &Transaction) -> Vec<u8> {
    let (id, hostname) = (transaction.id(), &door.session.hostname);
    let client = transaction.client.ip();
    let names = guest.names().await;
    let esmtp = transaction.hello.as_ref().is_some_and(|hello| hello.extended);
    let tls = transaction.tls.map(|negotiated| negotiated.to_string());
    let protocol = match (esmtp, transaction.parameters.smtputf8, &tls) {
        (_, true, Some(_)) => Protocol::Utf8Smtps,
        (_, true, None) => Protocol::Utf8Smtp,
        (true, false, Some(_)) => Protocol::Esmtps,
        (true, false, None) => Protocol::Esmtp,
        (false, false, _) => Protocol::Smtp,
    };
    let received = trace::Received {
        helo: transaction.helo(),
        ptr: names.and_then(ClientNames::first),
        client,
        by: hostname,
        protocol,
        tls: tls.as_deref(),
        id: id.as_str(),
        recipient: transaction.first.as_ref().filter(|_| transaction.accepted == 1),
        at: SystemTime::now(),
    };
    let iprev = names.map(|names| Iprev { result: iprev_result(&names.outcome), client });
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

/// Where the header block ends: behind the last CRLF before the empty line. `seen` octets were looked at before.
fn header_end(block: &[u8], seen: usize) -> Option<usize> {
    if block.starts_with(b"\r\n") {
        return Some(0);
    }
    let from = seen.saturating_sub(3);
    let found = memchr::memmem::find(block.get(from..)?, b"\r\n\r\n")?;
    Some(from + found + 2)
}
