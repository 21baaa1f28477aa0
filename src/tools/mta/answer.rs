//! The answers of a filter, as Postfix takes them.

use crate::milter::{Packet, letter};
use crate::relay::ReplyParser;
use crate::smtp::reply::Reply;

/// One packet of the filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The filter is still busy.
    Progress,
    /// A change of the message, at its end.
    Edit(Edit),
    /// The last answer to an event.
    Final(Final),
}

/// The last answer to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Final {
    Continue,
    /// Continue, without further events of this kind.
    Skip,
    /// This reply for the client: 4xx or 5xx.
    Reply(Reply),
    /// Postfix's own 5xx.
    Reject,
    /// Postfix's own 451.
    TemporaryFailure,
    /// The rest of the message passes unseen, or of the session.
    Accept,
    /// The message is taken and dropped.
    Discard,
    /// The client is cut off with 421.
    Shutdown,
}

/// A change of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// A field behind all others.
    Add { name: String, value: String },
    /// A field behind `position` others.
    Insert { position: u32, name: String, value: String },
    /// The field with this number, from 1 on, of those with this name.
    Change { index: u32, name: String, value: String },
    /// The same; it is deleted.
    Delete { index: u32, name: String },
    /// Anything else, by its letter.
    Other(u8),
}

/// A packet that is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    #[error("an answer with the unknown letter '{}'", .0.escape_ascii())]
    Letter(u8),
    #[error("an answer '{}' that can't be read", .0.escape_ascii())]
    Data(u8),
}

impl Answer {
    /// # Errors
    /// The packet is no answer.
    pub fn parse(packet: Packet<'_>) -> Result<Self, BadAnswer> {
        let Packet { letter, data } = packet;
        let bad = BadAnswer::Data(letter);
        Ok(match letter {
            letter::PROGRESS => Self::Progress,
            letter::CONTINUE => Self::Final(Final::Continue),
            letter::SKIP => Self::Final(Final::Skip),
            letter::ACCEPT => Self::Final(Final::Accept),
            letter::DISCARD => Self::Final(Final::Discard),
            letter::REJECT => Self::Final(Final::Reject),
            letter::TEMPORARY_FAILURE => Self::Final(Final::TemporaryFailure),
            letter::SHUTDOWN | letter::CONNECTION_FAILURE => Self::Final(Final::Shutdown),
            letter::REPLY_CODE => Self::Final(reply(data).ok_or(bad)?),
            letter::ADD_HEADER => {
                let (name, value) = field(data).ok_or(bad)?;
                Self::Edit(Edit::Add { name, value })
            }
            letter::INSERT_HEADER => {
                let (position, name, value) = numbered(data).ok_or(bad)?;
                Self::Edit(Edit::Insert { position, name, value })
            }
            letter::CHANGE_HEADER => {
                let (index, name, value) = numbered(data).ok_or(bad)?;
                Self::Edit(if value.is_empty() {
                    Edit::Delete { index, name }
                } else {
                    Edit::Change { index, name, value }
                })
            }
            letter::QUARANTINE | b'+' | b'-' | b'2' | b'b' | b'e' => Self::Edit(Edit::Other(letter)),
            other => return Err(BadAnswer::Letter(other)),
        })
    }
}

/// `550 5.1.8 text` with NUL. Percent signs are doubled, since Sendmail takes the text for a format.
fn reply(data: &[u8]) -> Option<Final> {
    let text = std::str::from_utf8(data.strip_suffix(b"\0")?).ok()?.replace("%%", "%");
    reply_of(&text).map(Final::Reply)
}

/// A 4xx or 5xx reply, without CRLF at its end.
pub(super) fn reply_of(text: &str) -> Option<Reply> {
    let wire = format!("{text}\r\n");
    let (reply, rest) = ReplyParser::default().feed(wire.as_bytes()).ok()??;
    (rest.is_empty() && (400..600).contains(&reply.code())).then_some(reply)
}

