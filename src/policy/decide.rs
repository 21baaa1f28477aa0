//! Findings to a verdict (contract 3.2): the one place that decides.
//!
//! Reject before defer before greylist; identities in their order. A `temperror` where the action refuses is
//! `policy.on_dns_error`. Who came before is not known here: the gate asks that of the greylist, where nothing stronger
//! refuses.

use std::time::Duration;

use compact_str::CompactString;

use crate::policy::finding::{Finding, RuleResult};
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Mode, OnDnsError, Policy};

/// What is done with a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The message goes to the next hop.
    Accept,
    /// 4xx.
    Defer,
    /// 5xx.
    Reject,
}

impl Verdict {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Accept, Self::Defer, Self::Reject];

    /// The word in logs, metrics and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Defer => "defer",
            Self::Reject => "reject",
        }
    }
}

/// What refused, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Why; [`Reason::DnsError`] for a temperror, [`Reason::Greylisted`] where that is the action.
    pub reason: Reason,
    /// The action that took effect: [`Action::Greylist`], [`Action::Defer`] or [`Action::Reject`].
    pub action: Action,
    /// Greylisted: when the client may come again, as far as that is known.
    pub wait: Option<Duration>,
    /// The place of the finding that refused, among those that were judged. `None`: no rule refused, so that there is
    /// neither an identity nor an exemption.
    pub finding: Option<usize>,
    /// What the reply names: the finding's subject, or what no rule is needed to refuse.
    pub subject: CompactString,
}

impl Cause {
    /// A refusal that no rule made.
    #[must_use]
    pub fn without_rule(reason: Reason, subject: impl Into<CompactString>) -> Self {
        let action = if reason.is_temporary() { Action::Defer } else { Action::Reject };
        Self { reason, action, wait: None, finding: None, subject: subject.into() }
    }

    /// The finding that refused, among those that the decision was made of.
    #[must_use]
    pub fn finding_of<'f>(&self, findings: &'f [Finding]) -> Option<&'f Finding> {
        findings.get(self.finding?)
    }
}

/// A verdict with what decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What the policy says of these findings, whatever the mode.
    pub verdict: Verdict,
    /// What refused; `None` exactly when the verdict is accept.
    pub cause: Option<Cause>,
    /// Whether it is carried out.
    pub mode: Mode,
}

impl Decision {
    /// Whether the client is refused: the verdict says so and the mode carries it out.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.mode == Mode::Enforce && self.verdict != Verdict::Accept
    }

    /// Whether it is greylisting that stands in the way, and nothing else.
    #[must_use]
    pub fn greylists(&self) -> bool {
        self.cause.as_ref().is_some_and(|cause| cause.action == Action::Greylist)
    }

    /// The same, with what the greylist says: `None` = the client has come again in time.
    #[must_use]
    pub fn with_wait(self, wait: Option<Duration>) -> Self {
        match (self.greylists(), wait) {
            (false, _) => self,
            (true, Some(_)) => Self { cause: self.cause.map(|cause| Cause { wait, ..cause }), ..self },
            (true, None) => Self { verdict: Verdict::Accept, cause: None, ..self },
        }
    }
}

/// The decision on a transaction that the operator exempted: nothing was looked up, nothing can refuse it.
#[must_use]
pub fn exempt() -> Decision {
    Decision { verdict: Verdict::Accept, cause: None, mode: Mode::Enforce }
}

/// A refusal for which no policy is asked, in every mode and for exempt clients too.
#[must_use]
pub fn always_refused(reason: Reason, subject: impl Into<CompactString>) -> Decision {
    let verdict = if reason.is_temporary() { Verdict::Defer } else { Verdict::Reject };
    Decision { verdict, cause: Some(Cause::without_rule(reason, subject)), mode: Mode::Enforce }
}

/// Judges findings by the policy.
#[must_use]
pub fn decide(policy: &Policy, findings: &[Finding]) -> Decision {
    decide_by(policy, findings, |_finding| true)
}

