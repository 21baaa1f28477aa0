//! Rules for some sender domains (`[[policy.senders]]`, contract 3.4): which entry covers a domain.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use compact_str::CompactString;

use crate::policy::identity::Identity;
use crate::policy::rule::IdentityRules;
use crate::smtp::address::DomainName;
use crate::smtp::pattern::DomainPattern;

/// All entries, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Senders {
    entries: Vec<SenderRules>,
    /// For each name in the patterns: the entries that name it, in their order.
    by_name: HashMap<CompactString, Vec<Place>, foldhash::fast::RandomState>,
}

/// One entry, with the rules that it gives to each of its identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderRules {
    /// The domains that it covers, at least one.
    pub domains: Vec<DomainPattern>,
    /// The rules of MAIL FROM, if the entry is about it.
    pub mail_from: Option<IdentityRules>,
    /// The rules of From:, if the entry is about it.
    pub from: Option<IdentityRules>,
}

/// The name of an entry with the pattern that covers a domain: `policy.senders 1: .example.com`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry(Arc<str>);

impl Entry {
    /// The name, as a record has it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// The index of the entry.
    at: usize,
    /// The pattern covers the names below, too.
    wide: bool,
    name: Entry,
}

impl SenderRules {
    fn rules(&self, identity: Identity) -> Option<&IdentityRules> {
        match identity {
            Identity::MailFrom => self.mail_from.as_ref(),
            Identity::From => self.from.as_ref(),
            Identity::Helo | Identity::Ptr | Identity::ReplyTo => None,
        }
    }
}

impl Senders {
    #[must_use]
    pub fn new(entries: Vec<SenderRules>) -> Self {
        let mut by_name: HashMap<CompactString, Vec<Place>, _> = HashMap::default();
        for (at, entry) in entries.iter().enumerate() {
            for pattern in &entry.domains {
                let name = Entry::new(&format!("policy.senders {}: {pattern}", at + 1));
                let place = Place { at, wide: pattern.is_wide(), name };
                by_name.entry(pattern.name().as_str().into()).or_default().push(place);
            }
        }
        Self { entries, by_name }
    }

    #[must_use]
    pub fn entries(&self) -> &[SenderRules] {
        &self.entries
    }

    /// The rules of the first entry that covers this domain of this identity. Takes time by the labels of the domain.
    pub(super) fn rules(&self, identity: Identity, domain: &DomainName) -> Option<(&IdentityRules, &Entry)> {
        if self.entries.is_empty() {
            return None;
        }
        let whole = domain.as_str();
        let above = std::iter::successors(Some(whole), |name| name.split_once('.').map(|(_, rest)| rest));
        let places = above.filter_map(|name| Some((name, self.by_name.get(name)?)));
        let covering = places.flat_map(|(name, places)| {
            let first = places.iter().filter(move |place| place.wide || name.len() == whole.len());
            first.filter_map(|place| Some((place, self.entries.get(place.at)?.rules(identity)?)))
        });
        // Of one entry's patterns the longest name comes first.
        let first = covering.min_by_key(|(place, _)| place.at);
        first.map(|(place, rules)| (rules, &place.name))
    }

    pub(super) fn all_rules(&self) -> impl Iterator<Item = &IdentityRules> {
        self.entries.iter().flat_map(|entry| entry.mail_from.iter().chain(&entry.from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rule::{Action, Rung};

    fn rules(matches: Action) -> IdentityRules {
        let (exists_by, matches_by) = (vec![Rung::Mx], vec![Rung::Mx]);
        IdentityRules { exists: Action::Off, matches, exists_by, matches_by }
    }

    fn entry(domains: &[&str], mail_from: Option<Action>, from: Option<Action>) -> SenderRules {
        let domains = domains.iter().map(|text| DomainPattern::parse(text).unwrap()).collect();
        SenderRules { domains, mail_from: mail_from.map(rules), from: from.map(rules) }
    }

    #[test]
    fn the_first_entry_that_covers_a_domain_of_an_identity_counts() {
        use Action::{Defer, Greylist, Reject, Tag};
        use Identity::{From, Helo, MailFrom, ReplyTo};
        let senders = Senders::new(vec![
            entry(&["own.test", ".sub.own.test"], Some(Reject), Some(Reject)),
            entry(&[".own.test"], Some(Greylist), None),
            entry(&["x.test", ".own.test", ".test"], Some(Defer), Some(Tag)),
        ]);
        let rows = [
            (MailFrom, "own.test", Some((Reject, "policy.senders 1: own.test"))),
            (From, "own.test", Some((Reject, "policy.senders 1: own.test"))),
            (From, "OWN.test", Some((Reject, "policy.senders 1: own.test"))),
            (MailFrom, "a.own.test", Some((Greylist, "policy.senders 2: .own.test"))),
            (From, "a.own.test", Some((Tag, "policy.senders 3: .own.test"))),
            (MailFrom, "b.sub.own.test", Some((Reject, "policy.senders 1: .sub.own.test"))),
            (MailFrom, "sub.own.test", Some((Reject, "policy.senders 1: .sub.own.test"))),
            (MailFrom, "notown.test", Some((Defer, "policy.senders 3: .test"))),
            (MailFrom, "x.test", Some((Defer, "policy.senders 3: x.test"))),
            (MailFrom, "own.example", None),
            (Helo, "own.test", None),
            (ReplyTo, "own.test", None),
        ];
        for (identity, domain, expected) in rows {
            let found = senders.rules(identity, &DomainName::parse(domain).unwrap());
            let found = found.map(|(rules, entry)| (rules.matches, entry.as_str()));
            assert_eq!(found, expected, "{identity} {domain}");
        }
        assert!(Senders::default().rules(From, &DomainName::parse("own.test").unwrap()).is_none());
    }
}
