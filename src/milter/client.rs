//! The client that CONNECT describes: its address, or that it has none.

use std::net::{IpAddr, Ipv4Addr};

/// Families of addresses (`SMFIA_` in `mfdef.h`).
pub(super) const UNKNOWN: u8 = b'U';
pub(super) const UNIX: u8 = b'L';
pub(super) const INET: u8 = b'4';
pub(super) const INET6: u8 = b'6';

/// An SMTP client of the MTA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// A host; an IPv4-mapped address is the IPv4 address.
    Host {
        address: IpAddr,
        /// Zero where the MTA doesn't know it.
        port: u16,
    },
    /// A program on the MTA's machine, by a unix socket or without any (`sendmail -t`).
    ThisMachine,
    /// The MTA knows no address, as after XCLIENT with `ADDR=[UNAVAILABLE]`.
    Unknown,
}

impl Client {
    /// `text` is the address as the MTA wrote it. Sendmail puts `IPv6:` before an IPv6 address; Postfix sends family 4
    /// and the text `unknown` where it knows none. `None` for a family that isn't one.
    pub(super) fn of(family: u8, port: u16, text: &[u8]) -> Option<Self> {
        Some(match family {
            UNIX => Self::ThisMachine,
            UNKNOWN => Self::Unknown,
            INET | INET6 => match (address(text), port) {
                (Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), 0) => Self::ThisMachine,
                (Some(address), port) => Self::Host { address, port },
                (None, _) => Self::Unknown,
            },
            _ => return None,
        })
    }
}

fn address(text: &[u8]) -> Option<IpAddr> {
    let bare = match text.split_at_checked(5) {
        Some((tag, rest)) if tag.eq_ignore_ascii_case(b"IPv6:") => rest,
        _ => text,
    };
    let address: IpAddr = std::str::from_utf8(bare).ok()?.parse().ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_a_host_this_machine_or_unknown() {
        let host = |address: &str, port| Some(Client::Host { address: address.parse().unwrap(), port });
        let rows: [(u8, u16, &str, Option<Client>); 19] = [
            (INET, 45782, "192.0.2.7", host("192.0.2.7", 45782)),
            (INET, 0, "192.0.2.7", host("192.0.2.7", 0)),
            (INET, 45782, "127.0.0.1", host("127.0.0.1", 45782)),
            (INET, 0, "127.0.0.1", Some(Client::ThisMachine)),
            (INET, 0, "127.0.0.99", host("127.0.0.99", 0)),
            (INET, 9, "unknown", Some(Client::Unknown)),
            (INET, 9, "", Some(Client::Unknown)),
            (INET, 9, "192.0.2.07", Some(Client::Unknown)),
            (INET6, 25, "2001:db8::7", host("2001:db8::7", 25)),
            (INET6, 25, "IPv6:2001:db8::7", host("2001:db8::7", 25)),
            (INET6, 25, "ipv6:2001:DB8::7", host("2001:db8::7", 25)),
            (INET6, 25, "::ffff:192.0.2.7", host("192.0.2.7", 25)),
            (INET6, 25, "IPv6:::ffff:192.0.2.7", host("192.0.2.7", 25)),
            (INET6, 0, "::1", host("::1", 0)),
            (INET6, 0, "IPv6:::ffff:127.0.0.1", Some(Client::ThisMachine)),
            (INET6, 25, "IPv6:", Some(Client::Unknown)),
            (UNIX, 0, "/run/mta", Some(Client::ThisMachine)),
            (UNKNOWN, 0, "", Some(Client::Unknown)),
            (b'5', 0, "192.0.2.7", None),
        ];
        for (family, port, text, expected) in rows {
            let found = Client::of(family, port, text.as_bytes());
            assert_eq!(found, expected, "{} {port} {text}", family.escape_ascii());
        }
        assert_eq!(Client::of(INET, 1, b"192.0.2.7\xff"), Some(Client::Unknown));
    }
}
