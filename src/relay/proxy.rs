//! The PROXY header, version 2, with the client's address: the first octets of a connection to the relay.
//!
//! Its destination is the relay's own address, not the address that the client connected to.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use proxy_header::{ProxiedAddress, ProxyHeader};

use crate::relay::error::RelayError;

/// The header for a connection on behalf of `client`, or of our own (LOCAL).
pub(super) fn header(client: Option<SocketAddr>, relay: SocketAddr) -> Result<Vec<u8>, RelayError> {
    let header = match client {
        None => ProxyHeader::with_local(),
        Some(client) => {
            let source = SocketAddr::new(client.ip().to_canonical(), client.port());
            let target = SocketAddr::new(of_the_same_family(relay.ip(), source.ip()), relay.port());
            ProxyHeader::with_address(ProxiedAddress::stream(source, target))
        }
    };
    let mut octets = Vec::with_capacity(64);
    let encoded = header.encode_v2(&mut octets);
    encoded.map_err(|error| RelayError::Unreachable(format!("no PROXY header: {error:?}")))?;
    Ok(octets)
}

/// Both addresses of a header are of one family.
fn of_the_same_family(address: IpAddr, model: IpAddr) -> IpAddr {
    match (address.to_canonical(), model) {
        (IpAddr::V4(address), IpAddr::V6(_)) => address.to_ipv6_mapped().into(),
        (IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(_)) => std::net::Ipv4Addr::LOCALHOST.into(),
        (IpAddr::V6(_), IpAddr::V4(_)) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        (address, _) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    fn octets(client: &str, relay: &str) -> Vec<u8> {
        let header = header(Some(client.parse().unwrap()), relay.parse().unwrap()).unwrap();
        header.strip_prefix(SIGNATURE).unwrap().to_vec()
    }

    #[test]
    fn a_client_is_named_with_addresses_of_one_family() {
        let v4 = [0x21, 0x11, 0, 12, 192, 0, 2, 7, 127, 0, 0, 1, 0x10, 0xe1, 0, 25];
        for (client, relay) in [
            ("192.0.2.7:4321", "127.0.0.1:25"),
            ("[::ffff:192.0.2.7]:4321", "127.0.0.1:25"),
            ("192.0.2.7:4321", "[::1]:25"),
        ] {
            assert_eq!(octets(client, relay), v4, "{client} {relay}");
        }
        let v6 = octets("[2001:db8::1]:4321", "[2001:db8::2]:25");
        assert_eq!(v6[..4], [0x21, 0x21, 0, 36]);
        assert_eq!(v6[4..20], "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(v6[20..36], "2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(v6[36..], [0x10, 0xe1, 0, 25]);
        let mixed = octets("[2001:db8::1]:4321", "127.0.0.1:25");
        assert_eq!(mixed[20..36], "::ffff:127.0.0.1".parse::<Ipv6Addr>().unwrap().octets());
    }

    #[test]
    fn a_connection_of_our_own_is_local() {
        let header = header(None, "127.0.0.1:25".parse().unwrap()).unwrap();
        let rest = header.strip_prefix(SIGNATURE).unwrap();
        assert_eq!((rest[0], rest[2], rest[3]), (0x20, 0, 0), "{rest:?}");
        assert_eq!(rest.len(), 4);
    }
}
