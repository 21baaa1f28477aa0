//! Printable text from untrusted octets: for logs, reports and problem lines.
//!
//! Octets from a peer must not end a line, control a terminal or turn the reading direction. [`Escaped`] is lossless:
//! two different inputs never print alike. [`OneLine`] leaves backslashes alone, for text that was escaped before or
//! doesn't come from a peer. Neither adds quotes; a caller that separates fields by blanks must.

use std::fmt::{self, Write};

/// Whether a character must not be printed as it is: it has no glyph of its own and changes its surroundings (C0, DEL,
/// C1, line separators, bidi and other format controls, tags, noncharacters).
#[must_use]
pub fn is_hazard(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Octets as printable text, lossless: controls and octets that are not UTF-8 as `\xNN` (below 80 a character, from 80
/// an octet), other hazards as `\u{NNNN}`, a backslash as `\\`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Escaped<'a>(&'a [u8]);

impl<'a> Escaped<'a> {
    /// Wraps `text`, a string or octets.
    #[must_use]
    pub fn new<T: AsRef<[u8]> + ?Sized>(text: &'a T) -> Self {
        Self(text.as_ref())
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Ok(text) = std::str::from_utf8(self.0)
            && is_plain(text)
            && !text.contains('\\')
        {
            return f.write_str(text);
        }
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\\' => f.write_str("\\\\")?,
                    other => write_safe(f, other)?,
                }
            }
            for octet in chunk.invalid() {
                write!(f, "\\x{octet:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Escaped<'_> {
    /// The same, between quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.to_string().replace('"', "\\\""))
    }
}

/// Prints the value on one line: hazards escaped as in [`Escaped`], everything else as it is.
#[derive(Clone, Copy)]
pub struct OneLine<T>(pub T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Safe(f), "{}", self.0)
    }
}

impl<T: fmt::Debug> fmt::Debug for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Safe(f), "{:?}", self.0)
    }
}

struct Safe<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Safe<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if is_plain(text) {
            return self.0.write_str(text);
        }
        text.chars().try_for_each(|character| write_safe(self.0, character))
    }
}

/// Printable ASCII, as nearly all text is, needs no escapes.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn write_safe(f: &mut fmt::Formatter<'_>, character: char) -> fmt::Result {
    match character {
        '\0'..='\u{1f}' | '\u{7f}' => write!(f, "\\x{:02x}", u32::from(character)),
        other if is_hazard(other) => write!(f, "\\u{{{:x}}}", u32::from(other)),
        other => f.write_char(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_input_is_printed_safely() {
        let rows: [(&[u8], &str); 12] = [
            (b"plain text", "plain text"),
            ("b\u{fc}cher \u{4e2d}\u{1f600}".as_bytes(), "b\u{fc}cher \u{4e2d}\u{1f600}"),
            (b"a\r\nb\tc\0", "a\\x0d\\x0ab\\x09c\\x00"),
            (b"\x1b[2J\x7f\x07", "\\x1b[2J\\x7f\\x07"),
            ("\u{85}\u{9b}31m".as_bytes(), "\\u{85}\\u{9b}31m"),
            ("a\u{2028}b\u{2029}".as_bytes(), "a\\u{2028}b\\u{2029}"),
            ("\u{202e}txt.exe\u{2066}".as_bytes(), "\\u{202e}txt.exe\\u{2066}"),
            ("\u{200b}\u{feff}\u{ad}".as_bytes(), "\\u{200b}\\u{feff}\\u{ad}"),
            ("\u{e0041}\u{fffe}".as_bytes(), "\\u{e0041}\\u{fffe}"),
            (b"\xff\xfea\xc3", "\\xff\\xfea\\xc3"),
            (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
            (b"a\\x0d", "a\\\\x0d"),
        ];
        for (octets, expected) in rows {
            assert_eq!(Escaped::new(octets).to_string(), expected);
            assert!(!expected.chars().any(is_hazard));
        }
        assert_eq!(format!("{:?}", Escaped::new("a\"\n")), "\"a\\\"\\x0a\"");
    }

    #[test]
    fn no_control_character_passes() {
        for character in (0..0xa0).filter_map(char::from_u32).filter(|character| character.is_control()) {
            let printed = Escaped::new(&character.to_string()).to_string();
            assert!(printed.starts_with('\\') && !printed.contains(character), "{character:?}");
        }
    }

    #[test]
    fn one_line_changes_hazards_only() {
        assert_eq!(OneLine("a\\b\n\u{202e}").to_string(), "a\\b\\x0a\\u{202e}");
        assert_eq!(format!("{:?}", OneLine("a\\b\n")), "\"a\\\\b\\n\"");
    }

    proptest::proptest! {
        #[test]
        fn two_inputs_never_print_alike(
            left in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..6),
            right in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..6),
        ) {
            let same = Escaped::new(&left).to_string() == Escaped::new(&right).to_string();
            proptest::prop_assert_eq!(same, left == right);
        }

        #[test]
        fn the_octets_can_be_read_back(octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            proptest::prop_assert_eq!(unescape(&Escaped::new(&octets).to_string()), octets);
        }
    }

    fn unescape(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let escape = rest.strip_prefix('\\');
            rest = rest.strip_prefix(first).unwrap();
            let Some(escape) = escape else {
                out.extend(first.to_string().bytes());
                continue;
            };
            if let Some(code) = escape.strip_prefix('x') {
                let (digits, after) = code.split_at(2);
                out.push(u8::from_str_radix(digits, 16).unwrap());
                rest = after;
            } else if let Some(code) = escape.strip_prefix("u{") {
                let (digits, after) = code.split_once('}').unwrap();
                let character = char::from_u32(u32::from_str_radix(digits, 16).unwrap()).unwrap();
                out.extend(character.to_string().bytes());
                rest = after;
            } else {
                out.push(b'\\');
                rest = escape.strip_prefix('\\').unwrap();
            }
        }
        out
    }
}
