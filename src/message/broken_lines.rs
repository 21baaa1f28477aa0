//! A field as the next hop may send it: with its long lines broken.
//!
//! A line has at most 998 octets (RFC 5322 2.1.1). Postfix breaks a longer line at exactly that place
//! (`smtp_line_length_limit`), so that a domain could get a fold inside, and readers differ in how they read it.

/// Octets of a line, without CRLF.
const MAX_LINE: usize = 998;

/// The value with CRLF and a space inserted where a line is too long; `None` if no line is. `before` octets stand in
/// front of it on the first line.
pub(super) fn broken_lines(before: usize, value: &[u8]) -> Option<Vec<u8>> {
    let mut room = MAX_LINE.saturating_sub(before);
    let (mut out, mut broken) = (Vec::new(), false);
    for line in value.split(|&byte| byte == b'\n') {
        let mut rest = line.strip_suffix(b"\r").unwrap_or(line);
        while let Some((first, last)) = rest.split_at_checked(room).filter(|(_, last)| !last.is_empty()) {
            out.extend_from_slice(first);
            out.extend_from_slice(b"\r\n ");
            (rest, room, broken) = (last, MAX_LINE - 1, true);
        }
        out.extend_from_slice(rest);
        out.extend_from_slice(b"\r\n");
        room = MAX_LINE;
    }
    broken.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_after_998_octets() {
        let (long, rest) = ("x".repeat(993), "y".repeat(997));
        let rows = [
            (long.clone(), None),
            (format!("{long}y"), Some(format!("{long}\r\n y"))),
            (format!("{long}{rest}z"), Some(format!("{long}\r\n {rest}\r\n z"))),
            (format!("a\r\n {rest}"), None),
            (format!("a\r\n {rest}z\r\n b"), Some(format!("a\r\n {rest}\r\n z\r\n b"))),
        ];
        for (value, expected) in rows {
            let broken = broken_lines("From:".len(), value.as_bytes());
            let expected = expected.map(|text| format!("{text}\r\n"));
            assert_eq!(broken.map(|text| String::from_utf8(text).unwrap()), expected, "{}", value.len());
        }
    }
}
