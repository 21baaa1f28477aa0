//! Tag lists (RFC 6376 3.2), of which signatures and key records are made, and the base64 in them. Pure.
//!
//! A name that comes twice spoils the whole list, as the RFC asks: two readers would choose differently.

/// Far more than the fifteen that are defined; finding repeated names takes time by the square.
const MOST: usize = 64;

/// A list, read.
#[derive(Debug)]
pub(super) struct Tags<'a>(Vec<(&'a [u8], &'a [u8])>);

impl<'a> Tags<'a> {
    /// `None` for what is no tag list.
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        let mut tags: Vec<(&[u8], &[u8])> = Vec::new();
        for spec in text.split(|&byte| byte == b';') {
            if spec.trim_ascii().is_empty() {
                continue;
            }
            let (name, value) = spec.split_at_checked(spec.iter().position(|&byte| byte == b'=')?)?;
            let (name, value) = (name.trim_ascii(), value.get(1..)?.trim_ascii());
            let known = tags.iter().any(|(other, _)| *other == name);
            if !is_name(name) || value.contains(&0) || known || tags.len() == MOST {
                return None;
            }
            tags.push((name, value));
        }
        Some(Self(tags))
    }

    /// The value of a tag, without the white space around it.
    pub(super) fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().find_map(|(other, value)| (*other == name.as_bytes()).then_some(*value))
    }

    /// Whether this is the name of the first tag.
    pub(super) fn begins_with(&self, name: &str) -> bool {
        self.0.first().is_some_and(|(first, _)| *first == name.as_bytes())
    }
}

fn is_name(name: &[u8]) -> bool {
    name.first().is_some_and(u8::is_ascii_alphabetic)
        && name.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What stands between colons, without the white space around each.
pub(super) fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b':').map(<[u8]>::trim_ascii)
}

/// A decimal number; what is larger than can be counted is as good as the largest.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = value.iter().map(|digit| u64::from(digit - b'0'));
    Some(digits.fold(0, |sum: u64, digit| sum.saturating_mul(10).saturating_add(digit)))
}

/// Base64 with white space anywhere (RFC 6376 2.10); padding may be left out.
pub(super) fn base64(value: &[u8]) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(value.len() / 4 * 3);
    let (mut bits, mut held, mut padding) = (0_u32, 0_u32, 0);
    for byte in value.iter().filter(|byte| !byte.is_ascii_whitespace()) {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                padding += 1;
                continue;
            }
            _ => return None,
        };
        if padding > 0 {
            return None;
        }
        (bits, held) = ((bits << 6) | u32::from(digit), held + 6);
        if held >= 8 {
            held -= 8;
            octets.extend((bits >> held).to_le_bytes().first());
            bits &= (1 << held) - 1;
        }
    }
    (held < 6 && padding <= 2).then_some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_names_with_values_and_no_name_comes_twice() {
        let rows: [(&str, Option<&[(&str, &str)]>); 11] = [
            ("a=1; b=2", Some(&[("a", "1"), ("b", "2")])),
            (" a =\r\n 1 2 ;\r\n\tb= ; ", Some(&[("a", "1 2"), ("b", "")])),
            ("a=b=c;", Some(&[("a", "b=c")])),
            ("", Some(&[])),
            (";;a=1;;", Some(&[("a", "1")])),
            ("a=1; A=2", Some(&[("a", "1"), ("A", "2")])),
            ("a=1; a=1", None),
            ("a", None),
            ("=1", None),
            ("1a=1", None),
            ("a b=1", None),
        ];
        for (text, expected) in rows {
            let read = Tags::parse(text.as_bytes());
            let expected: Option<Vec<_>> = expected
                .map(|list| list.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect());
            assert_eq!(read.map(|tags| tags.0), expected, "{text:?}");
        }
        let many: String = (0..=MOST).map(|nth| format!("a{nth}=;")).collect();
        assert!(Tags::parse(many.as_bytes()).is_none());
    }

    #[test]
    fn base64_is_decoded_whatever_its_folds_and_padding() {
        let rows: [(&str, Option<&[u8]>); 12] = [
            ("", Some(b"")),
            ("Zg==", Some(b"f")),
            ("Zg", Some(b"f")),
            ("Zm8=", Some(b"fo")),
            ("Zm 9v\r\n Ym\tFy", Some(b"foobar")),
            ("/+8=", Some(&[0xff, 0xef])),
            ("Z", None),
            ("Zm9vY", None),
            ("Zg===", None),
            ("Zg=a", None),
            ("Zm9-", None),
            ("Zm9v!", None),
        ];
        for (text, expected) in rows {
            assert_eq!(base64(text.as_bytes()).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_digits_only() {
        let huge = "9".repeat(76);
        let rows = [("0", Some(0)), ("0017", Some(17)), (&huge, Some(u64::MAX)), ("", None), ("-1", None)];
        for (text, expected) in rows {
            assert_eq!(number(text.as_bytes()), expected, "{text}");
        }
    }
}
