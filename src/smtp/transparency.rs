//! Dot-stuffing undone while a message streams (RFC 5321 4.5.2): no octet is copied, none is held.

/// Where in a line the next octet stands; any split of the input gives the same octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unstuffer {
    line_start: bool,
}

impl Default for Unstuffer {
    /// At the start of a line.
    fn default() -> Self {
        Self { line_start: true }
    }
}

impl Unstuffer {
    /// Hands on the octets of `stuffed` that are the message's own, in order. Lines end in CRLF, which was proven where
    /// the message came in.
    pub fn push<'a>(&mut self, stuffed: &'a [u8], mut give: impl FnMut(&'a [u8])) {
        let Some(last) = stuffed.last() else {
            return;
        };
        let mut rest = match stuffed {
            [b'.', rest @ ..] if self.line_start => rest,
            _ => stuffed,
        };
        while let Some(at) = memchr::memmem::find(rest, b"\n.") {
            give(rest.get(..=at).unwrap_or_default());
            rest = rest.get(at + 2..).unwrap_or_default();
        }
        give(rest);
        self.line_start = *last == b'\n';
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::framing::unstuffed;

    #[test]
    fn stuffed_dots_go_in_every_split() {
        let stuffed: &[u8] = b"..a\r\nb.\r\n...\r\n.. \r\n\r\n..\r\n.x\r\n";
        for first in 0..=stuffed.len() {
            for second in first..=stuffed.len() {
                let (mut state, mut plain) = (Unstuffer::default(), Vec::new());
                for piece in [&stuffed[..first], &stuffed[first..second], &stuffed[second..]] {
                    state.push(piece, |part| plain.extend_from_slice(part));
                }
                assert_eq!(plain, *unstuffed(stuffed), "{first} {second}");
            }
        }
    }
}
