//! Clients, sender domains and recipients that are let through without any lookup.
//!
//! What is listed in the configuration and what is listed in files is one set of networks and one of domains.

mod domains;
mod networks;

use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;

pub use crate::exempt::domains::Domains;
pub use crate::exempt::networks::Networks;
use crate::smtp::address::{DomainName, ForwardPath};

/// `[exempt]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exemptions {
    /// Client networks: nothing is looked up for their connections.
    pub clients: Arc<Networks>,
    /// Sender domains. As MAIL FROM one exempts the envelope (helo, ptr, mail_from); in From: and Reply-To: each
    /// exempts itself only, so that a forged MAIL FROM opens no way around the check of the visible sender.
    pub domains: Arc<Domains>,
    /// Recipients: a local part for any domain (`postmaster`), or a whole address.
    pub recipients: Vec<CompactString>,
}

impl Exemptions {
    /// Whether a client (canonical address) is exempt.
    #[must_use]
    pub fn client(&self, address: IpAddr) -> bool {
        self.clients.contains(address)
    }

    /// Whether a sender domain is exempt.
    #[must_use]
    pub fn domain(&self, name: &DomainName) -> bool {
        self.domains.cover(name)
    }

    /// Whether a recipient is exempt; case doesn't matter.
    #[must_use]
    pub fn recipient(&self, path: &ForwardPath) -> bool {
        self.recipients.iter().any(|entry| {
            if entry.contains('@') {
                path.to_string().eq_ignore_ascii_case(entry)
            } else {
                path.local().eq_ignore_ascii_case(entry)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;
    use crate::smtp::pattern::DomainPattern;

    #[test]
    fn entries_cover_what_they_say() {
        let networks = ["192.0.2.0/24", "2001:db8::/32"].map(|text| text.parse::<IpNet>().unwrap());
        let exempt = Exemptions {
            clients: Arc::new(networks.into_iter().collect()),
            domains: Arc::new([DomainPattern::parse(".partner.example").unwrap()].into_iter().collect()),
            recipients: vec!["postmaster".into(), "help@here.test".into()],
        };
        assert!(exempt.client("192.0.2.7".parse().unwrap()) && !exempt.client("192.0.3.7".parse().unwrap()));
        assert!(exempt.client("2001:db8::1".parse().unwrap()));
        assert!(exempt.domain(&DomainName::parse("mail.partner.example").unwrap()));
        let rows = [
            ("Postmaster", true),
            ("POSTMASTER@any.test", true),
            ("help@here.test", true),
            ("help@there.test", false),
            ("postmaster2@here.test", false),
        ];
        for (path, expected) in rows {
            assert_eq!(exempt.recipient(&ForwardPath::parse(path).unwrap()), expected, "{path}");
        }
    }
}
