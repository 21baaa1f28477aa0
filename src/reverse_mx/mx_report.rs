//! All DNS records of a domain's exchangers, for its own administrator (`rmxd audit`).
//!
//! The rules stop as soon as they have a result. The report asks for every address of every host, and contains the faults that
//! the rules skip.

use std::net::IpAddr;

use futures_util::future::{join, join_all};

use crate::dns::lookups::{Lookups, addresses};
use crate::dns::{Account, Dns};
use crate::evidence::{Answer, DnsFailure, RecordType, Records, Target};
use crate::reverse_mx::{ReverseMx, Settings};
use crate::smtp::address::DomainName;

/// What a name holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The addresses of both families, where it is an alias those that it leads to.
    pub addresses: Vec<IpAddr>,
    /// What it is an alias of.
    pub alias: Option<Target>,
    /// A lookup of it failed.
    pub trouble: Option<DnsFailure>,
}

impl Holding {
    /// No lookup failed, a record of any type can be added, and no other address of this family is in the way.
    #[must_use]
    pub fn is_free_for(&self, address: IpAddr) -> bool {
        let same_family = |other: &IpAddr| other.is_ipv4() == address.is_ipv4();
        self.alias.is_none() && self.trouble.is_none() && !self.addresses.iter().any(same_family)
    }
}

/// One record of the MX RRset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchanger {
    /// Lower is better.
    pub preference: u16,
    /// As the record has it.
    pub target: Target,
    /// Whether the rules look at it: a host name, and not one too many.
    pub counts: bool,
    /// What it holds; `None` where it is no host name.
    pub holding: Option<Holding>,
    /// Whether mail can be sent to one of its addresses.
    pub usable: bool,
}

impl Exchanger {
    /// The host, where the rules look at it.
    #[must_use]
    pub fn host(&self) -> Option<&DomainName> {
        match &self.target {
            Target::Host(name) if self.counts => Some(name),
            Target::Host(_) | Target::Root | Target::Invalid(_) => None,
        }
    }

    /// Whether it is a host that has this address.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        let holding = self.holding.as_ref().filter(|_| self.counts);
        holding.is_some_and(|holding| holding.addresses.contains(&address))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchangers {
    /// These, best first.
    Listed(Vec<Exchanger>),
    /// The null MX (RFC 7505): it takes no mail.
    Null,
    /// The name exists without an MX record.
    Absent,
    /// NXDOMAIN.
    NoSuchDomain,
    /// Unknown: the lookup failed.
    Unavailable(DnsFailure),
}

/// A domain as its administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MxReport {
    /// Its MX records.
    pub exchangers: Exchangers,
    /// The name itself.
    pub own: Holding,
}

impl MxReport {
    /// The MX records; none where there is none.
    #[must_use]
    pub fn listed(&self) -> &[Exchanger] {
        match &self.exchangers {
            Exchangers::Listed(list) => list,
            Exchangers::Null | Exchangers::Absent | Exchangers::NoSuchDomain | Exchangers::Unavailable(_) => {
                &[]
            }
        }
    }

    /// The best host that has this address.
    #[must_use]
    pub fn exchanger_with(&self, address: IpAddr) -> Option<&Exchanger> {
        self.listed().iter().find(|exchanger| exchanger.has(address))
    }

    /// Whether mail for the domain comes in at the address: it is an MX host's, or without any MX record the domain's own
    /// (RFC 5321 5.1).
    #[must_use]
    pub fn takes_mail_at(&self, address: IpAddr) -> bool {
        let implicit = self.exchangers == Exchangers::Absent && self.own.addresses.contains(&address);
        implicit || self.exchanger_with(address).is_some()
    }

    /// A failed lookup that may hide an exchanger or its address.
    #[must_use]
    pub fn trouble(&self) -> Option<DnsFailure> {
        match self.exchangers {
            Exchangers::Unavailable(trouble) => Some(trouble),
            Exchangers::Listed(_) | Exchangers::Null | Exchangers::Absent | Exchangers::NoSuchDomain => {
                let holdings = self.listed().iter().filter(|host| host.counts);
                holdings.filter_map(|host| host.holding.as_ref()?.trouble).next()
            }
        }
    }
}

impl ReverseMx {
    /// Whether mail can be sent to the address, by these settings.
    #[must_use]
    pub fn is_usable(&self, address: IpAddr) -> bool {
        self.settings.is_usable(address.to_canonical())
    }

    /// The domain and its exchangers; the questions are on this account.
    pub async fn mx_report(&self, domain: &DomainName, account: &Account) -> MxReport {
        let mut lookups = Lookups::new(&self.dns, account);
        let (answer, own) = join(lookups.ask(domain, RecordType::Mx), self.holding(domain, account)).await;
        let exchangers = match &*answer {
            Answer::Found(Records::Mx(list)) if list.iter().all(|(_, target)| *target == Target::Root) => {
                Exchangers::Null
            }
            Answer::Found(Records::Mx(list)) => {
                let mut list = counted(list, &self.settings);
                let ask = |target: &Target| match target {
                    Target::Host(name) if !name.is_ip_text() => Some(name.clone()),
                    Target::Host(_) | Target::Root | Target::Invalid(_) => None,
                };
                let names: Vec<_> = list.iter().map(|exchanger| ask(&exchanger.target)).collect();
                let holdings = names.iter().map(async |name| match name {
                    Some(name) => Some(self.holding(name, account).await),
                    None => None,
                });
                for (exchanger, holding) in list.iter_mut().zip(join_all(holdings).await) {
                    let mut addresses = holding.iter().flat_map(|holding| &holding.addresses);
                    exchanger.usable = addresses.any(|address| self.settings.is_usable(*address));
                    exchanger.holding = holding;
                }
                Exchangers::Listed(list)
            }
            Answer::NoSuchDomain => Exchangers::NoSuchDomain,
            Answer::NoData | Answer::Found(_) => Exchangers::Absent,
            Answer::Unavailable(trouble) => Exchangers::Unavailable(*trouble),
        };
        MxReport { exchangers, own }
    }

    /// What a name holds.
    pub async fn holding(&self, name: &DomainName, account: &Account) -> Holding {
        holding(&self.dns, name, account).await
    }
}

/// The records as the rule `exists` counts them: root targets are passed over, and past the bound nothing is looked at.
fn counted(list: &[(u16, Target)], settings: &Settings) -> Vec<Exchanger> {
    let mut looked_at = 0;
    let exchanger = |(preference, target): &(u16, Target)| {
        let real = *target != Target::Root;
        looked_at += usize::from(real);
        let host = matches!(target, Target::Host(name) if !name.is_ip_text());
        let counts = host && looked_at <= settings.max_mx_hosts;
        Exchanger { preference: *preference, target: target.clone(), counts, holding: None, usable: false }
    };
    list.iter().map(exchanger).collect()
}

/// The three questions side by side, as each may wait for a server that is silent.
async fn holding(dns: &Dns, name: &DomainName, account: &Account) -> Holding {
    let mut held = Holding { addresses: Vec::new(), alias: None, trouble: None };
    let ask = |rtype| async move { Lookups::new(dns, account).ask(name, rtype).await };
    for answer in join_all([RecordType::Cname, RecordType::A, RecordType::Aaaa].map(ask)).await {
        match &*answer {
            Answer::Found(Records::Cname(target)) => held.alias = Some(target.clone()),
            Answer::Unavailable(trouble) => held.trouble = held.trouble.or(Some(*trouble)),
            Answer::Found(_) | Answer::NoData | Answer::NoSuchDomain => {
                held.addresses.extend(addresses(&answer));
            }
        }
    }
    held
}