/// The same by those findings that count here; the others are tags.
#[must_use]
pub fn decide_by(policy: &Policy, findings: &[Finding], counts: impl Fn(&Finding) -> bool) -> Decision {
    let strongest = findings
        .iter()
        .enumerate()
        .filter(|(_, finding)| counts(finding))
        .filter_map(|(at, finding)| {
            consequence(policy, finding).map(|(action, reason)| (action, reason, at, finding))
        })
        .min_by_key(|(action, _, _, finding)| (std::cmp::Reverse(*action), finding.identity, finding.rule));
    let verdict = match strongest {
        None => Verdict::Accept,
        Some((Action::Reject, ..)) => Verdict::Reject,
        Some((Action::Off | Action::Tag | Action::Greylist | Action::Defer, ..)) => Verdict::Defer,
    };
    let cause = strongest.map(|(action, reason, at, finding)| Cause {
        reason,
        action,
        wait: None,
        finding: Some(at),
        subject: finding.subject.clone(),
    });
    Decision { verdict, cause, mode: policy.mode }
}

/// What one finding leads to; `None` when it refuses nothing.
fn consequence(policy: &Policy, finding: &Finding) -> Option<(Action, Reason)> {
    let action = policy.rules(finding.identity).action(finding.rule);
    match finding.outcome {
        RuleResult::Pass(_) | RuleResult::None(_) => None,
        RuleResult::Fail(Reason::MalformedHeader) => Some((policy.malformed, Reason::MalformedHeader)),
        RuleResult::Fail(_) if action == Action::Greylist => Some((action, Reason::Greylisted)),
        RuleResult::Fail(reason) => Some((action, reason)),
        RuleResult::TempError(_) => match policy.on_dns_error {
            OnDnsError::Defer if action.refuses() => Some((Action::Defer, Reason::DnsError)),
            OnDnsError::Defer | OnDnsError::Accept => None,
        },
    }
    .filter(|(action, _)| action.refuses())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::DnsFailure;
    use crate::policy::finding::Absence;
    use crate::policy::identity::Identity;
    use crate::policy::rule::{IdentityRules, RejectAt, Rule, Rung};

    fn rules(exists: Action, matches: Action) -> IdentityRules {
        IdentityRules { exists, matches, exists_by: vec![Rung::Mx], matches_by: vec![Rung::Mx] }
    }

    fn policy() -> Policy {
        Policy {
            mode: Mode::Enforce,
            reject_at: RejectAt::Rcpt,
            on_dns_error: OnDnsError::Defer,
            malformed: Action::Reject,
            helo: rules(Action::Tag, Action::Tag),
            ptr: rules(Action::Defer, Action::Off),
            mail_from: rules(Action::Reject, Action::Reject),
            from: rules(Action::Reject, Action::Off),
            reply_to: rules(Action::Reject, Action::Off),
        }
    }

    fn finding(identity: Identity, rule: Rule, outcome: RuleResult) -> Finding {
        Finding {
            identity,
            rule,
            domain: "d.test".into(),
            subject: "d.test".into(),
            outcome,
            evidence: Vec::new(),
        }
    }

    #[test]
    fn reject_goes_before_defer_and_identities_keep_their_order() {
        use Identity::{From, Helo, MailFrom, Ptr, ReplyTo};
        let fail = |identity| finding(identity, Rule::Exists, RuleResult::Fail(Reason::NoMx));
        let rows = [
            (vec![], Verdict::Accept, None),
            (vec![fail(Helo)], Verdict::Accept, None),
            (vec![fail(Ptr)], Verdict::Defer, Some(Ptr)),
            (vec![fail(Ptr), fail(ReplyTo), fail(From)], Verdict::Reject, Some(From)),
            (vec![fail(ReplyTo), fail(MailFrom)], Verdict::Reject, Some(MailFrom)),
            (vec![finding(From, Rule::Exists, RuleResult::Pass(Rung::Mx))], Verdict::Accept, None),
            (vec![finding(From, Rule::Exists, RuleResult::None(Absence::NotGiven))], Verdict::Accept, None),
        ];
        for (findings, verdict, identity) in rows {
            let decision = decide(&policy(), &findings);
            let cause = decision.cause.as_ref().map(|cause| cause.finding_of(&findings).unwrap().identity);
            assert_eq!((decision.verdict, cause), (verdict, identity));
            assert_eq!(decision.refuses(), verdict != Verdict::Accept);
        }
    }

    #[test]
    fn greylisting_comes_after_all_that_refuses_and_can_be_passed() {
        use Identity::{From, Helo, MailFrom, Ptr};
        let policy = Policy { helo: rules(Action::Greylist, Action::Off), ..policy() };
        let policy = Policy { mail_from: rules(Action::Reject, Action::Greylist), ..policy };
        let fail = |identity| finding(identity, Rule::Exists, RuleResult::Fail(Reason::NoMx));
        let matches = finding(MailFrom, Rule::Matches, RuleResult::Fail(Reason::NotAnExchanger));
        let rows = [
            (vec![matches.clone(), fail(Helo)], Verdict::Defer, Helo, Reason::Greylisted),
            (vec![matches.clone()], Verdict::Defer, MailFrom, Reason::Greylisted),
            (vec![fail(Helo), matches.clone(), fail(Ptr)], Verdict::Defer, Ptr, Reason::NoMx),
            (vec![fail(Helo), matches, fail(Ptr), fail(From)], Verdict::Reject, From, Reason::NoMx),
        ];
        for (findings, verdict, identity, reason) in rows {
            let decision = decide(&policy, &findings);
            let cause = decision.cause.clone().unwrap();
            let decided = cause.finding_of(&findings).unwrap().identity;
            assert_eq!((decision.verdict, decided, cause.reason), (verdict, identity, reason));
            assert_eq!((decision.refuses(), cause.wait), (true, None));
            let wait = Some(Duration::from_secs(7));
            let told = decision.clone().with_wait(wait).cause.unwrap().wait;
            assert_eq!(told, wait.filter(|_| reason == Reason::Greylisted));
            let passed = decision.with_wait(None);
            assert_eq!(passed.refuses(), reason != Reason::Greylisted, "{identity}");
        }
    }

    #[test]
    fn exists_is_named_before_matches() {
        let both = [
            finding(Identity::MailFrom, Rule::Matches, RuleResult::Fail(Reason::NotAnExchanger)),
            finding(Identity::MailFrom, Rule::Exists, RuleResult::Fail(Reason::NoSuchDomain)),
        ];
        let cause = decide(&policy(), &both).cause.unwrap();
        assert_eq!(cause.reason, Reason::NoSuchDomain);
    }

    #[test]
    fn dns_trouble_never_rejects() {
        for action in [Action::Off, Action::Tag, Action::Greylist, Action::Defer, Action::Reject] {
            for on_dns_error in [OnDnsError::Defer, OnDnsError::Accept] {
                let policy = Policy { mail_from: rules(action, Action::Off), on_dns_error, ..policy() };
                let found =
                    [finding(Identity::MailFrom, Rule::Exists, RuleResult::TempError(DnsFailure::Timeout))];
                let expected = if action.refuses() && on_dns_error == OnDnsError::Defer {
                    Verdict::Defer
                } else {
                    Verdict::Accept
                };
                assert_eq!(decide(&policy, &found).verdict, expected, "{action:?} {on_dns_error:?}");
            }
        }
    }

    #[test]
    fn monitor_refuses_nothing_and_still_says_what_it_would_have_done() {
        let policy = Policy { mode: Mode::Monitor, ..policy() };
        let decision =
            decide(&policy, &[finding(Identity::From, Rule::Exists, RuleResult::Fail(Reason::NoMx))]);
        assert_eq!(decision.verdict, Verdict::Reject);
        assert!(!decision.refuses());
    }

    #[test]
    fn malformed_headers_have_their_own_action() {
        let found = [finding(Identity::From, Rule::Exists, RuleResult::Fail(Reason::MalformedHeader))];
        assert_eq!(decide(&policy(), &found).verdict, Verdict::Reject);
        assert_eq!(decide(&Policy { malformed: Action::Tag, ..policy() }, &found).verdict, Verdict::Accept);
    }
}
