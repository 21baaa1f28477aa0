//! Refusals by the dialogue itself, without a rule: each is recorded, and its reply has an id.

use compact_str::CompactString;

use crate::policy::reason::Reason;
use crate::smtp::address::DomainName;
use crate::smtp::command::CommandError;
use crate::smtp::framing::Fault;
use crate::smtp::reply::Reply;

/// Octets of the client's argument that are kept.
const MOST_KEPT: usize = 512;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `None` for a consequence of refusals that are recorded themselves: only the id is added.
    pub reason: Option<Reason>,
    /// Without the id, which is added at its end.
    pub reply: Reply,
    pub refused: Refused,
    /// The connection is closed afterwards.
    pub closes: bool,
}

/// The refused command, with its argument as text, cut to 512 octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// MAIL.
    Sender(CompactString),
    /// RCPT.
    Recipient(CompactString),
    /// The message, or another command.
    Other,
}

impl Refused {
    pub(super) fn by(line: &[u8]) -> Self {
        let line = line.trim_ascii();
        let at = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
        let (verb, rest) = line.split_at_checked(at).unwrap_or((line, b""));
        let kept = |key: &[u8]| {
            let rest = rest.trim_ascii_start();
            let named = rest.get(..key.len()).is_some_and(|start| start.eq_ignore_ascii_case(key));
            let argument =
                rest.get(if named { key.len() } else { 0 }..).unwrap_or_default().trim_ascii_start();
            let argument = String::from_utf8_lossy(argument.get(..MOST_KEPT).unwrap_or(argument));
            CompactString::new(argument)
        };
        match verb.to_ascii_uppercase().as_slice() {
            b"MAIL" => Self::Sender(kept(b"FROM:")),
            b"RCPT" => Self::Recipient(kept(b"TO:")),
            _ => Self::Other,
        }
    }
}

impl Refusal {
    /// An octet that has no place in SMTP.
    pub(super) fn of_fault(fault: Fault) -> Self {
        let reply = Reason::BareNewline.plain_reply(fault.name(), "");
        Self { reason: Some(Reason::BareNewline), reply, refused: Refused::Other, closes: true }
    }

    /// Data comes too slowly while others wait for the next hop.
    pub(super) fn too_slow(hostname: &DomainName) -> Self {
        let reply = Reason::TooSlow.plain_reply(hostname.as_str(), "");
        Self { reason: Some(Reason::TooSlow), reply, refused: Refused::Other, closes: true }
    }
}

/// The reason for the refusal of an invalid line; `None` for commands other than MAIL and RCPT.
pub(super) fn reason(error: &CommandError, refused: &Refused) -> Option<Reason> {
    match error {
        CommandError::ReversePath(_) | CommandError::ForwardPath(_) | CommandError::NotAscii => {
            Some(Reason::BadAddress)
        }
        CommandError::Syntax(_) if *refused != Refused::Other => Some(Reason::BadAddress),
        CommandError::UnknownParameter(_) | CommandError::BadParameter(_) => Some(Reason::BadParameter),
        CommandError::Unknown
        | CommandError::NotImplemented
        | CommandError::Syntax(_)
        | CommandError::ChunkSize => None,
    }
}
