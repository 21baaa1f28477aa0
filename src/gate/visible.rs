//! The senders that a reader sees: From: and Reply-To:, all their domains side by side.
//!
//! Whatever can refuse, in either field, is looked up before what only tags. The domains of a field share its budget evenly, so
//! that a domain whose zone leads on and on doesn't spend what another's check needs.

use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::dns::{Budget, Urgency};
use crate::gate::Gate;
use crate::gate::known::for_each_rule;
use crate::gate::lookup::{Named, OwnedSubject, rules_of};
use crate::message::header::{Author, Field, Header};
use crate::policy::finding::{Absence, Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::Rule;

/// What the lookup of both fields needs to know.
pub(super) struct Visible {
    pub(super) gate: Arc<Gate>,
    pub(super) client: IpAddr,
    pub(super) helo: CompactString,
    /// Of From: and of Reply-To:.
    pub(super) budgets: [Budget; 2],
}

/// Where a finding belongs: the field, the domain within it, the rule.
type Order = (usize, usize, Rule);

impl Visible {
    /// The findings: field by field, domain by domain, rule by rule.
    pub(super) async fn senders(&self, header: &Header) -> Vec<Finding> {
        let fields = [(Identity::From, &header.from), (Identity::ReplyTo, &header.reply_to)];
        let mut findings: Vec<(Order, Finding)> = Vec::new();
        let mut names: [Vec<(usize, Named)>; 2] = [Vec::new(), Vec::new()];
        let until = Instant::now() + self.gate.deadline;
        for ((at, (identity, field)), names) in fields.into_iter().enumerate().zip(&mut names) {
            let mut known = |nth, found: Vec<Finding>| {
                findings.extend(found.into_iter().map(|finding| ((at, nth, finding.rule), finding)));
            };
            let rules = self.gate.policy().rules(identity);
            match field {
                Field::Absent => {
                    known(0, for_each_rule(rules, identity, "", "", RuleResult::None(Absence::NotGiven)));
                }
                Field::Malformed(malformed) => {
                    known(0, vec![malformed_field(identity, &malformed.text(identity))]);
                }
                Field::Authors(authors) => {
                    for (nth, author) in authors.iter().enumerate() {
                        match self.named(identity, author, until) {
                            Some(name) => names.push((nth, name)),
                            None => {
                                let text = author.address.rsplit('@').next().unwrap_or_default();
                                let invalid = RuleResult::Fail(Reason::InvalidDomain);
                                known(nth, for_each_rule(rules, identity, &author.address, text, invalid));
                            }
                        }
                    }
                }
            }
        }
        for urgency in Urgency::ALL {
            let steps = names.iter().zip(&self.budgets).enumerate();
            let steps = steps.flat_map(|(at, (names, budget))| self.steps(at, names, budget, urgency));
            findings.extend(join_all(steps).await.into_iter().flatten());
        }
        findings.sort_by_key(|(place, _)| *place);
        findings.into_iter().map(|(_, finding)| finding).collect()
    }

    fn named(&self, identity: Identity, author: &Author, until: Instant) -> Option<Named> {
        let subject = OwnedSubject {
            identity,
            text: author.address.clone(),
            domain: author.domain.clone()?,
            helo: self.helo.clone(),
        };
        Some(Named { gate: Arc::clone(&self.gate), subject, client: self.client, until })
    }

    /// The lookups of one urgency for the domains of one field.
    fn steps<'a>(
        &self,
        at: usize,
        names: &'a [(usize, Named)],
        budget: &Budget,
        urgency: Urgency,
    ) -> Vec<impl Future<Output = Vec<(Order, Finding)>> + use<'a>> {
        let looked_at = names.first().is_some_and(|(_, name)| {
            rules_of(self.gate.policy().rules(name.subject.identity), urgency).next().is_some()
        });
        let names = if looked_at { names } else { &[] };
        let shares = budget.shares(names.len());
        let steps = names.iter().zip(shares);
        steps.map(|((nth, name), share)| step((at, *nth), name, urgency, share)).collect()
    }
}

async fn step(
    (at, nth): (usize, usize),
    name: &Named,
    urgency: Urgency,
    budget: Budget,
) -> Vec<(Order, Finding)> {
    let found = name.step(urgency, budget).await;
    found.into_iter().map(|finding| ((at, nth, finding.rule), finding)).collect()
}

/// Judged by `policy.malformed` whatever the rules of the identity are.
fn malformed_field(identity: Identity, text: &str) -> Finding {
    Finding {
        identity,
        rule: Rule::Exists,
        domain: CompactString::default(),
        subject: CompactString::new(text),
        outcome: RuleResult::Fail(Reason::MalformedHeader),
        evidence: Vec::new(),
    }
}
