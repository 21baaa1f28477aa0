//! Exempt clients, sender domains and recipients: their mail passes without any lookup.
//!
//! The entries of the configuration and of all files form one set of networks and one set of domains. The permits that an
//! operator gives at run time are a set of their own.

mod domains;
pub mod entry;
mod networks;
pub mod permits;

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
    /// Sender domains. A listed MAIL FROM domain exempts the envelope (helo, ptr, mail_from). In From: and Reply-To: each
    /// exempts itself only, so that a forged MAIL FROM can't bypass the check of the visible sender.
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
    fn entries_cover_clients_domains_and_recipients() {
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
