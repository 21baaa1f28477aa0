//! `[[policy.senders]]`: rules for some sender domains (contract 3.4).

use crate::config::keys::SENDERS;
use crate::config::raw;
use crate::config::reader::Reader;
use crate::config::rules::{ACTIONS, FROM_MATCHES_RUNGS};
use crate::exempt::entry::pattern;
use crate::policy::identity::Identity;
use crate::policy::operator::Policy;
use crate::policy::rule::{Action, IdentityRules, Rule, Rung};
use crate::policy::senders::{SenderRules, Senders};
use crate::smtp::pattern::DomainPattern;

const IDENTITIES: [Identity; 2] = [Identity::MailFrom, Identity::From];
const EXISTS_RUNGS: [Rung; 3] = [Rung::Mx, Rung::Address, Rung::Organization];

/// Parses the entries; what one doesn't set is as the identity's own rules have it.
pub(super) fn senders(raw: &[raw::Sender], policy: &Policy, reader: &mut Reader<'_>) -> Senders {
    let mut entries: Vec<SenderRules> = Vec::with_capacity(raw.len());
    for (number, raw) in (1..).zip(raw) {
        let mut entry = Entry { key: format!("{SENDERS} {number}"), raw, reader };
        let read = entry.read(&policy.mail_from, &policy.from);
        entry.refuse_covered(&read, &entries);
        entries.push(read);
    }
    Senders::new(entries)
}

struct Entry<'e, 'r> {
    key: String,
    raw: &'e raw::Sender,
    reader: &'e mut Reader<'r>,
}

