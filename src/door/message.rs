//! One message on its way in: the header block held back and judged, the body streamed to the relay in one pass.
//!
//! Memory is bounded by the header block's limit. Whatever refuses the message, the rest of it is taken and thrown away
//! (RFC 5321 4.2.5: DATA has two replies, and the second comes behind the final dot). The relay's final dot is sent when
//! the client's end was seen; if the client breaks off, the value is dropped and the relay's connection closed without.
//! So it is where the body refuses the message, which a DKIM signature can that turns out to be worth nothing.

use std::time::SystemTime;

use crate::door::Door;
use crate::door::account::{Account, Authors};
use crate::door::transaction::Transaction;
use crate::gate::{Client, addresses};
use crate::message::authentication_results::{Iprev, IprevResult, authentication_results};
use crate::message::forged_results::without_own_results;
use crate::message::trace::{self, Protocol};
use crate::message::{header, mailbox_line};
use crate::policy::decide;
use crate::policy::reason::Reason;
use crate::relay::{self, Hold, HopReply};
use crate::reverse_mx::{ClientNames, FcrdnsResult};
use crate::smtp::framing::{Fault, stuffed, unstuffed};
use crate::smtp::reply::{Enhanced, Reply};

/// More Received: fields than these mean a loop (RFC 5321 6.3).
const MAX_RECEIVED: usize = 100;

/// A message of a transaction. Dropping it delivers nothing.
#[derive(Debug)]
pub(super) struct Message {
    transaction: Transaction,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The header block as far as it came, dot-stuffed.
    Head(Vec<u8>),
    /// Judged and good, unless the body decides; the relay takes the body.
    Body(relay::Transaction, bool),
    /// What the client is told at the end.
    Refused(Reply),
    /// Answered.
    Over,
}

impl Message {
    /// The message of a transaction that has recipients.
    pub(super) fn new(transaction: Transaction) -> Self {
        Self { transaction, stage: Stage::Head(Vec::new()) }
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
    pub(super) async fn take(&mut self, door: &Door, guest: &mut Client, octets: &[u8], stuffing: u64) {
        let taken = &mut self.transaction.account.octets;
        *taken += octets.len() as u64;
        // RFC 1870 5: dots that transparency added don't count.
        if *taken - stuffing > door.settings.message && self.refusal().is_none() {
            self.refuse(too_big("message", door.settings.message)).await;
        }
        match &mut self.stage {
            Stage::Refused(_) | Stage::Over => {}
            Stage::Body(relay, _) => {
                self.transaction.account.inspection.body(octets);
                if let Err(answer) = relay.write(octets).await {
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
                    self.judge(door, guest, block, rest).await;
                }
            }
        }
    }

    /// Nothing more of the message is at hand: what was taken so far is to reach the relay.
    pub(super) async fn flush(&mut self) {
        if let Stage::Body(relay, _) = &mut self.stage
            && let Err(answer) = relay.flush().await
        {
            self.stage = Stage::Refused(self.failed(answer));
        }
    }

    /// The message has ended, on a CRLF; the answer to it.
    pub(super) async fn finish(mut self, door: &Door, guest: &mut Client) -> Reply {
        if let Stage::Head(block) = &mut self.stage {
            let block = std::mem::take(block);
            self.judge(door, guest, block, Vec::new()).await;
        }
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Body(relay, open) => {
                if open && let Err(refusal) = self.verdict().await {
                    relay.abandon().await; // after DATA: closed without the dot
                    return refusal;
                }
                let answer = relay.finish().await;
                if !answer.is_positive() {
                    return self.failed(answer);
                }
                self.transaction.account.delivered(&answer.reply);
                answer.reply
            }
            Stage::Refused(reply) => reply,
            Stage::Head(_) | Stage::Over => Reply::new(451, Enhanced(4, 3, 0), "the message was not judged"),
        }
    }

    /// An octet came that has no place in SMTP; the answer, and nothing of the message is delivered.
    pub(super) fn fault(mut self, fault: Fault) -> Reply {
        self.refuse_with(Reason::BareNewline, Reason::BareNewline.plain_reply(fault.name(), ""))
    }

    /// The client is slow while others wait for the relay; the answer, and nothing of the message is delivered.
    pub(super) fn too_slow(mut self, door: &Door) -> Reply {
        let hostname = door.session.hostname.as_str();
        self.refuse_with(Reason::TooSlow, Reason::TooSlow.plain_reply(hostname, ""))
    }

