//! Exempt? Gather findings, decide, log: the verdict on a transaction.

use compact_str::CompactString;
use ipnet::IpNet;

use crate::policy::rule::Policy;
use crate::smtp::pattern::DomainPattern;

/// Who is let through without any look-up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exemptions {
    /// Client networks.
    pub clients: Vec<IpNet>,
    /// Sender domains.
    pub domains: Vec<DomainPattern>,
    /// Recipients: a local part for any domain (`postmaster`), or a whole address.
    pub recipients: Vec<CompactString>,
}

/// What the gate decides by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The rules.
    pub policy: Policy,
    /// The exceptions.
    pub exempt: Exemptions,
    /// `reply.help_url`; empty = none.
    pub help_url: String,
}
