//! A domain's own policy, for its administrator (`rmxd audit`): the published one, and the same with more addresses.
//!
//! Addresses are only ever added, never a second record (RFC 7208 4.5 makes that an error), and all
//! other terms stay as they are. A policy that can't be read is not repaired by guesses.

use std::net::IpAddr;

use crate::dns::lookups::Lookups;
use crate::dns::{Account, Dns};
use crate::evidence::{Answer, DnsFailure, RecordType, Records};
use crate::smtp::address::DomainName;
use crate::smtp::escape::Escaped;
use crate::spf::macros::Values;
use crate::spf::record::{Mechanism, SpfRecord, Term, split, terms_of};
use crate::spf::{Sender, SpfResult};

/// What a domain has published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// No policy.
    Nothing,
    /// One that can be read.
    Policy(Policy),
    /// One that can't, printable.
    Malformed(String),
    /// Several, which counts as an error; printable.
    Several(Vec<String>),
    /// Unknown: the lookup failed.
    Unavailable(DnsFailure),
}

/// Where addresses are put into a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertionPoint {
    /// Before the first term with another result than pass, mostly `all`. An address whose result is
    /// `fail`, `softfail` or `neutral` passes then: no term before that one has matched.
    BeforeRefusals,
    /// Before all terms: it passes whatever errors they lead to.
    First,
}

/// A policy whose syntax was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy(String);

/// The policy of a domain; the question is on this account.
pub async fn published(dns: &Dns, domain: &DomainName, account: &Account) -> Published {
    let answer = Lookups::new(dns, account).ask(domain, RecordType::Txt).await;
    match &*answer {
        Answer::Found(Records::Txt(texts)) => Published::among(texts),
        Answer::Found(_) | Answer::NoData | Answer::NoSuchDomain => Published::Nothing,
        Answer::Unavailable(trouble) => Published::Unavailable(*trouble),
    }
}

impl Published {
    #[must_use]
    pub fn among(texts: &[Box<[u8]>]) -> Self {
        let records: Vec<&[u8]> =
            texts.iter().map(AsRef::as_ref).filter(|text| terms_of(text).is_some()).collect();
        let printable = |record: &[u8]| Escaped::new(record).to_string();
        match (records.as_slice(), SpfRecord::among(texts)) {
            ([], _) => Self::Nothing,
            // ASCII, as its syntax was checked.
            ([record], Ok(_)) => Self::Policy(Policy(String::from_utf8_lossy(record).into_owned())),
            ([record], Err(_)) => Self::Malformed(printable(record)),
            (several, _) => Self::Several(several.iter().map(|record| printable(record)).collect()),
        }
    }
}

impl Policy {
    /// The record's text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether the domain's MX hosts pass, as long as nothing before that is an error.
    #[must_use]
    pub fn lets_exchangers(&self) -> bool {
        self.permissions().any(|mechanism| matches!(mechanism, Mechanism::Mx(None, _)))
    }

    /// Whether a term takes a lookup of the domain's MX hosts.
    #[must_use]
    pub fn asks_exchangers(&self) -> bool {
        let mut terms = self.terms().map(Term::parse);
        terms.any(|term| matches!(term, Ok(Term::Directive(_, Mechanism::Mx(None, _)))))
    }

    /// The names that its terms ask about for this sender, macros expanded; `%{p}` as for a client without a name. A term
    /// that expands to no name is left out.
    #[must_use]
    pub fn names(&self, sender: &Sender<'_>, client: IpAddr) -> Vec<String> {
        let (origin, helo) = (sender.domain.as_str(), sender.helo);
        let local = if sender.local.is_empty() { "postmaster" } else { sender.local };
        let values = Values { local, origin, domain: origin, client, helo, name: "unknown" };
        let specs = self.terms().filter_map(|term| match Term::parse(term) {
            Ok(Term::Directive(_, mechanism)) => match mechanism {
                Mechanism::Include(spec) | Mechanism::Exists(spec) => Some(spec),
                Mechanism::A(spec, _) | Mechanism::Mx(spec, _) | Mechanism::Ptr(spec) => spec,
                Mechanism::All | Mechanism::Ip4(_) | Mechanism::Ip6(_) => None,
            },
            Ok(Term::Redirect(spec)) => Some(spec),
            Ok(Term::Explanation | Term::Unknown) | Err(_) => None,
        });
        specs.filter_map(|spec| spec.expand(&values)).map(|name| name.to_string()).collect()
    }

    /// `v=spf1 mx ~all`, or without `mx`: for a domain that has none.
    #[must_use]
    pub fn first(exchangers: bool) -> Self {
        Self(if exchangers { "v=spf1 mx ~all" } else { "v=spf1 ~all" }.to_owned())
    }

    /// The policy with these addresses added.
    #[must_use]
    pub fn with(&self, addresses: &[IpAddr], place: InsertionPoint) -> Self {
        let at = match place {
            InsertionPoint::First => 0,
            InsertionPoint::BeforeRefusals => self.permissions().count(),
        };
        let version = self.0.split(' ').next().unwrap_or_default();
        let added = addresses.iter().map(|address| match address {
            IpAddr::V4(address) => format!("ip4:{address}"),
            IpAddr::V6(address) => format!("ip6:{address}"),
        });
        let words = std::iter::once(version.to_owned());
        let words = words.chain(self.terms().take(at).map(str::to_owned)).chain(added);
        let words: Vec<String> = words.chain(self.terms().skip(at).map(str::to_owned)).collect();
        Self(words.join(" "))
    }

