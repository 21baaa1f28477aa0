//! Single items of lists: networks, domain patterns, DNS servers.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::dns;
use crate::smtp::pattern::DomainPattern;

/// An item of `relay.domains` and the like.
pub(super) fn pattern(text: &str) -> Result<DomainPattern, String> {
    DomainPattern::parse(text).map_err(|_not_a_name| {
        "is not a domain such as \"example.com\", or \".example.com\" with sub-domains".to_owned()
    })
}

/// An item of `exempt.clients` and the like.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().or_else(|_no_prefix| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_not_an_address| {
        "is not a network such as \"192.0.2.0/24\" or \"2001:db8::/32\", nor an address".to_owned()
    })?;
    if network != network.trunc() {
        return Err(format!("has bits set behind its prefix: \"{}\" is the network", network.trunc()));
    }
    Ok(network)
}

/// An item of `dns.servers`.
pub(super) fn dns_server(text: &str) -> Result<SocketAddr, String> {
    dns::parse_server(text).map_err(|error| error.to_string())
}
