//! The XCLIENT commands with the client's attributes (Postfix XCLIENT_README); no I/O.
//!
//! ADDR is in the last command. Postfix checks the overridden address at the next XCLIENT, so it refuses any XCLIENT
//! after ADDR as unauthorised; the order in its README doesn't work. Only attributes that the relay offers are sent.

use crate::relay::ClientInfo;
use crate::relay::attribute::{self, MAX_LINE};
use crate::relay::capabilities::Attributes;

/// The commands that introduce the client, without CRLF: one, or two where one would be too long.
pub(super) fn commands(client: &ClientInfo, offered: Attributes) -> Vec<String> {
    let mut session = String::new();
    if offered.proto {
        session.push_str(" PROTO=");
        session.push_str(attribute::protocol(client));
    }
    if offered.helo {
        session.push_str(" HELO=");
        session.push_str(&attribute::helo(&client.helo));
    }
    let mut origin = String::new();
    if offered.name {
        origin.push_str(" NAME=");
        origin.push_str(&attribute::name(&client.name));
    }
    if offered.port {
        origin.push_str(&format!(" PORT={}", client.address.port()));
    }
    if offered.addr {
        origin.push_str(" ADDR=");
        origin.push_str(&attribute::address(client.address));
    }
    let verb = "XCLIENT";
    if verb.len() + session.len() + origin.len() + 2 <= MAX_LINE {
        vec![format!("{verb}{session}{origin}")]
    } else {
        vec![format!("{verb}{session}"), format!("{verb}{origin}")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::ClientName;
    use crate::relay::attribute::MAX_VALUE;
    use crate::smtp::address::DomainName;

    const ALL: Attributes =
        Attributes { name: true, addr: true, port: true, proto: true, helo: true, ident: true, source: true };

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
    fn only_offered_attributes_are_sent() {
        let offered = Attributes { addr: true, proto: true, ..Default::default() };
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
            let value = lines[0].strip_prefix("XCLIENT PROTO=ESMTP HELO=").unwrap();
            assert!((253..=MAX_VALUE).contains(&value.len()), "{value}");
            assert!(lines[1].ends_with(" ADDR=IPV6:2001:db8::1"));
        }
    }
}
