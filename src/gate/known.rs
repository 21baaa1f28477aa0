//! Findings that need no lookup: the same result for each rule of an identity.

use compact_str::CompactString;

use crate::evidence::DnsFailure;
use crate::policy::finding::{Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::rule::{IdentityRules, Rule};

/// A lookup that was not done in time.
pub(super) fn timed_out(
    rules: &IdentityRules,
    identity: Identity,
    subject: &str,
    domain: &str,
) -> Vec<Finding> {
    for_each_rule(rules, identity, subject, domain, RuleResult::TempError(DnsFailure::Timeout))
}

/// The same result for each rule that is not off.
pub(super) fn for_each_rule(
    rules: &IdentityRules,
    identity: Identity,
    subject: &str,
    domain: &str,
    result: RuleResult,
) -> Vec<Finding> {
    rules.active().map(|rule| finding(rule, identity, subject, domain, result)).collect()
}

/// A result without evidence.
pub(super) fn finding(
    rule: Rule,
    identity: Identity,
    subject: &str,
    domain: &str,
    result: RuleResult,
) -> Finding {
    Finding {
        identity,
        rule,
        domain: CompactString::new(domain),
        subject: CompactString::new(subject),
        outcome: result,
        evidence: Vec::new(),
    }
}
