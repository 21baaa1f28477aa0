//! Findings counted by identity, rule, result, reason and action: what each rule says of the mail that comes.

use std::sync::atomic::AtomicU64;

use crate::metrics::labels::{add, read, zeros};
use crate::policy::finding::{Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Rule};

const ACTIONS: [Action; 6] =
    [Action::Off, Action::Tag, Action::Greylist, Action::Defer, Action::Reject, Action::Dmarc];
/// `pass`, `temperror` and `none`, then `fail` with each reason.
const RESULTS: usize = 3 + Reason::ALL.len();

#[derive(Debug)]
pub(super) struct Findings(Box<[AtomicU64]>);

impl Default for Findings {
    fn default() -> Self {
        Self(zeros(Identity::ALL.len() * Rule::ALL.len() * ACTIONS.len() * RESULTS))
    }
}

impl Findings {
    pub(super) fn add(&self, finding: &Finding) {
        let result = match finding.outcome {
            RuleResult::Pass(_) => 0,
            RuleResult::TempError(_) => 1,
            RuleResult::None(_) => 2,
            RuleResult::Fail(reason) => 3 + reason as usize,
        };
        let rule = finding.identity as usize * Rule::ALL.len() + finding.rule as usize;
        add(&self.0, (rule * ACTIONS.len() + finding.action as usize) * RESULTS + result);
    }

    /// Identity, rule, result, reason and action of those that happened, with their counts.
    pub(super) fn each(&self) -> impl Iterator<Item = ([&'static str; 5], u64)> {
        let results = [("pass", NONE), ("temperror", NONE), ("none", NONE)];
        let fails = Reason::ALL.into_iter().map(|reason| ("fail", reason.name()));
        let results: Vec<_> = results.into_iter().chain(fails).collect();
        let actions = move |identity: Identity, rule: Rule| {
            let results = results.clone();
            ACTIONS.into_iter().flat_map(move |action| {
                let labels =
                    move |(result, reason)| [identity.name(), rule.name(), result, reason, action.name()];
                results.clone().into_iter().map(labels)
            })
        };
        let rules = Identity::ALL.into_iter().flat_map(|identity| Rule::ALL.map(|rule| (identity, rule)));
        let labels = rules.flat_map(move |(identity, rule)| actions(identity, rule));
        labels.zip(self.0.iter().map(read)).filter(|(_, count)| *count > 0)
    }
}

/// For a label without a value.
pub(super) const NONE: &str = "none";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::DnsFailure;
    use crate::policy::finding::Absence;
    use crate::policy::rule::Rung;

    #[test]
    fn each_combination_is_counted_by_itself() {
        let findings = Findings::default();
        let mut expected = Vec::new();
        for identity in Identity::ALL {
            for rule in Rule::ALL {
                for action in ACTIONS {
                    let fails = Reason::ALL.into_iter().map(RuleResult::Fail);
                    let others = [
                        RuleResult::Pass(Rung::Mx),
                        RuleResult::TempError(DnsFailure::Timeout),
                        RuleResult::None(Absence::Exempt),
                    ];
                    for outcome in fails.chain(others) {
                        findings.add(&Finding { action, ..Finding::new(identity, rule, "", "", outcome) });
                        let reason = match outcome {
                            RuleResult::Fail(reason) => reason.name(),
                            _ => NONE,
                        };
                        let result = outcome.word();
                        expected.push(([identity.name(), rule.name(), result, reason, action.name()], 1));
                    }
                }
            }
        }
        let mut found: Vec<_> = findings.each().collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
}
