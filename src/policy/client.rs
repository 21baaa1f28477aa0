//! The network that counts as one client: for quotas an IPv4 address, or an IPv6 /64 (the network of one customer); for
//! greylist and permits by `policy.match_prefix_v4` and `_v6`.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// The client's network; for an IPv4-mapped address the IPv4 address.
#[must_use]
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// The client's network by prefixes of the configuration, for greylist and permits; an IPv4-mapped address counts as IPv4.
#[must_use]
pub fn network_of(address: IpAddr, prefix_v4: u8, prefix_v6: u8) -> IpNet {
    let address = address.to_canonical();
    let prefix = if address.is_ipv4() { prefix_v4 } else { prefix_v6 };
    IpNet::new(address, prefix).unwrap_or_else(|_too_long| IpNet::from(address)).trunc()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_and_an_ipv6_network_are_one_client_each() {
        let rows = [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("::1", "::"),
        ];
        for (address, network) in rows {
            assert_eq!(client_network(address.parse().unwrap()).to_string(), network, "{address}");
        }
    }
}
