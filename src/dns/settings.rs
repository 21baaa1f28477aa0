//! The settings of the resolver and its cache.

use std::net::SocketAddr;
use std::time::Duration;

/// `[dns]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// In order of preference; empty = those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// For one question, retries and failover included.
    pub timeout: Duration,
    /// `[dns.cache]`.
    pub cache: CacheSettings,
}

/// `[dns.cache]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// Octets.
    pub memory: u64,
    pub min_ttl: Duration,
    pub max_ttl: Duration,
    pub max_negative_ttl: Duration,
    /// How long after its expiry a positive answer may still carry an accept while DNS fails.
    pub stale: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    #[error(
        "dns.servers is empty and the system's resolver configuration (/etc/resolv.conf) is of no use: {0}"
    )]
    System(String),
}