    /// The terms before the first one with another result than pass.
    fn permissions(&self) -> impl Iterator<Item = Mechanism<'_>> {
        self.terms().map_while(|term| match Term::parse(term) {
            Ok(Term::Directive(SpfResult::Pass, mechanism)) => Some(mechanism),
            Ok(Term::Directive(..) | Term::Redirect(_) | Term::Explanation | Term::Unknown) | Err(_) => None,
        })
    }

    fn terms(&self) -> impl Iterator<Item = &str> {
        split(self.0.split_once(' ').map_or("", |(_, terms)| terms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(texts: &[&str]) -> Published {
        let texts: Vec<Box<[u8]>> = texts.iter().map(|text| text.as_bytes().into()).collect();
        Published::among(&texts)
    }

    fn policy(text: &str) -> Policy {
        match published(&[text]) {
            Published::Policy(policy) => policy,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn one_readable_record_is_a_policy_and_nothing_else_is() {
        let several =
            |list: &[&str]| Published::Several(list.iter().map(|text| (*text).to_owned()).collect());
        let rows: [(&[&str], Published); 7] = [
            (&[], Published::Nothing),
            (&["proof=1", "v=spf10 mx"], Published::Nothing),
            (&["proof=1", "V=SPF1 mx"], Published::Policy(Policy("V=SPF1 mx".to_owned()))),
            (&["v=spf1"], Published::Policy(Policy("v=spf1".to_owned()))),
            (&["v=spf1 ip4:1.2.3"], Published::Malformed("v=spf1 ip4:1.2.3".to_owned())),
            (&["v=spf1 \n"], Published::Malformed("v=spf1 \\x0a".to_owned())),
            (&["v=spf1 mx", "x", "v=spf1"], several(&["v=spf1 mx", "v=spf1"])),
        ];
        for (texts, expected) in rows {
            assert_eq!(published(texts), expected, "{texts:?}");
        }
    }

    #[test]
    fn addresses_go_before_what_can_refuse_or_before_everything() {
        let addresses: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let rows = [
            (
                "v=spf1 mx -all",
                "v=spf1 mx ip4:192.0.2.1 ip6:2001:db8::1 -all",
                "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 mx -all",
            ),
            (
                "v=spf1  a +mx  -ip4:192.0.2.0/24 include:b.test ~all",
                "v=spf1 a +mx ip4:192.0.2.1 ip6:2001:db8::1 -ip4:192.0.2.0/24 include:b.test ~all",
                "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 a +mx -ip4:192.0.2.0/24 include:b.test ~all",
            ),
            (
                "V=spf1 redirect=b.test",
                "V=spf1 ip4:192.0.2.1 ip6:2001:db8::1 redirect=b.test",
                "V=spf1 ip4:192.0.2.1 ip6:2001:db8::1 redirect=b.test",
            ),
            (
                "v=spf1 include:b.test",
                "v=spf1 include:b.test ip4:192.0.2.1 ip6:2001:db8::1",
                "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 include:b.test",
            ),
            ("v=spf1", "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1", "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1"),
        ];
        for (text, before_refusals, first) in rows {
            let policy = policy(text);
            assert_eq!(policy.with(&addresses, InsertionPoint::BeforeRefusals).text(), before_refusals);
            assert_eq!(policy.with(&addresses, InsertionPoint::First).text(), first);
            assert_eq!(published(&[before_refusals]), Published::Policy(Policy(before_refusals.to_owned())));
        }
    }

    #[test]
    fn the_names_of_a_policy_have_their_macros_expanded() {
        let domain = DomainName::parse("good.test").unwrap();
        let sender = Sender { local: "ann", domain: &domain, helo: "mail.good.test" };
        let text = "v=spf1 mx a:b.test exists:%{ir}.%{l}.%{d2} include:%{h} ip4:192.0.2.1 ?ptr:%{p}.test redirect=_x.%{o}";
        let names = policy(text).names(&sender, "192.0.2.7".parse().unwrap());
        let expected =
            ["b.test", "7.2.0.192.ann.good.test", "mail.good.test", "unknown.test", "_x.good.test"];
        assert_eq!(names, expected);
    }

    #[test]
    fn exchangers_pass_by_an_mx_of_the_domain_itself_that_nothing_precedes() {
        let rows = [
            ("v=spf1 mx -all", true, true),
            ("v=spf1 ip4:192.0.2.1 +MX/24//64 -all", true, true),
            ("v=spf1 ?a mx -all", false, true),
            ("v=spf1 -mx", false, true),
            ("v=spf1 mx:other.test -all", false, false),
            ("v=spf1 redirect=b.test", false, false),
            ("v=spf1", false, false),
        ];
        for (text, lets, asks) in rows {
            let policy = policy(text);
            assert_eq!((policy.lets_exchangers(), policy.asks_exchangers()), (lets, asks), "{text}");
        }
    }
}
