//! Whether an address leads back to one of rmxd's own listeners, so that mail would go in a circle.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::net::{Endpoint, Purpose};

/// The next hop is a listener of rmxd itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{next_hop:?} leads back to rmxd itself: listen.{purpose} has {endpoint}{origin}. Mail would go in a circle; name the mail \
     server behind rmxd, which has another port or address, such as \"smtp://127.0.0.1:10025\""
)]
pub struct OwnListener {
    /// As configured.
    pub next_hop: String,
    /// What the listener is for.
    pub purpose: Purpose,
    /// Where it is.
    pub endpoint: Endpoint,
    /// Put behind the endpoint, such as ` (a socket of the service manager)`.
    pub origin: &'static str,
}

/// A listener of rmxd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnPlace<'a> {
    pub purpose: Purpose,
    pub endpoint: &'a Endpoint,
    /// On `[::]` it takes no IPv4 (`IPV6_V6ONLY`), as a passed socket may.
    pub only_v6: bool,
}

/// The first of these listeners that a connection to one of the targets reaches. Listeners with port 0 reach nothing.
pub fn reached<'a>(
    targets: &[SocketAddr],
    listeners: impl IntoIterator<Item = OwnPlace<'a>>,
) -> Option<OwnPlace<'a>> {
    listeners.into_iter().find(|place| {
        let reaches = |listener| targets.iter().any(|target| reaches(*target, listener, place.only_v6));
        place.endpoint.tcp().is_some_and(reaches)
    })
}

fn reaches(target: SocketAddr, listener: SocketAddr, only_v6: bool) -> bool {
    if target.port() != listener.port() {
        return false;
    }
    let (target, listener) = (of_connection(target.ip()), listener.ip());
    match listener.to_canonical() {
        // Without IPV6_V6ONLY, a listener on [::] takes IPv4 as well.
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => !(only_v6 && target.is_ipv4()) && is_of_this_machine(target),
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => target.is_ipv4() && is_of_this_machine(target),
        listener => target == listener,
    }
}

/// The address that a connection to this one goes to: Linux takes loopback for the unspecified address.
fn of_connection(target: IpAddr) -> IpAddr {
    match target.to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

/// Whether an interface of this machine has the address. The kernel is asked for the source of a packet to it: only for an
/// address of this machine it is the same. No packet is sent. (To bind the address would also work where
/// `ip_nonlocal_bind` permits others.)
fn is_of_this_machine(address: IpAddr) -> bool {
    let any = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let source = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, 9))?;
        socket.local_addr()
    };
    address.is_loopback() || source().is_ok_and(|source| source.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_reaches_a_listener_by_its_address_or_by_any_address_of_this_machine() {
        let rows = [
            ("127.0.0.1:25", "127.0.0.1:25", true),
            ("127.0.0.1:25", "127.0.0.1:26", false),
            ("127.0.0.1:25", "127.0.0.2:25", false),
            ("127.0.0.1:25", "0.0.0.0:25", true),
            ("127.0.0.2:25", "0.0.0.0:25", true),
            ("127.0.0.1:25", "[::]:25", true),
            ("[::1]:25", "[::]:25", true),
            ("[::1]:25", "0.0.0.0:25", false),
            ("[::1]:25", "127.0.0.1:25", false),
            ("[::ffff:127.0.0.1]:25", "127.0.0.1:25", true),
            ("127.0.0.1:25", "[::ffff:127.0.0.1]:25", true),
            ("0.0.0.0:25", "127.0.0.1:25", true),
            ("[::]:25", "[::1]:25", true),
            ("192.0.2.25:25", "0.0.0.0:25", false),
            ("192.0.2.25:25", "[::]:25", false),
            ("192.0.2.25:25", "192.0.2.25:25", true),
            ("[2001:db8::25]:25", "[::]:25", false),
        ];
        for (target, listener, expected) in rows {
            let of = |only_v6| reaches(target.parse().unwrap(), listener.parse().unwrap(), only_v6);
            assert_eq!(of(false), expected, "{target} {listener}");
            let takes_v4 = target == "127.0.0.1:25" && listener == "[::]:25";
            assert_eq!(of(true), expected && !takes_v4, "{target} {listener}, only IPv6");
        }
    }

    #[test]
    fn the_address_of_an_interface_is_of_this_machine() {
        let source = || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect("192.0.2.1:9")?;
            socket.local_addr()
        };
        // On a machine without a route there is only loopback.
        let Ok(own) = source() else { return };
        assert!(reaches((own.ip(), 25).into(), "0.0.0.0:25".parse().unwrap(), false), "{own}");
        assert!(reaches((own.ip(), 25).into(), "[::]:25".parse().unwrap(), false), "{own}");
    }

    #[test]
    fn the_first_listener_that_is_reached_is_named() {
        let listeners = ["unix:/run/rmxd/policy", "127.0.0.1:0", "127.0.0.1:10023", "0.0.0.0:25", "[::]:25"];
        let listeners = listeners.map(|text| Endpoint::parse(text, Purpose::Policy).unwrap());
        let place = |endpoint| OwnPlace { purpose: Purpose::Policy, endpoint, only_v6: false };
        let all = || listeners.iter().map(place);
        let targets = ["192.0.2.1:25", "127.0.0.1:25"].map(|text| text.parse().unwrap());
        assert_eq!(reached(&targets, all()), Some(place(&listeners[3])));
        assert_eq!(reached(&targets[..1], all()), None);
        assert_eq!(reached(&[], all()), None);
    }
}
