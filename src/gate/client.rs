//! One connection, seen by the gate: what is known of the client itself (PTR names, HELO).

use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;
use tokio::sync::SetOnce;
use tokio::time::Instant;

use crate::decision::{LetIn, Node};
use crate::dns::{Budget, Urgency};
use crate::gate::Gate;
use crate::gate::allowance::Allowance;
use crate::gate::known::{for_each_rule, timed_out};
use crate::gate::lookup::{Findings, Lookup, Named, OwnedSubject, Wanted};
use crate::gate::ptr::Ptr;
use crate::metrics::Wait;
use crate::policy::door::DoorName;
use crate::policy::finding::RuleResult;
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::reverse_mx::ClientNames;
use crate::smtp::address::{Domain, DomainName};
use crate::store::shared::Patience;

/// Characters of a version of TLS that are kept; `DTLSv1.2` is the longest that OpenSSL has.
const MAX_TLS: usize = 16;

/// One connection. Dropping it ends the lookups that only it waits for.
#[derive(Debug)]
pub struct Client {
    pub(super) gate: Arc<Gate>,
    address: IpAddr,
    door: DoorName,
    exempt: bool,
    /// The argument of HELO.
    helo: CompactString,
    /// As in [`crate::decision::DecisionRecord`].
    tls: CompactString,
    ptr: Option<Ptr>,
    helo_lookup: Option<Lookup>,
    /// HELO was not looked up, since a permit let the client in.
    helo_waits: bool,
    /// The questions that the next message may cause, together with what the client sends before it.
    allowance: Allowance,
    /// How long it waits for other nodes.
    patience: Patience,
}

impl Client {
    pub(super) fn new(gate: Arc<Gate>, door: DoorName, address: IpAddr, exempt: bool) -> Self {
        let looks = gate.policy().ptr.looks() && !exempt && gate.permit_of_client(address).is_none();
        let allowance = Allowance::new();
        let ptr = looks.then(|| Ptr::start(&gate, address, allowance.names()));
        Self {
            gate,
            address,
            door,
            exempt,
            helo: CompactString::default(),
            tls: CompactString::default(),
            ptr,
            helo_lookup: None,
            helo_waits: false,
            allowance,
            patience: Patience::default(),
        }
    }

    /// The client's address; an IPv4-mapped one is the IPv4 address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The door at which the client is.
    #[must_use]
    pub fn door(&self) -> DoorName {
        self.door
    }

    pub(super) fn node(&self) -> Node {
        self.gate.services.node
    }

    /// Whether the client is exempt: nothing is looked up for it.
    #[must_use]
    pub fn is_exempt(&self) -> bool {
        self.exempt
    }

    pub(super) fn patience(&self) -> Patience {
        self.patience.clone()
    }

    /// The argument of HELO, empty before it came.
    #[must_use]
    pub fn helo_argument(&self) -> &str {
        &self.helo
    }

    /// The version of TLS that the session has from now on, such as `TLSv1.3`.
    pub fn set_tls(&mut self, version: &str) {
        self.tls = version.chars().take(MAX_TLS).collect();
    }

    /// The version of TLS, empty for plain text.
    #[must_use]
    pub fn tls(&self) -> &str {
        &self.tls
    }

    /// HELO or EHLO came; its lookup starts now, if the policy has one. The same argument again, as after STARTTLS, is not
    /// looked up again.
    pub fn helo(&mut self, argument: &str) {
        let same = self.helo_lookup.is_some() && self.helo == argument;
        self.helo = CompactString::new(argument);
        if self.exempt || same || !self.gate.policy().helo.looks() {
            return;
        }
        self.helo_waits = self.let_in().is_some();
        if self.helo_waits {
            self.helo_lookup = None;
        } else {
            self.look_up_helo();
        }
    }

    /// The permit for all that the client sends now.
    fn let_in(&self) -> Option<LetIn> {
        self.gate.permit_of_client(self.address)
    }

    fn look_up_helo(&mut self) {
        let argument = self.helo.as_str();
        let domain = Domain::parse(argument).ok();
        let name = domain.as_ref().and_then(Domain::name);
        let budget = self.allowance.connection();
        self.helo_lookup = Some(self.look_up(Identity::Helo, argument, name, argument, budget));
    }

