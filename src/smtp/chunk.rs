//! BDAT chunks (RFC 3030) as a message in the form of DATA: strict CRLF, dot-stuffed, ended by CRLF.
//!
//! A chunk ends anywhere, also within a CRLF or before a dot that has to be stuffed, so the encoder remembers where it
//! is. A bare CR, a bare LF or a NUL is a fault here as it is in DATA: the relay behind gets the same octets either way.

use crate::smtp::framing::Fault;

/// Turns the octets of chunks into the octets of DATA.
#[derive(Debug)]
pub struct ChunkEncoder {
    place: Place,
    stuffing: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    LineStart,
    Text,
    /// Behind a CR whose LF may stand at the start of the next piece.
    Cr,
}

impl Default for ChunkEncoder {
    fn default() -> Self {
        Self { place: Place::LineStart, stuffing: 0 }
    }
}

impl ChunkEncoder {
    /// How many dots were added so far; RFC 1870 5 doesn't count them.
    #[must_use]
    pub fn stuffing(&self) -> u64 {
        self.stuffing
    }

    /// Appends the next octets of a chunk to `out`.
    ///
    /// # Errors
    /// An octet that has no place in a message; what was appended must not be used.
    pub fn push(&mut self, mut octets: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        while let Some(first) = octets.first() {
            if self.place == Place::Cr {
                if *first != b'\n' {
                    return Err(Fault::BareCr);
                }
                out.extend_from_slice(b"\r\n");
                self.place = Place::LineStart;
                octets = octets.get(1..).unwrap_or_default();
                continue;
            }
            if self.place == Place::LineStart && *first == b'.' {
                out.push(b'.');
                self.stuffing += 1;
            }
            let end = memchr::memchr3(b'\r', b'\n', 0, octets).unwrap_or(octets.len());
            let (text, rest) = octets.split_at_checked(end).unwrap_or((octets, b""));
            out.extend_from_slice(text);
            if !text.is_empty() {
                self.place = Place::Text;
            }
            match rest.first() {
                None => return Ok(()),
                Some(b'\r') => self.place = Place::Cr,
                Some(b'\n') => return Err(Fault::BareLf),
                Some(_) => return Err(Fault::Nul),
            }
            octets = rest.get(1..).unwrap_or_default();
        }
        Ok(())
    }

    /// The message is over: a last line without its end gets one, since the end of DATA needs it (RFC 5321 4.1.1.4).
    ///
    /// # Errors
    /// [`Fault::BareCr`] when the last octet was a CR.
    pub fn finish(&self, out: &mut Vec<u8>) -> Result<(), Fault> {
        match self.place {
            Place::LineStart => Ok(()),
            Place::Text => {
                out.extend_from_slice(b"\r\n");
                Ok(())
            }
            Place::Cr => Err(Fault::BareCr),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(parts: &[&[u8]]) -> Result<Vec<u8>, Fault> {
        let (mut encoder, mut out) = (ChunkEncoder::default(), Vec::new());
        for part in parts {
            encoder.push(part, &mut out)?;
        }
        encoder.finish(&mut out)?;
        Ok(out)
    }

    #[test]
    fn chunks_become_data() {
        let rows: [(&[u8], Result<&[u8], Fault>); 9] = [
            (b"", Ok(b"")),
            (b"hi\r\n", Ok(b"hi\r\n")),
            (b"hi", Ok(b"hi\r\n")),
            (b"hi\r\n.\r\nMAIL FROM:<e@x>\r\n", Ok(b"hi\r\n..\r\nMAIL FROM:<e@x>\r\n")),
            (b".one\r\n..two\r\nx.y", Ok(b"..one\r\n...two\r\nx.y\r\n")),
            (b"a\nb\r\n", Err(Fault::BareLf)),
            (b"a\rb\r\n", Err(Fault::BareCr)),
            (b"a\0b\r\n", Err(Fault::Nul)),
            (b"a\r", Err(Fault::BareCr)),
        ];
        for (input, expected) in rows {
            assert_eq!(encoded(&[input]), expected.map(<[u8]>::to_vec), "{input:?}");
        }
    }

    #[test]
    fn dots_that_were_added_are_counted() {
        let (mut encoder, mut out) = (ChunkEncoder::default(), Vec::new());
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
            let whole = encoded(&[input]);
            prop_assert_eq!(&whole, &encoded(&[head, tail]));
            if let Ok(data) = whole {
                let framed = [b"\r\n", data.as_slice()].concat();
                prop_assert!(!framed.windows(5).any(|window| window == b"\r\n.\r\n"));
                prop_assert!(framed.ends_with(b"\r\n"));
            }
        }
    }
}
