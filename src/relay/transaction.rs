//! One transaction on a connection to the relay: MAIL with the first RCPT, more recipients, the message.
//!
//! MAIL and the first RCPT (and XFORWARD) leave in one write where the relay has PIPELINING. Small pieces of the
//! message are collected, so that a short message leaves in one write with its dot. A transaction that ended with a
//! reply returns its connection to the pool; a drop closes it, within the message without a dot, so that the relay
//! discards the message (RFC 5321 4.1.1.10).

use std::fmt::Write as _;
use std::sync::Arc;

use crate::message::trace::MOST_ADDED;
use crate::relay::capabilities::Capabilities;
use crate::relay::connection::{Connection, Introduced};
use crate::relay::conversation::{DONE, GO_AHEAD};
use crate::relay::error::{RelayError, Stage};
use crate::relay::hold::Hold;
use crate::relay::pool::{LeaseKey, Pool};
use crate::relay::slots::Slot;
use crate::relay::verdict::of_us;
use crate::relay::{Envelope, Recipient, xforward};
use crate::smtp::reply::Reply;

/// Octets of the message that are collected before a write.
const HELD: usize = 8 * 1024;

/// Sends MAIL and the first RCPT, and returns the reply to RCPT. An error means that there is no transaction; it may be
/// the relay's reply to MAIL.
pub(super) async fn open(
    connection: &mut Connection,
    envelope: &Envelope<'_>,
    first: &Recipient<'_>,
) -> Result<Result<Reply, RelayError>, RelayError> {
    if envelope.smtputf8 && !connection.offered.smtputf8 {
        return Err(RelayError::NoSmtputf8);
    }
    let introductions = match connection.introduced {
        Introduced::ByTransaction(offered) => xforward::commands(envelope, offered),
        Introduced::Gateway | Introduced::As(_) => Vec::new(),
    };
    let conversation = &mut connection.conversation;
    introductions.iter().for_each(|line| conversation.queue(line));
    conversation.queue(&mail_command(envelope, &connection.offered));
    conversation.queue(&rcpt_command(first, connection.offered.dsn));
    for _ in introductions {
        conversation.answer(Stage::Xforward, &DONE).await.map_err(of_us)?;
    }
    if let Err(error) = conversation.answer(Stage::Mail, &DONE).await {
        connection.had_refusal = true;
        if matches!(error, RelayError::Rejected { .. }) {
            conversation.give_up_queue(Stage::Rcpt).await;
        }
        return Err(error);
    }
    let answer = conversation.answer(Stage::Rcpt, &DONE).await;
    connection.had_refusal |= answer.is_err();
    Ok(answer)
}

/// MAIL with the parameters that the relay offers (RFC 1870, RFC 6152, RFC 6531, RFC 3461). SIZE includes our trace
/// fields.
fn mail_command(envelope: &Envelope<'_>, offered: &Capabilities) -> String {
    let mut command = String::with_capacity(128);
    push(&mut command, format_args!("MAIL FROM:<{}>", envelope.reverse_path));
    if let Some(size) = envelope.size.filter(|_| offered.size_parameter) {
        // an upper bound: where only the trace fields exceed the limit, the relay decides at the end
        let limit = offered.size.unwrap_or(u64::MAX).max(size);
        push(&mut command, format_args!(" SIZE={}", size.saturating_add(MOST_ADDED).min(limit)));
    }
    if envelope.eight_bit && offered.eight_bit_mime {
        command.push_str(" BODY=8BITMIME");
    }
    if envelope.smtputf8 {
        command.push_str(" SMTPUTF8");
    }
    for (name, value) in [(" RET=", envelope.ret), (" ENVID=", envelope.envid)] {
        if let Some(value) = value.filter(|_| offered.dsn) {
            command.push_str(name);
            command.push_str(value);
        }
    }
    command
}

fn rcpt_command(recipient: &Recipient<'_>, dsn: bool) -> String {
    let mut command = String::with_capacity(128);
    push(&mut command, format_args!("RCPT TO:<{}>", recipient.path));
    let parameters = recipient.parameters;
    for (name, value) in [(" NOTIFY=", &parameters.notify), (" ORCPT=", &parameters.orcpt)] {
        if let Some(value) = value.as_ref().filter(|_| dsn) {
            command.push_str(name);
            command.push_str(value);
        }
    }
    command
}