impl Entry<'_, '_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.key)
    }

    fn read(&mut self, mail_from: &IdentityRules, from: &IdentityRules) -> SenderRules {
        let raw = self.raw;
        let sets =
            [raw.exists.is_some(), raw.matches.is_some(), raw.exists_by.is_some(), raw.matches_by.is_some()];
        if !sets.contains(&true) {
            let key = self.key.clone();
            self.reader.refuse(&key, "has no rule: set matches, exists, matches_by or exists_by");
        }
        let domains = self.domains();
        let identities = self.identities();
        let exists = raw.exists.as_ref().and_then(|text| self.action(Rule::Exists, text, &identities));
        let matches = raw.matches.as_ref().and_then(|text| self.action(Rule::Matches, text, &identities));
        let exists_by = raw.exists_by.as_ref().and_then(|items| self.rungs(Rule::Exists, items, &identities));
        let matches_by =
            raw.matches_by.as_ref().and_then(|items| self.rungs(Rule::Matches, items, &identities));
        let rules = |identity, own: &IdentityRules| {
            let of_identity = |rungs: &Vec<Rung>| -> Vec<Rung> {
                let keep = |rung: &Rung| identity == Identity::From || *rung != Rung::Dkim;
                rungs.iter().copied().filter(keep).collect()
            };
            identities.contains(&identity).then(|| IdentityRules {
                exists: exists.unwrap_or(own.exists),
                matches: matches.unwrap_or(own.matches),
                exists_by: exists_by.clone().unwrap_or_else(|| own.exists_by.clone()),
                matches_by: matches_by.as_ref().map_or_else(|| own.matches_by.clone(), of_identity),
            })
        };
        SenderRules {
            mail_from: rules(Identity::MailFrom, mail_from),
            from: rules(Identity::From, from),
            domains,
        }
    }

    fn domains(&mut self) -> Vec<DomainPattern> {
        let key = self.key("domains");
        if self.raw.domains.is_empty() {
            let what =
                "has no domains: one or more such as \"example.com\", or \".example.com\" with sub-domains";
            self.reader.refuse(&self.key, what);
        }
        self.reader.list(&key, &self.raw.domains, pattern).unwrap_or_default()
    }

    fn identities(&mut self) -> Vec<Identity> {
        let Some(items) = &self.raw.identities else { return IDENTITIES.to_vec() };
        let key = self.key("identities");
        if items.is_empty() {
            self.reader.refuse(&key, "is empty: mail_from, from or both");
        }
        let read = |item: &str| {
            let known = IDENTITIES.into_iter().find(|identity| identity.name() == item);
            known.ok_or_else(|| "is not allowed: mail_from, from or both".to_owned())
        };
        self.reader.list(&key, items, read).unwrap_or_default()
    }

    fn action(&mut self, rule: Rule, text: &str, identities: &[Identity]) -> Option<Action> {
        let key = self.key(rule.name());
        let only_from = identities == [Identity::From];
        if text == Action::Dmarc.name() && rule == Rule::Matches && !only_from {
            let what =
                "\"dmarc\" is what the owner of the From: domain asks for; it needs identities = [\"from\"]";
            self.reader.refuse(&key, what);
            return None;
        }
        let takes_dmarc = only_from && rule == Rule::Matches;
        let words: Vec<_> =
            ACTIONS.into_iter().filter(|(_, action)| takes_dmarc || *action != Action::Dmarc).collect();
        self.reader.choice(&key, text, &words)
    }

    fn rungs(&mut self, rule: Rule, items: &[String], identities: &[Identity]) -> Option<Vec<Rung>> {
        let key = self.key(&format!("{rule}_by"));
        let known: &[Rung] = match rule {
            Rule::Exists => &EXISTS_RUNGS,
            Rule::Matches => &FROM_MATCHES_RUNGS,
        };
        let allowed = known.iter().map(|rung| rung.name()).collect::<Vec<_>>().join(", ");
        if items.is_empty() {
            let what =
                format!("is empty, so that no sender could satisfy the rule: one or more of {allowed}");
            self.reader.refuse(&key, what);
        }
        let dkim_alone = items.iter().all(|item| item == Rung::Dkim.name());
        let no_dkim =
            !identities.contains(&Identity::From) || dkim_alone && identities.contains(&Identity::MailFrom);
        let read = |item: &str| {
            match known.iter().find(|rung| rung.name() == item) {
            Some(Rung::Dkim) if no_dkim => {
                Err("is not allowed here: a DKIM signature vouches for From: only, and no MAIL FROM could satisfy the rule"
                    .to_owned())
            }
            Some(rung) => Ok(*rung),
            None => Err(format!("is not allowed: one or more of {allowed}")),
        }
        };
        self.reader.list(&key, items, read)
    }

    /// An entry that never counts is a mistake of the operator: an earlier one has all of a domain already.
    fn refuse_covered(&mut self, entry: &SenderRules, earlier: &[SenderRules]) {
        let key = self.key("domains");
        for domain in &entry.domains {
            let covering = |identity: fn(&SenderRules) -> bool| {
                let covers = |known: &DomainPattern| {
                    known.covers(domain.name()) && (known.is_wide() || !domain.is_wide())
                };
                let mut earlier = (1..).zip(earlier);
                earlier.find_map(|(number, other)| {
                    let known = other.domains.iter().find(|known| covers(known))?;
                    identity(other).then(|| (number, known.to_string()))
                })
            };
            let has_mail_from: fn(&SenderRules) -> bool = |rules| rules.mail_from.is_some();
            let has_from: fn(&SenderRules) -> bool = |rules| rules.from.is_some();
            let needed = [has_mail_from, has_from].into_iter().filter(|identity| identity(entry));
            let covered: Option<Vec<_>> = needed.map(covering).collect();
            if let Some((number, known)) = covered.unwrap_or_default().first() {
                let what = format!(
                    "\"{domain}\" never counts here: {SENDERS} {number} covers it with \"{known}\"; put the narrower entry first"
                );
                self.reader.refuse(&key, what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Flags, Loaded, Value, load_text};
    use crate::smtp::address::DomainName;

    fn load(entries: &str, set: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
        let text = format!("hostname = \"gate.test\"\n{entries}");
        let set = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let loaded = load_text(Some((Path::new("c.toml"), &text)), [], &Flags { set, ..Flags::default() });
        loaded.map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_entry_replaces_what_it_sets_and_keeps_the_rest() {
        use Rung::{Address, Dkim, Mx, Network, Organization, Ptr, Spf};
        let loaded = load(
            "[[policy.senders]]\ndomains = [\"example.com\", \".example.com\"]\nmatches = \"reject\"\n\
             matches_by = [\"mx\", \"spf\", \"dkim\"]\n\
             [[policy.senders]]\ndomains = [\"b\u{fc}cher.example\"]\nidentities = [\"from\"]\nmatches = \"dmarc\"\n\
             exists = \"off\"\nexists_by = [\"address\"]\n\
             [policy.mail_from]\nexists = \"defer\"\n",
            &[],
        );
        let loaded = loaded.unwrap();
        let policy = &loaded.settings.gate.policy;
        let in_force = |identity, domain: &str| {
            let found = policy.in_force(identity, &DomainName::parse(domain).unwrap());
            (found.rules.clone(), found.entry.map(ToString::to_string))
        };
        let rules = |exists, matches, exists_by: &[Rung], matches_by: &[Rung]| IdentityRules {
            exists,
            matches,
            exists_by: exists_by.to_vec(),
            matches_by: matches_by.to_vec(),
        };
        let first = rules(Action::Defer, Action::Reject, &[Mx, Address], &[Mx, Spf]);
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(
            in_force(Identity::MailFrom, "example.com"),
            (first.clone(), name("policy.senders 1: example.com"))
        );
        assert_eq!(
            in_force(Identity::MailFrom, "a.example.com"),
            (first, name("policy.senders 1: .example.com"))
        );
        let of_from = rules(Action::Reject, Action::Reject, &[Mx, Address, Organization], &[Mx, Spf, Dkim]);
        assert_eq!(in_force(Identity::From, "example.com"), (of_from, name("policy.senders 1: example.com")));
        let second = rules(Action::Off, Action::Dmarc, &[Address], &[Mx, Network, Ptr, Spf, Dkim]);
        assert_eq!(
            in_force(Identity::From, "xn--bcher-kva.example"),
            (second, name("policy.senders 2: xn--bcher-kva.example"))
        );
        assert_eq!(in_force(Identity::MailFrom, "xn--bcher-kva.example").1, None);
        let shown = loaded.entries.iter().find(|entry| entry.key == SENDERS).unwrap();
        let Value::Tables(rows) = &shown.value else { panic!("{shown:?}") };
        let names = |row: &crate::config::Row| row.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&rows[0]), ["domains", "matches", "matches_by"]);
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn the_greylist_is_there_if_an_entry_uses_it() {
        let without = [("policy.reply_to.exists", "reject")];
        let entry = "[[policy.senders]]\ndomains = [\"a.test\"]\nmatches = \"greylist\"\n";
        assert!(load(entry, &without).unwrap().settings.greylist.is_some());
        assert!(load("", &without).unwrap().settings.greylist.is_none());
        let quarantine = [without[0], ("policy.dmarc_quarantine", "greylist")];
        assert!(load("", &quarantine).unwrap().settings.greylist.is_some());
    }

    #[test]
    fn a_mistake_is_named_with_its_line_and_what_is_allowed() {
        let rows = [
            ("matches = \"reject\"", "c.toml:3:1: policy.senders 1: has no domains: one or more such as"),
            ("domains = []\nmatches = \"reject\"", "c.toml:3:1: policy.senders 1: has no domains"),
            (
                "domains = [\"a b\"]\nmatches = \"reject\"",
                "c.toml:3:1: policy.senders 1.domains: \"a b\" is not a domain",
            ),
            (
                "domains = [\"a.test\", \"a.test\"]\nmatches = \"reject\"",
                "c.toml:3:1: policy.senders 1.domains: \"a.test\" is listed twice",
            ),
            (
                "domains = \"a.test\"\nmatches = \"reject\"",
                "c.toml:3:1: policy.senders 1.domains: must be a list of strings",
            ),
            ("domains = [\"a.test\"]", "c.toml:3:1: policy.senders 1: has no rule: set matches, exists"),
            (
                "domains = [\"a.test\"]\nmatches = \"refuse\"",
                "c.toml:4:1: policy.senders 1.matches: \"refuse\" is not allowed: off, tag, greylist, defer or reject",
            ),
            (
                "domains = [\"a.test\"]\nmatches = \"dmarc\"",
                "c.toml:4:1: policy.senders 1.matches: \"dmarc\" is what the owner of the From: domain asks for; it needs \
                 identities = [\"from\"]",
            ),
            (
                "domains = [\"a.test\"]\nexists = \"dmarc\"\nidentities = [\"from\"]",
                "c.toml:4:1: policy.senders 1.exists: \"dmarc\" is not allowed: off, tag, greylist, defer or reject",
            ),
            (
                "domains = [\"a.test\"]\nmatch = \"tag\"",
                "c.toml:4:1: policy.senders 1.match: no such key; [[policy.senders]] has domains,",
            ),
            (
                "domains = [\"a.test\"]\nmatches = \"tag\"\nidentities = [\"helo\"]",
                "c.toml:5:1: policy.senders 1.identities: \"helo\" is not allowed: mail_from, from or both",
            ),
            (
                "domains = [\"a.test\"]\nmatches = \"tag\"\nidentities = []",
                "c.toml:5:1: policy.senders 1.identities: is empty",
            ),
            (
                "domains = [\"a.test\"]\nmatches_by = []",
                "c.toml:4:1: policy.senders 1.matches_by: is empty, so that no sender",
            ),
            (
                "domains = [\"a.test\"]\nmatches_by = [\"address\"]",
                "c.toml:4:1: policy.senders 1.matches_by: \"address\" is not allowed: one or more of mx, network, ptr, spf, dkim",
            ),
            (
                "domains = [\"a.test\"]\nmatches_by = [\"dkim\"]",
                "c.toml:4:1: policy.senders 1.matches_by: \"dkim\" is not allowed here",
            ),
            (
                "domains = [\"a.test\"]\nmatches_by = [\"mx\", \"dkim\"]\nidentities = [\"mail_from\"]",
                "c.toml:4:1: policy.senders 1.matches_by: \"dkim\" is not allowed here",
            ),
            (
                "domains = [\"a.test\"]\nexists_by = [\"spf\"]",
                "c.toml:4:1: policy.senders 1.exists_by: \"spf\" is not allowed: one or more of mx, address, organization",
            ),
            (
                "domains = [\".a.test\"]\nmatches = \"tag\"\n[[policy.senders]]\ndomains = [\"b.a.test\"]\nmatches = \"off\"",
                "c.toml:6:1: policy.senders 2.domains: \"b.a.test\" never counts here: policy.senders 1 covers it with \".a.test\"",
            ),
            (
                "domains = [\"a.test\"]\nmatches = \"tag\"\n[[policy.senders]]\ndomains = [\"a.test\"]\nmatches = \"off\"",
                "c.toml:6:1: policy.senders 2.domains: \"a.test\" never counts here",
            ),
        ];
        for (entry, expected) in rows {
            let problems = load(&format!("[[policy.senders]]\n{entry}\n"), &[]).unwrap_err();
            assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{entry}: {problems:?}");
        }
        let fine = [
            "domains = [\"a.test\"]\nmatches = \"tag\"\n[[policy.senders]]\ndomains = [\".a.test\"]\nmatches = \"off\"",
            "domains = [\".a.test\"]\nmatches = \"tag\"\nidentities = [\"from\"]\n\
             [[policy.senders]]\ndomains = [\".a.test\"]\nmatches = \"off\"",
            "domains = [\"a.test\"]\nmatches_by = [\"dkim\"]\nidentities = [\"from\"]",
        ];
        for entry in fine {
            assert!(load(&format!("[[policy.senders]]\n{entry}\n"), &[]).is_ok(), "{entry}");
        }
    }

    #[test]
    fn only_a_file_can_have_entries() {
        let tables = "must be tables in a configuration file, each below its own line [[policy.senders]]";
        let rows = [
            (("policy.senders", "a.test"), "flag --set: policy.senders: must be tables".to_owned()),
            (("policy.senders", ""), format!("flag --set: policy.senders: {tables}")),
            (
                ("policy.senders.1.matches", "tag"),
                format!("flag --set: policy.senders.1.matches: policy.senders {tables}"),
            ),
        ];
        for (set, expected) in rows {
            let problems = load("", &[set]).unwrap_err();
            assert!(problems[0].starts_with(&expected), "{problems:?}");
        }
        let variable = [("RMXD__POLICY__SENDERS".into(), "a.test".into())];
        let problems = load_text(None, variable, &Flags::default()).unwrap_err();
        assert!(problems[0].to_string().ends_with(&format!("policy.senders: {tables}")), "{problems:?}");
        for text in ["[policy.senders]\ndomains = [\"a.test\"]\n", "[policy]\nsenders = [\"a.test\"]\n"] {
            let problems = load(text, &[]).unwrap_err();
            assert!(problems[0].ends_with(tables), "{problems:?}");
        }
    }
}
