//! A reply to a command (RFC 5321 4.2) with its enhanced status code (RFC 3463).
//!
//! Each line is written as printable ASCII of at most 512 octets (RFC 5321 4.5.3.1.5), also where the text contains a
//! client's address, a reply of the relay or a DNS name. The text may have several lines, separated by LF.

use std::borrow::Cow;
use std::fmt;

use crate::smtp::decimal::push_decimal;

/// Longest reply line with its CRLF (RFC 5321 4.5.3.1.5).
const MAX_LINE: usize = 512;

/// Class, subject and detail, as in `5.1.8` (RFC 3463 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Enhanced(pub u8, pub u16, pub u16);

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// One reply: three digits, perhaps an enhanced code, and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<Enhanced>,
    text: Cow<'static, str>,
}

impl Reply {
    /// A reply with an enhanced status code; `text` may have several lines, separated by LF.
    #[must_use]
    pub fn new(code: u16, enhanced: Enhanced, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, enhanced: Some(enhanced), text: text.into() }
    }

    /// A reply without enhanced code: the banner, the replies to HELO and EHLO, 354 (RFC 2034 4).
    #[must_use]
    pub fn plain(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, enhanced: None, text: text.into() }
    }

    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    #[must_use]
    pub fn enhanced(&self) -> Option<Enhanced> {
        self.enhanced
    }

    /// The text without codes; lines are separated by LF.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// 2xx (or 3xx): the command succeeded.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.code < 400
    }

    /// The reply with `suffix` at the end of its last line, which is cut if both don't fit.
    #[must_use]
    pub fn ending_with(mut self, suffix: &str) -> Self {
        if suffix.is_empty() {
            return self;
        }
        let room = self.room().saturating_sub(suffix.len());
        let mut text = self.text.into_owned();
        let last = text.rfind('\n').map_or(0, |at| at + 1);
        text.truncate(text.floor_char_boundary(last + room));
        text.push_str(suffix);
        self.text = Cow::Owned(text);
        self
    }

    /// The reply with `suffix` at its end: on its last line if there is room, otherwise on a line of its own. No text
    /// is lost.
    #[must_use]
    pub fn followed_by(mut self, suffix: &str) -> Self {
        let mut text = self.text.clone().into_owned();
        let last = text.rsplit('\n').next().map_or(0, str::len);
        let suffix = if last == 0 { suffix.trim_start() } else { suffix };
        if last + suffix.len() <= self.room() {
            text.push_str(suffix);
        } else {
            text.push('\n');
            text.push_str(suffix.trim_start());
        }
        self.text = Cow::Owned(text);
        self
    }

    /// All lines as one, for logs; at most as long as one line of the reply.
    #[must_use]
    pub fn on_one_line(&self) -> String {
        let text = Cow::Owned(self.text.replace('\n', " "));
        Self { code: self.code, enhanced: self.enhanced, text }.to_string()
    }

    /// Most octets of text in a line.
    fn room(&self) -> usize {
        let enhanced = self.enhanced.map_or(0, |enhanced| enhanced.to_string().len() + 1);
        MAX_LINE - "250 \r\n".len() - enhanced
    }

    /// Appends the reply as it is sent.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            self.push_line(out, line, lines.peek().is_none());
            out.extend_from_slice(b"\r\n");
        }
    }

    /// One line, without CRLF.
    fn push_line(&self, out: &mut Vec<u8>, line: &str, last: bool) {
        let start = out.len();
        push_decimal(out, self.code.into());
        out.push(if last { b' ' } else { b'-' });
        if let Some(Enhanced(class, subject, detail)) = self.enhanced {
            push_decimal(out, class.into());
            out.push(b'.');
            push_decimal(out, subject.into());
            out.push(b'.');
            push_decimal(out, detail.into());
            out.push(b' ');
        }
        let room = MAX_LINE.saturating_sub(2 + out.len() - start);
        let line = line.as_bytes();
        let text = out.len();
        out.extend_from_slice(line.get(..room).unwrap_or(line));
        for byte in out.iter_mut().skip(text).filter(|byte| !matches!(byte, b' '..=b'~')) {
            *byte = b'?';
        }
    }
}

impl fmt::Display for Reply {
    /// The first line as the client receives it, without CRLF: printable ASCII, cut if it is too long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Vec::new();
        self.push_line(&mut line, self.text.split('\n').next().unwrap_or_default(), true);
        f.write_str(std::str::from_utf8(&line).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_line_has_both_codes_and_only_the_last_a_space() {
        let reply = Reply::new(550, Enhanced(5, 1, 8), "one\ntwo");
        assert_eq!(wire(&reply), "550-5.1.8 one\r\n550 5.1.8 two\r\n");
        assert_eq!(wire(&Reply::plain(250, "gate")), "250 gate\r\n");
    }

    #[test]
    fn an_id_at_the_end_is_never_cut_off() {
        let id = " (id 4KXN7Q2M)";
        let long = |text: &str| Reply::new(550, Enhanced(5, 1, 8), text.repeat(400));
        for text in ["no", "\u{e9}\u{e9}", "x\n", "ab\ncd"] {
            let cut = wire(&long(text).ending_with(id));
            assert!(cut.lines().last().unwrap().len() + 2 > MAX_LINE - 4 || text.contains('\n'), "{cut}");
            let whole = wire(&long(text).followed_by(id));
            for wire in [&cut, &whole] {
                assert!(wire.ends_with("(id 4KXN7Q2M)\r\n"), "{wire}");
                assert!(wire.lines().all(|line| line.len() + 2 <= MAX_LINE), "{wire}");
                assert!(wire.lines().all(|line| line.starts_with("550") && line.contains(" ")), "{wire}");
            }
        }
        let short = Reply::plain(550, "no").followed_by(id);
        assert_eq!(wire(&short), "550 no (id 4KXN7Q2M)\r\n");
        assert_eq!(wire(&Reply::plain(550, "").followed_by(id)), "550 (id 4KXN7Q2M)\r\n");
        let fits = Reply::plain(550, "x".repeat(100)).followed_by(id);
        assert_eq!(wire(&fits), format!("550 {} (id 4KXN7Q2M)\r\n", "x".repeat(100)));
        let long = Reply::new(550, Enhanced(5, 7, 1), "x".repeat(495)).followed_by(id);
        assert!(wire(&long).ends_with("xxx\r\n550 5.7.1 (id 4KXN7Q2M)\r\n"), "{long}");
        let lines = Reply::new(554, Enhanced(5, 6, 0), "one\ntwo");
        assert_eq!(lines.on_one_line(), "554 5.6.0 one two");
    }

    #[test]
    fn text_from_outside_is_made_printable_and_bounded() {
        let reply = Reply::new(550, Enhanced(5, 7, 1), format!("a\rb\0c\u{e9} {}", "x".repeat(900)));
        let wire = wire(&reply);
        assert!(wire.starts_with("550 5.7.1 a?b?c?? x"), "{wire}");
        assert_eq!(wire.len(), MAX_LINE);
        assert_eq!(wire.matches('\r').count(), 1);
        assert_eq!(format!("{reply}\r\n"), wire, "what is printed is what was sent");
        let reply = Reply::new(550, Enhanced(5, 1, 8), "\u{9b}31m\u{202e}x\ntwo");
        assert_eq!(reply.to_string(), "550 5.1.8 ??31m???x");
    }
}
