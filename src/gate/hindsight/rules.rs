//! The rules that can refuse, judged again by what was looked up then.

use compact_str::ToCompactString;

use crate::evidence::DnsFailure;
use crate::gate::hindsight::Candidate;
use crate::gate::hindsight::past::{Field, Named, Past};
use crate::gate::known::finding;
use crate::policy::finding::{Absence, Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::operator::InForce;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Rule};
use crate::reverse_mx::{self, FcrdnsResult, Subject};
use crate::smtp::address::{Domain, DomainName, ReversePath};
use crate::stats::hindsight::{Missing, Why};

/// The findings of the new rules, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) findings: Vec<Finding>,
    /// The places of findings that wait for the body at the end of the header.
    pub(super) waits: Vec<usize>,
    /// What is missing, and the action if it failed.
    pub(super) unknown: Vec<(Missing, Action)>,
}

impl Judged {
    /// What fails may have been let in.
    fn doubt(&mut self) {
        let holds = |finding: &Finding| matches!(finding.outcome, RuleResult::Pass(_) | RuleResult::None(_));
        let (holding, failed) = std::mem::take(&mut self.findings).into_iter().partition(holds);
        self.findings = holding;
        let failed: Vec<Finding> = failed;
        self.unknown.extend(failed.into_iter().map(|Finding { identity, rule, domain, action, .. }| {
            (Missing { rule: Some((identity, rule)), domain, why: Why::Exempt }, action)
        }));
    }
}

/// One rule of one domain.
pub(super) struct Asked<'a> {
    pub(super) identity: Identity,
    pub(super) rule: Rule,
    pub(super) in_force: InForce<'a>,
    pub(super) subject: &'a str,
    pub(super) name: &'a DomainName,
}

impl Asked<'_> {
    pub(super) fn finding(&self, outcome: RuleResult) -> Finding {
        finding(self.in_force, self.rule, self.identity, self.subject, self.name.as_str(), outcome)
    }

    pub(super) fn missing(&self, why: Why) -> Missing {
        Missing { rule: Some((self.identity, self.rule)), domain: self.name.as_str().into(), why }
    }
}

impl Candidate {
    /// helo, ptr and mail_from.
    pub(super) fn envelope(&self, past: &Past<'_>, judged: &mut Judged) {
        let policy = &self.policy;
        let Some(path) = &past.path else {
            return self.not_kept(Identity::MailFrom, judged);
        };
        let mailbox = match path {
            ReversePath::Mailbox(mailbox) => Some(mailbox),
            ReversePath::Null | ReversePath::NoDomain(_) => None,
        };
        let sender = mailbox.and_then(|mailbox| mailbox.domain().name());
        let may_be_let_in = sender.is_some() && past.envelope_may_be_let_in();
        if !sender.is_some_and(|name| self.exempt.domain(name)) {
            let helo = past.record.helo.as_str();
            if !helo.is_empty() {
                let domain = Domain::parse(helo).ok();
                let name = domain.as_ref().and_then(Domain::name);
                self.domain(past, Identity::Helo, (helo, helo), name, judged);
            }
            if policy.ptr.refuses() {
                self.ptr(past, judged);
            }
        }
        match path {
            ReversePath::Null => {}
            ReversePath::NoDomain(local) => {
                self.domain(past, Identity::MailFrom, (local, local), None, judged);
            }
            ReversePath::Mailbox(mailbox) => {
                let text = mailbox.domain().to_compact_string();
                self.domain(past, Identity::MailFrom, (&mailbox.to_compact_string(), &text), sender, judged);
            }
        }
        if may_be_let_in {
            judged.doubt();
        }
    }

    /// from and reply_to.
    pub(super) fn header(&self, past: &Past<'_>, judged: &mut Judged) {
        for identity in [Identity::From, Identity::ReplyTo] {
            match past.field(identity) {
                Field::Absent => {}
                Field::Malformed(found) => {
                    let action = self.policy.rules(identity).exists;
                    judged.findings.push(Finding { action, entry: None, ..*found });
                }
                Field::Authors(authors) => {
                    for Named { subject, text, name } in &authors {
                        self.domain(past, identity, (subject, text), name.as_ref(), judged);
                    }
                }
                Field::Unknown => self.not_kept(identity, judged),
            }
        }
    }

    fn not_kept(&self, identity: Identity, judged: &mut Judged) {
        for action in self.rules_of(identity) {
            judged.unknown.push((Missing::of_message(Why::NotKept), action));
        }
    }

