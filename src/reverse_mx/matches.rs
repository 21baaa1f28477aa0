//! `matches`: the client is one of the domain's mail exchangers, or stands in the same network as one.
//!
//! Only addresses of the client's family are asked for. What DNS has no exchanger for has none that could be the
//! client, so absence of any kind is `not_an_exchanger`; `exists` says what is wrong with the domain.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::policy::evidence::Question;
use crate::policy::finding::Outcome;
use crate::policy::reason::Reason;
use crate::policy::rule::{IdentityRules, Rung};
use crate::reverse_mx::Settings;
use crate::reverse_mx::exists::exchangers;
use crate::reverse_mx::trail::{Start, Trail, addresses, family};
use crate::smtp::address::DomainName;

/// Tries the rungs in their order, all over the same look-ups.
pub(super) async fn matches(
    trail: &mut Trail<'_>,
    settings: &Settings,
    domain: &DomainName,
    rules: &IdentityRules,
    client: IpAddr,
) -> Outcome {
    let (client, rungs) = (client.to_canonical(), &rules.matches_by);
    let hosts = match exchangers(trail, settings, domain).await {
        // Where the operator lets the domain be its own exchanger (RFC 5321 5.1), it is so here too.
        Err(Reason::NoMx) if rules.exists_by.contains(&Rung::Address) => vec![domain.clone()],
        found => found.unwrap_or_default(),
    };
    let questions = hosts.into_iter().map(|name| Question { name, rtype: family(client) });
    let mut held = vec![false; rungs.len()];
    trail
        .ask_all(questions.collect(), Start::Together, |_, answer| {
            for address in addresses(answer).filter(|&address| settings.is_usable(address)) {
                for (rung, held) in rungs.iter().zip(&mut held) {
                    *held |= holds(settings, *rung, address, client);
                }
            }
            held.first() == Some(&true) // no rung comes before it
        })
        .await;
    let rung = rungs.iter().zip(held).find_map(|(rung, held)| held.then_some(*rung));
    trail.outcome(rung.ok_or(Reason::NotAnExchanger))
}

fn holds(settings: &Settings, rung: Rung, exchanger: IpAddr, client: IpAddr) -> bool {
    match rung {
        Rung::Mx => exchanger == client,
        Rung::Network => {
            let prefix =
                if exchanger.is_ipv4() { settings.match_prefix_v4 } else { settings.match_prefix_v6 };
            IpNet::new(exchanger, prefix).is_ok_and(|network| network.contains(&client))
        }
        Rung::Address | Rung::Organization => false, // rungs of `exists`
    }
}
