//! What the MTA sends: one event for each packet, with its octets borrowed.
//!
//! Strings end with NUL. A packet with a string that has no end, or with octets behind its last string, is malformed:
//! to guess would be to judge something else than the MTA delivers. Data of events that have none are ignored, as by
//! libmilter.

use std::borrow::Cow;

use compact_str::CompactString;

use crate::milter::client::{self, Client};
use crate::milter::flags::protocol;
use crate::milter::letter;
use crate::milter::negotiation::Terms;
use crate::milter::packet::Packet;
use crate::smtp::address::{AddressError, ForwardPath, ReversePath};
use crate::smtp::command::Command;

/// A step of the SMTP session, as the MTA reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// OPTNEG: what the MTA can do. The first event of a connection.
    Negotiate(Terms),
    /// Values for the event that follows.
    Macros(Macros<'a>),
    /// CONNECT. `name` is the client's name as the MTA found it, or its address in brackets.
    Connect {
        name: &'a [u8],
        client: Client,
    },
    /// HELO or EHLO, again after STARTTLS: the argument.
    Helo(&'a [u8]),
    Mail(Path<'a>),
    Rcpt(Path<'a>),
    /// DATA, from version 4 on.
    Data,
    /// One field of the header.
    Header(Header<'a>),
    /// EOH: the header is over.
    EndOfHeader,
    /// A piece of the body, of any size: lines end with CRLF, dots are not stuffed.
    Body(&'a [u8]),
    /// EOM: the body is over, with its last octets, if there are any.
    EndOfMessage(&'a [u8]),
    /// The transaction is over; the client stays.
    Abort,
    /// The MTA closes the connection.
    Quit,
    /// QUIT_NC: the client has left, and CONNECT of another one follows.
    QuitNewConnection,
    /// An SMTP command that the MTA doesn't know, from version 3 on.
    Unknown(&'a [u8]),
}

/// A packet that can't be read; the connection can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("unknown letter '{}'", .0.escape_ascii())]
    UnknownLetter(u8),
    #[error("{0}: a string without its end")]
    Unterminated(&'static str),
    #[error("{event}: {octets} octets are too few")]
    Short { event: &'static str, octets: usize },
    #[error("{event}: {octets} octets behind its last string")]
    Surplus { event: &'static str, octets: usize },
    #[error("MACRO: a name without a value")]
    NoValue,
    #[error("CONNECT: unknown address family '{}'", .0.escape_ascii())]
    Family(u8),
}

impl<'a> Event<'a> {
    /// # Errors
    /// What is wrong with the packet.
    pub fn parse(packet: Packet<'a>) -> Result<Self, Malformed> {
        let data = packet.data;
        Ok(match packet.letter {
            letter::NEGOTIATE => Self::Negotiate(
                Terms::read(data).ok_or(Malformed::Short { event: "OPTNEG", octets: data.len() })?,
            ),
            letter::MACRO => Self::Macros(macros(data)?),
            letter::CONNECT => connect(data)?,
            letter::HELO => Self::Helo(only_string("HELO", data)?),
            letter::MAIL => Self::Mail(path("MAIL", data)?),
            letter::RCPT => Self::Rcpt(path("RCPT", data)?),
            letter::DATA => Self::Data,
            letter::HEADER => Self::Header(header(data)?),
            letter::END_OF_HEADER => Self::EndOfHeader,
            letter::BODY => Self::Body(data),
            letter::END_OF_MESSAGE => Self::EndOfMessage(data),
            letter::ABORT => Self::Abort,
            letter::QUIT => Self::Quit,
            letter::QUIT_NEW_CONNECTION => Self::QuitNewConnection,
            letter::UNKNOWN => Self::Unknown(only_string("UNKNOWN", data)?),
            other => return Err(Malformed::UnknownLetter(other)),
        })
    }

    /// Whether the MTA waits for an answer before it goes on, by the terms that were agreed on.
    #[must_use]
    pub fn expects_answer(&self, terms: &Terms) -> bool {
        let no_reply = match self {
            Self::Negotiate(_) | Self::EndOfMessage(_) => return true,
            Self::Macros(_) | Self::Abort | Self::Quit | Self::QuitNewConnection => return false,
            Self::Connect { .. } => protocol::NO_REPLY_CONNECT,
            Self::Helo(_) => protocol::NO_REPLY_HELO,
            Self::Mail(_) => protocol::NO_REPLY_MAIL,
            Self::Rcpt(_) => protocol::NO_REPLY_RCPT,
            Self::Data => protocol::NO_REPLY_DATA,
            Self::Header(_) => protocol::NO_REPLY_HEADER,
            Self::EndOfHeader => protocol::NO_REPLY_END_OF_HEADER,
            Self::Body(_) => protocol::NO_REPLY_BODY,
            Self::Unknown(_) => protocol::NO_REPLY_UNKNOWN,
        };
        !terms.has(no_reply)
    }

    /// The argument of HELO as the SMTP door has it: printable ASCII of at most 255 octets.
    #[must_use]
    pub fn helo_argument(argument: &[u8]) -> CompactString {
        match Command::parse(&[b"EHLO ", argument].concat()) {
            Ok(Command::Ehlo(argument)) => argument,
            _ => CompactString::default(),
        }
    }
}

/// Macros: names and values, such as `i` and a queue id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Macros<'a> {
    /// The letter of the event that follows, as in [`Packet::letter`].
    pub stage: u8,
    /// Whole pairs of strings.
    pairs: &'a [u8],
}

impl<'a> Macros<'a> {
    /// Whether [`Event::Mail`] follows.
    #[must_use]
    pub fn is_for_mail(&self) -> bool {
        self.stage == letter::MAIL
    }

    /// In the order in which they came. Names of more than one letter have braces around them.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut strings = Strings(self.pairs);
        std::iter::from_fn(move || Some((strings.next()?, strings.next()?)))
    }

    /// The value of a macro. `name` is without braces.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        let bare = |name: &'a [u8]| name.strip_prefix(b"{")?.strip_suffix(b"}");
        let mut all = self.iter();
        all.find(|(found, _)| bare(found).unwrap_or(found) == name.as_bytes()).map(|(_, value)| value)
    }
}

/// The argument of MAIL or RCPT, and the parameters behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path<'a> {
    /// As the client wrote it, mostly in angle brackets.
    pub argument: &'a [u8],
    /// Whole strings.
    parameters: &'a [u8],
}

impl<'a> Path<'a> {
    /// The parameters, such as `SIZE=1000`.
    pub fn parameters(&self) -> impl Iterator<Item = &'a [u8]> {
        Strings(self.parameters)
    }

    /// The path of MAIL.
    ///
    /// # Errors
    /// The part that isn't valid.
    pub fn reverse(&self) -> Result<ReversePath, AddressError> {
        ReversePath::parse(&self.text()?)
    }

    /// The path of RCPT.
    ///
    /// # Errors
    /// The part that isn't valid.
    pub fn forward(&self) -> Result<ForwardPath, AddressError> {
        ForwardPath::parse(&self.text()?)
    }

    /// An octet that isn't UTF-8 is U+FFFD, which a local part may have and a domain may not. Quotes in a domain are refused:
    /// Postfix drops them, Sendmail keeps them.
    fn text(&self) -> Result<Cow<'a, str>, AddressError> {
        let text = String::from_utf8_lossy(self.argument);
        match text.rsplit_once('@') {
            Some((_, domain)) if domain.contains('"') => Err(AddressError::Domain),
            _ => Ok(text),
        }
    }
}

/// A field of the header: folds are LF and white space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Without white space before the colon.
    pub name: &'a [u8],
    /// Everything behind the colon, less one space where that isn't negotiated ([`Terms::keeps_leading_space`]).
    pub value: &'a [u8],
}

impl Header<'_> {
    /// Appends the field as in a message, each line with its CRLF. A CR alone stays, for the reader of the block to refuse.
    pub fn write_to(&self, terms: &Terms, block: &mut Vec<u8>) {
        block.extend_from_slice(self.name);
        block.extend_from_slice(if terms.keeps_leading_space() { b":" } else { b": " });
        let mut rest = self.value;
        while let Some((line, after)) =
            memchr::memchr(b'\n', rest).and_then(|at| Some((rest.get(..at)?, rest.get(at + 1..)?)))
        {
            block.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
            block.extend_from_slice(b"\r\n");
            rest = after;
        }
        block.extend_from_slice(rest);
        block.extend_from_slice(b"\r\n");
    }
}

/// The strings of data that end with NUL.
#[derive(Debug, Clone)]
struct Strings<'a>(&'a [u8]);

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (string, rest) = split(self.0)?;
        self.0 = rest;
        Some(string)
    }
}

