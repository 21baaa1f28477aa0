//! BDAT chunks (RFC 3030) as a message in the form of DATA: strict CRLF, dot-stuffed, ended by CRLF.
//!
//! A chunk may end anywhere, also within a CRLF or before a dot that must be stuffed, so the encoder keeps its state
//! between chunks. Bare CR, bare LF and NUL are faults or normalised as in DATA: the relay gets the same octets either
//! way. The end of the message is a count of octets, so no octet can move it.

use crate::smtp::framing::{BareNewline, Fault};

/// Turns the octets of chunks into the octets of DATA.
#[derive(Debug)]
pub struct ChunkEncoder {
    place: LineState,
    bare_newline: BareNewline,
    stuffing: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineState {
    LineStart,
    Text,
    /// Behind a CR (several, where line ends are normalised) whose LF may stand at the start of the next piece.
    Cr,
}

impl ChunkEncoder {
    /// At the start of a message.
    #[must_use]
    pub fn new(bare_newline: BareNewline) -> Self {
        Self { place: LineState::LineStart, bare_newline, stuffing: 0 }
    }

    /// Dots that were added so far; RFC 1870 5 doesn't count them.
    #[must_use]
    pub fn stuffing(&self) -> u64 {
        self.stuffing
    }

    /// Appends the next octets of a chunk to `out`.
    ///
    /// # Errors
    /// An octet that has no place in a message; what was appended must not be used.
    pub fn push(&mut self, mut octets: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let normalize = self.bare_newline == BareNewline::Normalize;
        while let Some(first) = octets.first() {
            if self.place == LineState::Cr {
                match first {
                    b'\n' => {
                        out.extend_from_slice(b"\r\n");
                        self.place = LineState::LineStart;
                    }
                    b'\r' if normalize => {}
                    _ => return Err(Fault::BareCr),
                }
                octets = octets.get(1..).unwrap_or_default();
                continue;
            }
            if self.place == LineState::LineStart && *first == b'.' {
                out.push(b'.');
                self.stuffing += 1;
            }
            let end = memchr::memchr3(b'\r', b'\n', 0, octets).unwrap_or(octets.len());
            let (text, rest) = octets.split_at_checked(end).unwrap_or((octets, b""));
            out.extend_from_slice(text);
            if !text.is_empty() {
                self.place = LineState::Text;
            }
            match rest.first() {
                None => return Ok(()),
                Some(b'\r') => self.place = LineState::Cr,
                Some(b'\n') if normalize => {
                    out.extend_from_slice(b"\r\n");
                    self.place = LineState::LineStart;
                }
                Some(b'\n') => return Err(Fault::BareLf),
                Some(_) => return Err(Fault::Nul),
            }
            octets = rest.get(1..).unwrap_or_default();
        }
        Ok(())
    }

    /// Ends the message: a last line without CRLF gets one, since the end of DATA needs it (RFC 5321 4.1.1.4).
    ///
    /// # Errors
    /// [`Fault::BareCr`] when the last octet was a CR.
    pub fn finish(&self, out: &mut Vec<u8>) -> Result<(), Fault> {
        match self.place {
            LineState::LineStart => Ok(()),
            LineState::Text => {
                out.extend_from_slice(b"\r\n");
                Ok(())
            }
            LineState::Cr => Err(Fault::BareCr),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(parts: &[&[u8]], mode: BareNewline) -> Result<Vec<u8>, Fault> {
        let (mut encoder, mut out) = (ChunkEncoder::new(mode), Vec::new());
        for part in parts {
            encoder.push(part, &mut out)?;
        }
        encoder.finish(&mut out)?;
        Ok(out)
    }

    #[test]
    fn chunks_become_data() {
        let rows: [(&[u8], Result<&[u8], Fault>); 10] = [
            (b"", Ok(b"")),
            (b"hi\r\n", Ok(b"hi\r\n")),
            (b"hi", Ok(b"hi\r\n")),
            (b"hi\r\n.\r\nMAIL FROM:<e@x>\r\n", Ok(b"hi\r\n..\r\nMAIL FROM:<e@x>\r\n")),
            (b".one\r\n..two\r\nx.y", Ok(b"..one\r\n...two\r\nx.y\r\n")),
            (b"a\nb\r\n", Err(Fault::BareLf)),
            (b"a\rb\r\n", Err(Fault::BareCr)),
            (b"a\r\r\n", Err(Fault::BareCr)),
            (b"a\0b\r\n", Err(Fault::Nul)),
            (b"a\r", Err(Fault::BareCr)),
        ];
        for (input, expected) in rows {
            assert_eq!(encoded(&[input], BareNewline::Reject), expected.map(<[u8]>::to_vec), "{input:?}");
        }
    }

    #[test]
    fn line_ends_are_normalised_and_dots_behind_them_are_stuffed() {
        let rows: [(&[u8], Result<&[u8], Fault>); 7] = [
            (b"a\nb", Ok(b"a\r\nb\r\n")),
            (b"a\r\r\nb\r\r\r\n", Ok(b"a\r\nb\r\n")),
            (b"a\n.\nb\n", Ok(b"a\r\n..\r\nb\r\n")),
            (b"a\r\r\n.\r\r\nMAIL", Ok(b"a\r\n..\r\nMAIL\r\n")),
            (b"a\rb\n", Err(Fault::BareCr)),
            (b"a\n\r", Err(Fault::BareCr)),
            (b"a\0\n", Err(Fault::Nul)),
        ];
        for (input, expected) in rows {
            assert_eq!(encoded(&[input], BareNewline::Normalize), expected.map(<[u8]>::to_vec), "{input:?}");
        }
    }

    #[test]
    fn dots_that_were_added_are_counted() {
        let (mut encoder, mut out) = (ChunkEncoder::new(BareNewline::Reject), Vec::new());
        for (piece, expected) in [(&b".a\r\n..b\r"[..], 2), (b"\n", 2), (b".", 3), (b".\r\nc.\r\n", 3)] {
            assert_eq!(encoder.push(piece, &mut out), Ok(()));
            assert_eq!(encoder.stuffing(), expected, "{piece:?}");
        }
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same_and_no_end_of_data(input in "[.a\r\n]{0,20}(\r\n[.a]{0,2}\r\n){0,4}", cut in 0usize..40) {
            let input = input.as_bytes();
            let (head, tail) = input.split_at(cut.min(input.len()));
            for mode in [BareNewline::Reject, BareNewline::Normalize] {
                let whole = encoded(&[input], mode);
                prop_assert_eq!(&whole, &encoded(&[head, tail], mode));
                if let Ok(data) = whole {
                    let framed = [b"\r\n", data.as_slice()].concat();
                    prop_assert!(!framed.windows(5).any(|window| window == b"\r\n.\r\n"));
                    prop_assert!(framed.ends_with(b"\r\n"));
                    let strict = |pair: &[u8]| (pair[0] == b'\r') == (pair[1] == b'\n');
                    prop_assert!(framed.windows(2).all(strict));
                }
            }
        }
    }
}
