//! The DNS tree walk (RFC 9989 4.10): which names are asked for a record, and what the records found there make of a
//! domain. Pure.

use crate::dmarc::record::{DmarcRecord, Psd};
use crate::policy::authentication::Request;
use crate::smtp::address::DomainName;

/// Names of one walk.
const MOST: usize = 8;

/// The names whose `_dmarc.` is asked, the domain first, then upwards: the domain, and of its parents those with at most
/// seven labels.
#[must_use]
pub fn targets(domain: &DomainName) -> Vec<DomainName> {
    let parents = std::iter::successors(domain.parent(), DomainName::parent);
    let asked = parents.filter(|name| name.as_str().split('.').count() < MOST);
    std::iter::once(domain.clone()).chain(asked).collect()
}

/// The record that applies to a domain, and what it asks for there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Where the record stands, without `_dmarc.`.
    pub name: DomainName,
    pub record: DmarcRecord,
    /// Which of its tags counts.
    pub scope: TagScope,
}

/// Which of a record's requests is meant for a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagScope {
    /// `p`: the domain is the one where the record stands.
    Own,
    /// `sp`, or `np` where the domain doesn't exist: it is below.
    Below,
}

impl Applied {
    /// What the owner asks for, if the domain exists; `t=y` isn't counted.
    #[must_use]
    pub fn request(&self) -> Request {
        match self.scope {
            TagScope::Own => self.record.policy,
            TagScope::Below => self.record.subdomains.unwrap_or(self.record.policy),
        }
    }

    /// What the owner asks for, if the domain doesn't exist, where that is something else.
    #[must_use]
    pub fn request_if_nonexistent(&self) -> Option<Request> {
        let other = self.record.nonexistent.filter(|_| self.scope == TagScope::Below);
        other.filter(|request| *request != self.request())
    }
}

/// The records that a walk found, the longest name first; nothing behind one with `psd=y` or `psd=n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    domain: DomainName,
    found: Vec<(DomainName, DmarcRecord)>,
}

impl Walk {
    /// `found`: each of the [`targets`] of the domain in their order, with its record if there is one.
    #[must_use]
    pub fn new(
        domain: &DomainName,
        found: impl IntoIterator<Item = (DomainName, Option<DmarcRecord>)>,
    ) -> Self {
        let mut walk = Self { domain: domain.clone(), found: Vec::new() };
        for (name, record) in found {
            let Some(record) = record else { continue };
            walk.found.push((name, record));
            if record.psd != Psd::Unset {
                break;
            }
        }
        walk
    }

    /// The organisational domain (RFC 9989 4.10.2).
    #[must_use]
    pub fn organization(&self) -> DomainName {
        if let Some((suffix, _)) = self.suffix() {
            return below(suffix, &self.domain).unwrap_or_else(|| self.domain.clone());
        }
        // psd=n ends the walk, so it is the last; else the last has the fewest labels.
        self.found.last().map_or_else(|| self.domain.clone(), |(name, _)| name.clone())
    }

    /// The record of the public suffix domain. A top-level domain without the tag `psd` counts as one: some had records before
    /// RFC 9989 defined the tag, and everything below them would be one organisation.
    fn suffix(&self) -> Option<&(DomainName, DmarcRecord)> {
        self.found.last().filter(|(name, record)| match record.psd {
            Psd::Yes => *name != self.domain,
            Psd::Unset => *name != self.domain && name.is_single_label(),
            Psd::No => false,
        })
    }

    /// The record that applies (RFC 9989 4.10.1): the domain's own, else that of its organisation, else that of the
    /// public suffix domain.
    #[must_use]
    pub fn applied(&self) -> Option<Applied> {
        let at = |name: &DomainName| self.found.iter().find(|(other, _)| other == name);
        let organization = || at(&self.organization());
        let (name, record) = at(&self.domain).or_else(organization).or_else(|| self.suffix())?;
        let scope = if *name == self.domain { TagScope::Own } else { TagScope::Below };
        Some(Applied { name: name.clone(), record: *record, scope })
    }
}

