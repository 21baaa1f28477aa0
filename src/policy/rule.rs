//! The parts of a policy: rules, the rungs that can satisfy them, and the actions for failures.

use std::fmt;

/// A condition for an identity's domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// The domain has a valid MX.
    Exists,
    /// The client's address is among the addresses of its MX hosts.
    Matches,
}

impl Rule {
    /// In the order of the lookups.
    pub const ALL: [Self; 2] = [Self::Exists, Self::Matches];

    /// The name in configuration and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::Matches => "matches",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One way to satisfy a rule. Those in the configuration are tried in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rung {
    /// exists: a valid MX. matches: the client's address is an address of an MX host.
    Mx,
    /// exists: no MX RRset, but a usable A/AAAA of its own (implicit MX, RFC 5321 5.1).
    Address,
    /// exists: the organisational domain (public suffix list) has a valid MX.
    Organization,
    /// matches: the client's address is in the same network as an address of an MX host.
    Network,
    /// matches: a forward-confirmed PTR name of the client lies under the same organisational domain.
    Ptr,
    /// matches: SPF (RFC 7208) for the domain gives `pass`.
    Spf,
    /// matches, for From: only: a valid DKIM signature (RFC 6376) of the same organisation.
    Dkim,
}

impl Rung {
    /// The name in configuration, logs and Authentication-Results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mx => "mx",
            Self::Address => "address",
            Self::Organization => "organization",
            Self::Network => "network",
            Self::Ptr => "ptr",
            Self::Spf => "spf",
            Self::Dkim => "dkim",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happens if a rule fails, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Not looked up.
    Off,
    /// Accepted and written into Authentication-Results.
    Tag,
    /// 4xx until the same client network retries with the same sender and recipient.
    Greylist,
    /// 4xx.
    Defer,
    /// 5xx.
    Reject,
    /// What the owner of the domain asks for (contract 3.3); for `matches` of From: only.
    Dmarc,
}

impl Action {
    /// The name in configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Tag => "tag",
            Self::Greylist => "greylist",
            Self::Defer => "defer",
            Self::Reject => "reject",
            Self::Dmarc => "dmarc",
        }
    }

    /// Whether a failure can refuse mail: neither `off` nor `tag`.
    #[must_use]
    pub fn refuses(self) -> bool {
        matches!(self, Self::Greylist | Self::Defer | Self::Reject | Self::Dmarc)
    }
}

/// The two rules of one identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRules {
    /// Action when `exists` fails.
    pub exists: Action,
    /// Action when `matches` fails.
    pub matches: Action,
    /// Rungs of `exists`, in order; of [`Rung::Mx`], [`Rung::Address`], [`Rung::Organization`].
    pub exists_by: Vec<Rung>,
    /// Rungs of `matches`, in order; of [`Rung::Mx`], [`Rung::Network`], [`Rung::Ptr`], [`Rung::Spf`], and of
    /// [`Rung::Dkim`], which is always tried last: it needs the body.
    pub matches_by: Vec<Rung>,
}

impl IdentityRules {
    /// The action of one rule.
    #[must_use]
    pub fn action(&self, rule: Rule) -> Action {
        match rule {
            Rule::Exists => self.exists,
            Rule::Matches => self.matches,
        }
    }

    /// The rules that aren't off, in their order.
    pub fn active(&self) -> impl Iterator<Item = Rule> + use<> {
        let rules = Rule::ALL.map(|rule| (rule, self.action(rule) != Action::Off));
        rules.into_iter().filter(|(_, active)| *active).map(|(rule, _)| rule)
    }

    /// Whether any rule of this identity isn't off.
    #[must_use]
    pub fn looks(&self) -> bool {
        self.exists != Action::Off || self.matches != Action::Off
    }

    /// Whether any rule of this identity can refuse mail.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.exists.refuses() || self.matches.refuses()
    }
}

/// Whether refusals are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Refusals are sent to the client.
    Enforce,
    /// Everything is computed, logged and tagged; nothing is refused.
    Monitor,
}

impl Mode {
    /// The name in configuration and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Monitor => "monitor",
        }
    }
}

/// The command whose reply has the verdict on the envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectAt {
    /// At each RCPT TO: the log knows the recipient, and recipients can be exempt.
    Rcpt,
    /// At MAIL FROM.
    Mail,
}

/// What happens after a DNS failure, if the rule's action refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnDnsError {
    /// 451 4.4.3.
    Defer,
    /// As if the rule had passed.
    Accept,
}