fn push(command: &mut String, text: std::fmt::Arguments<'_>) {
    let written = command.write_fmt(text);
    debug_assert!(written.is_ok(), "a Display that fails");
}

/// A transaction at the relay.
#[derive(Debug)]
pub(super) struct SmtpTransaction {
    connection: Connection,
    /// From the relay's 354 on.
    message: Option<Message>,
    slot: Slot,
    pool: Arc<Pool>,
    lease: LeaseKey,
}

/// A message on its way.
#[derive(Debug)]
struct Message {
    /// The last two octets so far: the final dot needs CRLF before it.
    tail: [u8; 2],
    /// Octets that aren't sent yet.
    held: Vec<u8>,
}

impl SmtpTransaction {
    pub(super) fn new(connection: Connection, slot: Slot, pool: Arc<Pool>, lease: LeaseKey) -> Self {
        slot.count_command();
        Self { connection, message: None, slot, pool, lease }
    }

    pub(super) fn hold(&self) -> Hold {
        self.slot.hold()
    }

    /// The relay's reply to RCPT: 25x is `Ok`, its 4xx and 5xx are [`RelayError::Rejected`].
    pub(super) async fn rcpt(&mut self, recipient: &Recipient<'_>) -> Result<Reply, RelayError> {
        if self.message.is_some() {
            return Err(RelayError::OutOfStep(Stage::Rcpt));
        }
        self.slot.count_command();
        let command = rcpt_command(recipient, self.connection.offered.dsn);
        let answer = self.connection.conversation.command(Stage::Rcpt, &command, &DONE).await;
        self.connection.had_refusal |= answer.is_err();
        answer
    }

    pub(super) async fn data(&mut self) -> Result<(), RelayError> {
        if self.message.is_some() {
            return Err(RelayError::OutOfStep(Stage::Data));
        }
        self.slot.count_command();
        let answer = self.connection.conversation.command(Stage::Data, "DATA", &GO_AHEAD).await;
        self.connection.had_refusal |= answer.is_err();
        answer?;
        self.message = Some(Message { tail: *b"\r\n", held: Vec::new() });
        Ok(())
    }

    pub(super) async fn write(&mut self, stuffed: &[u8]) -> Result<(), RelayError> {
        let message = self.message.as_mut().ok_or(RelayError::OutOfStep(Stage::Message))?;
        message.tail = match (message.tail, stuffed) {
            (_, [.., before, last]) => [*before, *last],
            ([_, before], [last]) => [before, *last],
            (tail, []) => tail,
        };
        if message.held.len() + stuffed.len() <= HELD {
            message.held.extend_from_slice(stuffed);
            return Ok(());
        }
        self.flush().await?;
        self.connection.conversation.send(stuffed).await
    }

    /// Sends the collected octets.
    pub(super) async fn flush(&mut self) -> Result<(), RelayError> {
        if let Some(message) = &mut self.message
            && !message.held.is_empty()
        {
            self.connection.conversation.send(&message.held).await?;
            message.held.clear();
        }
        Ok(())
    }

    /// Sends the rest of the message and the final dot. Without CRLF before it the relay would take the dot for text
    /// and wait for more; then the connection is closed instead.
    pub(super) async fn finish(mut self) -> Result<Reply, RelayError> {
        let Some(Message { tail: [b'\r', b'\n'], mut held, .. }) = self.message.take() else {
            return Err(RelayError::OutOfStep(Stage::End));
        };
        held.extend_from_slice(b".\r\n");
        let answer = self.connection.conversation.end(&held).await;
        self.connection.had_refusal |= answer.is_err();
        // an accepted message leaves no state (RFC 5321 4.1.1.4); after a refusal RSET makes sure of it
        self.pool.give_back(self.connection, answer.is_err(), self.lease, self.slot);
        answer
    }

    /// Ends it without a message: with RSET where the relay waits for a command, else by closing.
    pub(super) fn abandon(self) {
        if self.message.is_none() {
            self.pool.give_back(self.connection, true, self.lease, self.slot);
        }
    }
}
