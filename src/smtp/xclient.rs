//! The arguments of XCLIENT (Postfix XCLIENT_README): the client that a trusted gateway announces.
//!
//! This file reads only the syntax; the session checks whether the client may use the command. NAME is read and
//! dropped: rmxd looks up the client's names in DNS itself. LOGIN, DESTADDR and DESTPORT are read and not used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use compact_str::CompactString;

/// The attributes in the reply to EHLO, after XCLIENT.
pub const ATTRIBUTES: &str = "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";
/// Longest value in its encoded form (XCLIENT_README).
const MAX_VALUE: usize = 255;

/// The attributes of an XCLIENT command; those that it lacks stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Xclient {
    /// ADDR.
    pub address: Option<IpAddr>,
    /// PORT; 0 if the gateway doesn't know it.
    pub port: Option<u16>,
    /// HELO: printable, without white space.
    pub helo: Option<CompactString>,
    /// PROTO: true for ESMTP.
    pub extended: Option<bool>,
}

/// The fault of an XCLIENT command; the text is for the reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XclientError {
    /// No attribute, or a word that isn't one.
    #[error("syntax: XCLIENT NAME=value ...")]
    Syntax,
    /// An attribute that the reply to EHLO doesn't list, or one that occurs twice.
    #[error("attribute {0} is not known, or there twice")]
    Attribute(CompactString),
    /// A value that is not xtext, too long, or not allowed for the attribute.
    #[error("attribute {0} has no valid value")]
    Value(&'static str),
    /// A client without an address can't be judged, and the gateway's address must not be used instead.
    #[error("ADDR must be given as an address")]
    NoAddress,
}

impl Xclient {
    /// Reads the arguments, without the verb.
    ///
    /// # Errors
    /// The fault of the command; no attribute of it may be used then.
    pub fn parse(arguments: &str) -> Result<Self, XclientError> {
        let mut read = Self::default();
        let mut seen = [false; NAMES.len()];
        for word in arguments.split_ascii_whitespace() {
            let (name, value) = word.split_once('=').ok_or(XclientError::Syntax)?;
            let unknown = || XclientError::Attribute(name.chars().take(MAX_VALUE).collect());
            let at = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)).ok_or_else(unknown)?;
            if seen.get_mut(at).is_none_or(|seen| std::mem::replace(seen, true)) {
                return Err(unknown());
            }
            read.attribute(NAMES.get(at).copied().unwrap_or_default(), value)?;
        }
        if seen.contains(&true) { Ok(read) } else { Err(XclientError::Syntax) }
    }

    fn attribute(&mut self, name: &'static str, value: &str) -> Result<(), XclientError> {
        let wrong = || XclientError::Value(name);
        let known = Known::read(value).ok_or_else(wrong)?;
        match (name, known) {
            ("ADDR", Known::Not) => return Err(XclientError::NoAddress),
            ("ADDR", Known::Value(text)) => self.address = Some(address(&text).ok_or_else(wrong)?),
            ("PORT", Known::Not) => self.port = Some(0),
            ("PORT", Known::Value(text)) => self.port = Some(port(&text).ok_or_else(wrong)?),
            ("PROTO", Known::Value(text)) if text.eq_ignore_ascii_case(b"ESMTP") => {
                self.extended = Some(true)
            }
            ("PROTO", Known::Value(text)) if text.eq_ignore_ascii_case(b"SMTP") => {
                self.extended = Some(false)
            }
            ("PROTO", _) => return Err(wrong()),
            ("HELO", Known::Value(text)) => self.helo = Some(word(&text).ok_or_else(wrong)?),
            // NAME and the others, and an unknown HELO
            (_, Known::Value(_) | Known::Not) => {}
        }
        Ok(())
    }
}

/// In the order of [`ATTRIBUTES`].
const NAMES: [&str; 8] = ["NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT"];

enum Known {
    Value(Vec<u8>),
    /// `[UNAVAILABLE]` or `[TEMPUNAVAIL]`.
    Not,
}

impl Known {
    /// `None` if it is no value at all.
    fn read(value: &str) -> Option<Self> {
        if value.is_empty() || value.len() > MAX_VALUE {
            return None;
        }
        if value.eq_ignore_ascii_case("[UNAVAILABLE]") || value.eq_ignore_ascii_case("[TEMPUNAVAIL]") {
            return Some(Self::Not);
        }
        decoded(value).map(Self::Value)
    }
}

