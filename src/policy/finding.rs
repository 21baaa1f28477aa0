//! What one rule said of one identity's domain.

use compact_str::CompactString;

use crate::evidence::{DnsFailure, Evidence};
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{Rule, Rung};

/// Why a rule had nothing to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Absence {
    /// The null sender `<>`, or no Reply-To: field.
    NotGiven,
    /// The operator exempted it; DNS was not asked.
    Exempt,
    /// Only a DKIM signature may still satisfy it, which is known when the body has come.
    AwaitsBody,
}

/// The result of a rule, in the words of RFC 8601 2.7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuleResult {
    /// A rung held.
    Pass(Rung),
    /// No rung held, and DNS was clear about it.
    Fail(Reason),
    /// DNS was in trouble where it mattered.
    TempError(DnsFailure),
    /// Nothing to look at.
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

/// What one rule said of one domain of an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whose domain.
    pub identity: Identity,
    /// Which rule.
    pub rule: Rule,
    /// The domain as far as it could be read, printable; empty where there was none.
    pub domain: CompactString,
    /// The address that the domain was taken from (`a@spoof.test`), printable; equal to `domain` where there is none.
    pub subject: CompactString,
    /// The result.
    pub outcome: RuleResult,
    /// Every question that was asked for it, in the order of asking.
    pub evidence: Vec<Evidence>,
}
