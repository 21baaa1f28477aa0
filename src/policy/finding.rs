//! A finding: the result of one rule for one domain of an identity.

use compact_str::CompactString;

use crate::evidence::{DnsFailure, Evidence};
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{Rule, Rung};

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
    /// The DNS questions of this finding with their answers, in order.
    pub evidence: Vec<Evidence>,
}
