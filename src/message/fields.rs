//! A header block as fields (RFC 5322 2.2); folded lines stay together, and no octet is lost.
//!
//! White space in front of the colon is obsolete syntax (RFC 5322 4.5.2) and is accepted. A line that is neither a
//! field nor the continuation of one is [`Item::Stray`], since some readers skip it and others begin the body there. So
//! is a line with a bare CR, LF or NUL; framing refuses those before, but the check costs little.

/// Longest field name with the white space after it. A relay takes a line of some thousand octets for the first of the
/// body (Postfix: `line_length_limit`, 2048).
const MAX_NAME: usize = 256;

/// A field, or a line that isn't one; all items together are the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// `name: value`.
    Field {
        /// Without the white space before the colon.
        name: &'a [u8],
        /// Everything after the colon, with folds and the last CRLF.
        value: &'a [u8],
        /// The whole field.
        raw: &'a [u8],
    },
    /// Neither a field nor the continuation of one, with the continuation lines after it.
    Stray(&'a [u8]),
}

/// Splits a block into its items, in order.
pub(crate) fn items(block: &[u8]) -> Items<'_> {
    Items { rest: block }
}

#[derive(Debug, Clone)]
pub(crate) struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr::memchr_iter(b'\n', self.rest)
            .map(|at| at + 1)
            .find(|&next| !matches!(self.rest.get(next), Some(b' ' | b'\t')))
            .unwrap_or(self.rest.len());
        let (raw, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        Some(item(raw))
    }
}

fn item(raw: &[u8]) -> Item<'_> {
    let Some((name, value)) = memchr::memchr(b':', raw).and_then(|colon| raw.split_at_checked(colon)) else {
        return Item::Stray(raw);
    };
    let spaces = name.iter().rev().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let name = name.get(..name.len().saturating_sub(spaces)).unwrap_or_default();
    if name.is_empty()
        || name.len() + spaces > MAX_NAME
        || !name.iter().all(u8::is_ascii_graphic)
        || !has_whole_lines(raw)
    {
        return Item::Stray(raw);
    }
    Item::Field { name, value: value.strip_prefix(b":").unwrap_or(value), raw }
}

/// Whether only the length of its name keeps this line from being a field.
pub(crate) fn has_long_name(stray: &[u8]) -> bool {
    let name = memchr::memchr(b':', stray).and_then(|colon| stray.get(..colon)).unwrap_or_default();
    name.len() > MAX_NAME && name.trim_ascii_end().iter().all(u8::is_ascii_graphic)
}

/// Whether every line ends in CRLF, the last one too, and there is no other CR, LF or NUL.
fn has_whole_lines(raw: &[u8]) -> bool {
    raw.ends_with(b"\r\n")
        && memchr::memchr3_iter(b'\r', b'\n', 0, raw).all(|at| match raw.get(at) {
            Some(b'\r') => raw.get(at + 1) == Some(&b'\n'),
            Some(b'\n') => at.checked_sub(1).and_then(|before| raw.get(before)) == Some(&b'\r'),
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(block: &str) -> Vec<String> {
        items(block.as_bytes())
            .map(|item| match item {
                Item::Field { name, value, .. } => {
                    format!("{}={}", name.escape_ascii(), value.escape_ascii())
                }
                Item::Stray(raw) => format!("stray {}", raw.escape_ascii()),
            })
            .collect()
    }

    #[test]
    fn a_name_has_at_most_256_octets_with_the_white_space_after_it() {
        let rows =
            [("a".repeat(256), true), ("a".repeat(257), false), (format!("a{}", " ".repeat(256)), false)];
        for (name, is_field) in rows {
            let line = format!("{name}: b\r\n");
            let is_stray = matches!(items(line.as_bytes()).next(), Some(Item::Stray(_)));
            assert_eq!((is_stray, has_long_name(line.as_bytes())), (!is_field, !is_field), "{}", name.len());
        }
        assert!(!has_long_name(format!("a {}: b\r\n", "b".repeat(300)).as_bytes()));
    }

    #[test]
    fn fields_keep_their_folds_and_everything_else_is_stray() {
        let rows: [(&str, &[&str]); 18] = [
            ("", &[]),
            ("A: b\r\n", &["A= b\\r\\n"]),
            ("A:\r\n", &["A=\\r\\n"]),
            ("A \t: b\r\n", &["A= b\\r\\n"]),
            ("A: b\r\n c\r\n\td\r\nE: f\r\n", &["A= b\\r\\n c\\r\\n\\td\\r\\n", "E= f\\r\\n"]),
            ("A: b\r\n \r\nE: f\r\n", &["A= b\\r\\n \\r\\n", "E= f\\r\\n"]),
            ("A: b:c\r\n", &["A= b:c\\r\\n"]),
            ("A\r\n : b\r\n", &["stray A\\r\\n : b\\r\\n"]),
            (" A: b\r\n", &["stray  A: b\\r\\n"]),
            ("A b: c\r\n", &["stray A b: c\\r\\n"]),
            (": c\r\n", &["stray : c\\r\\n"]),
            ("no colon\r\n x:y\r\nA: b\r\n", &["stray no colon\\r\\n x:y\\r\\n", "A= b\\r\\n"]),
            (
                "From a@b.test Mon Jan  1 12:00:00 2024\r\n",
                &["stray From a@b.test Mon Jan  1 12:00:00 2024\\r\\n"],
            ),
            ("A\u{e9}: b\r\n", &["stray A\\xc3\\xa9: b\\r\\n"]),
            ("\r\nA: b\r\n", &["stray \\r\\n", "A= b\\r\\n"]),
            ("A: b", &["stray A: b"]),
            ("A: b\nC: d\r\n", &["stray A: b\\n", "C= d\\r\\n"]),
            ("A: b\rC: d\r\n", &["stray A: b\\rC: d\\r\\n"]),
        ];
        for (block, expected) in rows {
            assert_eq!(names(block), expected, "{block:?}");
        }
    }

    proptest! {
        #[test]
        fn no_octet_is_lost(block in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b':'), any::<u8>()], 0..200)) {
            let together: Vec<u8> = items(&block)
                .flat_map(|item| match item { Item::Field { raw, .. } | Item::Stray(raw) => raw.to_vec() })
                .collect();
            prop_assert_eq!(together, block);
        }
    }
}
