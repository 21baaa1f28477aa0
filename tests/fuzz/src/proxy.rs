//! PROXY headers, versions 1 and 2.
//!
//! Input: what a trusted proxy sends first.

use rmxd::server::proxy::{MOST, parse};

pub fn check(octets: &[u8]) {
    let whole = parse(octets).map_err(|error| error.to_string());
    let mut found = None;
    for length in 0..=octets.len() {
        match parse(&octets[..length]).map_err(|error| error.to_string()) {
            Ok(None) => assert!(length < MOST, "{length} octets and no end"),
            end => {
                found = Some((length, end));
                break;
            }
        }
    }
    match found {
        None => assert_eq!(whole, Ok(None)),
        // octet by octet it is seen as early as can be; what follows changes nothing
        Some((length, Ok(Some((client, end))))) => {
            assert_eq!(length, end);
            assert!(end <= MOST);
            assert!(client.is_none_or(|client| client.ip() == client.ip().to_canonical()));
            assert_eq!(whole, Ok(Some((client, end))));
        }
        Some((_, other)) => assert_eq!(whole, other),
    }
}
