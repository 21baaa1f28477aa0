//! Whether mail can be sent to an address, by the IANA special-purpose address registries (RFC 6890, RFC 8190).
//!
//! The registries as of 2025-10; blocks that they call globally reachable count. An IPv4 address inside an IPv6 one
//! (IPv4-mapped, NAT64, 6to4) is judged as the IPv4 address that it stands for. Routing tables are not looked at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// An IPv4 block that is not globally reachable.
const fn v4(a: u8, b: u8, c: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), prefix)
}

/// An IPv6 block, by its first four groups.
const fn v6(groups: [u16; 4], prefix: u8) -> Ipv6Net {
    let [a, b, c, d] = groups;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), prefix)
}

const UNREACHABLE_V4: [Ipv4Net; 15] = [
    v4(0, 0, 0, 8),       // this network (RFC 791)
    v4(10, 0, 0, 8),      // private use (RFC 1918)
    v4(100, 64, 0, 10),   // shared address space (RFC 6598)
    v4(127, 0, 0, 8),     // loopback (RFC 1122)
    v4(169, 254, 0, 16),  // link local (RFC 3927)
    v4(172, 16, 0, 12),   // private use
    v4(192, 0, 0, 24),    // IETF protocol assignments (RFC 6890)
    v4(192, 0, 2, 24),    // documentation (RFC 5737)
    v4(192, 88, 99, 24),  // 6to4 relay anycast, given up (RFC 7526)
    v4(192, 168, 0, 16),  // private use
    v4(198, 18, 0, 15),   // benchmarking (RFC 2544)
    v4(198, 51, 100, 24), // documentation
    v4(203, 0, 113, 24),  // documentation
    v4(224, 0, 0, 4),     // multicast (RFC 5771)
    v4(240, 0, 0, 4),     // reserved (RFC 1112), with limited broadcast (RFC 919)
];

/// Parts of `192.0.0.0/24` that are globally reachable: PCP and TURN anycast (RFC 7723, RFC 8155).
const REACHABLE_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 9), Ipv4Addr::new(192, 0, 0, 10)];

/// All that is allocated as global unicast.
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0], 3);

/// Parts of it that are not globally reachable.
const UNREACHABLE_V6: [Ipv6Net; 3] = [
    v6([0x2001, 0, 0, 0], 23), // IETF protocol assignments (RFC 2928), Teredo and ORCHID among them
    v6([0x2001, 0xdb8, 0, 0], 32), // documentation (RFC 3849)
    v6([0x3fff, 0, 0, 0], 20), // documentation (RFC 9637)
];

/// Parts of `2001::/23` that are: AMT (RFC 7450) and AS112 (RFC 7535).
const REACHABLE_V6: [Ipv6Net; 2] = [v6([0x2001, 3, 0, 0], 32), v6([0x2001, 4, 0x112, 0], 48)];

/// The well-known prefix of NAT64 (RFC 6052 2.1); its local-use sibling `64:ff9b:1::/48` reaches nobody else.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0], 96);
/// 6to4 (RFC 3056): the IPv4 address follows the first group.
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0], 16);

/// Whether mail can be sent to the address over the Internet.
pub(super) fn is_routable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_routable_v4(address),
        IpAddr::V6(address) => match embedded_v4(address) {
            Some(inner) => is_routable_v4(inner),
            None => is_routable_v6(address),
        },
    }
}

fn is_routable_v4(address: Ipv4Addr) -> bool {
    REACHABLE_V4.contains(&address) || !UNREACHABLE_V4.iter().any(|block| block.contains(&address))
}

fn is_routable_v6(address: Ipv6Addr) -> bool {
    let within = |blocks: &[Ipv6Net]| blocks.iter().any(|block| block.contains(&address));
    GLOBAL_UNICAST.contains(&address) && (within(&REACHABLE_V6) || !within(&UNREACHABLE_V6))
}

fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [_, _, a, b, c, d, .., w, x, y, z] = address.octets();
    if NAT64.contains(&address) {
        Some(Ipv4Addr::new(w, x, y, z))
    } else if SIX_TO_FOUR.contains(&address) {
        Some(Ipv4Addr::new(a, b, c, d))
    } else {
        address.to_ipv4_mapped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_purpose_addresses_are_told_from_reachable_ones() {
        let unreachable = "0.0.0.0 0.255.255.255 10.1.2.3 100.64.0.1 100.127.255.255 127.0.0.1 169.254.1.1
            172.16.0.1 172.31.255.255 192.0.0.8 192.0.0.170 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1
            198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.5 239.255.255.255 240.0.0.1 255.255.255.255
            :: ::1 ::127.0.0.1 ::ffff:10.1.2.3 64:ff9b::10.1.2.3 64:ff9b:1::9.9.9.9 100::1 2001::1 2001:2::1
            2001:20::1 2001:db8::1 2002:a01:203::1 2002:7f00:1::1 3fff::1 3fff:fff::1 4000::1 5f00::1 fc00::1
            fdff::1 fe80::1 fec0::1 ff02::1";
        let reachable = "1.1.1.1 9.9.9.9 11.0.0.1 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1 172.15.0.1
            172.32.0.1 192.0.0.9 192.0.0.10 192.0.1.1 192.31.196.1 192.167.1.1 198.17.1.1 198.20.0.1 223.255.255.255
            ::ffff:9.9.9.9 64:ff9b::9.9.9.9 2000::1 2001:3::1 2001:4:112::1 2001:200::1 2002:909:909::1
            2606:4700::1111 2620:4f:8000::1 2a00:1450::1 3ffe::1 3fff:1000::1";
        for (list, expected) in [(unreachable, false), (reachable, true)] {
            for text in list.split_whitespace() {
                assert_eq!(is_routable(text.parse().unwrap()), expected, "{text}");
            }
        }
    }
}