/// The name one label below `suffix`, towards `domain`.
fn below(suffix: &DomainName, domain: &DomainName) -> Option<DomainName> {
    let rest = domain.as_str().strip_suffix(suffix.as_str())?.strip_suffix('.')?;
    let label = rest.rsplit('.').next()?;
    DomainName::parse(&format!("{label}.{suffix}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dmarc::record::Published;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn walk(domain: &str, zone: &[(&str, &str)]) -> Walk {
        let domain = name(domain);
        let record = |target: &DomainName| {
            let (_, tags) = zone.iter().find(|(name, _)| *name == target.as_str())?;
            let text = format!("v=DMARC1; {tags}");
            Published::among(&[text.as_bytes().into()]).record()
        };
        let found = targets(&domain).into_iter().map(|target| (target.clone(), record(&target)));
        Walk::new(&domain, found.collect::<Vec<_>>())
    }

    #[test]
    fn a_walk_asks_eight_names_at_most() {
        let rows = [
            ("example.com", vec!["example.com", "com"]),
            ("a.mail.example.com", vec!["a.mail.example.com", "mail.example.com", "example.com", "com"]),
            // RFC 9989 4.10
            (
                "a.b.c.d.e.f.g.h.i.j.mail.example.com",
                vec![
                    "a.b.c.d.e.f.g.h.i.j.mail.example.com",
                    "g.h.i.j.mail.example.com",
                    "h.i.j.mail.example.com",
                    "i.j.mail.example.com",
                    "j.mail.example.com",
                    "mail.example.com",
                    "example.com",
                    "com",
                ],
            ),
            (
                "b.c.d.e.f.g.h.com",
                vec![
                    "b.c.d.e.f.g.h.com",
                    "c.d.e.f.g.h.com",
                    "d.e.f.g.h.com",
                    "e.f.g.h.com",
                    "f.g.h.com",
                    "g.h.com",
                    "h.com",
                    "com",
                ],
            ),
            ("com", vec!["com"]),
        ];
        for (domain, expected) in rows {
            let targets = targets(&name(domain));
            assert_eq!(targets.iter().map(DomainName::as_str).collect::<Vec<_>>(), expected, "{domain}");
            assert!(targets.len() <= MOST);
        }
    }

    #[test]
    fn organisations_and_records_are_those_of_the_rfc() {
        // domain, records, organisation, where the applied record stands and what it asks for
        type Row = (&'static str, &'static [(&'static str, &'static str)], &'static str, &'static str);
        let rows: [Row; 21] = [
            ("example.com", &[], "example.com", "-"),
            ("a.example.com", &[], "a.example.com", "-"),
            ("example.com", &[("example.com", "p=reject")], "example.com", "example.com reject"),
            ("a.example.com", &[("example.com", "p=reject")], "example.com", "example.com reject"),
            ("a.example.com", &[("example.com", "p=reject; sp=none")], "example.com", "example.com none"),
            ("example.com", &[("example.com", "p=reject; sp=none")], "example.com", "example.com reject"),
            (
                "a.example.com",
                &[("a.example.com", "p=none"), ("example.com", "p=reject")],
                "example.com",
                "a.example.com none",
            ),
            // the record between the two is neither's
            (
                "a.b.example.com",
                &[("b.example.com", "p=none"), ("example.com", "p=reject")],
                "example.com",
                "example.com reject",
            ),
            // psd=n in the middle
            (
                "a.b.example.com",
                &[("b.example.com", "p=quarantine; psd=n"), ("example.com", "p=reject")],
                "b.example.com",
                "b.example.com quarantine",
            ),
            (
                "b.example.com",
                &[("b.example.com", "p=quarantine; psd=n"), ("example.com", "p=reject")],
                "b.example.com",
                "b.example.com quarantine",
            ),
            // a public suffix domain
            (
                "a.mail.giant.bank.example",
                &[("bank.example", "p=reject; psd=y")],
                "giant.bank.example",
                "bank.example reject",
            ),
            (
                "giant.bank.example",
                &[("bank.example", "p=none; sp=reject; psd=y")],
                "giant.bank.example",
                "bank.example reject",
            ),
            (
                "mail.giant.bank.example",
                &[("giant.bank.example", "p=none"), ("bank.example", "p=reject; psd=y")],
                "giant.bank.example",
                "giant.bank.example none",
            ),
            ("bank.example", &[("bank.example", "p=reject; psd=y")], "bank.example", "bank.example reject"),
            (
                "mail.giant.bank.example",
                &[("mail.giant.bank.example", "p=none"), ("bank.example", "p=reject; psd=y")],
                "giant.bank.example",
                "mail.giant.bank.example none",
            ),
            (
                "a.giant.bank.example",
                &[("bank.example", "p=reject; psd=y"), ("example", "p=none")],
                "giant.bank.example",
                "bank.example reject",
            ),
            // a top-level domain is no organisation, but where it says so
            ("a.example.com", &[("com", "p=reject; sp=none")], "example.com", "com none"),
            ("a.example.com", &[("com", "p=none; psd=n")], "com", "com none"),
            (
                "a.example.com",
                &[("a.example.com", "p=reject"), ("com", "p=none")],
                "example.com",
                "a.example.com reject",
            ),
            (
                "a.example.com",
                &[("example.com", "p=reject"), ("com", "p=none; psd=y")],
                "example.com",
                "example.com reject",
            ),
            // more than eight labels: the names in between are not asked
            (
                "a.b.c.d.e.f.g.h.example.com",
                &[("b.c.d.e.f.g.h.example.com", "p=none"), ("example.com", "p=reject")],
                "example.com",
                "example.com reject",
            ),
        ];
        for (domain, zone, organization, applied) in rows {
            let walk = walk(domain, zone);
            assert_eq!(walk.organization().as_str(), organization, "{domain} {zone:?}");
            let found = walk.applied().map(|applied| format!("{} {}", applied.name, applied.request()));
            assert_eq!(found.as_deref().unwrap_or("-"), applied, "{domain} {zone:?}");
        }
    }

    #[test]
    fn np_counts_below_the_record_only_and_where_it_differs() {
        use Request::{None, Quarantine, Reject};
        let rows = [
            ("a.example.com", "p=reject; np=none", (Reject, Some(None))),
            ("a.example.com", "p=none; np=reject", (None, Some(Reject))),
            ("a.example.com", "p=none; sp=quarantine; np=reject", (Quarantine, Some(Reject))),
            ("a.example.com", "p=none; sp=reject; np=reject", (Reject, Option::None)),
            ("a.example.com", "p=reject", (Reject, Option::None)),
            ("example.com", "p=none; np=reject", (None, Option::None)),
        ];
        for (domain, tags, expected) in rows {
            let applied = walk(domain, &[("example.com", tags)]).applied().unwrap();
            assert_eq!((applied.request(), applied.request_if_nonexistent()), expected, "{domain} {tags}");
        }
    }
}
