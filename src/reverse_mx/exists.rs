//! `exists`: the domain has a valid MX, or satisfies another rung that counts (contract 3.1).
//!
//! No connection to the addresses is tried: it would be a nuisance to their owners and delay the sender.
//!
//! Some servers answer NXDOMAIN for one type and have records of another, and for an empty non-terminal. So NXDOMAIN for MX is
//! an answer about MX: a rung that looks at addresses asks for them itself. The cache spares these questions where
//! DNSSEC proves that there is no such name.

use std::collections::HashSet;

use crate::dns::lookups::{Lookups, Start, addresses};
use crate::dns::organization::organization;
use crate::evidence::{Answer, Question, RecordType, Records, Target};
use crate::policy::finding::RuleResult;
use crate::policy::reason::Reason;
use crate::policy::rule::Rung;
use crate::reverse_mx::Settings;
use crate::smtp::address::DomainName;

/// Hosts without an address after which no other counts: a domain whose first ten exchangers are gone takes no mail in
/// practice, and each costs two questions.
const MOST_DEAD: usize = 10;

/// Tries the rungs in their order. Without one that holds, the first rung's reason counts.
pub(super) async fn exists(
    lookups: &mut Lookups<'_>,
    settings: &Settings,
    domain: &DomainName,
    rungs: &[Rung],
) -> RuleResult {
    let mut first_reason = None;
    for &rung in rungs {
        let judged = match rung {
            Rung::Mx => valid_mx(lookups, settings, domain).await,
            Rung::Address => implicit_mx(lookups, settings, domain).await,
            Rung::Organization => {
                let organization = organization(domain).unwrap_or_else(|| domain.clone());
                if organization == *domain && rungs.contains(&Rung::Mx) {
                    continue; // the rung `mx` says the same
                }
                by_organization(lookups, settings, domain, &organization).await
            }
            Rung::Network | Rung::Ptr | Rung::Spf | Rung::Dkim => continue, // rungs of `matches`
        };
        match judged {
            Ok(()) => return RuleResult::Pass(rung),
            Err(reason) => first_reason = first_reason.or(Some(reason)),
        }
    }
    lookups.failure(first_reason.unwrap_or(Reason::NoMx))
}

/// The MX hosts that are looked at, best first, of an MX RRset that isn't the null MX; otherwise the reason why not.
pub(super) async fn exchangers(
    lookups: &mut Lookups<'_>,
    settings: &Settings,
    domain: &DomainName,
) -> Result<Vec<DomainName>, Reason> {
    let answer = lookups.ask(domain, RecordType::Mx).await;
    let list = match &*answer {
        Answer::Found(Records::Mx(list)) => list,
        Answer::NoSuchDomain => return Err(Reason::NoSuchDomain),
        Answer::NoData | Answer::Found(_) => return Err(Reason::NoMx),
        Answer::Unavailable(_) => return Err(Reason::DnsError),
    };
    // RFC 7505 3: a null MX stands alone; a root target next to real ones is a mistake that says nothing.
    let real = list.iter().map(|(_, target)| target).filter(|target| **target != Target::Root);
    let mut hosts: Vec<DomainName> = Vec::new();
    let mut any = false;
    for target in real.take(settings.max_mx_hosts) {
        any = true;
        match target {
            Target::Host(host) if !host.is_ip_text() && !hosts.contains(host) => hosts.push(host.clone()),
            Target::Host(_) | Target::Root | Target::Invalid(_) => {}
        }
    }
    if any { Ok(hosts) } else { Err(Reason::NullMx) }
}

async fn valid_mx(lookups: &mut Lookups<'_>, settings: &Settings, domain: &DomainName) -> Result<(), Reason> {
    let hosts = exchangers(lookups, settings, domain).await?;
    usable_address(lookups, settings, &hosts, Start::FirstAlone, Reason::MxUnresolvable).await
}

/// RFC 5321 5.1: without any MX record the domain is its own exchanger. Not so with a null MX. Where MX is NXDOMAIN,
/// most likely there is no address either, and both questions are needed to know: they are asked side by side.
async fn implicit_mx(
    lookups: &mut Lookups<'_>,
    settings: &Settings,
    domain: &DomainName,
) -> Result<(), Reason> {
    let (start, reason) = match exchangers(lookups, settings, domain).await {
        Err(Reason::NoMx) => (Start::FirstAlone, Reason::NoMx),
        Err(Reason::NoSuchDomain) => (Start::Together, Reason::NoSuchDomain),
        Err(reason) => return Err(reason),
        Ok(_) => return Err(Reason::NoMx),
    };
    usable_address(lookups, settings, std::slice::from_ref(domain), start, reason).await
}

/// The organisation receives mail for a name that only sends. A name that doesn't exist or has a null MX can't be such a
/// name, and whether it is one must be known: anybody can make up names below an organisation.
async fn by_organization(
    lookups: &mut Lookups<'_>,
    settings: &Settings,
    domain: &DomainName,
    organization: &DomainName,
) -> Result<(), Reason> {
    match exchangers(lookups, settings, domain).await {
        Ok(_) | Err(Reason::NoMx) => valid_mx(lookups, settings, organization).await,
        Err(Reason::NoSuchDomain) if exists_for_addresses(lookups, domain).await => {
            valid_mx(lookups, settings, organization).await
        }
        Err(reason) => Err(reason),
    }
}

/// Whether a name whose MX is NXDOMAIN exists by its A or AAAA: it has such a record, or DNS says that it has none.
async fn exists_for_addresses(lookups: &mut Lookups<'_>, domain: &DomainName) -> bool {
    let questions = address_questions(domain).to_vec();
    let mut exists = false;
    lookups
        .ask_all(questions, Start::Together, |_, answer| {
            exists |= matches!(answer, Answer::Found(_) | Answer::NoData);
            exists
        })
        .await;
    exists
}

fn address_questions(host: &DomainName) -> [Question; 2] {
    [RecordType::A, RecordType::Aaaa].map(|rtype| Question { name: host.into(), rtype })
}

/// Whether one of the hosts has an address that mail can be sent to. The best host's A record is often enough; past
/// [`MOST_DEAD`] hosts without any address no more is asked.
async fn usable_address(
    lookups: &mut Lookups<'_>,
    settings: &Settings,
    hosts: &[DomainName],
    start: Start,
    without_any: Reason,
) -> Result<(), Reason> {
    let (mut usable, mut alive) = (false, HashSet::new());
    let (mut start, mut asked) = (start, 0);
    while let Some(hosts) = hosts.get(asked..).filter(|rest| !rest.is_empty()) {
        let dead = asked - alive.len();
        let hosts = hosts.get(..MOST_DEAD.saturating_sub(dead)).unwrap_or(hosts);
        if hosts.is_empty() {
            break;
        }
        let questions = hosts.iter().flat_map(address_questions);
        lookups
            .ask_all(questions.collect(), start, |question, answer| {
                for address in addresses(answer) {
                    alive.insert(question.name.clone());
                    usable |= settings.is_usable(address);
                }
                usable
            })
            .await;
        if usable {
            return Ok(());
        }
        (start, asked) = (Start::Together, asked + hosts.len());
    }
    if alive.is_empty() { Err(without_any) } else { Err(Reason::MxUnroutable) }
}
