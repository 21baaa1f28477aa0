//! A set of networks, for up to a million entries: sorted disjoint ranges with binary search.
//!
//! An IPv4 network takes eight octets, an IPv6 network 32, and adjacent networks are merged. A trie (prefix-trie 0.8), measured
//! with a million networks, took four times as long for a lookup and four times the memory. Its longest-prefix match isn't
//! needed here.

use std::net::IpAddr;

use ipnet::IpNet;

/// Bits in front of an IPv4-mapped address (RFC 4291 2.5.5.2).
const MAPPED: u8 = 96;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl Networks {
    /// Whether an address is in one of them. The address must be canonical: IPv4, not IPv4-mapped.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contain(address.to_bits()),
            IpAddr::V6(address) => self.v6.contain(address.to_bits()),
        }
    }
}

impl FromIterator<IpNet> for Networks {
    /// An IPv4-mapped network becomes its IPv4 network.
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match (network.network().to_canonical(), network.broadcast().to_canonical()) {
                (IpAddr::V4(first), IpAddr::V4(last)) if is_v4(network) => {
                    v4.push((first.to_bits(), last.to_bits()));
                }
                _ => {
                    if let IpNet::V6(network) = network {
                        v6.push((network.network().to_bits(), network.broadcast().to_bits()));
                    }
                }
            }
        }
        let next_v4 = |address: u32| address.checked_add(1);
        let next_v6 = |address: u128| address.checked_add(1);
        Self { v4: Ranges::new(v4, next_v4), v6: Ranges::new(v6, next_v6) }
    }
}

/// `::/0` and `::ffff:0:0/95` contain mapped addresses and others, so they aren't IPv4 networks.
fn is_v4(network: IpNet) -> bool {
    match network {
        IpNet::V4(_) => true,
        IpNet::V6(network) => network.prefix_len() >= MAPPED,
    }
}

/// Sorted ranges from a first to a last value. The first values are stored apart, so that a search reads few cache lines.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ranges<T> {
    firsts: Box<[T]>,
    lasts: Box<[T]>,
}

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self { firsts: Box::default(), lasts: Box::default() }
    }
}

impl<T: Copy + Ord> Ranges<T> {
    /// Overlapping and adjacent ranges are merged.
    fn new(mut ranges: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(T, T)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if next(*end).is_none_or(|next| first <= next) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self {
            firsts: merged.iter().map(|(first, _)| *first).collect(),
            lasts: merged.iter().map(|(_, last)| *last).collect(),
        }
    }

    fn contain(&self, value: T) -> bool {
        let count = self.firsts.partition_point(|first| *first <= value);
        let last = count.checked_sub(1).and_then(|at| self.lasts.get(at));
        last.is_some_and(|last| value <= *last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        texts.iter().map(|text| text.parse::<IpNet>().unwrap()).collect()
    }

    #[test]
    fn an_address_is_in_a_network_from_its_first_to_its_last() {
        let set =
            networks(&["192.0.2.0/24", "0.0.0.0/32", "255.255.255.255/32", "2001:db8::/32", "ffff::/16"]);
        let rows = [
            ("192.0.1.255", false),
            ("192.0.2.0", true),
            ("192.0.2.255", true),
            ("192.0.3.0", false),
            ("0.0.0.0", true),
            ("0.0.0.1", false),
            ("255.255.255.254", false),
            ("255.255.255.255", true),
            ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", false),
            ("2001:db8::", true),
            ("2001:db9::", false),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("::", false),
        ];
        for (address, expected) in rows {
            assert_eq!(set.contains(address.parse().unwrap()), expected, "{address}");
        }
        assert!(!Networks::default().contains("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn a_network_of_a_whole_family_has_no_address_of_the_other() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let rows = [
            ("0.0.0.0/0", true, false),
            ("::/0", false, true),
            ("::ffff:0:0/96", true, false),
            ("::ffff:192.0.2.0/120", true, false),
            ("::fffe:0:0/95", false, false),
        ];
        for (network, v4, v6) in rows {
            let set = networks(&[network]);
            let found = (set.contains(address("192.0.2.1")), set.contains(address("2001:db8::1")));
            assert_eq!(found, (v4, v6), "{network}");
        }
    }

    #[test]
    fn adjacent_networks_are_merged_and_duplicates_are_dropped() {
        let merged = networks(&["10.0.1.0/24", "10.0.0.0/24", "10.0.0.7/32", "10.0.0.0/24", "10.0.2.0/23"]);
        assert_eq!(merged.v4.firsts.len(), 1);
        assert_eq!(merged.v4, networks(&["10.0.0.0/22"]).v4);
    }

    fn network() -> impl Strategy<Value = IpNet> {
        // Few distinct addresses, so that networks are often adjacent or overlap.
        let v4 = (0_u32..=0xffff, 16_u8..=32).prop_map(|(low, prefix)| {
            IpNet::new(IpAddr::V4((0x0a00_0000 | low).into()), prefix).unwrap().trunc()
        });
        let v6 = (0_u128..=0xffff, 112_u8..=128).prop_map(|(low, prefix)| {
            IpNet::new(IpAddr::V6((0x2001_0db8_u128 << 96 | low).into()), prefix).unwrap().trunc()
        });
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn it_contains_an_address_exactly_if_one_of_its_networks_does(
            list in prop::collection::vec(network(), 0..40),
            low in 0_u32..=0xffff,
        ) {
            let set: Networks = list.iter().copied().collect();
            for address in [
                IpAddr::V4((0x0a00_0000 | low).into()),
                IpAddr::V6((0x2001_0db8_u128 << 96 | u128::from(low)).into()),
            ] {
                prop_assert_eq!(set.contains(address), list.iter().any(|network| network.contains(&address)));
            }
        }
    }
}
