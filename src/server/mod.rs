//! Listeners, permits, drain.

use std::net::SocketAddr;
use std::time::Duration;

/// What the listeners need of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Connections at one time.
    pub connections: usize,
    /// Connections of one client at one time: an IPv4 address, an IPv6 /64.
    pub connections_per_client: usize,
    /// How long open connections may go on after SIGTERM.
    pub drain: Duration,
}
