//! The failures of a transaction with the next hop, and the client's reply to each: one table (contract 3.8).
//!
//! The relay's own refusal of a client, message or recipient is passed on as it is. Every other failure needs the
//! operator, not the sender: the reply is 4xx, so that the client tries again, and reveals nothing of the network
//! behind.

use std::fmt;
use std::io;

use crate::metrics::RelayOutcome;
use crate::policy::reason::Reason;
use crate::relay::answer::{HopReply, NextHopFailure};
use crate::relay::reply_parser::Malformed;
use crate::smtp::reply::{Enhanced, Reply};

#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// No address, no connection, or no banner in time.
    #[error("the relay cannot be reached: {0}")]
    Unreachable(String),
    /// The relay refuses rmxd: by its banner, or its reply to our EHLO or XCLIENT.
    #[error("the relay refused at {stage}: {reply}")]
    Refused { stage: Stage, reply: Reply },
    /// XCLIENT is required and not offered to us.
    #[error(
        "the relay does not offer XCLIENT with ADDR to this host: without it the relay would take every client for \
         this host and relay for it; list this host in the relay's smtpd_authorized_xclient_hosts (Postfix), or set \
         relay.domains and relay.identity = \"auto\""
    )]
    NoXclient,
    /// XFORWARD is required and not offered to us.
    #[error(
        "the relay does not offer XFORWARD to this host: list this host in the relay's smtpd_authorized_xforward_hosts \
         (Postfix), or set relay.identity = \"auto\""
    )]
    NoXforward,
    /// `relay.tls` is `required`, and the relay doesn't offer STARTTLS.
    #[error("the relay does not offer STARTTLS to this host, and relay.tls is \"required\"")]
    NoTls,
    /// The connection can't be used after this.
    #[error("the TLS handshake with the relay failed: {0}")]
    Handshake(io::Error),
    /// The message needs SMTPUTF8, which the relay offered when our client got its EHLO reply, and no longer does.
    #[error("the relay does not offer SMTPUTF8 (any more), which the message needs")]
    NoSmtputf8,
    /// `relay.max_connections` are in use, or the client has its share of them.
    #[error(
        "no connection to the relay got free in time: of {0} (relay.max_connections), one client may have as many as are \
         left"
    )]
    Busy(usize),
    /// No reply, or no progress, in time.
    #[error("the relay was silent at {0}")]
    Silent(Stage),
    #[error("the relay closed the connection at {0}")]
    Closed(Stage),
    #[error("the relay's answer at {stage} is no SMTP reply: {what}")]
    Garbage { stage: Stage, what: Malformed },
    /// A reply with a code that has no meaning here, or without a command.
    #[error("the relay's answer at {stage} is out of place: {reply}")]
    OutOfPlace { stage: Stage, reply: Reply },
    /// 421: the relay ends the connection (RFC 5321 3.8).
    #[error("the relay is closing the connection at {stage}: {reply}")]
    Closing { stage: Stage, reply: Reply },
    /// The relay's own 4xx or 5xx to a command in the client's name; the client gets it.
    #[error("the relay answered {stage} with {reply}")]
    Rejected { stage: Stage, reply: Reply },
    #[error("the Maildir cannot be written: {0}")]
    Folder(#[from] io::Error),
    /// A step is missing, or an earlier one ended before its reply came.
    #[error("the transaction was in no state for {0}")]
    OutOfStep(Stage),
}

