//! The values of XCLIENT and XFORWARD: in xtext (RFC 3461 4), with Postfix's words for unknown values, and within
//! Postfix's limit of length. No I/O.

use std::net::{IpAddr, SocketAddr};

use crate::relay::{ClientInfo, ClientName};

/// Longest command line with CRLF (RFC 5321 4.5.3.1.4).
pub(super) const MAX_LINE: usize = 512;
/// Longest value that Postfix takes (XCLIENT_README, note 1); it counts the encoded form.
pub(super) const MAX_VALUE: usize = 255;

pub(super) fn protocol(client: &ClientInfo) -> &'static str {
    if client.esmtp { "ESMTP" } else { "SMTP" }
}

/// The name for the greeting after XCLIENT: Postfix records this one, not XCLIENT's HELO. Characters that can't stand
/// in a command are replaced; `None` where the client gave no name.
pub(super) fn greeting_name(client: &ClientInfo) -> Option<String> {
    let name: String = client
        .helo
        .chars()
        .map(|char| if matches!(char, '!'..='~') { char } else { '?' })
        .take(MAX_VALUE)
        .collect();
    (!name.is_empty()).then_some(name)
}

pub(super) fn name(name: &ClientName) -> String {
    match name {
        // Postfix refuses a name that looks like an address, and with it the whole command
        ClientName::Confirmed(name) if !name.is_ip_text() => xtext(name.as_str().as_bytes()),
        ClientName::Confirmed(_) | ClientName::Unknown => "[UNAVAILABLE]".to_owned(),
        ClientName::TempUnknown => "[TEMPUNAVAIL]".to_owned(),
    }
}

pub(super) fn address(address: SocketAddr) -> String {
    match address.ip().to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("IPV6:{address}"),
    }
}

pub(super) fn helo(given: &str) -> String {
    if given.is_empty() {
        return "[UNAVAILABLE]".to_owned();
    }
    let mut encoded = String::new();
    for octet in given.bytes() {
        let next = xtext(&[octet]);
        if encoded.len() + next.len() > MAX_VALUE {
            break;
        }
        encoded.push_str(&next);
    }
    encoded
}

/// xtext (RFC 3461 4): printable ASCII without `+` and `=` stays, the rest is `+` and two upper-case hex digits.
pub(super) fn xtext(octets: &[u8]) -> String {
    let mut out = String::with_capacity(octets.len());
    for &octet in octets {
        if matches!(octet, b'!'..=b'~') && octet != b'+' && octet != b'=' {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("+{octet:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str, name: ClientName, helo: &str) -> ClientInfo {
        ClientInfo { address: address.parse().unwrap(), name, helo: helo.into(), esmtp: true }
    }

    #[test]
    fn the_greeting_repeats_the_clients_name_as_one_harmless_word() {
        let greeting = |helo: &str| greeting_name(&client("192.0.2.7:1", ClientName::Unknown, helo));
        assert_eq!(greeting("good.test").as_deref(), Some("good.test"));
        assert_eq!(greeting("a b\r\nRSET").as_deref(), Some("a?b??RSET"));
        assert_eq!(greeting(""), None);
        assert_eq!(greeting(&"h".repeat(999)).map(|name| name.len()), Some(MAX_VALUE));
    }
}
