//! The XFORWARD commands with the client's attributes for the relay's log (Postfix XFORWARD_README); no I/O.
//!
//! Each transaction sends every offered attribute, unknown ones as unknown: otherwise the values of the client before
//! would stay. The relay's restrictions still see rmxd; XFORWARD doesn't change that.

use crate::relay::Envelope;
use crate::relay::attribute::{self, MAX_LINE};
use crate::relay::capabilities::Attributes;

/// The commands before MAIL, without CRLF: as many as their length asks for; none where nothing is offered.
pub(super) fn commands(envelope: &Envelope<'_>, offered: Attributes) -> Vec<String> {
    let client = envelope.client;
    let mut lines: Vec<String> = Vec::new();
    let mut add = |offered: bool, name: &str, value: &str| {
        let length = " =".len() + name.len() + value.len();
        match lines.last_mut() {
            _ if !offered => {}
            Some(line) if line.len() + length + 2 <= MAX_LINE => line.push_str(&format!(" {name}={value}")),
            _ => lines.push(format!("XFORWARD {name}={value}")),
        }
    };
    add(offered.name, "NAME", &attribute::name(&client.name));
    add(offered.addr, "ADDR", &attribute::address(client.address));
    add(offered.port, "PORT", &client.address.port().to_string());
    add(offered.proto, "PROTO", attribute::protocol(client));
    add(offered.helo, "HELO", &attribute::helo(&client.helo));
    add(offered.ident, "IDENT", &attribute::xtext(envelope.id.as_bytes()));
    add(offered.source, "SOURCE", "REMOTE");
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::{ClientInfo, ClientName};
    use crate::smtp::address::{DomainName, ReversePath};

    const ALL: Attributes =
        Attributes { name: true, addr: true, port: true, proto: true, helo: true, ident: true, source: true };

    fn lines(name: ClientName, helo: &str, offered: Attributes) -> Vec<String> {
        let address = "[2001:db8::1]:4321".parse().unwrap();
        let client = &ClientInfo { address, name, helo: helo.into(), esmtp: false };
        commands(&Envelope::new(client, &ReversePath::parse("").unwrap(), "4KXN7Q2M"), offered)
    }

    #[test]
    fn every_offered_attribute_is_sent_unknown_ones_as_unknown() {
        assert_eq!(
            lines(ClientName::Unknown, "", ALL),
            ["XFORWARD NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::1 PORT=4321 PROTO=SMTP HELO=[UNAVAILABLE] \
              IDENT=4KXN7Q2M SOURCE=REMOTE"]
        );
        let offered = Attributes { addr: true, helo: true, ..Default::default() };
        assert_eq!(
            lines(ClientName::Unknown, "a b\r\nDATA", offered),
            ["XFORWARD ADDR=IPV6:2001:db8::1 HELO=a+20b+0D+0ADATA"]
        );
        assert!(lines(ClientName::Unknown, "a", Attributes::default()).is_empty());
    }

    #[test]
    fn long_values_take_several_lines_that_fit() {
        let name = ClientName::Confirmed(
            DomainName::parse(&format!("{}.test", vec!["n".repeat(60); 4].join("."))).unwrap(),
        );
        let lines = lines(name, &"=".repeat(999), ALL);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.iter().all(|line| line.starts_with("XFORWARD ") && line.len() + 2 <= MAX_LINE));
        assert!(lines[1].starts_with("XFORWARD HELO=+3D"), "{lines:?}");
        assert!(lines[1].ends_with(" IDENT=4KXN7Q2M SOURCE=REMOTE"), "{lines:?}");
    }
}
