//! The settings of the resolver and its cache.

use std::net::SocketAddr;
use std::time::Duration;

/// `[dns]` as the resolver and the cache need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Servers to ask, in order of preference; empty = those of the system's resolver configuration.
    pub servers: Vec<SocketAddr>,
    /// Total time for one question, retries and failover included.
    pub timeout: Duration,
    /// `[dns.cache]`.
    pub cache: CacheSettings,
}

/// `[dns.cache]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// Bound of the cache, in octets.
    pub memory: u64,
    /// Shortest time an answer is kept.
    pub min_ttl: Duration,
    /// Longest time a positive answer is kept.
    pub max_ttl: Duration,
    /// Longest time a negative answer is kept.
    pub max_negative_ttl: Duration,
    /// How long after its expiry a positive answer may still carry an accept while DNS fails.
    pub stale: Duration,
}

/// Why DNS can't be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// `dns.servers` is empty and the system names no server.
    #[error(
        "dns.servers is empty and the system's resolver configuration (/etc/resolv.conf) is of no use: {0}"
    )]
    System(String),
}
