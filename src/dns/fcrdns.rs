//! The names of an address by its PTR records, and their confirmation by A or AAAA (forward-confirmed reverse DNS).
//!
//! The owner of an address writes its PTR record, so the record alone proves nothing. The caller selects the names to confirm
//! and bounds their number; RFC 7208 4.6.4 allows ten.

use std::fmt::Write;
use std::net::IpAddr;

use compact_str::CompactString;

use crate::dns::lookups::{Lookups, Start, addresses, family};
use crate::evidence::{Answer, Question, QuestionName, RecordType, Records, Target};
use crate::smtp::address::DomainName;

/// PTR names that SPF confirms.
pub(crate) const MOST_NAMES: usize = 10;
/// PTR names that the identity `ptr` and the rung `ptr` confirm: each costs a question, and more names are no better evidence.
pub(crate) const FEW_NAMES: usize = 3;

#[derive(Debug)]
pub(crate) struct ForwardConfirmation {
    /// The first names, in the order of the records; none without a PTR record, or where DNS fails.
    pub(crate) targets: Vec<Target>,
    /// Those whose A or AAAA records contain the client's address.
    pub(crate) confirmed: Vec<DomainName>,
    /// DNS answered that there is no PTR record.
    pub(crate) absent: bool,
}

/// Looks up the names of the client, and confirms the first `most` that are `wanted`.
pub(crate) async fn look_up(
    lookups: &mut Lookups<'_>,
    most: usize,
    wanted: impl Fn(&DomainName) -> bool,
) -> ForwardConfirmation {
    let client = lookups.client();
    let found = match reverse_name(client) {
        Some(name) => Some(lookups.ask(name, RecordType::Ptr).await),
        None => None,
    };
    let targets = match found.as_deref() {
        Some(Answer::Found(Records::Ptr(targets))) => targets.get(..MOST_NAMES).unwrap_or(targets),
        _ => &[],
    };
    let mut names: Vec<DomainName> = Vec::new();
    for target in targets {
        // Only a host name can have an address.
        if let Target::Host(name) = target
            && !name.is_ip_text()
            && !name.is_single_label()
            && wanted(name)
            && names.len() < most
            && !names.contains(name)
        {
            names.push(name.clone());
        }
    }
    let confirmed = confirm(lookups, names, client).await;
    let absent = matches!(found.as_deref(), Some(Answer::NoData | Answer::NoSuchDomain));
    ForwardConfirmation { targets: targets.to_vec(), confirmed, absent }
}

/// The names that have the client's address.
async fn confirm(lookups: &mut Lookups<'_>, mut names: Vec<DomainName>, client: IpAddr) -> Vec<DomainName> {
    let questions = names.iter().map(|name| Question { name: name.into(), rtype: family(client) });
    let mut confirmed: Vec<QuestionName> = Vec::new();
    lookups
        .ask_all(questions.collect(), Start::Together, |question, answer| {
            if addresses(answer).any(|address| address == client) {
                confirmed.push(question.name.clone());
            }
            false
        })
        .await;
    names.retain(|name| confirmed.contains(&name.into()));
    names
}

/// The name below `in-addr.arpa` (RFC 1035 3.5) or `ip6.arpa` (RFC 3596 2.5).
pub(crate) fn reverse_name(address: IpAddr) -> Option<DomainName> {
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
