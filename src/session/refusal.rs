//! Refusals that the dialogue itself makes, before any rule is asked: each is recorded, and its reply bears an id.

use compact_str::CompactString;

use crate::policy::reason::Reason;
use crate::smtp::command::CommandError;
use crate::smtp::framing::Fault;
use crate::smtp::reply::Reply;

/// Octets of what the client sent that are kept.
const MOST_KEPT: usize = 512;

/// What is refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why; `None` where the refusals are recorded that it follows from, so that only the id is added.
    pub reason: Option<Reason>,
    /// The answer; the id comes behind it.
    pub reply: Reply,
    /// What it was sent as.
    pub refused: Refused,
    /// The connection is closed afterwards.
    pub closes: bool,
}

/// What is refused, with the argument of the command as it came, cut and as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// MAIL.
    Sender(CompactString),
    /// RCPT.
    Recipient(CompactString),
    /// The message, or what was sent of the session.
    Other,
}

impl Refused {
    /// What a command line asks for.
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
}

/// The reason for which a line is refused that is no valid command; `None` for what asks for no mail.
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
