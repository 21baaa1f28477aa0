//! XCLIENT: telling the relay who the client is (Postfix XCLIENT_README), as lines to send; no I/O.
//!
//! ADDR goes in the last command. Postfix looks at the overridden address when the next XCLIENT comes, so whatever
//! is sent after ADDR is refused as unauthorised; the order that its README suggests does not work. Only attributes
//! that the relay names are sent.

use std::net::{IpAddr, SocketAddr};

use crate::relay::capabilities::XclientAttributes;
use crate::relay::{ClientInfo, ClientName};

/// Longest command line with CRLF (RFC 5321 4.5.3.1.4).
const MAX_LINE: usize = 512;
/// Longest HELO name that Postfix takes (XCLIENT_README, note 1).
const MAX_HELO: usize = 255;
/// Room for an encoded HELO in a command of its own, beside the verb, PROTO and CRLF.
const MAX_ENCODED_HELO: usize = 480;

/// The commands that introduce the client, without CRLF: one, or two where one would be too long.
pub(super) fn commands(client: &ClientInfo, offered: XclientAttributes) -> Vec<String> {
    let mut session = String::new();
    if offered.proto {
        session.push_str(if client.esmtp { " PROTO=ESMTP" } else { " PROTO=SMTP" });
    }
    if offered.helo {
        session.push_str(" HELO=");
        session.push_str(&helo(&client.helo));
    }
    let mut origin = String::new();
    if offered.name {
        origin.push_str(" NAME=");
        origin.push_str(&name(&client.name));
    }
    if offered.port {
        origin.push_str(&format!(" PORT={}", client.address.port()));
    }
    if offered.addr {
        origin.push_str(" ADDR=");
        origin.push_str(&address(client.address));
    }
    let verb = "XCLIENT";
    if verb.len() + session.len() + origin.len() + 2 <= MAX_LINE {
        vec![format!("{verb}{session}{origin}")]
    } else {
        vec![format!("{verb}{session}"), format!("{verb}{origin}")]
    }
}

/// The name to greet with once the relay takes us for the client: Postfix records this one, not XCLIENT's HELO.
/// What can't stand in a command is replaced; `None` when there is nothing to say.
pub(super) fn greeting_name(client: &ClientInfo) -> Option<String> {
    let name: String = client
        .helo
        .chars()
        .map(|char| if matches!(char, '!'..='~') { char } else { '?' })
        .take(MAX_HELO)
        .collect();
    (!name.is_empty()).then_some(name)
}

fn name(name: &ClientName) -> String {
    match name {
        // Postfix refuses a name that looks like an address, and with it the whole command
        ClientName::Confirmed(name) if !name.is_ip_text() => xtext(name.as_str().as_bytes()),
        ClientName::Confirmed(_) | ClientName::Unknown => "[UNAVAILABLE]".to_owned(),
        ClientName::TempUnknown => "[TEMPUNAVAIL]".to_owned(),
    }
}

fn address(address: SocketAddr) -> String {
    match address.ip().to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("IPV6:{address}"),
    }
}

fn helo(given: &str) -> String {
    if given.is_empty() {
        return "[UNAVAILABLE]".to_owned();
    }
    let mut encoded = String::new();
    for octet in given.bytes().take(MAX_HELO) {
        let next = xtext(&[octet]);
        if encoded.len() + next.len() > MAX_ENCODED_HELO {
            break;
        }
        encoded.push_str(&next);
    }
    encoded
}

/// xtext (RFC 3461 4): printable ASCII without `+` and `=` stays, the rest is `+` and two upper-case hex digits.
fn xtext(octets: &[u8]) -> String {
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
    use crate::smtp::address::DomainName;

    const ALL: XclientAttributes =
        XclientAttributes { name: true, addr: true, port: true, proto: true, helo: true };

    fn client(address: &str, name: ClientName, helo: &str) -> ClientInfo {
        ClientInfo { address: address.parse().unwrap(), name, helo: helo.into(), esmtp: true }
    }

    fn confirmed(name: &str) -> ClientName {
        ClientName::Confirmed(DomainName::parse(name).unwrap())
    }

    #[test]
    fn the_client_is_introduced_in_one_line_with_the_address_last() {
        let rows = [
            (
                client("192.0.2.7:4321", confirmed("mx.good.test"), "good.test"),
                "PROTO=ESMTP HELO=good.test NAME=mx.good.test PORT=4321 ADDR=192.0.2.7",
            ),
            (
                client("[::ffff:192.0.2.7]:1", ClientName::Unknown, ""),
                "PROTO=ESMTP HELO=[UNAVAILABLE] NAME=[UNAVAILABLE] PORT=1 ADDR=192.0.2.7",
            ),
            (
                client("[2001:db8::1]:25", ClientName::TempUnknown, "a b=c+d\u{e9}\r\nXCLIENT"),
                "PROTO=ESMTP HELO=a+20b+3Dc+2Bd+C3+A9+0D+0AXCLIENT NAME=[TEMPUNAVAIL] PORT=25 ADDR=IPV6:2001:db8::1",
            ),
            (
                client("192.0.2.7:1", confirmed("192.0.2.7"), "[192.0.2.7]"),
                "PROTO=ESMTP HELO=[192.0.2.7] NAME=[UNAVAILABLE] PORT=1 ADDR=192.0.2.7",
            ),
        ];
        for (client, expected) in rows {
            assert_eq!(commands(&client, ALL), [format!("XCLIENT {expected}")]);
        }
    }

    #[test]
    fn only_what_is_offered_is_sent() {
        let offered = XclientAttributes { addr: true, proto: true, ..Default::default() };
        let client = ClientInfo { esmtp: false, ..client("192.0.2.7:1", ClientName::Unknown, "h") };
        assert_eq!(commands(&client, offered), ["XCLIENT PROTO=SMTP ADDR=192.0.2.7"]);
    }

    #[test]
    fn long_values_are_cut_and_make_two_lines_that_fit() {
        let long_name = format!("{}.test", vec!["n".repeat(60); 4].join("."));
        for helo in ["h".repeat(3000), "\u{e9}".repeat(3000), "=".repeat(255)] {
            let lines = commands(&client("[2001:db8::1]:65535", confirmed(&long_name), &helo), ALL);
            assert_eq!(lines.len(), 2);
            assert!(lines.iter().all(|line| line.len() + 2 <= MAX_LINE), "{lines:?}");
            assert!(lines[0].starts_with("XCLIENT PROTO=ESMTP HELO="));
            assert!(lines[1].ends_with(" ADDR=IPV6:2001:db8::1"));
        }
    }

    #[test]
    fn the_greeting_repeats_the_clients_name_as_one_harmless_word() {
        let greeting = |helo: &str| greeting_name(&client("192.0.2.7:1", ClientName::Unknown, helo));
        assert_eq!(greeting("good.test").as_deref(), Some("good.test"));
        assert_eq!(greeting("a b\r\nRSET").as_deref(), Some("a?b??RSET"));
        assert_eq!(greeting(""), None);
        assert_eq!(greeting(&"h".repeat(999)).map(|name| name.len()), Some(MAX_HELO));
    }
}
