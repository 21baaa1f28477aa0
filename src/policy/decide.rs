//! From findings to a verdict (contract 3.2): the only place that decides.
//!
//! Reject goes before defer, and defer before greylist; identities keep their order. For a `temperror` of a rule whose action
//! refuses, `policy.on_dns_error` counts. Two kinds always defer, since a sender can bring them about: where DMARC has failed
//! and only what would excuse it is open (the client's PTR record, the envelope), and where several domains of one field left
//! too few questions for each. The gate checks the greylist if the decision is to greylist.

use std::time::Duration;

use compact_str::CompactString;

use crate::evidence::DnsFailure;
use crate::policy::authentication::DmarcResult;
use crate::policy::finding::{Finding, RuleResult};
use crate::policy::operator::Policy;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Mode, OnDnsError};

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

/// The cause of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// [`Reason::DnsError`] for a temperror, [`Reason::Greylisted`] for the action `greylist`.
    pub reason: Reason,
    /// The action in force: [`Action::Greylist`], [`Action::Defer`] or [`Action::Reject`].
    pub action: Action,
    /// For a greylisted client: the time until a retry passes, if it is known.
    pub wait: Option<Duration>,
    /// The index of the finding that refused. `None` for a refusal without a rule, which has no identity and no exemption.
    pub finding: Option<usize>,
    /// The subject of the reply: that of the finding, or the text that was refused without a rule.
    pub subject: CompactString,
}

impl Cause {
    /// The cause of a refusal without a rule.
    #[must_use]
    pub fn without_rule(reason: Reason, subject: impl Into<CompactString>) -> Self {
        let action = if reason.is_temporary() { Action::Defer } else { Action::Reject };
        Self { reason, action, wait: None, finding: None, subject: subject.into() }
    }

    /// The finding that refused; `findings` are those of the decision.
    #[must_use]
    pub fn finding_of<'f>(&self, findings: &'f [Finding]) -> Option<&'f Finding> {
        findings.get(self.finding?)
    }
}

/// A verdict with its cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The verdict of the policy, even in monitor mode.
    pub verdict: Verdict,
    /// `None` exactly if the verdict is accept.
    pub cause: Option<Cause>,
    /// In mode monitor, a refusal isn't carried out.
    pub mode: Mode,
}

impl Decision {
    /// Whether the client is refused: the verdict isn't accept, and the mode is enforce.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.mode == Mode::Enforce && self.verdict != Verdict::Accept
    }

    /// Whether greylisting is the only cause of the refusal.
    #[must_use]
    pub fn greylists(&self) -> bool {
        self.cause.as_ref().is_some_and(|cause| cause.action == Action::Greylist)
    }

    /// Adds the result of the greylist: the wait, or `None` if the retry passes.
    #[must_use]
    pub fn with_wait(self, wait: Option<Duration>) -> Self {
        match (self.greylists(), wait) {
            (false, _) => self,
            (true, Some(_)) => Self { cause: self.cause.map(|cause| Cause { wait, ..cause }), ..self },
            (true, None) => Self { verdict: Verdict::Accept, cause: None, ..self },
        }
    }
}

/// The decision for an exempt transaction: it is accepted without lookups.
#[must_use]
pub fn exempt() -> Decision {
    Decision { verdict: Verdict::Accept, cause: None, mode: Mode::Enforce }
}

/// A refusal that applies in every mode and to exempt clients too.
#[must_use]
pub fn always_refused(reason: Reason, subject: impl Into<CompactString>) -> Decision {
    let verdict = if reason.is_temporary() { Verdict::Defer } else { Verdict::Reject };
    Decision { verdict, cause: Some(Cause::without_rule(reason, subject)), mode: Mode::Enforce }
}

/// Applies the policy to the findings.
#[must_use]
pub fn decide(policy: &Policy, findings: &[Finding]) -> Decision {
    decide_by(policy, findings, |_finding| true)
}