    /// What is recorded of the transaction.
    pub(super) fn account(&mut self) -> &mut Account {
        &mut self.transaction.account
    }

    /// The reply, and the transaction is over.
    fn refuse_with(&mut self, reason: Reason, reply: Reply) -> Reply {
        let reply = self.transaction.account.refuse_with(reason, reply);
        self.transaction.account.close_refused();
        reply
    }

    /// The relay takes nothing more of it; the transaction is over.
    fn failed(&mut self, answer: HopReply) -> Reply {
        let told = self.transaction.account.relayed(answer, None);
        self.transaction.account.close();
        told.unwrap_or_else(|reply| reply)
    }

    /// What the body has decided; the reply where it is refused.
    async fn verdict(&mut self) -> Result<(), Reply> {
        let account = &mut self.transaction.account;
        let decision = account.inspection.whole().await;
        account.decided(decision, None).inspect_err(|_reply| account.close_refused())
    }

    /// From the header block to the body: the verdict, then DATA, our trace fields and the block to the relay.
    async fn judge(&mut self, door: &Door, guest: &mut Client, block: Vec<u8>, rest: Vec<u8>) {
        let block = unstuffed(&block);
        let block = mailbox_line::as_field(&block).into_owned();
        let (trace, open) = match judge(door, guest, &mut self.transaction, &block).await {
            Ok(judged) => judged,
            Err(reply) => {
                self.transaction.account.close_refused();
                return self.leave_relay(reply).await;
            }
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
                self.transaction.account.inspection.body(rest.strip_prefix(b"\r\n").unwrap_or(&rest));
                Stage::Body(relay, open)
            }
            Err(answer) => Stage::Refused(self.failed(answer)),
        };
    }

    /// It is larger than allowed.
    async fn refuse(&mut self, reply: Reply) {
        let reply = self.refuse_with(Reason::TooBig, reply);
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

/// The verdict on the header block, and the trace fields that go before it; whether the body may still decide.
async fn judge(
    door: &Door,
    guest: &mut Client,
    transaction: &mut Transaction,
    block: &[u8],
) -> Result<(Vec<u8>, bool), Reply> {
    let header = header::read(block);
    let account = &mut transaction.account;
    account.authors = Authors { from: addresses(&header.from), reply_to: addresses(&header.reply_to) };
    if block.first().is_some_and(|first| matches!(first, b' ' | b'\t')) {
        // Behind our own trace fields it would become a part of them: a forged result in our name. Nobody is exempt.
        let subject = "the header begins with a continuation line";
        return Err(account.refuse_always(Reason::MalformedHeader, subject, None));
    }
    if header.received > MAX_RECEIVED {
        let subject = format!("more than {MAX_RECEIVED} Received: fields, a mail loop");
        return Err(account.refuse_with(Reason::MailLoop, Reason::MailLoop.plain_reply(&subject, "")));
    }
    let decision = if account.judged {
        account.inspection.header(guest, &header, block).await
    } else {
        decide::exempt()
    };
    account.decided(decision, None)?;
    let open = account.inspection.awaits_body();
    Ok((trace_fields(door, guest, transaction).await, open))
}

async fn trace_fields(door: &Door, guest: &mut Client, transaction: &Transaction) -> Vec<u8> {
    let (id, hostname) = (transaction.id(), &door.session.hostname);
    let client = transaction.client.ip();
    let names = guest.names().await;
    let esmtp = transaction.helo.as_ref().is_some_and(|helo| helo.extended);
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
        recipient: transaction.account.first.as_ref().filter(|_| transaction.account.accepted == 1),
        at: SystemTime::now(),
    };
    let iprev = names.map(|names| Iprev { result: iprev_result(&names.outcome), client });
    let results = authentication_results(hostname, iprev, transaction.findings());
    [received.to_bytes(), results].concat()
}

/// RFC 8601 2.7.3.
fn iprev_result(names: &FcrdnsResult) -> IprevResult {
    match names {
        FcrdnsResult::Confirmed(_) => IprevResult::Pass,
        FcrdnsResult::NoPtr | FcrdnsResult::NotConfirmed(_) => IprevResult::Fail,
        FcrdnsResult::TempError(_) => IprevResult::TempError,
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