impl RelayError {
    /// Whether only another configuration, the relay's or ours, can help.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::NoXclient | Self::NoXforward)
    }

    /// Whether the next hop can't be used now, for any client and message.
    pub(super) fn is_absence(&self) -> bool {
        match self {
            Self::Unreachable(_)
            | Self::Refused { .. }
            | Self::NoXclient
            | Self::NoXforward
            | Self::NoTls
            | Self::Handshake(_)
            | Self::Folder(_) => true,
            Self::Silent(stage)
            | Self::Closed(stage)
            | Self::Garbage { stage, .. }
            | Self::OutOfPlace { stage, .. }
            | Self::Closing { stage, .. } => {
                matches!(stage, Stage::Banner | Stage::Greeting | Stage::StartTls)
            }
            Self::NoSmtputf8 | Self::Busy(_) | Self::Rejected { .. } | Self::OutOfStep(_) => false,
        }
    }

    /// Whether the relay ended the connection, with 421 or without.
    pub(super) fn is_end(&self) -> bool {
        matches!(self, Self::Closed(_) | Self::Closing { .. })
    }

    /// A refusal that isn't about the sender or the recipient: a protocol error (500, 502, 503), or the relay requires
    /// TLS or a password of us (530, 534, 535, 538; RFC 3207 4, RFC 4954 6).
    pub(super) fn is_about_us(&self) -> bool {
        matches!(self, Self::Rejected { reply, .. }
            if matches!(reply.code(), 500 | 502 | 503 | 530 | 534 | 535 | 538))
    }

    /// The outcome of a transaction that ends with this error.
    pub(super) fn outcome(&self) -> RelayOutcome {
        match self {
            Self::Rejected { reply, .. } if !self.is_about_us() && reply.code() < 500 => {
                RelayOutcome::Deferred
            }
            Self::Rejected { .. } if !self.is_about_us() => RelayOutcome::Rejected,
            Self::NoSmtputf8 => RelayOutcome::Deferred,
            Self::Busy(_) => RelayOutcome::Busy,
            _ if self.is_absence() => RelayOutcome::Unreachable,
            _ => RelayOutcome::Lost,
        }
    }

    #[must_use]
    pub fn answer(&self) -> HopReply {
        let trouble = NextHopFailure { reason: self.reason(), reply: self.relay_reply().cloned() };
        HopReply { reply: self.reply(), trouble: Some(trouble) }
    }

    fn reason(&self) -> Reason {
        match self {
            Self::Rejected { .. } if !self.is_about_us() => Reason::RelayRefused,
            Self::Unreachable(_)
            | Self::Refused { .. }
            | Self::NoXclient
            | Self::NoXforward
            | Self::NoTls
            | Self::Handshake(_)
            | Self::NoSmtputf8
            | Self::Busy(_)
            | Self::Folder(_) => Reason::RelayUnreachable,
            Self::Silent(_)
            | Self::Closed(_)
            | Self::Garbage { .. }
            | Self::OutOfPlace { .. }
            | Self::Closing { .. }
            | Self::Rejected { .. }
            | Self::OutOfStep(_) => Reason::RelayLost,
        }
    }

    fn relay_reply(&self) -> Option<&Reply> {
        match self {
            Self::Refused { reply, .. }
            | Self::OutOfPlace { reply, .. }
            | Self::Closing { reply, .. }
            | Self::Rejected { reply, .. } => Some(reply),
            Self::Unreachable(_)
            | Self::NoXclient
            | Self::NoXforward
            | Self::NoTls
            | Self::Handshake(_)
            | Self::NoSmtputf8
            | Self::Busy(_)
            | Self::Silent(_)
            | Self::Closed(_)
            | Self::Garbage { .. }
            | Self::Folder(_)
            | Self::OutOfStep(_) => None,
        }
    }

    /// The reply for the client.
    #[must_use]
    pub fn reply(&self) -> Reply {
        match self {
            Self::Rejected { .. } if self.is_about_us() => Reason::RelayLost.plain_reply("", ""),
            Self::Rejected { reply, .. } => reply.clone(),
            Self::Unreachable(_)
            | Self::Refused { .. }
            | Self::NoXclient
            | Self::NoXforward
            | Self::NoTls
            | Self::Handshake(_) => Reason::RelayUnreachable.plain_reply("", ""),
            // RFC 6531 3.5 has 5.6.7; our own EHLO offered SMTPUTF8, so the client may try again
            Self::NoSmtputf8 => Reply::new(
                451,
                Enhanced(4, 6, 7),
                "The mail server behind does not take SMTPUTF8 now, try again later",
            ),
            Self::Busy(_) => Reply::new(
                451,
                Enhanced(4, 3, 2),
                "Too many connections to the mail server behind, try again later",
            ),
            Self::Silent(_)
            | Self::Closed(_)
            | Self::Garbage { .. }
            | Self::OutOfPlace { .. }
            | Self::Closing { .. }
            | Self::OutOfStep(_) => Reason::RelayLost.plain_reply("", ""),
            Self::Folder(error) if is_out_of_room(error) => {
                Reply::new(452, Enhanced(4, 3, 1), "Insufficient system storage, try again later")
            }
            Self::Folder(_) => {
                Reply::new(451, Enhanced(4, 3, 0), "The message cannot be stored, try again later")
            }
        }
    }
}

