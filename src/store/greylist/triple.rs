//! Client network, sender domain and recipient as one key of 16 octets.
//!
//! Only a keyed hash is stored. Entries are small for all addresses, a sender can't make two triples collide, and the
//! file doesn't reveal who writes to whom.

use std::net::IpAddr;

use compact_str::ToCompactString;
use ipnet::IpNet;
use ring::hmac;

use crate::smtp::address::ForwardPath;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Triple {
    pub(super) key: Key,
    /// A hash of the client's network, for the share of the network.
    pub(super) network: u32,
    /// The key under which the other nodes of a fleet know it.
    pub(super) shared: Option<Key>,
}

/// The hash of a triple.
pub(super) type Key = [u8; 16];

/// Hashes triples, always in the same way for one secret.
#[derive(Debug)]
pub(super) struct Hasher(hmac::Key);

impl Hasher {
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// `domain` is that of the sender, empty for the null sender. Case is ignored, even in the local part, where RFC 5321
    /// 2.4 allows it to matter: a sender that changes it between two attempts doesn't have to wait again.
    pub(super) fn triple(&self, network: IpNet, domain: &str, recipient: &ForwardPath) -> Triple {
        let mut context = hmac::Context::with_key(&self.0);
        match network.network() {
            IpAddr::V4(address) => context.update(&address.octets()),
            IpAddr::V6(address) => context.update(&address.octets()),
        }
        context.update(&[network.prefix_len()]);
        let of_network = first(context.clone().sign().as_ref());
        let domain_of_recipient =
            recipient.domain().map(ToCompactString::to_compact_string).unwrap_or_default();
        for text in [domain, recipient.local(), &domain_of_recipient] {
            // The length goes first, so that different triples never give the same octets.
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.to_ascii_lowercase().as_bytes());
        }
        Triple { key: first(context.sign().as_ref()), network: u32::from_be_bytes(of_network), shared: None }
    }
}

/// The first octets of a hash.
fn first<const N: usize>(hash: &[u8]) -> [u8; N] {
    hash.first_chunk().copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_triples_have_the_same_key() {
        let hasher = Hasher::new(&[7; 32]);
        let triple = |network: &str, domain: &str, recipient: &str| {
            hasher.triple(network.parse().unwrap(), domain, &ForwardPath::parse(recipient).unwrap())
        };
        let first = triple("192.0.2.0/24", "a.test", "user@here.test");
        assert_eq!(first, triple("192.0.2.0/24", "A.test", "User@HERE.test"));
        let others = [
            triple("192.0.3.0/24", "a.test", "user@here.test"),
            triple("192.0.2.0/25", "a.test", "user@here.test"),
            triple("2001:db8::/64", "a.test", "user@here.test"),
            triple("192.0.2.0/24", "b.test", "user@here.test"),
            triple("192.0.2.0/24", "", "user@here.test"),
            triple("192.0.2.0/24", "a.test", "user@there.test"),
            triple("192.0.2.0/24", "a.test", "users@here.test"),
            triple("192.0.2.0/24", "a.testu", "ser@here.test"),
            triple("192.0.2.0/24", "a.test", "postmaster"),
        ];
        for (at, other) in others.iter().enumerate() {
            assert_ne!(other.key, first.key, "{at}");
            assert!(others.iter().filter(|another| another.key == other.key).count() == 1, "{at}");
            assert_eq!(other.network == first.network, at > 2, "{at}");
        }
        let other = Hasher::new(&[8; 32]);
        let same = ForwardPath::parse("user@here.test").unwrap();
        assert_ne!(other.triple("192.0.2.0/24".parse().unwrap(), "a.test", &same).key, first.key);
    }
}
