//! CRLF becomes LF, as Maildir readers expect; any cut of the message into pieces gives the same octets. Other CRs
//! stay.

/// Writes a message with LF as its line end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LineFeeds {
    /// The last octet was a CR. It isn't written yet: its LF may be the first octet of the next piece.
    after_cr: bool,
}

impl LineFeeds {
    /// Appends the next octets of the message to `out`.
    pub(super) fn push(&mut self, mut octets: &[u8], out: &mut Vec<u8>) {
        while let Some(first) = octets.first() {
            if std::mem::take(&mut self.after_cr) && *first != b'\n' {
                out.push(b'\r');
            }
            let end = memchr::memchr(b'\r', octets);
            let (text, rest) = octets.split_at_checked(end.unwrap_or(octets.len())).unwrap_or((octets, &[]));
            out.extend_from_slice(text);
            self.after_cr = end.is_some();
            octets = rest.get(1..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let (mut line_feeds, mut out) = (LineFeeds::default(), Vec::new());
        for piece in pieces {
            line_feeds.push(piece, &mut out);
        }
        out
    }

    #[test]
    fn crlf_becomes_lf_and_nothing_else_changes_in_every_cut() {
        let rows: [(&[u8], &[u8]); 6] = [
            (b"", b""),
            (b"a\r\n.b\r\n\r\n..\r\n", b"a\n.b\n\n..\n"),
            (b"a\rb\r\r\n", b"a\rb\r\n"),
            (b"\r\r\n\n\r\n", b"\r\n\n\n"),
            (b"a\nb\r\n", b"a\nb\n"),
            (b"a\r", b"a"),
        ];
        for (octets, expected) in rows {
            for first in 0..=octets.len() {
                for second in first..=octets.len() {
                    let pieces = [&octets[..first], &octets[first..second], &octets[second..]];
                    assert_eq!(written(pieces), expected, "{octets:?} cut at {first} and {second}");
                }
            }
            assert_eq!(written(octets.chunks(1)), expected, "{octets:?} octet by octet");
        }
    }
}
