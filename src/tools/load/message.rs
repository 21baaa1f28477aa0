//! The messages of the load test: the client writes them, and the sink verifies that they are undamaged.
//!
//! A header field has the token and the size of the body. The body is the beginning of one endless text, so the sink can
//! compare it without keeping it. Some lines start with a dot: the sink must get them dot-stuffed (RFC 5321 4.5.2).

use std::sync::LazyLock;

use crate::smtp::decimal::push_decimal;

/// The field with token and size.
const FIELD: &str = "X-Rmxd-Load";

/// Maximum header block at the sink: that of the message and the trace fields of gates before it.
const LONGEST_HEADER: usize = 64 << 10;

/// Octets of a line of the text, including CRLF.
const LINE: usize = 64;

/// The text repeats after this many lines.
const LINES: usize = 64;

/// All lines have the same length, so that a body of any size can end with a whole line.
static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let line = |number: usize| {
        let start = if number % 8 == 3 { "..with a dot".to_owned() } else { format!("line {number}") };
        format!("{start:.<width$}\r\n", width = LINE - 2)
    };
    (0..LINES).flat_map(|number| line(number).into_bytes()).collect()
});

/// The last line of a body is a part of it.
static LAST: [u8; LINE] = [b'x'; LINE];

/// Writes the header block and the empty line after it.
pub(super) fn write_header(token: u64, size: u64, from: &[u8], to: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"From: <load@");
    out.extend_from_slice(from);
    out.extend_from_slice(b">\r\nTo: <");
    out.extend_from_slice(to.as_bytes());
    out.extend_from_slice(
        b">\r\nSubject: load test\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <",
    );
    push_decimal(out, token);
    out.extend_from_slice(b"@rmxd-load.test>\r\n");
    out.extend_from_slice(FIELD.as_bytes());
    out.extend_from_slice(b": ");
    push_decimal(out, token);
    out.push(b' ');
    push_decimal(out, size);
    out.extend_from_slice(b"\r\n\r\n");
}

/// The next piece of a body of this size at this position; empty at its end. A body ends with CRLF, so a size of one octet more
/// than whole lines gives a body that is one octet shorter.
pub(super) fn body(size: u64, at: u64) -> &'static [u8] {
    let line = u64::try_from(LINE).unwrap_or(u64::MAX);
    let whole = size / line * line;
    if at < whole {
        let start = usize::try_from(at % u64::try_from(TEXT.len()).unwrap_or(1)).unwrap_or_default();
        return cut(TEXT.get(start..).unwrap_or_default(), whole - at);
    }
    match ((size - whole).checked_sub(2), at - whole) {
        (None, _) => b"",
        (Some(text), at) if at < text => cut(&LAST, text - at),
        (Some(text), at) if at == text => b"\r\n",
        (Some(text), at) if at == text + 1 => b"\n",
        (Some(_), _) => b"",
    }
}

