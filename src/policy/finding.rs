//! A finding: the result of one rule for one domain of an identity.

use compact_str::CompactString;

use crate::evidence::{DnsFailure, Evidence};
use crate::policy::authentication::Authentication;
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Rule, Rung};
use crate::policy::senders::Entry;

/// Why a rule has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Absence {
    /// The null sender `<>`, or no Reply-To: field.
    NotGiven,
    /// The domain is exempt; it wasn't looked up.
    Exempt,
    /// Only a DKIM signature can still satisfy the rule, which needs the body.
    AwaitsBody,
}

/// The result of a rule, in the words of RFC 8601 2.7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuleResult {
    /// A rung held.
    Pass(Rung),
    /// No rung held, and no DNS failure was involved.
    Fail(Reason),
    /// A DNS failure left the result open.
    TempError(DnsFailure),
    /// The rule has no result.
    None(Absence),
}

impl RuleResult {
    /// `pass`, `fail`, `temperror` or `none`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass(_) => "pass",
            Self::Fail(_) => "fail",
            Self::TempError(_) => "temperror",
            Self::None(_) => "none",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub identity: Identity,
    pub rule: Rule,
    /// The domain as far as it could be parsed, printable; empty if there is none.
    pub domain: CompactString,
    /// The address of the domain (`a@spoof.test`), printable; equal to `domain` if there is no address.
    pub subject: CompactString,
    pub outcome: RuleResult,
    /// What a failure leads to: the operator's action; for [`Action::Dmarc`] what follows from the owner's request, once it
    /// is known.
    pub action: Action,
    /// The entry of `policy.senders` that the rule comes from.
    pub entry: Option<Entry>,
    /// What SPF, DKIM and DMARC came to, where the rule needed them.
    pub authentication: Option<Box<Authentication>>,
    /// The DNS questions of this finding with their answers, in order.
    pub evidence: Vec<Evidence>,
}

impl Finding {
    /// A result without evidence, whose failure leads to nothing.
    #[must_use]
    pub fn new(identity: Identity, rule: Rule, domain: &str, subject: &str, outcome: RuleResult) -> Self {
        Self {
            identity,
            rule,
            domain: CompactString::new(domain),
            subject: CompactString::new(subject),
            outcome,
            action: Action::Off,
            entry: None,
            authentication: None,
            evidence: Vec::new(),
        }
    }

    /// The results of SPF, DKIM and DMARC, to be added to.
    pub fn authentication_mut(&mut self) -> &mut Authentication {
        self.authentication.get_or_insert_default()
    }
}
