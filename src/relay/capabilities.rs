//! The extensions of a next hop, from its reply to EHLO (RFC 5321 4.1.1.1).
//!
//! Keywords that rmxd doesn't use are ignored. A SIZE that is no number counts as no limit: the relay still decides at
//! MAIL and at the end of the message.

use crate::message::trace::MOST_ADDED;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Largest message in octets (RFC 1870); `None` = no limit is known.
    pub size: Option<u64>,
    /// Whether SIZE is offered, with or without a limit: MAIL may declare the size.
    pub size_parameter: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced: bool,
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// XCLIENT with the attributes that may be sent; `None` = not offered to us.
    pub xclient: Option<Attributes>,
    /// XFORWARD with the attributes that may be sent; `None` = not offered to us.
    pub xforward: Option<Attributes>,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
}

/// The attributes of XCLIENT or XFORWARD that the relay accepts and rmxd has a value for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// NAME: the confirmed name of the client.
    pub name: bool,
    /// ADDR: its address. Without it XCLIENT is of no use: the relay would go on to take rmxd for the client.
    pub addr: bool,
    /// PORT: its port.
    pub port: bool,
    /// PROTO: SMTP or ESMTP.
    pub proto: bool,
    /// HELO: the name in its greeting.
    pub helo: bool,
    /// IDENT: our id of the transaction; XFORWARD only.
    pub ident: bool,
    /// SOURCE: that the client is none of ours; XFORWARD only.
    pub source: bool,
}

impl Capabilities {
    /// Before the relay was first greeted. No message can be accepted before that, so a generous offer costs nothing; a
    /// client without the offer of 8BITMIME may recode its message and break its signatures.
    pub(super) fn unknown() -> Self {
        Self { eight_bit_mime: true, enhanced: true, pipelining: true, ..Self::default() }
    }

    pub(super) fn maildir() -> Self {
        Self { eight_bit_mime: true, enhanced: true, pipelining: true, smtputf8: true, ..Self::default() }
    }

    /// The largest message that a client may send, so that the relay accepts it with rmxd's trace fields: its limit
    /// less [`MOST_ADDED`], but half of it at least. `None` = no limit is known.
    #[must_use]
    pub fn size_for_clients(&self) -> Option<u64> {
        self.size.map(|size| size.saturating_sub(MOST_ADDED).max(size.div_ceil(2)))
    }

    /// Reads the text of a positive answer to EHLO; its first line is the greeting.
    pub(super) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.split('\n').skip(1) {
            let mut words = line.split_ascii_whitespace();
            match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "SIZE" => {
                    found.size_parameter = true;
                    found.size = words.next().and_then(|text| text.parse().ok()).filter(|&size| size > 0);
                }
                "8BITMIME" => found.eight_bit_mime = true,
                "ENHANCEDSTATUSCODES" => found.enhanced = true,
                "PIPELINING" => found.pipelining = true,
                "XCLIENT" => found.xclient = Some(Attributes::parse(words)),
                "XFORWARD" => found.xforward = Some(Attributes::parse(words)),
                "SMTPUTF8" => found.smtputf8 = true,
                "DSN" => found.dsn = true,
                "CHUNKING" => found.chunking = true,
                "STARTTLS" => found.starttls = true,
                _ => {}
            }
        }
        found
    }
}

impl Attributes {
    fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        for word in words {
            match word.to_ascii_uppercase().as_str() {
                "NAME" => found.name = true,
                "ADDR" => found.addr = true,
                "PORT" => found.port = true,
                "PROTO" => found.proto = true,
                "HELO" => found.helo = true,
                "IDENT" => found.ident = true,
                "SOURCE" => found.source = true,
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_read_in_any_case_but_not_from_the_greeting() {
        let text = "DSN greets you\nPIPELINING\nsize 10240000\nVRFY\nETRN\nXCLIENT NAME addr PROTO LOGIN\nXFORWARD ADDR Ident\n8BitMime\nSTARTTLS\n";
        let expected = Capabilities {
            size: Some(10_240_000),
            size_parameter: true,
            eight_bit_mime: true,
            pipelining: true,
            starttls: true,
            xclient: Some(Attributes { name: true, addr: true, proto: true, ..Default::default() }),
            xforward: Some(Attributes { addr: true, ident: true, ..Default::default() }),
            ..Capabilities::default()
        };
        assert_eq!(Capabilities::parse(text), expected);
    }

    #[test]
    fn the_size_offered_to_clients_leaves_room_for_our_trace_fields() {
        for (size, offered) in [
            (None, None),
            (Some(10_240_000), Some(10_240_000 - MOST_ADDED)),
            (Some(2 * MOST_ADDED), Some(MOST_ADDED)),
            (Some(1000), Some(500)),
            (Some(1), Some(1)),
            (Some(u64::MAX), Some(u64::MAX - MOST_ADDED)),
        ] {
            assert_eq!(Capabilities { size, ..Capabilities::default() }.size_for_clients(), offered);
        }
    }

    #[test]
    fn a_size_of_zero_or_without_a_number_is_no_limit() {
        for (line, size) in [
            ("SIZE", None),
            ("SIZE 0", None),
            ("SIZE much", None),
            ("SIZE -1", None),
            ("SIZE 99999999999999999999999", None),
            ("SIZE 7", Some(7)),
        ] {
            assert_eq!(Capabilities::parse(&format!("relay\n{line}")).size, size, "{line}");
        }
    }
}