/// xtext (RFC 3461 4): `+` and two hex digits for an octet. Postfix accepts lower-case digits and `=` too.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut octets = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(octet) = octets.next() {
        out.push(match octet {
            b'+' => {
                let digit = |octet: Option<u8>| char::from(octet?).to_digit(16);
                let (high, low) = (digit(octets.next())?, digit(octets.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'!'..=b'~' => octet,
            _ => return None,
        });
    }
    Some(out)
}

/// `192.0.2.1` or `IPV6:2001:db8::1`; an IPv4-mapped address becomes IPv4.
fn address(octets: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(octets).ok()?;
    let v6 = text.get(..5).filter(|prefix| prefix.eq_ignore_ascii_case("IPV6:")).and_then(|_| text.get(5..));
    let address = match v6 {
        Some(text) => IpAddr::V6(text.parse::<Ipv6Addr>().ok()?),
        None => IpAddr::V4(text.parse::<Ipv4Addr>().ok()?),
    };
    Some(address.to_canonical())
}

fn port(octets: &[u8]) -> Option<u16> {
    let digits = octets.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(octets).ok().filter(|_| digits)?.parse().ok()
}

/// A HELO argument without white space.
fn word(octets: &[u8]) -> Option<CompactString> {
    let text = std::str::from_utf8(octets).ok()?;
    (!text.is_empty() && text.bytes().all(|octet| octet.is_ascii_graphic())).then(|| CompactString::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(arguments: &str) -> String {
        match Xclient::parse(arguments) {
            Ok(Xclient { address, port, helo, extended }) => {
                let mut words = Vec::new();
                words.extend(address.map(|address| format!("from {address}")));
                words.extend(port.map(|port| format!("port {port}")));
                words.extend(helo.map(|helo| format!("helo {helo}")));
                words.extend(extended.map(|extended| if extended { "esmtp".into() } else { "smtp".into() }));
                words.join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn attributes_are_read_by_the_readme() {
        let (long, longest) = (format!("HELO={}", "h".repeat(256)), format!("HELO={}", "h".repeat(255)));
        let rows = [
            ("ADDR=192.0.2.7", "from 192.0.2.7"),
            ("addr=IPV6:2001:DB8::1 Port=25", "from 2001:db8::1 port 25"),
            ("ADDR=ipv6:::ffff:192.0.2.7", "from 192.0.2.7"),
            (
                "PROTO=ESMTP HELO=good.test NAME=mx.good.test PORT=4321 ADDR=192.0.2.7",
                "from 192.0.2.7 port 4321 helo good.test esmtp",
            ),
            ("PROTO=smtp LOGIN=joe+40good.test DESTADDR=192.0.2.1 DESTPORT=25", "smtp"),
            ("HELO=[192.0.2.7]", "helo [192.0.2.7]"),
            ("HELO=a+2Bb+3dc", "helo a+b=c"),
            ("NAME=[TEMPUNAVAIL] HELO=[UNAVAILABLE] PORT=[unavailable]", "port 0"),
            ("ADDR=[UNAVAILABLE]", "ADDR must be given as an address"),
            ("ADDR=[TEMPUNAVAIL]", "ADDR must be given as an address"),
            ("", "syntax: XCLIENT NAME=value ..."),
            ("ADDR", "syntax: XCLIENT NAME=value ..."),
            ("ADDR=", "attribute ADDR has no valid value"),
            ("ADDR=2001:db8::1", "attribute ADDR has no valid value"),
            ("ADDR=IPV6:192.0.2.7", "attribute ADDR has no valid value"),
            ("ADDR=192.0.2.07", "attribute ADDR has no valid value"),
            ("PORT=65536", "attribute PORT has no valid value"),
            ("PORT=+2B25", "attribute PORT has no valid value"),
            ("PROTO=LMTP", "attribute PROTO has no valid value"),
            ("PROTO=[UNAVAILABLE]", "attribute PROTO has no valid value"),
            ("HELO=a+0D+0Ab", "attribute HELO has no valid value"),
            ("HELO=a+20b", "attribute HELO has no valid value"),
            ("HELO=b+C3+BCcher", "attribute HELO has no valid value"),
            ("HELO=a+4", "attribute HELO has no valid value"),
            ("HELO=a+x1", "attribute HELO has no valid value"),
            ("NAME=a+", "attribute NAME has no valid value"),
            (&long, "attribute HELO has no valid value"),
            (&longest, &format!("helo {}", "h".repeat(255))),
            ("COLOUR=blue", "attribute COLOUR is not known, or there twice"),
            ("ADDR=192.0.2.7 ADDR=192.0.2.8", "attribute ADDR is not known, or there twice"),
        ];
        for (arguments, expected) in rows {
            assert_eq!(shown(arguments), expected, "{arguments:?}");
        }
    }

    #[test]
    fn every_attribute_of_ehlo_is_read() {
        assert_eq!(NAMES.join(" "), ATTRIBUTES);
        for name in NAMES {
            assert_ne!(
                Xclient::parse(&format!("{name}=?")),
                Err(XclientError::Attribute(CompactString::new(name))),
                "{name}"
            );
        }
    }
}
