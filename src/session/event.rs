//! What happens to a session and what it wants done: one outcome for each effect.

use crate::session::Refusal;
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::command::{MailParameters, RcptParameters};
use crate::smtp::framing::Fault;
use crate::smtp::reply::Reply;
use crate::smtp::xclient::Xclient;

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A command line came, without its CRLF.
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
    /// Outcome of [`Effect::Client`]; whether the client announced may in turn say XCLIENT.
    ClientAnnounced {
        /// [`crate::session::Offer::xclient`] from now on.
        xclient: bool,
    },
    /// The client spoke before the banner.
    SpokeEarly,
    /// Outcome of [`Effect::StartTls`]: the handshake was done.
    TlsStarted,
    /// Outcome of [`Effect::StartTls`]: octets came behind the command, before any handshake.
    PlainTextBehindStartTls,
    /// Outcome of [`Effect::StartTls`]: there is nothing to do it with.
    TlsUnavailable,
    /// Outcome of [`Effect::Chunk`].
    ChunkAnswered(Reply),
    /// A message was broken off by an octet that has no place in SMTP; the answer, which closes the connection.
    MessageBroken(Reply),
    /// The client was silent for too long.
    TimedOut,
    /// The client sends too slowly while others wait.
    TooSlow,
    /// The daemon ends.
    ShuttingDown,
}

/// What is to be done. Each effect has one outcome: the event that is named, else the next line.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answer, then wait for the next line.
    Reply(Reply),
    /// Wait for the next line; there is nothing to answer.
    Listen,
    /// The client introduced itself; no transaction is open. Answer.
    Helo(Reply),
    /// The transaction is over without a message. Answer.
    Reset(Reply),
    /// Answer and close the connection.
    Close(Reply),
    /// Record the refusal, then answer with its id; wait for the next line unless the connection is to be closed.
    Refuse(Refusal),
    /// A transaction wants to begin: [`Event::SenderAnswered`].
    Sender(ReversePath, MailParameters),
    /// A recipient for the open transaction: [`Event::RecipientAnswered`].
    Recipient(ForwardPath, RcptParameters),
    /// 354, then receive the message: [`Event::MessageAnswered`].
    Message,
    /// From now on the session is another client's: [`Event::ClientAnnounced`].
    Client(Xclient),
    /// If nothing came behind the command, answer and do the handshake, which ends an open transaction:
    /// [`Event::TlsStarted`] or one of the other two. A handshake that fails ends the connection without a word.
    StartTls(Reply),
    /// Receive so many octets of the message, which may end with them: [`Event::ChunkAnswered`].
    Chunk {
        /// Octets that follow the command.
        octets: u64,
        /// The message ends with them.
        last: bool,
    },
    /// Throw so many octets away, then answer: a chunk that has no place (RFC 3030 2).
    Discard {
        /// Octets that follow the command.
        octets: u64,
        /// The answer.
        reply: Reply,
    },
}
