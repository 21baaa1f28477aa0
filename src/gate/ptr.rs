//! What is known of the client itself: its PTR names, and what the rules make of them.
//!
//! One deadline is for both together. The names are known first, and stay known whatever becomes of the look-ups that
//! the rules need: the relay, the log and Authentication-Results want the names only.

use std::net::IpAddr;
use std::sync::Arc;

use compact_str::{CompactString, ToCompactString};
use tokio::sync::SetOnce;

use crate::gate::Gate;
use crate::gate::guest::{all_rules, temperror};
use crate::gate::pending::Pending;
use crate::policy::evidence::Trouble;
use crate::policy::finding::{Absence, Finding, Outcome};
use crate::policy::identity::Identity;
use crate::policy::rule::IdentityRules;
use crate::reverse_mx::{ClientNames, NamesOutcome};

/// The look-up of one client. Dropping it ends that.
#[derive(Debug)]
pub(super) struct Ptr {
    names: Arc<SetOnce<ClientNames>>,
    findings: Pending<Vec<Finding>>,
}

impl Ptr {
    /// Starts now.
    pub(super) fn start(gate: &Arc<Gate>, client: IpAddr) -> Self {
        let names = Arc::new(SetOnce::new());
        let findings = Pending::start(inspect(Arc::clone(gate), client, Teller(Arc::clone(&names))));
        Self { names, findings }
    }

    /// The names, once they are known.
    pub(super) async fn names(&self) -> &ClientNames {
        self.names.wait().await
    }

    /// Where the names are, once they are known.
    pub(super) fn shared_names(&self) -> Arc<SetOnce<ClientNames>> {
        Arc::clone(&self.names)
    }

    /// The names, if they are known by now.
    pub(super) fn names_if_known(&self) -> Option<&ClientNames> {
        self.names.get()
    }

    /// What the rules made of them.
    pub(super) async fn findings(&mut self, rules: &IdentityRules, client: IpAddr) -> &[Finding] {
        let names = &self.names;
        self.findings.wait(|| too_late(rules, names.get(), client)).await
    }
}

/// Tells the names; at the latest when it is dropped, be it by the deadline or a panic, so that nobody waits in vain.
struct Teller(Arc<SetOnce<ClientNames>>);

impl Teller {
    async fn tell(&self, names: ClientNames) -> &ClientNames {
        self.0.set(names).ok();
        self.0.wait().await
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        if !self.0.initialized() {
            let outcome = NamesOutcome::TempError(Trouble::Timeout);
            self.0.set(ClientNames { outcome, evidence: Vec::new() }).ok();
        }
    }
}

async fn inspect(gate: Arc<Gate>, client: IpAddr, teller: Teller) -> Vec<Finding> {
    let rules = &gate.policy().ptr;
    let work = async {
        let names = teller.tell(gate.reverse_mx.names_of(client).await).await;
        let exempt = match &names.outcome {
            NamesOutcome::Confirmed(confirmed) => {
                confirmed.iter().find(|name| gate.settings.exempt.domain(name))
            }
            _ => None,
        };
        match exempt {
            Some(name) => {
                all_rules(rules, Identity::Ptr, name.as_str(), name.as_str(), Outcome::None(Absence::Exempt))
            }
            None => gate.reverse_mx.inspect_ptr(names, rules, client).await,
        }
    };
    let found = tokio::time::timeout(gate.deadline, work).await;
    found.unwrap_or_else(|_elapsed| too_late(rules, teller.0.get(), client))
}

fn too_late(rules: &IdentityRules, names: Option<&ClientNames>, client: IpAddr) -> Vec<Finding> {
    let name = names.and_then(ClientNames::first).map(|name| CompactString::new(name.as_str()));
    let text = name.unwrap_or_else(|| client.to_compact_string());
    temperror(rules, Identity::Ptr, &text, &text)
}
