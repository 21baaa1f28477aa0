//! Single items of lists: DNS servers. Those of exemptions are in [`crate::exempt::entry`].

use std::net::SocketAddr;

use crate::dns;

/// An item of `dns.servers`.
pub(super) fn dns_server(text: &str) -> Result<SocketAddr, String> {
    dns::parse_server(text).map_err(|error| error.to_string())
}
