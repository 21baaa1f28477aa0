//! One connection, seen by the gate: what is known of the client itself (PTR names, HELO).

use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;
use tokio::sync::SetOnce;
use tokio::time::Instant;

use crate::dns::{Budget, Urgency};
use crate::evidence::DnsFailure;
use crate::gate::Gate;
use crate::gate::allowance::Allowance;
use crate::gate::inspection::Inspection;
use crate::gate::lookup::{Findings, Look, Named, OwnedSubject, Wanted};
use crate::gate::ptr::Ptr;
use crate::policy::finding::{Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{IdentityRules, Rule};
use crate::reverse_mx::ClientNames;
use crate::smtp::address::{Domain, DomainName, ReversePath};

/// One connection. Dropping it ends the look-ups that only it waits for.
#[derive(Debug)]
pub struct Client {
    pub(super) gate: Arc<Gate>,
    pub(super) client: IpAddr,
    pub(super) exempt: bool,
    /// What the client called itself.
    pub(super) helo: CompactString,
    ptr: Option<Ptr>,
    helo_lookup: Option<Look>,
    /// What the next message may cause, and what the client says before it.
    allowance: Allowance,
}

impl Client {
    pub(super) fn new(gate: Arc<Gate>, client: IpAddr) -> Self {
        let exempt = gate.settings.exempt.client(client);
        let looks = gate.policy().ptr.looks() && !exempt;
        let allowance = Allowance::new();
        let ptr = looks.then(|| Ptr::start(&gate, client, allowance.names()));
        Self { gate, client, exempt, helo: CompactString::default(), ptr, helo_lookup: None, allowance }
    }

    /// The client's address, IPv4 where it came as an IPv4-mapped one.
    #[must_use]
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// Whether the client is exempt: nothing is looked up for it.
    #[must_use]
    pub fn is_exempt(&self) -> bool {
        self.exempt
    }

    /// The client introduced itself; the look-up starts now, if one is asked for. The same name again, as after STARTTLS,
    /// has been looked up.
    pub fn helo(&mut self, argument: &str) {
        let same = self.helo_lookup.is_some() && self.helo == argument;
        self.helo = CompactString::new(argument);
        if self.exempt || same || !self.gate.policy().helo.looks() {
            return;
        }
        let domain = Domain::parse(argument).ok();
        let name = domain.as_ref().and_then(Domain::name);
        let budget = self.allowance.connection();
        self.helo_lookup = Some(look(self, Identity::Helo, argument, name, argument, budget));
    }

    /// A transaction begins; the look-up of its sender starts now, and with the first one that of the client's names.
    #[must_use]
    pub fn inspect(&mut self, path: &ReversePath) -> Inspection {
        let allowance = std::mem::replace(&mut self.allowance, Allowance::new());
        let inspection = Inspection::new(self, path, allowance.clone());
        if let Some(ptr) = &mut self.ptr {
            ptr.judge(&self.gate, self.client, allowance.connection());
        }
        inspection
    }

    /// What is to be told of a refusal outside of any transaction: nothing is looked up for it.
    #[must_use]
    pub fn uninspected(&self) -> Inspection {
        Inspection::of_nothing(self)
    }

    /// Where the client's names are, once they are known.
    pub(super) fn shared_names(&self) -> Option<Arc<SetOnce<ClientNames>>> {
        self.ptr.as_ref().map(Ptr::shared_names)
    }

    /// What is known of the client's names; `None` where the policy doesn't ask for them.
    pub async fn names(&self) -> Option<&ClientNames> {
        Some(self.ptr.as_ref()?.names().await)
    }

    /// The client's names as far as they are known by now.
    #[must_use]
    pub fn names_if_known(&self) -> Option<&ClientNames> {
        self.ptr.as_ref()?.names_if_known()
    }

    /// The findings of identity `ptr` or `helo`: all, or those that can refuse and what is known besides.
    pub(super) async fn findings(&mut self, identity: Identity, wanted: Wanted) -> Findings {
        let policy = self.gate.policy();
        match identity {
            Identity::Ptr => match &mut self.ptr {
                None => Findings::default(),
                Some(ptr) => ptr.findings(&policy.ptr, self.client, wanted).await,
            },
            Identity::Helo => match &mut self.helo_lookup {
                None => Findings::default(),
                Some(look) => {
                    wanted.of(look, || temperror(&policy.helo, Identity::Helo, "", "").into()).await
                }
            },
            Identity::MailFrom | Identity::From | Identity::ReplyTo => Findings::default(),
        }
    }
}

/// Starts the look-up of one identity: `text` is the domain as it came, `name` what could be read of it.
pub(super) fn look(
    guest: &Client,
    identity: Identity,
    subject: &str,
    name: Option<&DomainName>,
    text: &str,
    budget: Budget,
) -> Look {
    let gate = &guest.gate;
    let rules = gate.policy().rules(identity);
    let Some(name) = name else {
        let invalid = RuleResult::Fail(Reason::InvalidDomain);
        return Look::ready(all_rules(rules, identity, subject, text, invalid).into());
    };
    let subject = OwnedSubject {
        identity,
        text: CompactString::new(subject),
        domain: name.clone(),
        helo: guest.helo.clone(),
    };
    let until = Instant::now() + gate.deadline;
    let named = Arc::new(Named { gate: Arc::clone(gate), subject, client: guest.client, until });
    let step = |urgency| {
        let (named, budget) = (Arc::clone(&named), budget.clone());
        async move { named.step(urgency, budget).await }
    };
    Look::start(rules, step(Urgency::Refuses), step(Urgency::Tags))
}

pub(super) fn temperror(
    rules: &IdentityRules,
    identity: Identity,
    subject: &str,
    domain: &str,
) -> Vec<Finding> {
    all_rules(rules, identity, subject, domain, RuleResult::TempError(DnsFailure::Timeout))
}

/// The same outcome for every rule that is looked at.
pub(super) fn all_rules(
    rules: &IdentityRules,
    identity: Identity,
    subject: &str,
    domain: &str,
    outcome: RuleResult,
) -> Vec<Finding> {
    rules.active().map(|rule| outcome_of(rule, identity, subject, domain, outcome)).collect()
}

/// An outcome that no look-up led to.
pub(super) fn outcome_of(
    rule: Rule,
    identity: Identity,
    subject: &str,
    domain: &str,
    outcome: RuleResult,
) -> Finding {
    Finding {
        identity,
        rule,
        domain: CompactString::new(domain),
        subject: CompactString::new(subject),
        outcome,
        evidence: Vec::new(),
    }
}