/// As [`decide`], for the findings for which `counts` returns true; the others are only tags.
#[must_use]
pub fn decide_by(policy: &Policy, findings: &[Finding], counts: impl Fn(&Finding) -> bool) -> Decision {
    let strongest = findings
        .iter()
        .enumerate()
        .filter(|(_, finding)| counts(finding))
        .filter_map(|(at, finding)| {
            consequence(policy, finding, findings).map(|(action, reason)| (action, reason, at, finding))
        })
        .min_by_key(|(action, _, _, finding)| (std::cmp::Reverse(*action), finding.identity, finding.rule));
    let verdict = match strongest {
        None => Verdict::Accept,
        Some((Action::Reject, ..)) => Verdict::Reject,
        Some((Action::Off | Action::Tag | Action::Greylist | Action::Defer | Action::Dmarc, ..)) => {
            Verdict::Defer
        }
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

/// The action and reason of one finding; `None` if it doesn't refuse.
fn consequence(policy: &Policy, finding: &Finding, findings: &[Finding]) -> Option<(Action, Reason)> {
    let action = finding.action;
    match finding.outcome {
        RuleResult::Pass(_) | RuleResult::None(_) => None,
        RuleResult::Fail(Reason::MalformedHeader) => Some((policy.malformed, Reason::MalformedHeader)),
        // The owner was not asked, as for a name that no one can own.
        RuleResult::Fail(_) if action == Action::Dmarc => None,
        RuleResult::Fail(_) if action == Action::Greylist => Some((action, Reason::Greylisted)),
        RuleResult::Fail(reason) => Some((action, reason)),
        RuleResult::TempError(_) if !action.refuses() => None,
        RuleResult::TempError(failure) => match policy.on_dns_error {
            OnDnsError::Accept if !fails_dmarc(finding) && !is_crowded(failure, finding, findings) => None,
            OnDnsError::Accept | OnDnsError::Defer => Some((Action::Defer, Reason::DnsError)),
        },
    }
    .filter(|(action, _)| action.refuses())
}

/// The owner's will is known and counts; only what would excuse the message could not be looked up.
fn fails_dmarc(finding: &Finding) -> bool {
    let check = finding.authentication.as_deref().and_then(|results| results.dmarc.as_ref());
    check.is_some_and(|check| check.result == Some(DmarcResult::Fail))
}

/// The domain shares its questions with others of the same field, and had too few.
fn is_crowded(failure: DnsFailure, finding: &Finding, findings: &[Finding]) -> bool {
    let beside = |other: &Finding| other.identity == finding.identity && other.domain != finding.domain;
    failure == DnsFailure::TooMany && findings.iter().any(beside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::finding::Absence;
    use crate::policy::identity::Identity;
    use crate::policy::rule::{IdentityRules, RejectAt, Rule, Rung};
    use crate::policy::senders::Senders;

    fn rules(exists: Action, matches: Action) -> IdentityRules {
        IdentityRules { exists, matches, exists_by: vec![Rung::Mx], matches_by: vec![Rung::Mx] }
    }

    fn policy() -> Policy {
        Policy {
            mode: Mode::Enforce,
            reject_at: RejectAt::Rcpt,
            on_dns_error: OnDnsError::Defer,
            malformed: Action::Reject,
            dmarc_quarantine: Action::Tag,
            senders: Senders::default(),
            helo: rules(Action::Tag, Action::Tag),
            ptr: rules(Action::Defer, Action::Off),
            mail_from: rules(Action::Reject, Action::Reject),
            from: rules(Action::Reject, Action::Off),
            reply_to: rules(Action::Reject, Action::Off),
        }
    }

    fn finding(identity: Identity, rule: Rule, outcome: RuleResult) -> Finding {
        Finding::new(identity, rule, "d.test", "d.test", outcome)
    }

    /// [`super::decide`] with the policy's own actions.
    fn decide(policy: &Policy, findings: &[Finding]) -> Decision {
        let acted = findings.iter().map(|finding| Finding {
            action: policy.rules(finding.identity).action(finding.rule),
            ..finding.clone()
        });
        super::decide(policy, &acted.collect::<Vec<_>>())
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
    fn greylisting_is_the_weakest_refusal_and_can_be_passed() {
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
            let stored = decision.clone().with_wait(wait).cause.unwrap().wait;
            assert_eq!(stored, wait.filter(|_| reason == Reason::Greylisted));
            let passed = decision.with_wait(None);
            assert_eq!(passed.refuses(), reason != Reason::Greylisted, "{identity}");
        }
    }

    #[test]
    fn a_failure_of_exists_goes_before_one_of_matches() {
        let both = [
            finding(Identity::MailFrom, Rule::Matches, RuleResult::Fail(Reason::NotAnExchanger)),
            finding(Identity::MailFrom, Rule::Exists, RuleResult::Fail(Reason::NoSuchDomain)),
        ];
        let cause = decide(&policy(), &both).cause.unwrap();
        assert_eq!(cause.reason, Reason::NoSuchDomain);
    }

    #[test]
    fn a_dns_failure_never_rejects() {
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
    fn many_authors_are_no_way_past_a_check() {
        use DnsFailure::{Busy, Timeout, TooMany};
        let policy = Policy { on_dns_error: OnDnsError::Accept, ..policy() };
        let named =
            |domain: &str, outcome| Finding::new(Identity::From, Rule::Exists, domain, domain, outcome);
        let good = named("good.test", RuleResult::Pass(Rung::Mx));
        for (failure, alone, beside) in [
            (TooMany, Verdict::Accept, Verdict::Defer),
            (Busy, Verdict::Accept, Verdict::Accept),
            (Timeout, Verdict::Accept, Verdict::Accept),
        ] {
            let bank = named("bank.test", RuleResult::TempError(failure));
            assert_eq!(decide(&policy, std::slice::from_ref(&bank)).verdict, alone, "{failure}");
            assert_eq!(decide(&policy, &[bank, good.clone()]).verdict, beside, "{failure}");
        }
    }

    #[test]
    fn what_the_owner_asks_for_counts_once_it_is_known() {
        let failed = |reason, action| Finding {
            action,
            ..finding(Identity::From, Rule::Matches, RuleResult::Fail(reason))
        };
        let trouble = |action| Finding {
            action,
            ..finding(Identity::From, Rule::Matches, RuleResult::TempError(DnsFailure::Timeout))
        };
        let (reject, quarantine) = (Reason::DmarcReject, Reason::DmarcQuarantine);
        let rows = [
            (failed(reject, Action::Reject), Verdict::Reject, Some(reject)),
            (failed(quarantine, Action::Tag), Verdict::Accept, None),
            (failed(quarantine, Action::Greylist), Verdict::Defer, Some(Reason::Greylisted)),
            (failed(quarantine, Action::Defer), Verdict::Defer, Some(quarantine)),
            (failed(quarantine, Action::Reject), Verdict::Reject, Some(quarantine)),
            (failed(Reason::NotAnExchanger, Action::Tag), Verdict::Accept, None),
            (failed(Reason::InvalidDomain, Action::Dmarc), Verdict::Accept, None),
            (trouble(Action::Dmarc), Verdict::Defer, Some(Reason::DnsError)),
            (trouble(Action::Reject), Verdict::Defer, Some(Reason::DnsError)),
            (trouble(Action::Tag), Verdict::Accept, None),
        ];
        for (finding, verdict, reason) in rows {
            let decision = super::decide(&policy(), std::slice::from_ref(&finding));
            let cause = decision.cause.map(|cause| cause.reason);
            assert_eq!((decision.verdict, cause), (verdict, reason), "{finding:?}");
        }
    }

    #[test]
    fn monitor_mode_refuses_nothing_and_keeps_the_verdict() {
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
