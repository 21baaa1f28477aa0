//! Findings that need no lookup: the same result for each rule of an identity.

use crate::evidence::DnsFailure;
use crate::policy::finding::{Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::operator::InForce;
use crate::policy::rule::Rule;

/// A lookup that was not done in time.
pub(super) fn timed_out(rules: InForce<'_>, identity: Identity, subject: &str, domain: &str) -> Vec<Finding> {
    for_each_rule(rules, identity, subject, domain, RuleResult::TempError(DnsFailure::Timeout))
}

/// The same result for each rule that is not off.
pub(super) fn for_each_rule(
    rules: InForce<'_>,
    identity: Identity,
    subject: &str,
    domain: &str,
    result: RuleResult,
) -> Vec<Finding> {
    rules.rules.active().map(|rule| finding(rules, rule, identity, subject, domain, result)).collect()
}

/// A result without evidence.
pub(super) fn finding(
    rules: InForce<'_>,
    rule: Rule,
    identity: Identity,
    subject: &str,
    domain: &str,
    result: RuleResult,
) -> Finding {
    Finding {
        action: rules.rules.action(rule),
        entry: rules.entry.cloned(),
        ..Finding::new(identity, rule, domain, subject, result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rule::{Action, IdentityRules, Rung};

    /// Without these findings a lookup that died would let everything pass.
    #[test]
    fn a_lookup_that_is_not_done_is_trouble_for_each_rule_that_is_not_off() {
        let rules = |exists, matches| {
            let (exists_by, matches_by) = (vec![Rung::Mx], vec![Rung::Mx]);
            IdentityRules { exists, matches, exists_by, matches_by }
        };
        let rows = [
            (rules(Action::Reject, Action::Tag), vec![Rule::Exists, Rule::Matches]),
            (rules(Action::Off, Action::Greylist), vec![Rule::Matches]),
            (rules(Action::Defer, Action::Off), vec![Rule::Exists]),
            (rules(Action::Off, Action::Off), vec![]),
        ];
        for (rules, expected) in rows {
            let findings =
                timed_out(InForce { rules: &rules, entry: None }, Identity::MailFrom, "a@d.test", "d.test");
            let seen: Vec<_> = findings.iter().map(|finding| finding.rule).collect();
            assert_eq!(seen, expected);
            for found in findings {
                assert_eq!(found.outcome, RuleResult::TempError(DnsFailure::Timeout));
                assert_eq!((found.identity, found.subject.as_str()), (Identity::MailFrom, "a@d.test"));
            }
        }
    }
}
