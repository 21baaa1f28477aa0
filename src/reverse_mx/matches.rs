//! `matches`: the client is one of the domain's mail exchangers, is in the network of one, has a name of the organisation, or
//! passes its SPF policy.
//!
//! Rungs are tried one after the other, so that a later one costs questions only where no earlier one holds; `mx` and
//! `network` share their lookups. Only addresses of the client's family are asked for. A domain without exchangers has none that
//! could be the client, so absence of any kind is `not_an_exchanger`; the reason of `exists` shows what is wrong with the
//! domain. An SPF result other than pass has no reason of its own: the rung doesn't hold.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::dns::lookups::{Lookups, Start, addresses, family};
use crate::dns::organization::organization;
use crate::evidence::Question;
use crate::policy::authentication::{SpfCheck, SpfResult};
use crate::policy::finding::RuleResult;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, IdentityRules, Rung};
use crate::reverse_mx::exists::exchangers;
use crate::reverse_mx::ptr::shares_organization;
use crate::reverse_mx::{Envelope, Settings, Subject};
use crate::smtp::address::DomainName;
use crate::spf;

/// The result of a rule, with that of SPF where a rung asked for it.
pub(super) struct Matched {
    pub(super) outcome: RuleResult,
    pub(super) spf: Option<SpfCheck>,
}

impl From<RuleResult> for Matched {
    fn from(outcome: RuleResult) -> Self {
        Self { outcome, spf: None }
    }
}

/// Tries the rungs in their order. With the action `dmarc` SPF is not asked here: whether it is needed, and what it must be
/// aligned with, the owner of the domain decides.
pub(super) async fn matches(
    lookups: &mut Lookups<'_>,
    settings: &Settings,
    subject: &Subject<'_>,
    rules: &IdentityRules,
) -> Matched {
    let domain = subject.domain;
    let (mut nearness, mut spf) = (None, None);
    for &rung in &rules.matches_by {
        let holds = match rung {
            Rung::Mx | Rung::Network => {
                if nearness.is_none() {
                    nearness = Some(nearness_of_exchangers(lookups, settings, domain, rules).await);
                }
                nearness.is_some_and(|nearness| nearness.holds(rung))
            }
            Rung::Ptr => shares_organization(lookups, domain).await,
            Rung::Spf if rules.matches == Action::Dmarc => false,
            Rung::Spf => passes_spf(lookups, subject, &mut spf).await,
            Rung::Dkim => false, // the gate's, where no other holds: it needs the body
            Rung::Address | Rung::Organization => false, // rungs of `exists`
        };
        if holds {
            return Matched { outcome: RuleResult::Pass(rung), spf };
        }
    }
    Matched { outcome: lookups.failure(Reason::NotAnExchanger), spf }
}

/// SPF for the domain; for From: first for the envelope's sender, where both have the same organisational domain.
async fn passes_spf(lookups: &mut Lookups<'_>, subject: &Subject<'_>, spf: &mut Option<SpfCheck>) -> bool {
    let aligned = |envelope: &Envelope<'_>| {
        let sender = envelope.sender.domain;
        sender == subject.domain
            || organization(sender).is_some_and(|name| organization(subject.domain) == Some(name))
    };
    let own = Envelope { identity: subject.identity, sender: subject.sender() };
    for envelope in subject.envelope.filter(aligned).into_iter().chain([own]) {
        let result = spf::check_by(lookups, &envelope.sender).await;
        *spf = Some(envelope.checked(result));
        if result == SpfResult::Pass {
            return true;
        }
    }
    false
}

/// How near the domain's exchangers come to the client.
#[derive(Debug, Clone, Copy, Default)]
struct Nearness {
    same_address: bool,
    same_network: bool,
}

impl Nearness {
    fn holds(self, rung: Rung) -> bool {
        match rung {
            Rung::Mx => self.same_address,
            Rung::Network => self.same_network,
            Rung::Address | Rung::Organization | Rung::Ptr | Rung::Spf | Rung::Dkim => false,
        }
    }

    fn add(&mut self, settings: &Settings, exchanger: IpAddr, client: IpAddr) {
        let prefix = if exchanger.is_ipv4() { settings.match_prefix_v4 } else { settings.match_prefix_v6 };
        self.same_address |= exchanger == client;
        self.same_network |= IpNet::new(exchanger, prefix).is_ok_and(|network| network.contains(&client));
    }
}

/// As far as the first of the two rungs that the operator lists needs it: where that holds, no more is asked.
async fn nearness_of_exchangers(
    lookups: &mut Lookups<'_>,
    settings: &Settings,
    domain: &DomainName,
    rules: &IdentityRules,
) -> Nearness {
    let client = lookups.client();
    let hosts = match exchangers(lookups, settings, domain).await {
        // Where the operator lets the domain be its own exchanger (RFC 5321 5.1), it is so here too.
        Err(Reason::NoMx | Reason::NoSuchDomain) if rules.exists_by.contains(&Rung::Address) => {
            vec![domain.clone()]
        }
        found => found.unwrap_or_default(),
    };
    let questions = hosts.iter().map(|name| Question { name: name.into(), rtype: family(client) });
    let first = rules.matches_by.iter().find(|rung| matches!(rung, Rung::Mx | Rung::Network));
    let mut nearness = Nearness::default();
    lookups
        .ask_all(questions.collect(), Start::Together, |_, answer| {
            for address in addresses(answer).filter(|&address| settings.is_usable(address)) {
                nearness.add(settings, address, client);
            }
            first.is_some_and(|rung| nearness.holds(*rung))
        })
        .await;
    nearness
}
