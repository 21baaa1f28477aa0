//! Who is let through without any look-up.

use std::net::IpAddr;

use compact_str::CompactString;
use ipnet::IpNet;

use crate::smtp::address::{DomainName, ForwardPath};
use crate::smtp::pattern::DomainPattern;

/// `[exempt]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exemptions {
    /// Client networks: nothing is looked up for their connections.
    pub clients: Vec<IpNet>,
    /// Sender domains. As MAIL FROM one exempts the envelope (helo, ptr, mail_from); in From: and Reply-To: each
    /// exempts itself only, so that a forged MAIL FROM opens no way around the check of the visible sender.
    pub domains: Vec<DomainPattern>,
    /// Recipients: a local part for any domain (`postmaster`), or a whole address.
    pub recipients: Vec<CompactString>,
}

impl Exemptions {
    /// Whether a client (canonical address) is exempt.
    #[must_use]
    pub fn client(&self, address: IpAddr) -> bool {
        self.clients.iter().any(|network| network.contains(&address))
    }

    /// Whether a sender domain is exempt.
    #[must_use]
    pub fn domain(&self, name: &DomainName) -> bool {
        self.domains.iter().any(|pattern| pattern.covers(name))
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
    use super::*;

    #[test]
    fn entries_cover_what_they_say() {
        let exempt = Exemptions {
            clients: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            domains: vec![DomainPattern::parse(".partner.example").unwrap()],
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
