//! Finds requests in a stream: lines `name=value`, each with LF, up to an empty line.
//!
//! A request stays in the caller's buffer until it is whole, so that every split of the stream gives the same requests.

use crate::delegation::request::Request;
use crate::smtp::escape::Escaped;

/// Longest request in octets, with the empty line.
const MAX_OCTETS: usize = 64 * 1024;
/// Most lines of a request, without the empty one.
const MAX_LINES: usize = 200;
/// Longest part of a line in an error.
const MAX_SHOWN: usize = 60;

/// What is wrong with a request; the connection can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a request of more than {MAX_OCTETS} octets")]
    TooLong,
    #[error("a request of more than {MAX_LINES} lines")]
    TooManyLines,
    #[error("line {number} has no '=': {line}")]
    NoEquals { number: usize, line: String },
    #[error("{0} is given twice")]
    Twice(&'static str),
    #[error("no request=smtpd_access_policy")]
    NotARequest,
}

/// Remembers how much of the buffer was searched, so that a request that comes octet by octet is searched once.
#[derive(Debug, Default)]
pub struct Reader {
    /// Octets of whole lines at the front of the buffer.
    searched: usize,
    lines: usize,
}

impl Reader {
    /// The request at the front of the buffer, and how many octets it takes there; `None` where it is incomplete. Between
    /// two calls the buffer only grows, but for a request, which the caller removes before the next call.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub fn next<'a>(&mut self, buffer: &'a [u8]) -> Result<Option<(Request<'a>, usize)>, Malformed> {
        loop {
            let rest = buffer.get(self.searched..).unwrap_or_default();
            let Some(length) = memchr::memchr(b'\n', rest) else {
                return if buffer.len() < MAX_OCTETS { Ok(None) } else { Err(Malformed::TooLong) };
            };
            let end = self.searched + length + 1;
            if end > MAX_OCTETS {
                return Err(Malformed::TooLong);
            }
            if length == 0 {
                let lines = buffer.get(..self.searched).unwrap_or_default();
                *self = Self::default();
                return request(lines).map(|request| Some((request, end)));
            }
            if self.lines == MAX_LINES {
                return Err(Malformed::TooManyLines);
            }
            self.lines += 1;
            self.searched = end;
        }
    }
}

fn request(lines: &[u8]) -> Result<Request<'_>, Malformed> {
    let mut request = Request::default();
    let mut is_request = false;
    for (line, number) in lines.split(|octet| *octet == b'\n').zip(1..) {
        if line.is_empty() {
            continue; // behind the last LF
        }
        let Some((name, value)) = memchr::memchr(b'=', line).and_then(|at| line.split_at_checked(at)) else {
            return Err(Malformed::NoEquals { number, line: shown(line) });
        };
        let value = value.strip_prefix(b"=").unwrap_or_default();
        if name == b"request" {
            if std::mem::replace(&mut is_request, true) {
                return Err(Malformed::Twice("request"));
            }
            if value != b"smtpd_access_policy" {
                return Err(Malformed::NotARequest);
            }
            continue;
        }
        request.set(name, value).map_err(Malformed::Twice)?;
    }
    if is_request { Ok(request) } else { Err(Malformed::NotARequest) }
}

/// The beginning of a line, printable.
fn shown(line: &[u8]) -> String {
    Escaped::new(line.get(..MAX_SHOWN).unwrap_or(line)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "request=smtpd_access_policy\n";

    fn read(text: &[u8]) -> Result<Option<usize>, String> {
        let found = Reader::default().next(text).map_err(|error| error.to_string())?;
        Ok(found.map(|(_, taken)| taken))
    }

    #[test]
    fn a_request_is_found_when_it_is_whole() {
        let rows: [(&str, Result<Option<usize>, &str>); 15] = [
            ("", Ok(None)),
            ("request=smtpd_access_policy", Ok(None)),
            ("request=smtpd_access_policy\n", Ok(None)),
            ("request=smtpd_access_policy\n\n", Ok(Some(29))),
            ("request=smtpd_access_policy\n\nrequest=", Ok(Some(29))),
            ("sender=a\nrequest=smtpd_access_policy\n\n", Ok(Some(38))),
            ("request=smtpd_access_policy\ncolour=blue\nx==\n=\n\n", Ok(Some(47))),
            ("\n", Err("no request=smtpd_access_policy")),
            ("sender=a\n\n", Err("no request=smtpd_access_policy")),
            ("request=smtpd\n\n", Err("no request=smtpd_access_policy")),
            ("request=smtpd_access_policy \n\n", Err("no request=smtpd_access_policy")),
            ("request=smtpd_access_policy\r\n\r\n", Ok(None)),
            ("request=smtpd_access_policy\nno equals\n\n", Err("line 2 has no '=': no equals")),
            ("request=smtpd_access_policy\nrequest=smtpd_access_policy\n\n", Err("request is given twice")),
            ("request=smtpd_access_policy\nsender=a\nsender=a\n\n", Err("sender is given twice")),
        ];
        for (text, expected) in rows {
            assert_eq!(read(text.as_bytes()), expected.map_err(str::to_owned), "{text:?}");
        }
        let line = [FIRST.as_bytes(), b"sender=\xff@good.test\n\xff=x\nccert_subject=\xff\n\n"].concat();
        let (request, _) = Reader::default().next(&line).unwrap().unwrap();
        assert_eq!(request.reverse_path().unwrap().to_string(), "\u{fffd}@good.test");
        let line = [FIRST.as_bytes(), b"recipient=a@\xff.test\n\n"].concat();
        assert!(Reader::default().next(&line).unwrap().unwrap().0.forward_path().is_err());
        let long = format!("{FIRST}{}\n\n", "x".repeat(1000));
        assert_eq!(read(long.as_bytes()), Err(format!("line 2 has no '=': {}", "x".repeat(60))));
    }

    #[test]
    fn octets_and_lines_are_bounded() {
        let of = |octets: usize| format!("{FIRST}x={}\n\n", "y".repeat(octets - FIRST.len() - 4));
        let too_long = Err("a request of more than 65536 octets".to_owned());
        assert_eq!(read(of(65_536).as_bytes()), Ok(Some(65_536)));
        assert_eq!(read(of(65_537).as_bytes()), too_long);
        assert_eq!(read(&[b'x'; 65_535]), Ok(None));
        assert_eq!(read(&[b'x'; 65_536]), too_long);
        assert_eq!(read(format!("{FIRST}x={}", "y".repeat(65_536)).as_bytes()), too_long);

        let lines = |more: usize| format!("{FIRST}{}\n", "x=y\n".repeat(more));
        assert_eq!(read(lines(199).as_bytes()), Ok(Some(lines(199).len())));
        assert_eq!(read(lines(200).as_bytes()), Err("a request of more than 200 lines".to_owned()));
        assert_eq!(read("x=y\n".repeat(201).as_bytes()), Err("a request of more than 200 lines".to_owned()));
    }

    #[test]
    fn a_reader_goes_on_with_the_next_request() {
        let text = format!("{FIRST}sender=a\n\n{FIRST}sender=b\n\n");
        for size in [1, 7, text.len()] {
            let (mut reader, mut buffer, mut senders) = (Reader::default(), Vec::new(), String::new());
            for piece in text.as_bytes().chunks(size) {
                buffer.extend_from_slice(piece);
                while let Some((request, taken)) = reader.next(&buffer).unwrap() {
                    senders.push_str(&request.sender);
                    buffer.drain(..taken);
                }
            }
            assert_eq!((senders.as_str(), buffer.as_slice()), ("ab", &b""[..]), "in pieces of {size}");
        }
    }
}
