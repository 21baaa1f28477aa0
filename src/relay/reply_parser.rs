//! Parser of the relay's replies (RFC 5321 4.2), which aren't trusted; no I/O.
//!
//! Lines end with CRLF only: a stray CR or LF may come from text that the relay echoes, and must not start a second
//! reply. All lines of a reply have one code. Line length, number of lines and total length are bounded, and so is the
//! memory. The octets behind a reply are returned: the conversation knows whether another reply is due. Control
//! characters are replaced here, so that logs get none either.

use crate::smtp::reply::{Enhanced, Reply};

/// Longest line with CRLF. RFC 5321 4.5.3.1.5 allows 512; texts with URLs are longer here and there.
const MAX_LINE: usize = 4096;
/// Most lines of one reply.
const MAX_LINES: usize = 128;
/// Most octets of one reply.
const MAX_REPLY: usize = 32 * 1024;

#[derive(Debug, Default)]
pub struct ReplyParser {
    line: Vec<u8>,
    code: Option<u16>,
    text: Vec<String>,
    octets: usize,
}

impl ReplyParser {
    /// Returns the reply once it is complete, with the octets behind it.
    ///
    /// # Errors
    /// The octets are no reply; the connection can't be used any more.
    pub fn feed<'a>(&mut self, mut octets: &'a [u8]) -> Result<Option<(Reply, &'a [u8])>, Malformed> {
        while !octets.is_empty() {
            let end = memchr::memchr(b'\n', octets).map_or(octets.len(), |at| at + 1);
            let (piece, rest) = octets.split_at_checked(end).unwrap_or((octets, &[]));
            octets = rest;
            self.octets = self.octets.saturating_add(piece.len());
            if self.line.len() + piece.len() > MAX_LINE || self.octets > MAX_REPLY {
                return Err(Malformed::TooLong);
            }
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") && self.end_line()? {
                return Ok(std::mem::take(self).into_reply().map(|reply| (reply, octets)));
            }
        }
        Ok(None)
    }

    /// Reads a complete line; returns whether it is the last of its reply.
    fn end_line(&mut self) -> Result<bool, Malformed> {
        let line = std::mem::take(&mut self.line);
        let content = line.strip_suffix(b"\r\n").ok_or(Malformed::LineEnd)?;
        if content.contains(&b'\r') {
            return Err(Malformed::LineEnd);
        }
        let (digits, rest) = content.split_at_checked(3).ok_or(Malformed::Code)?;
        let code = code(digits).ok_or(Malformed::Code)?;
        if self.code.is_some_and(|first| first != code) {
            return Err(Malformed::CodesDiffer);
        }
        self.code = Some(code);
        let (last, text) = match rest {
            [] => (true, rest),
            [b' ', text @ ..] => (true, text),
            [b'-', text @ ..] => (false, text),
            _ => return Err(Malformed::Code),
        };
        self.text.push(printable(text));
        if self.text.len() > MAX_LINES {
            return Err(Malformed::TooLong);
        }
        Ok(last)
    }

    /// Moves the enhanced code out of the text; one of another class than the code is dropped.
    fn into_reply(self) -> Option<Reply> {
        let code = self.code?;
        let mut enhanced = None;
        let mut text = String::new();
        for (at, line) in self.text.iter().enumerate() {
            let (found, rest) = match split_enhanced(line) {
                Some((found, rest)) => (Some(found), rest),
                None => (None, line.as_str()),
            };
            if at == 0 {
                enhanced = found.filter(|found| u16::from(found.0) == code / 100);
            } else {
                text.push('\n');
            }
            text.push_str(rest);
        }
        Some(match enhanced {
            Some(enhanced) => Reply::new(code, enhanced, text),
            None => Reply::plain(code, text),
        })
    }
}

/// Three digits, of the classes that a server sends (RFC 5321 4.2.1).
fn code(digits: &[u8]) -> Option<u16> {
    let value = number(std::str::from_utf8(digits).ok()?)?;
    (200..=599).contains(&value).then_some(value)
}

/// `5.7.1 text` (RFC 2034 4): class 2, 4 or 5, one to three digits each (RFC 3463 2).
fn split_enhanced(line: &str) -> Option<(Enhanced, &str)> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut parts = word.split('.');
    let class = match parts.next()? {
        "2" => 2,
        "4" => 4,
        "5" => 5,
        _ => return None,
    };
    let (subject, detail) = (number(parts.next()?)?, number(parts.next()?)?);
    parts.next().is_none().then_some((Enhanced(class, subject, detail), rest))
}