/// The first string without its NUL, and what follows. `None` where it has no end.
fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(0, data)?;
    Some((data.get(..at)?, data.get(at + 1..)?))
}

fn string<'a>(event: &'static str, data: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Malformed> {
    split(data).ok_or(Malformed::Unterminated(event))
}

fn only_string<'a>(event: &'static str, data: &'a [u8]) -> Result<&'a [u8], Malformed> {
    match string(event, data)? {
        (string, b"") => Ok(string),
        (_, rest) => Err(Malformed::Surplus { event, octets: rest.len() }),
    }
}

fn path<'a>(event: &'static str, data: &'a [u8]) -> Result<Path<'a>, Malformed> {
    let (argument, parameters) = string(event, data)?;
    if !matches!(parameters.last(), None | Some(0)) {
        return Err(Malformed::Unterminated(event));
    }
    Ok(Path { argument, parameters })
}

fn header(data: &[u8]) -> Result<Header<'_>, Malformed> {
    let (name, rest) = string("HEADER", data)?;
    Ok(Header { name, value: only_string("HEADER", rest)? })
}

fn macros(data: &[u8]) -> Result<Macros<'_>, Malformed> {
    let (stage, pairs) = data.split_first().ok_or(Malformed::Short { event: "MACRO", octets: 0 })?;
    if !matches!(pairs.last(), None | Some(0)) {
        return Err(Malformed::Unterminated("MACRO"));
    }
    if memchr::memchr_iter(0, pairs).count() % 2 == 1 {
        return Err(Malformed::NoValue);
    }
    Ok(Macros { stage: *stage, pairs })
}

