//! Transparency (RFC 5321 4.5.2): each line of a message that starts with a dot has one more on the way.
//!
//! Dots are added and taken off here and nowhere else, by one rule: a line starts at the start of the message and
//! behind CRLF. [`unstuffed`] takes a whole block, [`Unstuffer`] a message in pieces; any cut into pieces gives the
//! same octets. Line ends aren't checked: `smtp::framing` has rejected or normalised what isn't CRLF.

use std::borrow::Cow;

use memchr::memmem;

/// Behind it a line starts, and its first octet is a dot.
const DOT_LINE: &[u8] = b"\r\n.";

/// Adds a dot to each line that starts with one; copies only where there is such a line.
#[must_use]
pub fn stuffed(plain: &[u8]) -> Cow<'_, [u8]> {
    if !has_dot_line(plain) {
        return Cow::Borrowed(plain);
    }
    let mut stuffed = Vec::with_capacity(plain.len() + 16);
    if plain.starts_with(b".") {
        stuffed.push(b'.');
    }
    let mut rest = plain;
    while let Some((line, dot_line)) = split_at_dot_line(rest) {
        stuffed.extend_from_slice(line);
        stuffed.push(b'.');
        rest = dot_line;
    }
    stuffed.extend_from_slice(rest);
    Cow::Owned(stuffed)
}

/// Takes the added dots off whole lines; copies only where there are some.
#[must_use]
pub fn unstuffed(stuffed: &[u8]) -> Cow<'_, [u8]> {
    if !has_dot_line(stuffed) {
        return Cow::Borrowed(stuffed);
    }
    let mut plain = Vec::with_capacity(stuffed.len());
    Unstuffer::default().push(stuffed, |part| plain.extend_from_slice(part));
    Cow::Owned(plain)
}

/// Takes the added dots off a message that comes in pieces; holds and copies nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unstuffer {
    place: WithinLine,
}

/// The place of the next octet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum WithinLine {
    #[default]
    LineStart,
    Text,
    /// Behind a CR whose LF may be the first octet of the next piece.
    AfterCr,
}

impl Unstuffer {
    /// Passes the plain octets of `stuffed` to `take`, in order.
    pub fn push<'a>(&mut self, stuffed: &'a [u8], mut take: impl FnMut(&'a [u8])) {
        let mut rest = match (self.place, stuffed) {
            (WithinLine::LineStart, [b'.', rest @ ..]) => rest,
            (WithinLine::AfterCr, [b'\n', b'.', rest @ ..]) => {
                take(b"\n");
                rest
            }
            _ => stuffed,
        };
        while let Some((line, dot_line)) = split_at_dot_line(rest) {
            take(line);
            rest = dot_line.strip_prefix(b".").unwrap_or(dot_line);
        }
        if !rest.is_empty() {
            take(rest);
        }
        self.place = match (self.place, stuffed) {
            (place, []) => place,
            (WithinLine::AfterCr, [b'\n']) | (_, [.., b'\r', b'\n']) => WithinLine::LineStart,
            (_, [.., b'\r']) => WithinLine::AfterCr,
            _ => WithinLine::Text,
        };
    }

    /// Whether the octets so far are whole lines, or none.
    #[must_use]
    pub fn is_at_line_start(self) -> bool {
        self.place == WithinLine::LineStart
    }
}

fn has_dot_line(block: &[u8]) -> bool {
    block.starts_with(b".") || memmem::find(block, DOT_LINE).is_some()
}

/// The octets up to the first CRLF that a dot follows, with it; then the dot and the rest.
fn split_at_dot_line(block: &[u8]) -> Option<(&[u8], &[u8])> {
    block.split_at_checked(memmem::find(block, DOT_LINE)? + 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn in_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, bool) {
        let (mut unstuffer, mut plain) = (Unstuffer::default(), Vec::new());
        for piece in pieces {
            unstuffer.push(piece, |part| plain.extend_from_slice(part));
        }
        (plain, unstuffer.is_at_line_start())
    }

    #[test]
    fn dots_at_line_starts_are_added_and_taken_off() {
        let rows: [(&[u8], &[u8]); 7] = [
            (b"", b""),
            (b"a.\r\n", b"a.\r\n"),
            (b".", b".."),
            (b".a\r\nb\r\n", b"..a\r\nb\r\n"),
            (b"a\r\n.\r\n.b\r\n", b"a\r\n..\r\n..b\r\n"),
            (b"..\r\n\r\n. \r\n", b"...\r\n\r\n.. \r\n"),
            (b"a\n.b\r.c\r\n", b"a\n.b\r.c\r\n"),
        ];
        for (plain, there) in rows {
            assert_eq!(&*stuffed(plain), there, "{plain:?}");
            assert_eq!(&*unstuffed(there), plain, "{there:?}");
        }
    }

    #[test]
    fn a_line_that_needed_no_dot_loses_it() {
        assert_eq!(&*unstuffed(b".a\r\n.b\r\n..c\r\n"), b"a\r\nb\r\n.c\r\n");
    }

    #[test]
    fn a_block_without_such_a_line_is_not_copied() {
        for block in [&b"no dot\r\n"[..], b"a.\r\nb .c\r\n"] {
            assert!(matches!((stuffed(block), unstuffed(block)), (Cow::Borrowed(_), Cow::Borrowed(_))));
        }
    }

    #[test]
    fn a_line_ends_at_crlf_only() {
        let rows: [(&[u8], bool); 7] = [
            (b"", true),
            (b"a", false),
            (b"a\r", false),
            (b"a\n", false),
            (b"a\r\n", true),
            (b"..\r\n", true),
            (b"a\r\n.", false),
        ];
        for (stuffed, whole) in rows {
            assert_eq!(in_pieces([stuffed]).1, whole, "{stuffed:?}");
            assert_eq!(in_pieces(stuffed.chunks(1)).1, whole, "{stuffed:?} octet by octet");
        }
    }

    proptest! {
        #[test]
        fn any_cut_into_pieces_gives_the_same_octets(
            block in "(\r\n|\r\n[.]|[.a\r\n]){0,30}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let block = block.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(block.len() + 1)).collect();
            cuts.extend([0, block.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &block[pair[0]..pair[1]]);
            let whole = in_pieces([block]);
            prop_assert_eq!(&*unstuffed(block), &*whole.0);
            prop_assert_eq!(in_pieces(pieces), whole.clone());
            prop_assert_eq!(in_pieces(block.chunks(1)), whole);
        }

        #[test]
        fn unstuffing_undoes_stuffing(plain in "(\r\n|\r\n[.]|[.a\r\n]){0,30}") {
            let there = stuffed(plain.as_bytes());
            prop_assert_eq!(&*unstuffed(&there), plain.as_bytes());
            let ends = [b"\r\n", &*there, b"\r\n"].concat();
            prop_assert!(memmem::find(&ends, b"\r\n.\r\n").is_none());
        }
    }
}