/// One to three digits and nothing else (no sign, as `parse` would take).
fn number(text: &str) -> Option<u16> {
    let digits = (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn printable(text: &[u8]) -> String {
    text.iter().map(|&byte| if matches!(byte, b' '..=b'~') { char::from(byte) } else { '?' }).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Over one of the bounds.
    #[error("too long")]
    TooLong,
    /// A bare CR or LF.
    #[error("a line does not end with CRLF")]
    LineEnd,
    /// Not three digits from 200 to 599 and then a space, a hyphen or the end of the line.
    #[error("no reply code")]
    Code,
    #[error("the lines bear different codes")]
    CodesDiffer,
    /// Octets after the end of the last reply that was due.
    #[error("more replies than commands")]
    Surplus,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(octets: &[u8]) -> Result<Option<Reply>, Malformed> {
        Ok(ReplyParser::default().feed(octets)?.map(|(reply, rest)| {
            assert!(rest.is_empty(), "{rest:?}");
            reply
        }))
    }

    #[test]
    fn octets_behind_a_reply_are_returned() {
        let mut parser = ReplyParser::default();
        let (reply, rest) = parser.feed(b"250 a\r\n550-b\r\n5").unwrap().unwrap();
        assert_eq!((reply, rest), (Reply::plain(250, "a"), &b"550-b\r\n5"[..]));
        assert_eq!(parser.feed(rest), Ok(None));
        assert_eq!(parser.feed(b"50 c\r\n"), Ok(Some((Reply::plain(550, "b\nc"), &b""[..]))));
    }

    #[test]
    fn replies_are_read_with_their_codes() {
        let rows: [(&str, Reply); 9] = [
            ("250 ok\r\n", Reply::plain(250, "ok")),
            ("354\r\n", Reply::plain(354, "")),
            ("250 2.1.0 Ok\r\n", Reply::new(250, Enhanced(2, 1, 0), "Ok")),
            ("250 2.0.0\r\n", Reply::new(250, Enhanced(2, 0, 0), "")),
            ("550-5.7.1 one\r\n550 5.7.1 two\r\n", Reply::new(550, Enhanced(5, 7, 1), "one\ntwo")),
            ("550-5.7.1 one\r\n550 two\r\n", Reply::new(550, Enhanced(5, 7, 1), "one\ntwo")),
            ("550 2.0.0 contradicts itself\r\n", Reply::plain(550, "contradicts itself")),
            ("550 5.7.1.2 no code\r\n", Reply::plain(550, "5.7.1.2 no code")),
            ("550 5.+7.1 a\x1b[2J\tb\u{e9}\r\n", Reply::plain(550, "5.+7.1 a?[2J?b??")),
        ];
        for (wire, reply) in rows {
            assert_eq!(read(wire.as_bytes()), Ok(Some(reply)), "{wire:?}");
        }
    }

    #[test]
    fn every_split_gives_the_same_reply() {
        let wire = b"250-relay.test\r\n250-SIZE 100\r\n250 DSN\r\n";
        for at in 1..wire.len() {
            let mut parser = ReplyParser::default();
            assert_eq!(parser.feed(&wire[..at]), Ok(None), "{at}");
            let (reply, rest) = parser.feed(&wire[at..]).unwrap().unwrap();
            assert_eq!((reply, rest), (Reply::plain(250, "relay.test\nSIZE 100\nDSN"), &b""[..]));
            assert_eq!(parser.feed(b"221 bye\r\n"), Ok(Some((Reply::plain(221, "bye"), &b""[..]))));
        }
    }

    #[test]
    fn octets_that_are_no_reply_are_an_error() {
        let rows: [(&[u8], Malformed); 13] = [
            (b"250 ok\n", Malformed::LineEnd),
            (b"250 a\rb\r\n", Malformed::LineEnd),
            (b"550 x\n250 ok\r\n", Malformed::LineEnd),
            (b"\r\n", Malformed::Code),
            (b"ok\r\n", Malformed::Code),
            (b"150 wait\r\n", Malformed::Code),
            (b"600 what\r\n", Malformed::Code),
            (b"+25 what\r\n", Malformed::Code),
            (b"2500 what\r\n", Malformed::Code),
            (b"250_ok\r\n", Malformed::Code),
            (b"HTTP/1.1 400 Bad Request\r\n", Malformed::Code),
            (b"250-a\r\n550 b\r\n", Malformed::CodesDiffer),
            (&[b'2'; MAX_LINE + 1], Malformed::TooLong),
        ];
        for (wire, malformed) in rows {
            assert_eq!(read(wire), Err(malformed), "{:?}", String::from_utf8_lossy(wire));
        }
    }

    #[test]
    fn an_endless_line_is_an_error_at_the_bound() {
        let mut parser = ReplyParser::default();
        let mut fed = 0;
        let refused = (0..10 * 1024).find_map(|_| {
            fed += 1024;
            parser.feed(&[b'2'; 1024]).err()
        });
        assert_eq!(refused, Some(Malformed::TooLong));
        assert!(fed <= MAX_LINE + 1024 && parser.line.len() <= MAX_LINE, "{fed}");
    }

    #[test]
    fn endless_lines_are_an_error_at_the_bound() {
        for line in ["250-x\r\n".to_owned(), format!("250-{}\r\n", "x".repeat(4000))] {
            let mut parser = ReplyParser::default();
            let held = (0..100_000).take_while(|_| parser.feed(line.as_bytes()).is_ok()).count();
            assert!((4..=MAX_LINES).contains(&held), "{held}");
        }
    }
}
