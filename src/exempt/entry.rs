//! Entries of exemptions as operators write them: a network, a domain, a recipient.

use std::net::IpAddr;

use compact_str::CompactString;
use ipnet::IpNet;

use crate::smtp::address::Mailbox;
use crate::smtp::pattern::DomainPattern;

/// A network, or an address, which is the network of this address alone.
///
/// # Errors
/// What is wrong, to be read behind the quoted text.
pub fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().or_else(|_no_prefix| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_not_an_address| {
        "is not a network such as \"192.0.2.0/24\" or \"2001:db8::/32\", nor an address".to_owned()
    })?;
    if network != network.trunc() {
        return Err(format!("has bits set behind its prefix: \"{}\" is the network", network.trunc()));
    }
    Ok(network)
}

/// A domain, with a leading dot also the names below.
///
/// # Errors
/// As [`network`].
pub fn pattern(text: &str) -> Result<DomainPattern, String> {
    DomainPattern::parse(text).map_err(|_not_a_name| {
        "is not a domain such as \"example.com\", or \".example.com\" with sub-domains".to_owned()
    })
}

/// A local part for any domain, or an address.
///
/// # Errors
/// As [`network`].
pub fn recipient(text: &str) -> Result<CompactString, String> {
    let read = if text.contains('@') {
        Mailbox::parse(text).map(|mailbox| CompactString::from(mailbox.to_string()))
    } else {
        Mailbox::parse(&format!("{text}@local")).map(|_| CompactString::from(text))
    };
    read.map_err(|_syntax| "is neither a local part such as \"postmaster\" nor an address".to_owned())
}
