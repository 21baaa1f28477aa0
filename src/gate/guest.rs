//! One connection, seen by the gate: what is known of the client itself (PTR names, HELO).

use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;
use tokio::sync::SetOnce;

use crate::gate::Gate;
use crate::gate::inspection::Inspection;
use crate::gate::pending::Pending;
use crate::gate::ptr::Ptr;
use crate::policy::evidence::Trouble;
use crate::policy::finding::{Absence, Finding, Outcome};
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, IdentityRules, Rule};
use crate::reverse_mx::{ClientNames, Subject};
use crate::smtp::address::{Domain, DomainName, ReversePath};

/// One connection. Dropping it ends the look-ups that only it waits for.
#[derive(Debug)]
pub struct Guest {
    pub(super) gate: Arc<Gate>,
    pub(super) client: IpAddr,
    pub(super) exempt: bool,
    /// What the client called itself.
    pub(super) hello: CompactString,
    ptr: Option<Ptr>,
    helo: Option<Pending<Arc<[Finding]>>>,
}

impl Guest {
    pub(super) fn new(gate: Arc<Gate>, client: IpAddr) -> Self {
        let exempt = gate.settings.exempt.client(client);
        let looks = gate.policy().ptr.looks() && !exempt;
        let ptr = looks.then(|| Ptr::start(&gate, client));
        Self { gate, client, exempt, hello: CompactString::default(), ptr, helo: None }
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

    /// The client introduced itself; the look-up starts now, if one is asked for.
    pub fn hello(&mut self, argument: &str) {
        self.hello = CompactString::new(argument);
        if self.exempt || !self.gate.policy().helo.looks() {
            return;
        }
        let domain = Domain::parse(argument).ok();
        let name = domain.as_ref().and_then(Domain::name);
        self.helo = Some(look(self, Identity::Helo, argument, name, argument));
    }

    /// A transaction begins; the look-up of its sender starts now.
    #[must_use]
    pub fn inspect(&self, path: &ReversePath) -> Inspection {
        Inspection::new(self, path)
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

    /// The findings of identity `ptr` or `helo`.
    pub(super) async fn findings(&mut self, identity: Identity) -> Vec<Finding> {
        match identity {
            Identity::Ptr => match &mut self.ptr {
                None => Vec::new(),
                Some(ptr) => ptr.findings(&self.gate.settings.policy.ptr, self.client).await.to_vec(),
            },
            Identity::Helo => match &mut self.helo {
                None => Vec::new(),
                Some(pending) => {
                    let rules = &self.gate.settings.policy.helo;
                    let lost = || temperror(rules, Identity::Helo, "", "").into();
                    pending.wait(lost).await.to_vec()
                }
            },
            Identity::MailFrom | Identity::From | Identity::ReplyTo => Vec::new(),
        }
    }
}

/// Starts the look-up of one identity: `text` is the domain as it came, `name` what could be read of it.
pub(super) fn look(
    guest: &Guest,
    identity: Identity,
    subject: &str,
    name: Option<&DomainName>,
    text: &str,
) -> Pending<Arc<[Finding]>> {
    let rules = guest.gate.policy().rules(identity);
    let Some(name) = name else {
        let invalid = Outcome::Fail(Reason::InvalidDomain);
        return Pending::ready(all_rules(rules, identity, subject, text, invalid).into());
    };
    let (gate, text, domain) = (Arc::clone(&guest.gate), CompactString::new(subject), name.clone());
    let (client, helo) = (guest.client, guest.hello.clone());
    Pending::start(async move {
        let subject = Subject { identity, text: &text, domain: &domain, helo: &helo };
        inspect_name(&gate, &subject, client).await.into()
    })
}

/// Both rules of one name, unless it is exempt; always within the deadline.
pub(super) async fn inspect_name(gate: &Gate, subject: &Subject<'_>, client: IpAddr) -> Vec<Finding> {
    let Subject { identity, text, domain: name, .. } = *subject;
    let rules = gate.policy().rules(identity);
    if gate.settings.exempt.domain(name) {
        return all_rules(rules, identity, text, name.as_str(), Outcome::None(Absence::Exempt));
    }
    let work = gate.reverse_mx.inspect(subject, rules, client);
    let found = tokio::time::timeout(gate.deadline, work).await;
    found.unwrap_or_else(|_elapsed| temperror(rules, identity, text, name.as_str()))
}

pub(super) fn temperror(
    rules: &IdentityRules,
    identity: Identity,
    subject: &str,
    domain: &str,
) -> Vec<Finding> {
    all_rules(rules, identity, subject, domain, Outcome::TempError(Trouble::Timeout))
}

/// The same outcome for every rule that is looked at.
pub(super) fn all_rules(
    rules: &IdentityRules,
    identity: Identity,
    subject: &str,
    domain: &str,
    outcome: Outcome,
) -> Vec<Finding> {
    let active = Rule::ALL.into_iter().filter(|rule| rules.action(*rule) != Action::Off);
    active
        .map(|rule| Finding {
            identity,
            rule,
            domain: CompactString::new(domain),
            subject: CompactString::new(subject),
            outcome,
            evidence: Vec::new(),
        })
        .collect()
}
