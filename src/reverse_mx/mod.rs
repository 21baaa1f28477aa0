//! The heart: from a domain to its exchangers, and whether the rules hold.

/// Whether special-purpose addresses count as ones that mail can be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrivateAddresses {
    /// They don't.
    Reject,
    /// They do (test networks).
    Accept,
}

/// What the look-ups need of `[policy]` and `[dns]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How many MX hosts are looked at, by preference.
    pub max_mx_hosts: usize,
    /// `dns.private_addresses`.
    pub private_addresses: PrivateAddresses,
    /// Prefix length of [`crate::policy::rule::Rung::Network`] for IPv4, 0 to 32.
    pub match_prefix_v4: u8,
    /// The same for IPv6, 0 to 128.
    pub match_prefix_v6: u8,
}
