//! What is known of the client itself: its PTR names, and what the rules make of them.
//!
//! The names are looked up when the client connects, and stay known whatever becomes of the lookups that the rules need: the
//! relay, the log and Authentication-Results want the names only. What the rules need is asked for when there is mail to judge.

use std::net::IpAddr;
use std::sync::Arc;

use compact_str::{CompactString, ToCompactString};
use tokio::sync::SetOnce;
use tokio::time::{Instant, timeout, timeout_at};

use crate::dns::{Account, Budget, Urgency};
use crate::evidence::DnsFailure;
use crate::gate::Gate;
use crate::gate::known::{finding, timed_out};
use crate::gate::lookup::{Findings, Lookup, Wanted, rules_of};
use crate::gate::pending::Pending;
use crate::policy::finding::{Absence, Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::operator::InForce;
use crate::policy::rule::IdentityRules;
use crate::reverse_mx::{ClientNames, FcrdnsResult};

type Names = Arc<SetOnce<ClientNames>>;

/// The lookup of one client. Dropping it ends that.
#[derive(Debug)]
pub(super) struct Ptr {
    names: Names,
    _looking: Pending<()>,
    /// `None` until there is mail.
    judged: Option<Lookup>,
}

impl Ptr {
    /// Looks up the names from now on.
    pub(super) fn start(gate: &Arc<Gate>, client: IpAddr, budget: Budget) -> Self {
        let names = Names::default();
        let looking =
            Pending::start(look_up(Arc::clone(gate), client, budget, NamesSender(Arc::clone(&names))));
        Self { names, _looking: looking, judged: None }
    }

    /// Judges the names from now on, unless that was begun before.
    pub(super) fn judge(&mut self, gate: &Arc<Gate>, client: IpAddr, budget: Budget) {
        let until = Instant::now() + gate.deadline;
        let step = |urgency| {
            let (gate, names) = (Arc::clone(gate), Arc::clone(&self.names));
            inspect(gate, names, Account::new(client, budget.clone(), urgency), urgency, until)
        };
        if self.judged.is_none() {
            let lookup = Lookup::start(&gate.policy().ptr, step(Urgency::Refuses), step(Urgency::Tags));
            self.judged = Some(lookup);
        }
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
    pub(super) async fn findings(
        &mut self,
        rules: &IdentityRules,
        client: IpAddr,
        wanted: Wanted,
    ) -> Findings {
        let lost = || too_late(rules, self.names.get(), client).into();
        match &mut self.judged {
            Some(lookup) => wanted.of(lookup, lost).await,
            None => lost(),
        }
    }
}

/// Hands on the names; at the latest when it is dropped, by the deadline or a panic, so that no task waits in vain.
struct NamesSender(Names);

impl Drop for NamesSender {
    fn drop(&mut self) {
        if !self.0.initialized() {
            let outcome = FcrdnsResult::TempError(DnsFailure::Timeout);
            self.0.set(ClientNames { outcome, evidence: Vec::new() }).ok();
        }
    }
}

async fn look_up(gate: Arc<Gate>, client: IpAddr, budget: Budget, sender: NamesSender) {
    let urgency = if gate.policy().ptr.refuses() { Urgency::Refuses } else { Urgency::Tags };
    let account = Account::new(client, budget, urgency);
    if let Ok(names) = timeout(gate.deadline, gate.reverse_mx.names_of(&account)).await {
        sender.0.set(names).ok();
    }
}

/// The findings of the rules with this urgency.
async fn inspect(
    gate: Arc<Gate>,
    names: Names,
    account: Account,
    urgency: Urgency,
    until: Instant,
) -> Vec<Finding> {
    let in_force = gate.policy().general(Identity::Ptr);
    let rules = in_force.rules;
    let mut findings = Vec::new();
    for rule in rules_of(rules, urgency) {
        let work = async {
            let names = names.wait().await;
            let exempt = match &names.outcome {
                FcrdnsResult::Confirmed(confirmed) => {
                    confirmed.iter().find(|name| gate.settings.exempt.domain(name))
                }
                _ => None,
            };
            match exempt {
                Some(name) => {
                    let exempt = RuleResult::None(Absence::Exempt);
                    finding(in_force, rule, Identity::Ptr, name.as_str(), name.as_str(), exempt)
                }
                None => gate.reverse_mx.inspect_ptr(rule, names, rules, &account).await,
            }
        };
        let found = timeout_at(until, Box::pin(work)).await;
        findings.push(found.unwrap_or_else(|_elapsed| {
            let text = name_of(names.get(), account.client());
            finding(in_force, rule, Identity::Ptr, &text, &text, RuleResult::TempError(DnsFailure::Timeout))
        }));
    }
    findings
}

fn too_late(rules: &IdentityRules, names: Option<&ClientNames>, client: IpAddr) -> Vec<Finding> {
    let text = name_of(names, client);
    timed_out(InForce { rules, entry: None }, Identity::Ptr, &text, &text)
}

fn name_of(names: Option<&ClientNames>, client: IpAddr) -> CompactString {
    let name = names.and_then(ClientNames::first).map(|name| CompactString::new(name.as_str()));
    name.unwrap_or_else(|| client.to_compact_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rule::{Action, Rung};

    #[test]
    fn names_that_come_too_late_are_trouble_of_the_address() {
        let (exists_by, matches_by) = (vec![Rung::Mx], vec![Rung::Mx]);
        let rules = IdentityRules { exists: Action::Reject, matches: Action::Tag, exists_by, matches_by };
        let found = too_late(&rules, None, "192.0.2.7".parse().unwrap());
        let seen: Vec<_> = found.iter().map(|it| (it.identity, it.subject.as_str(), it.outcome)).collect();
        let trouble = (Identity::Ptr, "192.0.2.7", RuleResult::TempError(DnsFailure::Timeout));
        assert_eq!(seen, [trouble, trouble]);
    }
}
