//! The session's input and output: each effect has one outcome.

use crate::session::Refusal;
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::command::{MailParameters, RcptParameters};
use crate::smtp::framing::Fault;
use crate::smtp::reply::Reply;
use crate::smtp::xclient::Xclient;

#[derive(Debug)]
pub enum Event<'a> {
    /// A command line, without its CRLF.
    Line(&'a [u8]),
    /// A command line was too long.
    LineTooLong,
    /// An octet that has no place in SMTP.
    Fault(Fault),
    /// Outcome of [`Effect::Sender`].
    SenderAnswered(Reply),
    /// Outcome of [`Effect::Recipient`].
    RecipientAnswered(Reply),
    /// Outcome of [`Effect::Message`].
    MessageAnswered(Reply),
    /// Outcome of [`Effect::Client`].
    ClientAnnounced {
        /// [`crate::session::Offer::xclient`] from now on: whether the announced client may send XCLIENT in turn.
        xclient: bool,
    },
    /// The client sent octets before the banner.
    SpokeEarly,
    /// Outcome of [`Effect::StartTls`]: the handshake was done.
    TlsStarted,
    /// Outcome of [`Effect::StartTls`]: octets followed the command before the handshake.
    PlainTextBehindStartTls,
    /// Outcome of [`Effect::StartTls`]: no certificate is loaded.
    TlsUnavailable,
    /// Outcome of [`Effect::Chunk`].
    ChunkAnswered(Reply),
    /// An octet that has no place in SMTP ended a message; the reply closes the connection.
    MessageBroken(Reply),
    TimedOut,
    /// The client sends too slowly while others wait.
    TooSlow,
    /// The daemon stops.
    ShuttingDown,
}

/// An action for the door. Its outcome is the named event, otherwise the next line.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Reply, then wait for the next line.
    Reply(Reply),
    /// Wait for the next line without a reply.
    Listen,
    /// The client sent HELO or EHLO; no transaction is open. Reply.
    Helo(Reply),
    /// The transaction is over without a message. Reply.
    Reset(Reply),
    /// Reply and close the connection.
    Close(Reply),
    /// Record the refusal, then reply with its id; wait for the next line unless the connection is to be closed.
    Refuse(Refusal),
    /// Decide on a new transaction: [`Event::SenderAnswered`].
    Sender(ReversePath, MailParameters),
    /// A recipient for the open transaction: [`Event::RecipientAnswered`].
    Recipient(ForwardPath, RcptParameters),
    /// 354, then receive the message: [`Event::MessageAnswered`].
    Message,
    /// From now on the session is another client's: [`Event::ClientAnnounced`].
    Client(Xclient),
    /// If no octet followed the command, reply and do the handshake, which ends an open transaction:
    /// [`Event::TlsStarted`] or one of the other two. A failed handshake ends the connection without a reply.
    StartTls(Reply),
    /// Receive a chunk of the message: [`Event::ChunkAnswered`].
    Chunk {
        /// Octets that follow the command.
        octets: u64,
        /// The message ends with them.
        last: bool,
    },
    /// Discard a chunk that is out of order, then reply (RFC 3030 2).
    Discard {
        /// Octets that follow the command.
        octets: u64,
        reply: Reply,
    },
}