    /// Both rules of one domain; `name` where it is a domain name.
    fn domain(
        &self,
        past: &Past<'_>,
        identity: Identity,
        (subject, text): (&str, &str),
        name: Option<&DomainName>,
        judged: &mut Judged,
    ) {
        let policy = &self.policy;
        let in_force = name.map_or(policy.general(identity), |name| policy.in_force(identity, name));
        for rule in in_force.rules.active() {
            let known = |outcome| finding(in_force, rule, identity, subject, text, outcome);
            let Some(name) = name else {
                judged.findings.push(known(RuleResult::Fail(Reason::InvalidDomain)));
                continue;
            };
            if self.exempt.domain(name) {
                judged.findings.push(known(RuleResult::None(Absence::Exempt)));
            } else if in_force.rules.action(rule).refuses() {
                let asked = Asked { identity, rule, in_force, subject, name };
                self.rule(past, &asked, judged);
            } else {
                // What only tags decides nothing, but its domain stands beside others.
                judged.findings.push(known(RuleResult::None(Absence::NotGiven)));
            }
        }
    }

    fn rule(&self, past: &Past<'_>, asked: &Asked<'_>, judged: &mut Judged) {
        let result = match (asked.identity, asked.rule) {
            (Identity::From, Rule::Matches) => self.matches_of_author(past, asked),
            _ => self.result(past, asked).map(|outcome| (asked.finding(outcome), false)),
        };
        match result {
            Ok((finding, waits)) => {
                if waits {
                    judged.waits.push(judged.findings.len());
                }
                judged.findings.push(finding);
            }
            Err(why) => judged.unknown.push((asked.missing(why), asked.in_force.rules.action(asked.rule))),
        }
    }

    /// What the rungs come to that need neither the owner nor the body.
    pub(super) fn result(&self, past: &Past<'_>, asked: &Asked<'_>) -> Result<RuleResult, Why> {
        let Asked { identity, rule, in_force, subject, name } = *asked;
        let own = past.own(identity, rule, name.as_str());
        if let Some(trouble) = own.and_then(without_answers) {
            return Ok(RuleResult::TempError(trouble));
        }
        let envelope = past.envelope().filter(|_| identity == Identity::From);
        let subject = Subject { identity, text: subject, domain: name, helo: &past.record.helo, envelope };
        let again = reverse_mx::again(&self.reverse_mx, rule, &subject, in_force.rules, &past.kept(own));
        let counts =
            |outcome: &RuleResult| matches!(outcome, RuleResult::Pass(_)) || !past.may_be_let_in(own);
        again.filter(counts).ok_or_else(|| why(own))
    }

    fn ptr(&self, past: &Past<'_>, judged: &mut Judged) {
        let in_force = self.policy.general(Identity::Ptr);
        let rules = in_force.rules;
        for rule in rules.active().filter(|rule| rules.action(*rule).refuses()) {
            let own = past.own(Identity::Ptr, rule, "");
            let text = match &past.record.names {
                Some(FcrdnsResult::Confirmed(names)) => names.first().map(ToCompactString::to_compact_string),
                _ => None,
            };
            let text = text.unwrap_or_else(|| past.record.client.to_compact_string());
            let known = |outcome| finding(in_force, rule, Identity::Ptr, &text, &text, outcome);
            let exempt = match &past.record.names {
                Some(FcrdnsResult::Confirmed(names)) => names.iter().any(|name| self.exempt.domain(name)),
                _ => false,
            };
            let outcome = match (&past.record.names, own.and_then(without_answers)) {
                _ if exempt => Some(RuleResult::None(Absence::Exempt)),
                (_, Some(trouble)) => Some(RuleResult::TempError(trouble)),
                (None, None) => None,
                (Some(names), None) => {
                    reverse_mx::again_ptr(&self.reverse_mx, rule, names, rules, &past.kept(own))
                }
            };
            match outcome.filter(|_| exempt || !past.may_be_let_in(own)) {
                Some(outcome) => judged.findings.push(known(outcome)),
                None => {
                    let missing =
                        Missing { rule: Some((Identity::Ptr, rule)), domain: text.clone(), why: why(own) };
                    judged.unknown.push((missing, rules.action(rule)));
                }
            }
        }
    }
}

/// Why a rule can't be judged again.
pub(super) fn why(own: Option<&Finding>) -> Why {
    match own.map(|own| own.outcome) {
        None => Why::NotLookedUp,
        Some(RuleResult::None(Absence::Exempt)) => Why::Exempt,
        Some(RuleResult::None(Absence::AwaitsBody)) => Why::BodyNotSeen,
        Some(_) => Why::OtherRungs,
    }
}

/// The rule was not looked up in time, so that it has no answers.
fn without_answers(own: &Finding) -> Option<DnsFailure> {
    match own.outcome {
        RuleResult::TempError(trouble) if own.evidence.is_empty() => Some(trouble),
        RuleResult::Pass(_) | RuleResult::Fail(_) | RuleResult::TempError(_) | RuleResult::None(_) => None,
    }
}
