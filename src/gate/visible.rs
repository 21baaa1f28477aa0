//! The senders that a reader sees: From: and Reply-To:, all their domains side by side.
//!
//! Whatever can refuse, in either field, is looked up before what only tags. The domains of a field share its budget evenly, so
//! that a domain whose zone leads on and on doesn't spend what another's check needs.

use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use crate::decision::LetIn;
use crate::dns::{Account, Budget, Urgency};
use crate::gate::Gate;
use crate::gate::known::{finding, for_each_rule};
use crate::gate::lookup::{EnvelopeSender, Named, OwnedSubject, rules_of};
use crate::gate::owner::{self, Asked};
use crate::message::header::{Author, Field, Header};
use crate::policy::finding::{Absence, Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::operator::InForce;
use crate::policy::reason::Reason;
use crate::policy::rule::Rule;

/// What the lookup of both fields needs to know.
pub(super) struct Visible {
    pub(super) gate: Arc<Gate>,
    pub(super) client: IpAddr,
    pub(super) helo: CompactString,
    /// The sender of the envelope, whose SPF may count for From:.
    pub(super) envelope: Option<Arc<EnvelopeSender>>,
    /// Of From: and of Reply-To:.
    pub(super) budgets: [Budget; 2],
}

/// The findings of both fields.
pub(super) struct VisibleFindings {
    pub(super) findings: Vec<Finding>,
    /// What the owners of From: domains ask for, where that is open.
    pub(super) asked: Vec<Asked>,
    /// A permit that exempts one of them.
    pub(super) permit: Option<LetIn>,
}

/// Where a finding belongs: the field, the domain within it, the rule.
type Order = (usize, usize, Rule);

impl Visible {
    /// The findings: field by field, domain by domain, rule by rule.
    pub(super) async fn senders(&self, header: &Header) -> VisibleFindings {
        let fields = [(Identity::From, &header.from), (Identity::ReplyTo, &header.reply_to)];
        let mut findings: Vec<(Order, Finding)> = Vec::new();
        let mut names: [Vec<(usize, Named)>; 2] = [Vec::new(), Vec::new()];
        let mut permit = None;
        let until = Instant::now() + self.gate.deadline;
        for ((at, (identity, field)), names) in fields.into_iter().enumerate().zip(&mut names) {
            let mut known = |nth, found: Vec<Finding>| {
                findings.extend(found.into_iter().map(|finding| ((at, nth, finding.rule), finding)));
            };
            let rules = self.gate.policy().general(identity);
            match field {
                Field::Absent => {
                    known(0, for_each_rule(rules, identity, "", "", RuleResult::None(Absence::NotGiven)));
                }
                Field::Malformed(malformed) => {
                    known(0, vec![malformed_field(rules, identity, &malformed.text(identity))]);
                }
                Field::Authors(authors) => {
                    for (nth, author) in authors.iter().enumerate() {
                        match self.named(identity, author, until) {
                            Some(name) => match self.permit(&name) {
                                None => names.push((nth, name)),
                                by => {
                                    permit = permit.or(by);
                                    known(nth, exempt(&name));
                                }
                            },
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
        let mut asked = Vec::new();
        for urgency in Urgency::ALL {
            let steps = names.iter().zip(&self.budgets).enumerate();
            let steps = steps.flat_map(|(at, (names, budget))| self.steps(at, names, budget, urgency));
            for (found, open) in join_all(steps).await {
                findings.extend(found);
                asked.extend(open);
            }
        }
        findings.sort_by_key(|(place, _)| *place);
        let findings = findings.into_iter().map(|(_, finding)| finding).collect();
        VisibleFindings { findings, asked, permit }
    }

    /// The permit for this sender, unless `[exempt]` has it.
    fn permit(&self, name: &Named) -> Option<LetIn> {
        let OwnedSubject { identity, domain, .. } = &name.subject;
        let is_listed = || self.gate.settings.exempt.domain(domain);
        self.gate.permit_of_visible(self.client, *identity, domain).filter(|_| !is_listed())
    }

    fn named(&self, identity: Identity, author: &Author, until: Instant) -> Option<Named> {
        let subject = OwnedSubject {
            identity,
            text: author.address.clone(),
            domain: author.domain.clone()?,
            helo: self.helo.clone(),
            envelope: self.envelope.clone(),
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
    ) -> Vec<impl Future<Output = (Vec<(Order, Finding)>, Option<Asked>)> + use<'a>> {
        let looked_at =
            |(_, name): &&(usize, Named)| rules_of(name.in_force().rules, urgency).next().is_some();
        let names: Vec<_> = names.iter().filter(looked_at).collect();
        let shares = budget.shares(names.len());
        let steps = names.into_iter().zip(shares);
        steps.map(|((nth, name), share)| step((at, *nth), name, urgency, share)).collect()
    }
}

fn exempt(name: &Named) -> Vec<Finding> {
    let OwnedSubject { identity, text, domain, .. } = &name.subject;
    for_each_rule(name.in_force(), *identity, text, domain.as_str(), RuleResult::None(Absence::Exempt))
}

async fn step(
    (at, nth): (usize, usize),
    name: &Named,
    urgency: Urgency,
    budget: Budget,
) -> (Vec<(Order, Finding)>, Option<Asked>) {
    let mut found = name.step(urgency, budget.clone()).await;
    let asked = match found.iter_mut().find(|finding| owner::is_open(finding)) {
        Some(finding) => ask_owner(name, urgency, budget, finding).await,
        None => None,
    };
    (found.into_iter().map(|finding| ((at, nth, finding.rule), finding)).collect(), asked)
}

/// What the owner of the domain asks for; always in time.
async fn ask_owner(name: &Named, urgency: Urgency, budget: Budget, finding: &mut Finding) -> Option<Asked> {
    let account = Account::new(name.client, budget, urgency);
    let (domain, envelope) = (&name.subject.domain, name.subject.envelope());
    let work = owner::ask(&name.gate, finding, domain, envelope, &account);
    match timeout_at(name.until, Box::pin(work)).await {
        Ok(asked) => asked,
        Err(_elapsed) => {
            owner::too_late(finding);
            None
        }
    }
}

/// Judged by `policy.malformed` whatever the rules of the identity are.
fn malformed_field(rules: InForce<'_>, identity: Identity, text: &str) -> Finding {
    finding(rules, Rule::Exists, identity, text, "", RuleResult::Fail(Reason::MalformedHeader))
}
