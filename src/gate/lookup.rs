//! The lookup of one identity in two steps: the rules that can refuse mail, then the rules that only tag.
//!
//! The reply to RCPT waits for the first step only. The second step asks less: the cache has what the first one asked
//! for. It gets the places for questions that are left over, and spends what is left of the budget.

use std::sync::Arc;

use compact_str::CompactString;
use futures_util::FutureExt;
use tokio::sync::SetOnce;
use tokio::time::{Instant, timeout_at};

use crate::dns::{Account, Budget, Urgency};
use crate::evidence::DnsFailure;
use crate::gate::Gate;
use crate::gate::known::finding;
use crate::gate::pending::Pending;
use crate::policy::finding::{Absence, Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::operator::InForce;
use crate::policy::rule::{IdentityRules, Rule};
use crate::reverse_mx::{Envelope, Subject};
use crate::smtp::address::DomainName;
use crate::spf::Sender;

/// The findings of one identity.
pub(super) type Findings = Arc<[Finding]>;

/// What is looked up for one identity. Dropping it ends that.
#[derive(Debug)]
pub(super) struct Lookup {
    /// What can refuse, where something else comes behind it; `None` in it = the lookup died.
    first: Option<Arc<SetOnce<Option<Findings>>>>,
    all: Pending<Findings>,
}

impl Lookup {
    /// Findings that need no lookup.
    pub(super) fn ready(findings: Findings) -> Self {
        Self { first: None, all: Pending::ready(findings) }
    }

    /// Starts now: both steps, one after the other.
    pub(super) fn start(
        rules: &IdentityRules,
        refusing: impl Future<Output = Vec<Finding>> + Send + 'static,
        tagging: impl Future<Output = Vec<Finding>> + Send + 'static,
    ) -> Self {
        let both = Urgency::ALL.map(|urgency| rules_of(rules, urgency).next().is_some());
        let first = (both == [true; 2]).then(|| Arc::new(SetOnce::new()));
        let first_step = FirstStep(first.clone());
        let all = Pending::start(async move {
            let mut findings = refusing.await;
            first_step.done(&findings);
            findings.extend(tagging.await);
            findings.sort_by_key(|finding| finding.rule);
            findings.into()
        });
        Self { first, all }
    }

    /// All findings, once they are there; `lost` makes them where the lookup died. May be cancelled and called again.
    pub(super) async fn all(&mut self, lost: impl FnOnce() -> Findings) -> Findings {
        Arc::clone(self.all.wait(lost).await)
    }

    /// Those that can refuse, with the others if they are there by now.
    pub(super) async fn refusing(&mut self, lost: impl Fn() -> Findings) -> Findings {
        if let Some(first) = &self.first {
            if let Some(all) = self.all.wait(&lost).now_or_never() {
                return Arc::clone(all);
            }
            if let Some(findings) = first.wait().await {
                return Arc::clone(findings);
            }
        }
        self.all(lost).await
    }
}

/// Which findings of an identity are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    /// Those that can refuse.
    Refusing,
}

impl Wanted {
    pub(super) async fn of(self, lookup: &mut Lookup, lost: impl Fn() -> Findings) -> Findings {
        match self {
            Self::All => lookup.all(lost).await,
            Self::Refusing => lookup.refusing(lost).await,
        }
    }
}

/// Hands on the findings of the first step; at the latest when it is dropped, so that no task waits in vain.
struct FirstStep(Option<Arc<SetOnce<Option<Findings>>>>);

impl FirstStep {
    fn done(&self, findings: &[Finding]) {
        if let Some(first) = &self.0 {
            first.set(Some(findings.into())).ok();
        }
    }
}

impl Drop for FirstStep {
    fn drop(&mut self) {
        if let Some(first) = &self.0 {
            first.set(None).ok();
        }
    }
}

/// One domain of one identity, and what it may cost.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) gate: Arc<Gate>,
    pub(super) subject: OwnedSubject,
    pub(super) client: std::net::IpAddr,
    pub(super) until: Instant,
}

/// [`Subject`], owned.
#[derive(Debug)]
pub(super) struct OwnedSubject {
    pub(super) identity: Identity,
    pub(super) text: CompactString,
    pub(super) domain: DomainName,
    pub(super) helo: CompactString,
    pub(super) envelope: Option<Arc<EnvelopeSender>>,
}

/// [`Envelope`], owned.
#[derive(Debug, Clone)]
pub(super) struct EnvelopeSender {
    pub(super) identity: Identity,
    /// Empty for HELO.
    pub(super) local: CompactString,
    pub(super) domain: DomainName,
}

impl OwnedSubject {
    /// The sender of the envelope as SPF sees it.
    pub(super) fn envelope(&self) -> Option<Envelope<'_>> {
        let EnvelopeSender { identity, local, domain } = self.envelope.as_deref()?;
        Some(Envelope { identity: *identity, sender: Sender { local, domain, helo: &self.helo } })
    }
}

impl Named {
    /// The rules that apply to the domain.
    pub(super) fn in_force(&self) -> InForce<'_> {
        self.gate.policy().in_force(self.subject.identity, &self.subject.domain)
    }

    /// The findings of the rules with this urgency; always in time.
    pub(super) async fn step(&self, urgency: Urgency, budget: Budget) -> Vec<Finding> {
        let OwnedSubject { identity, text, domain, helo, .. } = &self.subject;
        let in_force = self.in_force();
        let rules = in_force.rules;
        let account = Account::new(self.client, budget, urgency);
        let envelope = self.subject.envelope();
        let subject = Subject { identity: *identity, text, domain, helo, envelope };
        let known = |rule, outcome| finding(in_force, rule, *identity, text, domain.as_str(), outcome);
        let exempt = self.gate.settings.exempt.domain(domain);
        let mut findings = Vec::new();
        for rule in rules_of(rules, urgency) {
            if exempt {
                findings.push(known(rule, RuleResult::None(Absence::Exempt)));
                continue;
            }
            let work = self.gate.reverse_mx.inspect_by(rule, &subject, rules, &account);
            let found = timeout_at(self.until, Box::pin(work)).await;
            let found =
                found.unwrap_or_else(|_elapsed| known(rule, RuleResult::TempError(DnsFailure::Timeout)));
            findings.push(Finding { entry: in_force.entry.cloned(), ..found });
        }
        findings
    }
}

/// The rules that are looked at and can refuse, or that only tag.
pub(super) fn rules_of(rules: &IdentityRules, urgency: Urgency) -> impl Iterator<Item = Rule> + use<'_> {
    rules.active().filter(move |rule| rules.action(*rule).refuses() == (urgency == Urgency::Refuses))
}