/// Name and value, each with NUL.
fn field(data: &[u8]) -> Option<(String, String)> {
    let mut strings = data.strip_suffix(b"\0")?.split(|octet| *octet == 0);
    let mut next = || strings.next().map(|text| String::from_utf8_lossy(text).into_owned());
    Some((next()?, next()?)).filter(|_| strings.next().is_none())
}

fn numbered(data: &[u8]) -> Option<(u32, String, String)> {
    let (number, rest) = data.split_first_chunk()?;
    let (name, value) = field(rest)?;
    Some((u32::from_be_bytes(*number), name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::milter::{self, Terms, Wants};
    use crate::smtp::reply::Enhanced;

    #[test]
    fn what_rmxd_answers_is_read() {
        let offer = [6, 0x1ff, 0x1f_ffff].map(u32::to_be_bytes).concat();
        let terms = Terms::read(&offer).unwrap().agree(Wants { body: true }).unwrap();
        let refusal = Reply::new(550, Enhanced(5, 1, 8), "<a@x.test>: 100% no (id 4KXN7Q2M)");
        let (name, value) = ("X-A", &b"one;\r\n\ttwo"[..]);
        let field = || (name.to_owned(), " one;\n\ttwo".to_owned());
        let rows = [
            (milter::Answer::Continue, Answer::Final(Final::Continue)),
            (milter::Answer::TemporaryFailure, Answer::Final(Final::TemporaryFailure)),
            (milter::Answer::Refuse(&refusal), Answer::Final(Final::Reply(refusal.clone()))),
            (milter::Answer::AddHeader { name, value }, {
                let (name, value) = field();
                Answer::Edit(Edit::Add { name, value })
            }),
            (milter::Answer::InsertHeader { position: 0, name, value }, {
                let (name, value) = field();
                Answer::Edit(Edit::Insert { position: 0, name, value })
            }),
            (milter::Answer::ChangeHeader { index: 2, name, value }, {
                let (name, value) = field();
                Answer::Edit(Edit::Change { index: 2, name, value })
            }),
            (
                milter::Answer::DeleteHeader { index: 3, name },
                Answer::Edit(Edit::Delete { index: 3, name: name.to_owned() }),
            ),
        ];
        for (answer, expected) in rows {
            let mut out = Vec::new();
            answer.write_to(&terms, &mut out);
            let (packet, _) = Packet::first(&out).unwrap().unwrap();
            assert_eq!(Answer::parse(packet), Ok(expected), "{answer:?}");
        }
    }

    #[test]
    fn other_answers_have_their_meaning_and_the_rest_is_an_error() {
        let last = |answer| Ok(Answer::Final(answer));
        let rows: [(u8, &[u8], Result<Answer, BadAnswer>); 15] = [
            (b'p', b"", Ok(Answer::Progress)),
            (b's', b"", last(Final::Skip)),
            (b'a', b"", last(Final::Accept)),
            (b'd', b"", last(Final::Discard)),
            (b'r', b"", last(Final::Reject)),
            (b'4', b"", last(Final::Shutdown)),
            (b'f', b"", last(Final::Shutdown)),
            (b'q', b"why\0", Ok(Answer::Edit(Edit::Other(b'q')))),
            (b'y', b"421 go away\0", last(Final::Reply(Reply::plain(421, "go away")))),
            (b'y', b"250 2.0.0 fine\0", Err(BadAnswer::Data(b'y'))),
            (b'y', b"550 5.1.8 no", Err(BadAnswer::Data(b'y'))),
            (b'h', b"X-A\0", Err(BadAnswer::Data(b'h'))),
            (b'i', b"\0\0", Err(BadAnswer::Data(b'i'))),
            (b'm', b"\0\0\0\x01X-A\0a\0b\0", Err(BadAnswer::Data(b'm'))),
            (b'?', b"", Err(BadAnswer::Letter(b'?'))),
        ];
        for (letter, data, expected) in rows {
            assert_eq!(Answer::parse(Packet { letter, data }), expected, "{}", letter.escape_ascii());
        }
    }
}