/// ENOSPC, EDQUOT, EFBIG.
fn is_out_of_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// A step of the dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The relay's first reply.
    Banner,
    /// EHLO or HELO.
    Greeting,
    /// STARTTLS.
    StartTls,
    /// XCLIENT.
    Xclient,
    /// XFORWARD.
    Xforward,
    /// RSET, before a connection is used again.
    Reset,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA.
    Data,
    /// Amid the message.
    Message,
    /// The final dot.
    End,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Banner => "the banner",
            Self::Greeting => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Xclient => "XCLIENT",
            Self::Xforward => "XFORWARD",
            Self::Reset => "RSET",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Message => "the message",
            Self::End => "the final dot",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_relays_own_reply_can_be_a_5xx() {
        let refusal = || Reply::new(554, Enhanced(5, 7, 1), "go away");
        let stage = Stage::Mail;
        let rows = [
            (RelayError::Unreachable("refused".into()), "451 4.4.1"),
            (RelayError::Refused { stage, reply: refusal() }, "451 4.4.1"),
            (RelayError::NoXclient, "451 4.4.1"),
            (RelayError::NoXforward, "451 4.4.1"),
            (RelayError::NoTls, "451 4.4.1"),
            (RelayError::Handshake(io::ErrorKind::InvalidData.into()), "451 4.4.1"),
            (RelayError::NoSmtputf8, "451 4.6.7"),
            (RelayError::Busy(1), "451 4.3.2"),
            (RelayError::Silent(stage), "451 4.4.2"),
            (RelayError::Closed(stage), "451 4.4.2"),
            (RelayError::Garbage { stage, what: Malformed::Code }, "451 4.4.2"),
            (RelayError::OutOfPlace { stage, reply: refusal() }, "451 4.4.2"),
            (RelayError::Closing { stage, reply: Reply::plain(421, "bye") }, "451 4.4.2"),
            (RelayError::OutOfStep(stage), "451 4.4.2"),
            (RelayError::Rejected { stage, reply: refusal() }, "554 5.7.1"),
            (RelayError::Rejected { stage, reply: Reply::plain(504, "need a full name") }, "504"),
            (RelayError::Rejected { stage, reply: Reply::plain(503, "send HELO first") }, "451 4.4.2"),
            (RelayError::Rejected { stage, reply: Reply::plain(530, "send STARTTLS first") }, "451 4.4.2"),
            (RelayError::Folder(io::ErrorKind::StorageFull.into()), "452 4.3.1"),
            (RelayError::Folder(io::ErrorKind::QuotaExceeded.into()), "452 4.3.1"),
            (RelayError::Folder(io::ErrorKind::FileTooLarge.into()), "452 4.3.1"),
            (RelayError::Folder(io::ErrorKind::PermissionDenied.into()), "451 4.3.0"),
        ];
        for (error, codes) in rows {
            assert!(error.reply().to_string().starts_with(codes), "{error}: {}", error.reply());
        }
    }
}
