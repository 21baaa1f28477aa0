//! The PROXY header of a load balancer: whom it speaks for, and how many octets of the connection it is.
//!
//! Input: what the proxy sends.

use std::net::SocketAddr;

use rmxd::net::proxy::parse;

/// What is held at the very most (the header itself may have 536 octets).
const MOST: usize = 536;
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// As [`parse`], with all errors alike.
type Found = Result<Option<(Option<SocketAddr>, usize)>, ()>;

pub fn check(input: &[u8]) {
    let octets = &input[..input.len().min(MOST + 64)];
    let mut before: Found = Ok(None);
    for length in 1..=octets.len() {
        let found: Found = parse(&octets[..length]).map_err(drop);
        match before {
            Ok(None) => {
                if let Ok(Some((client, end))) = found {
                    assert_eq!(end, length, "complete only with more than itself");
                    assert_header(client, &octets[..end]);
                }
            }
            decided => assert_eq!(found, decided, "{length} octets say something else than fewer did"),
        }
        assert!(length < MOST || found != Ok(None), "{length} octets are held");
        before = found;
    }
}

/// A second reading of a header that was found valid.
fn assert_header(client: Option<SocketAddr>, header: &[u8]) {
    assert!(client.is_none_or(|client| client.ip() == client.ip().to_canonical()), "{client:?}");
    if let Some(rest) = header.strip_prefix(V2) {
        let [version_command, family, high, low, addresses @ ..] = rest else { panic!("too short") };
        assert_eq!(addresses.len(), usize::from(u16::from_be_bytes([*high, *low])));
        assert!(matches!(version_command, 0x20 | 0x21));
        assert!(client.is_none() || (*version_command, family & 0xf) == (0x21, 1), "{client:?}");
        let source = match (family >> 4, addresses) {
            (1, [a, b, c, d, _, _, _, _, high, low, ..]) => {
                Some(SocketAddr::from(([*a, *b, *c, *d], u16::from_be_bytes([*high, *low]))))
            }
            (2, [v6 @ .., _, _, _, _]) if v6.len() == 32 => {
                let source: [u8; 16] = v6[..16].try_into().unwrap();
                Some(SocketAddr::from((source, u16::from_be_bytes([addresses[32], addresses[33]]))))
            }
            _ => return,
        };
        let source = source.map(|source| SocketAddr::new(source.ip().to_canonical(), source.port()));
        assert!(client.is_none() || client == source, "{client:?}, {source:?}");
        return;
    }
    assert!(header.len() <= 107, "{} octets", header.len());
    let text = String::from_utf8_lossy(header);
    let line = text.strip_suffix("\r\n").unwrap();
    assert!(!line.contains(['\r', '\n']), "{text:?}");
    let words: Vec<&str> = line.split(' ').collect();
    match client {
        None => assert_eq!(words[..2], ["PROXY", "UNKNOWN"], "{text:?}"),
        Some(client) => {
            assert!(words.len() == 6 && matches!(words[1], "TCP4" | "TCP6"), "{text:?}");
            let source: std::net::IpAddr = words[2].parse().unwrap();
            assert_eq!(
                (client.ip(), client.port().to_string().as_str()),
                (source.to_canonical(), words[4]),
                "{text:?}"
            );
        }
    }
}
