//! The message as SMTP carries it, turned into the form of a file: the stuffed dots taken out (RFC 5321 4.5.2) and
//! CRLF made LF. Pure; any split of the input gives the same output. What is no CRLF is passed on as it is: that
//! line ends are strict was proven where the message came in.

/// Where in a line the next octet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Unstuffer {
    /// At its start: a dot here is stuffing.
    #[default]
    LineStart,
    /// Anywhere else.
    Within,
    /// After a CR that isn't written yet.
    AfterCr,
}

impl Unstuffer {
    /// Appends the plain form of `stuffed` to `out`.
    pub(super) fn push(&mut self, mut stuffed: &[u8], out: &mut Vec<u8>) {
        while let [first, rest @ ..] = stuffed {
            match (*self, *first) {
                (Self::LineStart, b'.') => {
                    *self = Self::Within;
                    stuffed = rest;
                }
                (Self::AfterCr, b'\n') => {
                    out.push(b'\n');
                    *self = Self::LineStart;
                    stuffed = rest;
                }
                (Self::AfterCr, _) => {
                    out.push(b'\r');
                    *self = Self::Within;
                }
                (Self::LineStart | Self::Within, _) => {
                    let end = memchr::memchr(b'\r', stuffed);
                    let (text, rest) =
                        stuffed.split_at_checked(end.unwrap_or(stuffed.len())).unwrap_or((stuffed, &[]));
                    out.extend_from_slice(text);
                    *self = if end.is_some() { Self::AfterCr } else { Self::Within };
                    stuffed = rest.get(1..).unwrap_or_default();
                }
            }
        }
    }

    /// Whether what was pushed ends with CRLF (or is nothing): a dot line may follow.
    pub(super) fn is_at_line_start(self) -> bool {
        self == Self::LineStart
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unstuff<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, bool) {
        let (mut state, mut out) = (Unstuffer::default(), Vec::new());
        for piece in pieces {
            state.push(piece, &mut out);
        }
        (out, state.is_at_line_start())
    }

    #[test]
    fn dots_and_line_ends_are_undone_in_every_split() {
        let stuffed: &[u8] = b"..a\r\nb.\r\n...\r\n.. \r\n\r\n..\r\n";
        let plain: &[u8] = b".a\nb.\n..\n. \n\n.\n";
        for first in 0..=stuffed.len() {
            for second in first..=stuffed.len() {
                let pieces = [&stuffed[..first], &stuffed[first..second], &stuffed[second..]];
                assert_eq!(unstuff(pieces), (plain.to_vec(), true), "{first} {second}");
            }
        }
        assert_eq!(unstuff(stuffed.chunks(1)), (plain.to_vec(), true));
    }

    #[test]
    fn what_does_not_end_a_line_is_kept_and_told() {
        for (stuffed, plain, ended) in [
            (&b""[..], &b""[..], true),
            (b"a", b"a", false),
            (b"a\r", b"a", false),
            (b"a\rb\r\r\n", b"a\rb\r\n", true),
            (b"a\n.b\r\n", b"a\n.b\n", true),
        ] {
            assert_eq!(unstuff([stuffed]), (plain.to_vec(), ended), "{stuffed:?}");
            assert_eq!(unstuff(stuffed.chunks(1)), (plain.to_vec(), ended), "{stuffed:?}");
        }
    }
}
