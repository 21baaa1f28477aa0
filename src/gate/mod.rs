//! The verdict on a transaction: exemptions, the findings side by side under one deadline, the decision, the log.
//!
//! A [`Client`] is one connection, a [`Transaction`] one message and its envelope. Each lookup starts as soon as its
//! identity is known and runs while the client goes on; RCPT waits only for what can refuse, tags are waited for at the
//! end of the header block. The gate opens no connection: it gives a [`Permit`], or a reply that refuses.

mod allowance;
mod client;
mod dry_run;
mod evaluation;
mod event;
pub mod hindsight;
mod journal;
mod known;
mod lookup;
mod owner;
mod pending;
mod permitted;
mod ptr;
mod signed;
#[cfg(test)]
mod tests;
mod transaction;
mod visible;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::decision::{Actions, Node};
use crate::exempt::Exemptions;
pub use crate::gate::client::Client;
pub use crate::gate::dry_run::{DryMessage, DryRun, author, sender};
pub use crate::gate::transaction::{Permit, Transaction};
use crate::metrics::Metrics;
use crate::policy::door::DoorName;
use crate::policy::operator::Policy;
use crate::policy::rule::{Mode, OnDnsError};
use crate::reverse_mx::ReverseMx;
use crate::smtp::address::ForwardPath;
use crate::stats::Monitor;
use crate::store::greylist::Greylist;
use crate::store::history::History;
use crate::store::permits::PermitStore;

/// What the gate decides by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The rules.
    pub policy: Policy,
    /// The exceptions.
    pub exempt: Exemptions,
    /// `reply.help_url`; empty = none.
    pub help_url: String,
}

/// What all connections share.
#[derive(Debug)]
pub struct Gate {
    settings: Settings,
    reverse_mx: ReverseMx,
    services: Services,
    deadline: Duration,
    /// The policy's actions, for each record.
    actions: Actions,
    help_url: Arc<str>,
}

/// What the gate uses beside DNS. It may outlive the gate: after a reload the next one has it.
#[derive(Debug, Clone, Default)]
pub struct Services {
    /// The senders that came before. Without one a sender that is greylisted never passes.
    pub greylist: Option<Greylist>,
    /// Sums up what was refused, or would have been.
    pub monitor: Monitor,
    /// Counts verdicts and outcomes.
    pub metrics: Metrics,
    /// Keeps each decision; `None` = none is kept.
    pub history: Option<History>,
    /// The temporary permits; `None` = there are none.
    pub permits: Option<PermitStore>,
    /// Whose ids the decisions have.
    pub node: Node,
}

impl Gate {
    /// A gate over a resolver. `deadline` is for all lookups of one identity together; a rule that has no result by
    /// then is a temperror.
    #[must_use]
    pub fn new(settings: Settings, reverse_mx: ReverseMx, deadline: Duration) -> Arc<Self> {
        Self::with_services(settings, reverse_mx, deadline, Services::default())
    }

    /// The same with services.
    #[must_use]
    pub fn with_services(
        settings: Settings,
        reverse_mx: ReverseMx,
        deadline: Duration,
        services: Services,
    ) -> Arc<Self> {
        let (actions, help_url) = (Actions::of(&settings.policy), Arc::from(settings.help_url.as_str()));
        Arc::new(Self { settings, reverse_mx, services, deadline, actions, help_url })
    }

    /// The operator's policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.settings.policy
    }

    /// A connection from this address to the SMTP door; its PTR lookup starts now.
    #[must_use]
    pub fn client(self: &Arc<Self>, address: IpAddr) -> Client {
        self.client_at(DoorName::Smtp, address)
    }

    /// A client at one of the doors; its PTR lookup starts now.
    #[must_use]
    pub fn client_at(self: &Arc<Self>, door: DoorName, address: IpAddr) -> Client {
        let address = address.to_canonical();
        Client::new(Arc::clone(self), door, address, self.settings.exempt.client(address))
    }

    /// A client of the relay's that has logged in with a password: it is exempt, wherever it comes from (contract 7.1).
    #[must_use]
    pub fn user_at(self: &Arc<Self>, door: DoorName, address: IpAddr) -> Client {
        Client::new(Arc::clone(self), door, address.to_canonical(), true)
    }

    /// Whether a client of which nothing is known, not even its address, waits until it is.
    #[must_use]
    pub fn defers_unknown(&self) -> bool {
        let policy = self.policy();
        policy.mode == Mode::Enforce && policy.on_dns_error == OnDnsError::Defer
    }

    /// Whether mail for this recipient is never refused, wherever it comes from.
    #[must_use]
    pub fn exempts_recipient(&self, path: &ForwardPath) -> bool {
        let nowhere = Ipv4Addr::UNSPECIFIED.into();
        self.settings.exempt.recipient(path) || self.permit_of_recipient(nowhere, None, path).is_some()
    }
}