/// Name, family, port in network order, address. Family U has no more than the letter.
fn connect(data: &[u8]) -> Result<Event<'_>, Malformed> {
    const EVENT: &str = "CONNECT";
    let short = Malformed::Short { event: EVENT, octets: data.len() };
    let (name, rest) = string(EVENT, data)?;
    let (family, rest) = rest.split_first().ok_or(short)?;
    let (port, address) = if *family == client::UNKNOWN {
        (0, &b""[..])
    } else {
        let (port, rest) = rest.split_first_chunk().ok_or(short)?;
        (u16::from_be_bytes(*port), only_string(EVENT, rest)?)
    };
    let client = Client::of(*family, port, address).ok_or(Malformed::Family(*family))?;
    Ok(Event::Connect { name, client })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::milter::negotiation::Wants;

    fn shown(letter: u8, data: &[u8]) -> String {
        match Event::parse(Packet { letter, data }) {
            Err(error) => format!("error: {error}"),
            Ok(Event::Negotiate(terms)) => format!("negotiate version {}", terms.version()),
            Ok(Event::Macros(macros)) => {
                let pairs = macros
                    .iter()
                    .map(|(name, value)| format!(" {}={}", name.escape_ascii(), value.escape_ascii()));
                format!("macros {}{}", macros.stage.escape_ascii(), pairs.collect::<String>())
            }
            Ok(Event::Connect { name, client }) => format!("connect {} {client:?}", name.escape_ascii()),
            Ok(Event::Helo(argument)) => format!("helo {}", argument.escape_ascii()),
            Ok(Event::Mail(path)) => format!("mail {}", shown_path(path)),
            Ok(Event::Rcpt(path)) => format!("rcpt {}", shown_path(path)),
            Ok(Event::Header(Header { name, value })) => {
                format!("header {}={}", name.escape_ascii(), value.escape_ascii())
            }
            Ok(Event::Body(octets)) => format!("body {}", octets.escape_ascii()),
            Ok(Event::EndOfMessage(octets)) => format!("end {}", octets.escape_ascii()),
            Ok(Event::Unknown(line)) => format!("unknown {}", line.escape_ascii()),
            Ok(other) => format!("{other:?}"),
        }
    }

    fn terms(protocol: u32) -> Terms {
        Terms::read(&[6, 0x1ff, protocol].map(u32::to_be_bytes).concat()).unwrap()
    }

    fn shown_path(path: Path<'_>) -> String {
        let parameters = path.parameters().map(|parameter| format!(" {}", parameter.escape_ascii()));
        format!("{}{}", path.argument.escape_ascii(), parameters.collect::<String>())
    }

    #[test]
    fn every_packet_is_an_event_or_an_error_that_names_its_fault() {
        let rows: &[(u8, &[u8], &str)] = &[
            (b'O', b"\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff", "negotiate version 6"),
            (b'O', b"\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xffmore", "negotiate version 6"),
            (b'O', b"\0\0\0\x06\0\0\x01\xff\0\x1f\xff", "error: OPTNEG: 11 octets are too few"),
            (b'O', b"", "error: OPTNEG: 0 octets are too few"),
            (b'D', b"Mi\x004jcH\0{auth_authen}\0ann\0", "macros M i=4jcH {auth_authen}=ann"),
            (b'D', b"Mi\0\0", "macros M i="),
            (b'D', b"H", "macros H"),
            (b'D', b"", "error: MACRO: 0 octets are too few"),
            (b'D', b"Mi\0", "error: MACRO: a name without a value"),
            (b'D', b"Mi", "error: MACRO: a string without its end"),
            (b'D', b"Mi\x004jcH", "error: MACRO: a string without its end"),
            (
                b'C',
                b"[192.0.2.7]\x004\0\x19192.0.2.7\0",
                "connect [192.0.2.7] Host { address: 192.0.2.7, port: 25 }",
            ),
            (
                b'C',
                b"a.test\x006\x01\0IPv6:2001:db8::7\0",
                "connect a.test Host { address: 2001:db8::7, port: 256 }",
            ),
            (b'C', b"localhost\x004\0\x00127.0.0.1\0", "connect localhost ThisMachine"),
            (b'C', b"localhost\0L\0\0/run/socket\0", "connect localhost ThisMachine"),
            (b'C', b"unknown\x004\0\x19unknown\0", "connect unknown Unknown"),
            (b'C', b"unknown\0U", "connect unknown Unknown"),
            (b'C', b"unknown\0U\0\x19192.0.2.7", "connect unknown Unknown"),
            (b'C', b"", "error: CONNECT: a string without its end"),
            (b'C', b"name", "error: CONNECT: a string without its end"),
            (b'C', b"name\0", "error: CONNECT: 5 octets are too few"),
            (b'C', b"name\x004\0", "error: CONNECT: 7 octets are too few"),
            (b'C', b"name\x004\0\x19", "error: CONNECT: a string without its end"),
            (b'C', b"name\x004\0\x19192.0.2.7", "error: CONNECT: a string without its end"),
            (b'C', b"name\x004\0\x19192.0.2.7\0x", "error: CONNECT: 1 octets behind its last string"),
            (b'C', b"name\x007\0\x19192.0.2.7\0", "error: CONNECT: unknown address family '7'"),
            (b'H', b"mail.good.test\0", "helo mail.good.test"),
            (b'H', b"\0", "helo "),
            (b'H', b"", "error: HELO: a string without its end"),
            (b'H', b"mail.good.test", "error: HELO: a string without its end"),
            (b'H', b"mail\0good\0", "error: HELO: 5 octets behind its last string"),
            (b'M', b"<ann@good.test>\0", "mail <ann@good.test>"),
            (b'M', b"<>\0SIZE=10\0BODY=8BITMIME\0", "mail <> SIZE=10 BODY=8BITMIME"),
            (b'M', b"<ann@good.test>", "error: MAIL: a string without its end"),
            (b'M', b"<>\0SIZE=10", "error: MAIL: a string without its end"),
            (b'M', b"", "error: MAIL: a string without its end"),
            (b'R', b"<user@relay.test>\0NOTIFY=NEVER\0", "rcpt <user@relay.test> NOTIFY=NEVER"),
            (b'R', b"<user@relay.test>\0NOTIFY", "error: RCPT: a string without its end"),
            (b'T', b"", "Data"),
            (b'T', b"ignored", "Data"),
            (b'L', b"Subject\0 hello\n\tworld\0", "header Subject= hello\\n\\tworld"),
            (b'L', b"X\0\0", "header X="),
            (b'L', b"\0\0", "header ="),
            (b'L', b"Subject\0", "error: HEADER: a string without its end"),
            (b'L', b"Subject\0hello", "error: HEADER: a string without its end"),
            (b'L', b"Subject\0a\0b\0", "error: HEADER: 2 octets behind its last string"),
            (b'N', b"", "EndOfHeader"),
            (b'B', b"line\r\n\0", "body line\\r\\n\\x00"),
            (b'B', b"", "body "),
            (b'E', b"", "end "),
            (b'E', b"last\r\n", "end last\\r\\n"),
            (b'A', b"", "Abort"),
            (b'Q', b"", "Quit"),
            (b'K', b"", "QuitNewConnection"),
            (b'U', b"FROB\0", "unknown FROB"),
            (b'U', b"FROB", "error: UNKNOWN: a string without its end"),
            (b'V', b"", "error: unknown letter 'V'"),
            (b'c', b"", "error: unknown letter 'c'"),
            (0, b"", "error: unknown letter '\\x00'"),
            (b'\n', b"", "error: unknown letter '\\n'"),
        ];
        for (letter, data, expected) in rows {
            assert_eq!(shown(*letter, data), *expected, "{} {}", letter.escape_ascii(), data.escape_ascii());
        }
    }

    #[test]
    fn a_macro_is_found_with_braces_or_without() {
        let Ok(Event::Macros(macros)) = Event::parse(Packet {
            letter: b'D',
            data: b"Mi\x004jcH\0{auth_authen}\0\0{x}\x001\0x\x002\0{y\x003\0",
        }) else {
            panic!("not macros")
        };
        let rows: [(&str, Option<&[u8]>); 6] = [
            ("i", Some(b"4jcH")),
            ("auth_authen", Some(b"")),
            ("x", Some(b"1")),
            ("{y", Some(b"3")),
            ("y", None),
            ("4jcH", None),
        ];
        for (name, expected) in rows {
            assert_eq!(macros.get(name), expected, "{name}");
        }
    }

    #[test]
    fn paths_are_read_as_at_the_smtp_door() {
        let path = |argument| Path { argument, parameters: b"" };
        let rows: [(&[u8], Result<&str, AddressError>); 9] = [
            (b"<ann@good.test>", Ok("ann@good.test")),
            (b"ann@good.test", Ok("ann@good.test")),
            (b"<@a.test,@b.test:ann@good.test>", Ok("ann@good.test")),
            (b"<>", Ok("")),
            (b"<a b@good.test>", Err(AddressError::LocalPart)),
            (b"<\xff@good.test>", Ok("\u{fffd}@good.test")),
            (b"<a@go\xffod.test>", Err(AddressError::Domain)),
            (b"<\"a@b\"@good.test>", Ok("\"a@b\"@good.test")),
            (b"<a@good.te\"\"st>", Err(AddressError::Domain)),
        ];
        for (argument, expected) in rows {
            let read = path(argument).reverse().map(|path| path.to_string());
            assert_eq!(read, expected.map(str::to_owned), "{}", argument.escape_ascii());
        }
        assert_eq!(path(b"<postmaster>").forward().unwrap().to_string(), "postmaster");
        assert_eq!(path(b"<>").forward(), Err(AddressError::LocalPart));
        assert_eq!(path(b"<\xff>").forward().unwrap().to_string(), "\u{fffd}");
    }

    #[test]
    fn a_helo_argument_is_printable() {
        let rows: [(&[u8], &str); 4] =
            [(b"mail.good.test", "mail.good.test"), (b"", ""), (b"a\x1b\xffb", "a??b"), (b" a b ", "a b")];
        for (argument, expected) in rows {
            assert_eq!(Event::helo_argument(argument), expected, "{}", argument.escape_ascii());
        }
        assert_eq!(Event::helo_argument(&[b'a'; 70_000]).len(), 255);
    }

    #[test]
    fn a_field_is_written_as_it_stood_in_the_message() {
        let leading_space = 0x10_0000;
        let rows: [(u32, &[u8], &[u8]); 9] = [
            (leading_space, b" hello", b"X: hello\r\n"),
            (leading_space, b"hello", b"X:hello\r\n"),
            (leading_space, b"", b"X:\r\n"),
            (leading_space, b" a\n\tb\n c", b"X: a\r\n\tb\r\n c\r\n"),
            (leading_space, b" a\r\n\tb\r\n", b"X: a\r\n\tb\r\n\r\n"),
            (leading_space, b" a\rb\r", b"X: a\rb\r\r\n"),
            (leading_space, b"\n", b"X:\r\n\r\n"),
            (0, b"hello", b"X: hello\r\n"),
            (0, b" two\n\tlines", b"X:  two\r\n\tlines\r\n"),
        ];
        for (protocol, value, expected) in rows {
            let mut block = Vec::new();
            Header { name: b"X", value }.write_to(&terms(protocol), &mut block);
            assert_eq!(block.escape_ascii().to_string(), expected.escape_ascii().to_string());
        }
    }

    #[test]
    fn an_event_is_answered_unless_that_was_negotiated_away() {
        let events: [(u8, &[u8], u32); 15] = [
            (b'O', &[0; 12], 0),
            (b'D', b"M", u32::MAX),
            (b'C', b"x\0U", 0x1000),
            (b'H', b"x\0", 0x2000),
            (b'M', b"<>\0", 0x4000),
            (b'R', b"<x>\0", 0x8000),
            (b'T', b"", 0x1_0000),
            (b'L', b"x\0\0", 0x80),
            (b'N', b"", 0x4_0000),
            (b'B', b"", 0x8_0000),
            (b'E', b"", 0),
            (b'A', b"", u32::MAX),
            (b'Q', b"", u32::MAX),
            (b'K', b"", u32::MAX),
            (b'U', b"x\0", 0x2_0000),
        ];
        let ours = terms(0x1f_ffff).agree(Wants { body: true }).unwrap();
        let mut unanswered = String::new();
        for (letter, data, no_reply) in events {
            let event = Event::parse(Packet { letter, data }).unwrap();
            for bit in (0..32).map(|shift| 1 << shift) {
                let expected = no_reply != u32::MAX && no_reply & bit == 0;
                assert_eq!(event.expects_answer(&terms(bit)), expected, "{event:?} {bit:x}");
            }
            if !event.expects_answer(&ours) {
                unanswered.push(letter.into());
            }
        }
        assert_eq!(unanswered, "DHLBAQK");
    }
}
