//! The client's names: those that its PTR records give and that lead back to its address (iprev, RFC 8601 3).
//!
//! A PTR record is written by whoever holds the address, so a name counts only when its own A or AAAA record confirms
//! it. What the names are worth is not judged here.

use std::fmt::Write;
use std::net::IpAddr;

use compact_str::{CompactString, ToCompactString};

use crate::dns::Dns;
use crate::policy::evidence::{Answer, Evidence, Question, RecordType, Records, Target, Trouble};
use crate::reverse_mx::trail::{Start, Trail, addresses, family, trouble};
use crate::smtp::address::DomainName;

/// How many PTR names are looked at (RFC 7208 5.5 has the same figure).
const MAX_NAMES: usize = 10;

/// What DNS calls a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientNames {
    /// The names, or why there are none.
    pub outcome: NamesOutcome,
    /// Every question that was asked, in the order of asking.
    pub evidence: Vec<Evidence>,
}

impl ClientNames {
    /// The first confirmed name.
    #[must_use]
    pub fn first(&self) -> Option<&DomainName> {
        match &self.outcome {
            NamesOutcome::Confirmed(names) => names.first(),
            NamesOutcome::NoPtr | NamesOutcome::NotConfirmed(_) | NamesOutcome::TempError(_) => None,
        }
    }
}

/// The names of a client, or why there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamesOutcome {
    /// These lead back to the client's address; at least one, in the order of the records.
    Confirmed(Vec<DomainName>),
    /// The address has no PTR record.
    NoPtr,
    /// None of these (printable) leads back to it.
    NotConfirmed(Vec<CompactString>),
    /// DNS was in trouble, and no name could be confirmed.
    TempError(Trouble),
}

pub(super) async fn names_of(dns: &Dns, client: IpAddr) -> ClientNames {
    let client = client.to_canonical();
    let mut trail = Trail::new(dns, client);
    let found = match reverse_name(client) {
        Some(name) => Some(trail.ask(&name, RecordType::Ptr).await),
        None => None,
    };
    let targets: &[Target] = match found.as_deref() {
        Some(Answer::Found(Records::Ptr(targets))) => targets.get(..MAX_NAMES).unwrap_or(targets),
        _ => &[],
    };
    let confirmed = confirm(&mut trail, targets, client).await;
    let evidence = trail.into_evidence();
    let outcome = match trouble(&evidence) {
        _ if !confirmed.is_empty() => NamesOutcome::Confirmed(confirmed),
        Some(trouble) => NamesOutcome::TempError(trouble),
        None if targets.is_empty() => NamesOutcome::NoPtr,
        None => NamesOutcome::NotConfirmed(targets.iter().map(ToCompactString::to_compact_string).collect()),
    };
    ClientNames { outcome, evidence }
}

/// Those of the names that have the client's address; what is no host name can't have one.
async fn confirm(trail: &mut Trail<'_>, targets: &[Target], client: IpAddr) -> Vec<DomainName> {
    let mut names: Vec<DomainName> = Vec::new();
    for target in targets {
        if let Target::Host(name) = target
            && !name.is_ip_text()
            && !name.is_single_label()
            && !names.contains(name)
        {
            names.push(name.clone());
        }
    }
    let questions = names.iter().map(|name| Question { name: name.clone(), rtype: family(client) });
    let mut confirmed = Vec::new();
    trail
        .ask_all(questions.collect(), Start::Together, |question, answer| {
            if addresses(answer).any(|address| address == client) {
                confirmed.push(question.name.clone());
            }
            false
        })
        .await;
    names.retain(|name| confirmed.contains(name));
    names
}

/// The name below `in-addr.arpa` (RFC 1035 3.5) or `ip6.arpa` (RFC 3596 2.5).
fn reverse_name(address: IpAddr) -> Option<DomainName> {
    let mut text = CompactString::default();
    let written = match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            write!(text, "{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let octets = address.octets();
            let mut nibbles = octets.iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            nibbles
                .try_for_each(|nibble| write!(text, "{nibble:x}."))
                .and_then(|()| text.write_str("ip6.arpa"))
        }
    };
    written.ok().and_then(|()| DomainName::parse(&text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names_follow_the_address() {
        let rows = [
            ("192.0.2.130", "130.2.0.192.in-addr.arpa"),
            ("2001:db8::4a", "a.4.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"),
        ];
        for (address, name) in rows {
            assert_eq!(reverse_name(address.parse().unwrap()).unwrap().as_str(), name);
        }
    }
}
