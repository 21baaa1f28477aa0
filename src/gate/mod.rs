//! The verdict on a transaction: exempt? gather findings side by side under one deadline, decide, log.
//!
//! A [`Guest`] is one connection, an [`Inspection`] one transaction. Each look-up starts as soon as its identity is
//! known and runs while the client goes on; [`Inspection::envelope`] waits only for what can refuse, tags are waited
//! for at the end of the header block. The gate refuses nothing itself and opens nothing: it gives a decision.

mod allowance;
mod domains;
mod event;
mod exempt;
mod guest;
mod inspection;
mod look;
mod monitor;
mod networks;
mod pending;
mod ptr;
mod rehearsal;
mod signed;
pub mod tally;
#[cfg(test)]
mod tests;
mod visible;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use crate::gate::domains::Domains;
pub use crate::gate::event::Facts;
pub use crate::gate::exempt::Exemptions;
pub use crate::gate::guest::Guest;
pub use crate::gate::inspection::Inspection;
pub use crate::gate::monitor::{DAILY, Monitor, Occasion};
pub use crate::gate::networks::Networks;
pub use crate::gate::rehearsal::{Rehearsal, addresses, author, sender};
use crate::metrics::Metrics;
use crate::policy::rule::Policy;
use crate::record::Actions;
use crate::reverse_mx::ReverseMx;
use crate::smtp::address::ForwardPath;
use crate::store::greylist::Greylist;
use crate::store::history::History;

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
    memory: Memory,
    deadline: Duration,
    /// What each record says of the settings.
    actions: Actions,
    help_url: Arc<str>,
}

/// What the gate remembers of earlier decisions. It may outlive the gate: after a reload the next one has it.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Who came before. Without one, who is greylisted never passes.
    pub greylist: Option<Greylist>,
    /// What was refused, or would have been.
    pub monitor: Monitor,
    /// What counts verdicts.
    pub metrics: Metrics,
    /// What was decided; `None` = nobody wants to know later.
    pub history: Option<History>,
}

impl Gate {
    /// A gate over a resolver. `deadline` is for all look-ups of one identity together; what isn't found by then is a
    /// temperror.
    #[must_use]
    pub fn new(settings: Settings, reverse_mx: ReverseMx, deadline: Duration) -> Arc<Self> {
        Self::with_memory(settings, reverse_mx, deadline, Memory::default())
    }

    /// The same with a memory.
    #[must_use]
    pub fn with_memory(
        settings: Settings,
        reverse_mx: ReverseMx,
        deadline: Duration,
        memory: Memory,
    ) -> Arc<Self> {
        let (actions, help_url) = (Actions::of(&settings.policy), Arc::from(settings.help_url.as_str()));
        Arc::new(Self { settings, reverse_mx, memory, deadline, actions, help_url })
    }

    /// The operator's policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.settings.policy
    }

    /// A connection from this address; its PTR look-up starts now.
    #[must_use]
    pub fn guest(self: &Arc<Self>, client: IpAddr) -> Guest {
        Guest::new(Arc::clone(self), client.to_canonical())
    }

    /// Whether mail for this recipient is never refused.
    #[must_use]
    pub fn exempts_recipient(&self, path: &ForwardPath) -> bool {
        self.settings.exempt.recipient(path)
    }
}
