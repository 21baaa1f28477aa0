//! Findings to a verdict (DESIGN 3.2): the one place that decides.
//!
//! Reject before defer; identities in their order. A `temperror` where the action refuses is `policy.on_dns_error`.
//! What accepts gives a [`Permit`], and only with one can the next hop be opened.

use crate::policy::finding::{Finding, Outcome};
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

/// Proof that a decision let the transaction pass; without one no relay transaction can be opened (DESIGN 1.2).
#[derive(Debug, Clone, Copy)]
pub struct Permit(());

/// The finding that refused, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The finding.
    pub finding: Finding,
    /// Why; [`Reason::DnsError`] for a temperror.
    pub reason: Reason,
    /// The action that took effect: [`Action::Defer`] or [`Action::Reject`].
    pub action: Action,
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

    /// The key to the next hop, unless the client is refused.
    #[must_use]
    pub fn permit(&self) -> Option<Permit> {
        if self.refuses() { None } else { Some(Permit(())) }
    }
}

/// The permit of a transaction that the operator exempted: nothing was looked up, nothing can refuse it.
#[must_use]
pub fn exempt() -> Decision {
    Decision { verdict: Verdict::Accept, cause: None, mode: Mode::Enforce }
}

/// Judges findings by the policy.
#[must_use]
pub fn decide(policy: &Policy, findings: &[Finding]) -> Decision {
    let strongest = findings
        .iter()
        .filter_map(|finding| consequence(policy, finding).map(|(action, reason)| (action, reason, finding)))
        .min_by_key(|(action, _, finding)| (std::cmp::Reverse(*action), finding.identity, finding.rule));
    let verdict = match strongest {
        None => Verdict::Accept,
        Some((Action::Reject, ..)) => Verdict::Reject,
        Some((Action::Off | Action::Tag | Action::Defer, ..)) => Verdict::Defer,
    };
    let cause = strongest.map(|(action, reason, finding)| Cause { finding: finding.clone(), reason, action });
    Decision { verdict, cause, mode: policy.mode }
}

/// What one finding leads to; `None` when it refuses nothing.
fn consequence(policy: &Policy, finding: &Finding) -> Option<(Action, Reason)> {
    let action = policy.rules(finding.identity).action(finding.rule);
    match finding.outcome {
        Outcome::Pass(_) | Outcome::None(_) => None,
        Outcome::Fail(Reason::MalformedHeader) => Some((policy.malformed, Reason::MalformedHeader)),
        Outcome::Fail(reason) => Some((action, reason)),
        Outcome::TempError(_) => match policy.on_dns_error {
            OnDnsError::Defer if action.refuses() => Some((Action::Defer, Reason::DnsError)),
            OnDnsError::Defer | OnDnsError::Accept => None,
        },
    }
    .filter(|(action, _)| action.refuses())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::evidence::Trouble;
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

    fn finding(identity: Identity, rule: Rule, outcome: Outcome) -> Finding {
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
        let fail = |identity| finding(identity, Rule::Exists, Outcome::Fail(Reason::NoMx));
        let rows = [
            (vec![], Verdict::Accept, None),
            (vec![fail(Helo)], Verdict::Accept, None),
            (vec![fail(Ptr)], Verdict::Defer, Some(Ptr)),
            (vec![fail(Ptr), fail(ReplyTo), fail(From)], Verdict::Reject, Some(From)),
            (vec![fail(ReplyTo), fail(MailFrom)], Verdict::Reject, Some(MailFrom)),
            (vec![finding(From, Rule::Exists, Outcome::Pass(Rung::Mx))], Verdict::Accept, None),
            (vec![finding(From, Rule::Exists, Outcome::None(Absence::NotGiven))], Verdict::Accept, None),
        ];
        for (findings, verdict, identity) in rows {
            let decision = decide(&policy(), &findings);
            assert_eq!(
                (decision.verdict, decision.cause.as_ref().map(|cause| cause.finding.identity)),
                (verdict, identity)
            );
            assert_eq!(decision.permit().is_some(), verdict == Verdict::Accept);
        }
    }

    #[test]
    fn exists_is_named_before_matches() {
        let both = [
            finding(Identity::MailFrom, Rule::Matches, Outcome::Fail(Reason::NotAnExchanger)),
            finding(Identity::MailFrom, Rule::Exists, Outcome::Fail(Reason::NoSuchDomain)),
        ];
        let cause = decide(&policy(), &both).cause.unwrap();
        assert_eq!(cause.reason, Reason::NoSuchDomain);
    }

    #[test]
    fn dns_trouble_never_rejects() {
        for action in [Action::Off, Action::Tag, Action::Defer, Action::Reject] {
            for on_dns_error in [OnDnsError::Defer, OnDnsError::Accept] {
                let policy = Policy { mail_from: rules(action, Action::Off), on_dns_error, ..policy() };
                let found = [finding(Identity::MailFrom, Rule::Exists, Outcome::TempError(Trouble::Timeout))];
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
        let decision = decide(&policy, &[finding(Identity::From, Rule::Exists, Outcome::Fail(Reason::NoMx))]);
        assert_eq!(decision.verdict, Verdict::Reject);
        assert!(!decision.refuses() && decision.permit().is_some());
    }

    #[test]
    fn malformed_headers_have_their_own_action() {
        let found = [finding(Identity::From, Rule::Exists, Outcome::Fail(Reason::MalformedHeader))];
        assert_eq!(decide(&policy(), &found).verdict, Verdict::Reject);
        assert_eq!(decide(&Policy { malformed: Action::Tag, ..policy() }, &found).verdict, Verdict::Accept);
    }
}