    /// What was not looked up for a permit that is over.
    fn catch_up(&mut self) {
        if self.ptr.is_none() && self.gate.policy().ptr.looks() {
            self.ptr = Some(Ptr::start(&self.gate, self.address, self.allowance.names()));
        }
        if std::mem::take(&mut self.helo_waits) {
            self.look_up_helo();
        }
    }

    /// The allowance of the transaction that begins, and the permit for all that the client sends, which holds for the whole
    /// transaction: without it `ptr` and `helo` are looked up, `ptr` with the first transaction.
    pub(super) fn begin(&mut self) -> (Allowance, Option<LetIn>) {
        let let_in = if self.exempt { None } else { self.let_in() };
        if self.exempt || let_in.is_some() {
            return (std::mem::replace(&mut self.allowance, Allowance::new()), let_in);
        }
        self.catch_up();
        let allowance = std::mem::replace(&mut self.allowance, Allowance::new());
        if let Some(ptr) = &mut self.ptr {
            ptr.judge(&self.gate, self.address, allowance.connection());
        }
        (allowance, None)
    }

    /// The cell that will hold the client's names.
    pub(super) fn shared_names(&self) -> Option<Arc<SetOnce<ClientNames>>> {
        self.ptr.as_ref().map(Ptr::shared_names)
    }

    /// The client's names, once they are known; `None` where the policy doesn't ask for them.
    pub async fn names(&self) -> Option<&ClientNames> {
        let ptr = self.ptr.as_ref()?;
        if let Some(names) = ptr.names_if_known() {
            return Some(names);
        }
        let began = Instant::now();
        let names = ptr.names().await;
        self.waited(Wait::Name, began);
        Some(names)
    }

    /// Counts that the client waited since then.
    pub fn waited(&self, wait: Wait, began: Instant) {
        self.gate.services.metrics.waited(self.door, wait, began.elapsed());
    }

    /// The client's names, if they are known by now.
    #[must_use]
    pub fn names_if_known(&self) -> Option<&ClientNames> {
        self.ptr.as_ref()?.names_if_known()
    }

    /// The findings of identity `ptr` or `helo`: all, or those that can refuse and the others that are there by now.
    pub(super) async fn findings(&mut self, identity: Identity, wanted: Wanted) -> Findings {
        let policy = self.gate.policy();
        match identity {
            Identity::Ptr => match &mut self.ptr {
                None => Findings::default(),
                Some(ptr) => ptr.findings(&policy.ptr, self.address, wanted).await,
            },
            Identity::Helo => match &mut self.helo_lookup {
                None => Findings::default(),
                Some(lookup) => {
                    let lost = || timed_out(policy.general(Identity::Helo), Identity::Helo, "", "").into();
                    wanted.of(lookup, lost).await
                }
            },
            Identity::MailFrom | Identity::From | Identity::ReplyTo => Findings::default(),
        }
    }

    /// Starts the lookup of one identity: `text` is the domain as it came, `name` the same where it is a domain name.
    pub(super) fn look_up(
        &self,
        identity: Identity,
        subject: &str,
        name: Option<&DomainName>,
        text: &str,
        budget: Budget,
    ) -> Lookup {
        let gate = &self.gate;
        let Some(name) = name else {
            let (rules, invalid) = (gate.policy().general(identity), RuleResult::Fail(Reason::InvalidDomain));
            return Lookup::ready(for_each_rule(rules, identity, subject, text, invalid).into());
        };
        let rules = gate.policy().in_force(identity, name).rules;
        let subject = OwnedSubject {
            identity,
            text: CompactString::new(subject),
            domain: name.clone(),
            helo: self.helo.clone(),
            envelope: None,
        };
        let until = Instant::now() + gate.deadline;
        let named = Arc::new(Named { gate: Arc::clone(gate), subject, client: self.address, until });
        let step = |urgency| {
            let (named, budget) = (Arc::clone(&named), budget.clone());
            async move { named.step(urgency, budget).await }
        };
        Lookup::start(rules, step(Urgency::Refuses), step(Urgency::Tags))
    }
}
