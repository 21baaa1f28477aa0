//! The lexical tokens of structured fields (RFC 5322 3.2): white space, comments, atoms, quoted strings, literals;
//! and encoded words (RFC 2047).
//!
//! The lexer reads octet by octet and never goes back. White space may contain folds: `fields` has checked that every
//! line end in a value is a fold. Control characters are refused, although the obsolete syntax allows them in comments
//! and quoted strings.

use crate::message::malformed::Malformed;

/// The unread rest of a field's value.
pub(super) struct Cursor<'a> {
    pub rest: &'a [u8],
}

/// What a gap of white space and comments contained.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Cfws {
    pub comment: bool,
    pub fold: bool,
}

impl Cursor<'_> {
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub(super) fn skip(&mut self) {
        self.advance(1);
    }

    pub(super) fn advance(&mut self, octets: usize) {
        self.rest = self.rest.get(octets..).unwrap_or_default();
    }

    /// White space, folds and comments (RFC 5322 3.2.2).
    pub(super) fn cfws(&mut self) -> Result<Cfws, Malformed> {
        let mut seen = Cfws::default();
        loop {
            match self.peek() {
                Some(b' ' | b'\t') => self.skip(),
                Some(b'\r' | b'\n') => {
                    seen.fold = true;
                    self.skip();
                }
                Some(b'(') => {
                    seen.comment = true;
                    self.comment()?;
                }
                Some(byte) if byte.is_ascii_control() => return Err(Malformed::Control),
                _ => return Ok(seen),
            }
        }
    }

    fn comment(&mut self) -> Result<(), Malformed> {
        let mut depth = 0_usize;
        loop {
            match self.text_octet()? {
                (b'(', false) => depth += 1,
                (b')', false) if depth <= 1 => return Ok(()),
                (b')', false) => depth -= 1,
                _ => {}
            }
        }
    }

    /// The next octet of a comment or quoted string, and whether a backslash stood in front of it (RFC 5322 3.2.1).
    fn text_octet(&mut self) -> Result<(u8, bool), Malformed> {
        let first = self.peek().ok_or(Malformed::Syntax)?;
        self.skip();
        let escaped = first == b'\\';
        let byte = if escaped { self.peek().ok_or(Malformed::Syntax)? } else { first };
        if escaped {
            self.skip();
        }
        match byte {
            b'\t' => Ok((byte, escaped)),
            b'\r' | b'\n' if !escaped => Ok((byte, false)),
            _ if byte.is_ascii_control() => Err(Malformed::Control),
            _ => Ok((byte, escaped)),
        }
    }

    /// Appends the string with its quotes and backslashes, without folds (RFC 5322 3.2.4).
    pub(super) fn quoted_string(&mut self, text: &mut Vec<u8>) -> Result<(), Malformed> {
        self.skip();
        text.push(b'"');
        loop {
            match self.text_octet()? {
                (b'"', false) => break,
                (b'\r' | b'\n', _) => {}
                (byte, escaped) => {
                    if escaped {
                        text.push(b'\\');
                    }
                    text.push(byte);
                }
            }
        }
        text.push(b'"');
        Ok(())
    }

    /// Appends the run of atext that begins here.
    pub(super) fn atom(&mut self, text: &mut Vec<u8>) {
        let length = self.rest.iter().take_while(|&&byte| is_atext(byte)).count();
        text.extend_from_slice(self.rest.get(..length).unwrap_or_default());
        self.advance(length);
    }

    /// Whether white space, a fold or a comment stood here.
    pub(super) fn gap(&mut self) -> Result<bool, Malformed> {
        let before = self.rest.len();
        self.cfws()?;
        Ok(self.rest.len() < before)
    }

    /// Appends `[...]` (RFC 5322 3.4.1), which must not contain white space here.
    pub(super) fn literal(&mut self, text: &mut Vec<u8>) -> Result<(), Malformed> {
        loop {
            let byte = self.peek().ok_or(Malformed::Syntax)?;
            self.skip();
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' if self.rest.trim_ascii().is_empty() => {
                    return Err(Malformed::Syntax);
                }
                b' ' | b'\t' | b'\r' | b'\n' => return Err(Malformed::BrokenDomain),
                b'[' if !text.is_empty() => return Err(Malformed::Syntax),
                b'\\' | 128.. => return Err(Malformed::Syntax),
                _ if byte.is_ascii_control() => return Err(Malformed::Control),
                _ => text.push(byte),
            }
            if byte == b']' {
                return Ok(());
            }
        }
    }
}

/// The length of the encoded word (RFC 2047 2) that begins here. Its text may contain specials, which broken mailers
/// leave unencoded, but none that could form an address.
pub(super) fn encoded_word(text: &[u8]) -> Option<usize> {
    let mut parts = text.strip_prefix(b"=?")?.splitn(4, |&byte| byte == b'?');
    let (charset, encoding, content) = (parts.next()?, parts.next()?, parts.next()?);
    let clean = |byte: &u8| byte.is_ascii_graphic() && !b"@<>\"\\".contains(byte);
    let closed = parts.next()?.first() == Some(&b'=');
    let valid = closed
        && matches!(encoding, b"q" | b"Q" | b"b" | b"B")
        && !charset.is_empty()
        && charset.iter().all(|&byte| is_atext(byte))
        && content.iter().all(clean);
    // =? charset ? encoding ? content ?=
    valid.then(|| charset.len() + encoding.len() + content.len() + 6)
}

/// RFC 5322 3.2.3, with the octets of RFC 6532 and of the charsets before it.
pub(super) fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte) || byte >= 128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_words_can_hide_no_address() {
        let rows = [
            ("=?utf-8?Q?ann?= <a@b>", Some(15)),
            ("=?utf-8*en?b?YQ==?=", Some(19)),
            ("=?utf-8?q?a,(b).:;[]?=,", Some(22)),
            ("=?utf-8?q??=", Some(12)),
            ("=?utf-8?q?a@b?=", None),
            ("=?utf-8?q?<a?=", None),
            ("=?utf-8?q?a\"?=", None),
            ("=?utf-8?q?a b?=", None),
            ("=?utf-8?q?a?b?=", None),
            ("=?utf-8?q?a", None),
            ("=?utf-8?x?a?=", None),
            ("=??q?a?=", None),
            ("=?u(8?q?a?=", None),
            ("=utf-8?q?a?=", None),
        ];
        for (text, expected) in rows {
            assert_eq!(encoded_word(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_gap_reports_what_it_contained() {
        let rows = [
            ("", Ok((false, false)), ""),
            (" \tx", Ok((false, false)), "x"),
            (" \r\n x", Ok((false, true)), "x"),
            ("(a(b\\))\r\n c)x", Ok((true, false)), "x"),
            ("(a) \r\n (b) x", Ok((true, true)), "x"),
            ("(a", Err(Malformed::Syntax), ""),
            ("(a\\", Err(Malformed::Syntax), ""),
            ("(\x07)", Err(Malformed::Control), ")"),
            ("\x7f", Err(Malformed::Control), "\x7f"),
        ];
        for (text, expected, rest) in rows {
            let mut cursor = Cursor { rest: text.as_bytes() };
            let seen = cursor.cfws().map(|cfws| (cfws.comment, cfws.fold));
            assert_eq!((seen, cursor.rest), (expected, rest.as_bytes()), "{text:?}");
        }
    }
}