fn cut(octets: &'static [u8], most: u64) -> &'static [u8] {
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(octets.len());
    octets.get(..most).unwrap_or_default()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// No header block, or one without the field.
    Foreign,
    /// The body or its length differs.
    Body,
}

/// Reads one message, piece by piece, still dot-stuffed and without the final dot.
#[derive(Debug)]
pub(super) enum Reader {
    Header(Vec<u8>),
    Body { token: u64, size: u64, at: u64 },
    Damaged(Damage),
}

impl Reader {
    pub(super) fn new() -> Self {
        Self::Header(Vec::new())
    }

    pub(super) fn push(&mut self, octets: &[u8]) {
        match self {
            Self::Damaged(_) => {}
            Self::Header(header) => {
                header.extend_from_slice(octets);
                let end = memchr::memmem::find(header, b"\r\n\r\n");
                let Some(end) = end.filter(|end| *end <= LONGEST_HEADER) else {
                    if header.len() > LONGEST_HEADER {
                        *self = Self::Damaged(Damage::Foreign);
                    }
                    return;
                };
                let (block, rest) = header.split_at(end);
                let next = match token_and_size(block) {
                    Some((token, size)) => Self::Body { token, size, at: 0 },
                    None => Self::Damaged(Damage::Foreign),
                };
                let rest = rest.get(4..).unwrap_or_default().to_vec();
                *self = next;
                self.push(&rest);
            }
            Self::Body { size, at, .. } => {
                let mut octets = octets;
                while !octets.is_empty() {
                    let expected = body(*size, *at);
                    let length = expected.len().min(octets.len());
                    let (piece, rest) = octets.split_at(length);
                    if length == 0 || !expected.starts_with(piece) {
                        *self = Self::Damaged(Damage::Body);
                        return;
                    }
                    *at += u64::try_from(length).unwrap_or_default();
                    octets = rest;
                }
            }
        }
    }

    /// The token of an undamaged message.
    pub(super) fn finish(&self) -> Result<u64, Damage> {
        match self {
            Self::Header(_) => Err(Damage::Foreign),
            Self::Damaged(damage) => Err(*damage),
            Self::Body { token, size, at } if body(*size, *at).is_empty() => Ok(*token),
            Self::Body { .. } => Err(Damage::Body),
        }
    }
}

fn token_and_size(block: &[u8]) -> Option<(u64, u64)> {
    let block = std::str::from_utf8(block).ok()?;
    let value = block.split("\r\n").find_map(|line| line.strip_prefix(FIELD)?.strip_prefix(": "))?;
    let (token, size) = value.split_once(' ')?;
    Some((token.parse().ok()?, size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::framing::{BareNewline, DataEvent, DataReader};

    fn message(token: u64, size: u64) -> Vec<u8> {
        let mut out = Vec::new();
        write_header(token, size, b"good.test", "load@load.test", &mut out);
        let mut at = 0;
        loop {
            let piece = body(size, at);
            if piece.is_empty() {
                return out;
            }
            out.extend_from_slice(piece);
            at += u64::try_from(piece.len()).unwrap();
        }
    }

    #[test]
    fn bodies_are_as_long_as_asked_and_end_lines() {
        for size in (0..300).chain([4094, 4095, 4096, 4097, 4098, 70_000]) {
            let message = message(1, size);
            let end = memchr::memmem::find(&message, b"\r\n\r\n").unwrap() + 4;
            let length = u64::try_from(message.len() - end).unwrap();
            assert_eq!(length, if size % 64 == 1 { size - 1 } else { size });
            assert!(message.ends_with(b"\r\n"), "{size}");
            let (mut reader, wire) =
                (DataReader::new(BareNewline::Reject), [&message[..], b".\r\n"].concat());
            let step = reader.next(&wire);
            assert_eq!((step.event, step.content), (DataEvent::End, message.len()), "{size}");
        }
    }

    #[test]
    fn every_split_of_a_message_gives_the_same_result() {
        for (token, size) in [(0, 0), (7, 65), (4711, 300), (u64::MAX, 5000)] {
            let message = message(token, size);
            for at in 0..message.len() {
                let mut reader = Reader::new();
                reader.push(&message[..at]);
                assert!(at == 0 || size == 0 || reader.finish().is_err(), "{size} cut at {at}");
                reader.push(&message[at..]);
                assert_eq!(reader.finish(), Ok(token), "{size} split at {at}");
            }
        }
    }

    #[test]
    fn trace_fields_are_no_damage_and_every_other_change_is() {
        let whole = message(5, 300);
        let read = |message: &[u8]| {
            let mut reader = Reader::new();
            reader.push(message);
            reader.finish()
        };
        let text = String::from_utf8(whole.clone()).unwrap();
        assert_eq!(read(format!("Received: from x\r\n\tby y\r\n{text}").as_bytes()), Ok(5));
        let rows = [
            (text.replace("with a dot", "with a dog"), Damage::Body),
            (text.replace("..with", ".with"), Damage::Body),
            (format!("{text}x"), Damage::Body),
            (text.trim_end_matches('\n').to_owned(), Damage::Body),
            (text.replace("X-Rmxd-Load: 5 300", "X-Rmxd-Load: 5 301"), Damage::Body),
            (text.replace(FIELD, "X-Other"), Damage::Foreign),
            (text.replace("\r\n\r\n", "\r\n"), Damage::Foreign),
            (String::new(), Damage::Foreign),
            ("a: b\r\n".repeat(20_000) + &text, Damage::Foreign),
        ];
        for (message, damage) in rows {
            assert_eq!(read(message.as_bytes()), Err(damage), "{message:.80}");
        }
    }
}
